"""Batches that are sharded over devices: the pixels of one device, and no word between devices."""

import jax
import numpy as np
import pytest
from effect_table import chain
from helpers import OPERATORS, every_operator, noise, patch_dropout, seeded_batch
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import grain_datarax as gdx

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "collective-broadcast", "reduce-scatter")
every_axis_type = pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)


def sharded(batch, axis_type, shape=(8,), names=("data",)):
    mesh = jax.make_mesh(shape, names, axis_types=(axis_type,) * len(shape))
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))


@every_axis_type
@every_operator
@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float32"])
def test_a_sharded_batch_gets_the_pixels_of_one_device(operator, dtype, axis_type):
    batch = seeded_batch(16, dtype=dtype)
    expected = np.asarray(gdx.AugmentBatch(operator()).map(batch)["image"])
    spread = sharded(batch, axis_type)
    result = gdx.AugmentBatch(operator()).map(spread)["image"]
    np.testing.assert_array_equal(np.asarray(result), expected)
    assert result.sharding.is_equivalent_to(spread["image"].sharding, result.ndim)


@every_axis_type
@pytest.mark.parametrize(("shape", "names"), [((8,), ("data",)), ((4, 2), ("data", "model"))])
def test_a_chain_compiles_to_no_collective_operation(axis_type, shape, names):
    operators = [OPERATORS[mode](name=mode) for mode in OPERATORS]
    batch = seeded_batch(16)
    expected = np.asarray(gdx.AugmentBatch(operators).map(batch)["image"])
    spread = sharded(batch, axis_type, shape, names)
    augment = gdx.AugmentBatch(operators)
    np.testing.assert_array_equal(np.asarray(augment.map(spread)["image"]), expected)
    compiled = jax.jit(augment.map).lower(spread).compile()
    assert not [name for name in COLLECTIVES if name in compiled.as_text()]
    np.testing.assert_array_equal(np.asarray(compiled(spread)["image"]), expected)


@every_axis_type
def test_the_look_for_collectives_finds_one(axis_type):
    spread = sharded(seeded_batch(16), axis_type)
    text = jax.jit(lambda batch: batch["image"].sum()).lower(spread).compile().as_text()
    assert [name for name in COLLECTIVES if name in text]


@every_axis_type
@pytest.mark.parametrize("mode", ["salt_pepper", "poisson"])
def test_full_scale_is_found_for_each_record_of_a_sharded_batch(mode, axis_type):
    batch = seeded_batch(16)
    batch["image"][::2] *= 255
    op = noise(mode, clip_range=None)
    expected = np.asarray(gdx.AugmentBatch(op).map(batch)["image"])
    np.testing.assert_array_equal(np.asarray(gdx.AugmentBatch(op).map(sharded(batch, axis_type))["image"]), expected)


@every_axis_type
def test_seeds_on_the_host_follow_a_sharded_image(axis_type):
    batch = seeded_batch(16)
    expected = np.asarray(gdx.AugmentBatch(patch_dropout()).map(batch)["image"])
    spread = {**sharded(batch, axis_type), "record_seed": batch["record_seed"]}
    np.testing.assert_array_equal(np.asarray(gdx.AugmentBatch(patch_dropout()).map(spread)["image"]), expected)


@every_axis_type
@pytest.mark.parametrize("make", [patch_dropout, lambda: chain(gdx.GaussianNoise())], ids=["operator", "chain"])
@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("model"), PartitionSpec(("data", "model"))], ids=str)
def test_seeds_that_are_spread_differently_follow_the_image(axis_type, spec, make):
    batch = seeded_batch(16)
    expected = np.asarray(gdx.AugmentBatch(make()).map(batch)["image"])
    spread = sharded(batch, axis_type, (4, 2), ("data", "model"))
    mesh = spread["image"].sharding.mesh
    spread["record_seed"] = jax.device_put(batch["record_seed"], NamedSharding(mesh, spec))
    result = gdx.AugmentBatch(make()).map(spread)["image"]
    np.testing.assert_array_equal(np.asarray(result), expected)
    assert result.sharding.is_equivalent_to(spread["image"].sharding, result.ndim)
    compiled = jax.jit(lambda batch: gdx.augment(make(), batch)["image"])
    np.testing.assert_array_equal(np.asarray(compiled(spread)), expected)


@every_axis_type
@pytest.mark.parametrize(
    "spec",
    [PartitionSpec("data", "model"), PartitionSpec(None, "model"), PartitionSpec("data", None, "model")],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 9])
def test_images_whose_rows_or_columns_are_spread(axis_type, spec, count):
    links = chain(gdx.PatchDropout(num_patches=count, patch_size=(2, 2)), gdx.GaussianNoise())
    batch = seeded_batch(8)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    spread = {**batch, "image": jax.device_put(batch["image"], NamedSharding(mesh, spec))}
    expected = np.asarray(gdx.AugmentBatch(links).map(batch)["image"])
    np.testing.assert_array_equal(np.asarray(gdx.AugmentBatch(links).map(spread)["image"]), expected)


def test_one_axis_may_be_explicit_and_another_auto():
    links = chain(gdx.PatchDropout(patch_size=(2, 2)), masks={"mask": 255})
    batch = {**seeded_batch(8), "mask": np.zeros((8, 16, 12), np.uint8)}
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit, AxisType.Auto))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    for name in ("image", "mask"):
        expected = np.asarray(gdx.AugmentBatch(links).map(batch)[name])
        np.testing.assert_array_equal(np.asarray(gdx.AugmentBatch(links).map(spread)[name]), expected)


@every_axis_type
def test_records_that_pass_through_are_counted_once_each(axis_type):
    op = patch_dropout(validate_domain_constraints=False, clip_range=(0.0, 1.0))
    batch = seeded_batch(16)
    batch["image"][3] = 2.0
    gdx.AugmentBatch(op).map(sharded(batch, axis_type, (4, 2), ("data", "model")))
    assert op.get_operation_stats() == {"applied_count": 15, "skipped_count": 1}


@every_axis_type
def test_shard_map_over_the_batch_gives_the_same_pixels(axis_type):
    batch = seeded_batch(16)
    augment = gdx.AugmentBatch([OPERATORS[mode](name=mode) for mode in OPERATORS])
    expected = np.asarray(augment.map(batch)["image"])
    spread = sharded(batch, axis_type)
    mesh = spread["image"].sharding.mesh
    run = jax.jit(
        jax.shard_map(augment.map, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))
    )
    np.testing.assert_array_equal(np.asarray(run(spread)["image"]), expected)


def test_each_device_augments_its_rows_alone():
    batch = seeded_batch(16)
    augment = gdx.AugmentBatch([patch_dropout(), noise()])
    expected = np.asarray(augment.map(batch)["image"])
    pieces = []
    for index, device in enumerate(jax.devices()[:4]):
        rows = jax.tree.map(lambda field, index=index: field[4 * index : 4 * index + 4], batch)
        pieces.append(augment.map(jax.device_put(rows, device))["image"])
        assert pieces[-1].devices() == {device}
    np.testing.assert_array_equal(np.concatenate([np.asarray(piece) for piece in pieces]), expected)


@every_axis_type
@pytest.mark.parametrize(("shape", "names"), [((8,), ("data",)), ((4, 2), ("data", "model"))])
def test_each_device_scans_its_own_rows(axis_type, shape, names):
    batch = seeded_batch(16)
    op = noise(batch_strategy="scan", validate_domain_constraints=False)
    augment = gdx.AugmentBatch([op, patch_dropout()])
    expected = np.asarray(augment.map(batch)["image"])
    spread = sharded(batch, axis_type, shape, names)
    result = augment.map(spread)["image"]
    np.testing.assert_array_equal(np.asarray(result), expected)
    assert result.sharding.is_equivalent_to(spread["image"].sharding, result.ndim)
    assert op.get_operation_stats() == {"applied_count": 32, "skipped_count": 0}


@every_axis_type
def test_what_is_not_on_the_mesh_yet_follows_the_batch(axis_type):
    batch = {**seeded_batch(16), "depth": seeded_batch(16, shape=(16, 12))["image"]}
    augment = gdx.AugmentBatch(patch_dropout(auxiliary_fields=["depth"], preserve_auxiliary=False))
    expected = augment.map(batch)
    for elsewhere in (jax.numpy.asarray, np.asarray):
        spread = {**jax.tree.map(elsewhere, batch), "image": sharded(batch["image"], axis_type)}
        result = augment.map(spread)
        for name in ("image", "depth"):
            np.testing.assert_array_equal(np.asarray(result[name]), np.asarray(expected[name]))
