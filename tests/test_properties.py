"""What every operator promises, on the table of operators."""

import itertools

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import OPERATORS, every_dtype, every_operator, every_shape, images, noise, patch_dropout, seeded_batch

import grain_datarax as gdx

pytestmark = pytest.mark.once


@every_operator
@every_dtype
@every_shape
def test_keeps_dtype_and_shape_and_changes_pixels(operator, dtype, shape):
    batch = seeded_batch(8, shape=shape, dtype=dtype)
    result = gdx.AugmentBatch(operator()).map(batch)["image"]
    assert (result.dtype, result.shape) == (batch["image"].dtype, batch["image"].shape)
    changed = (np.asarray(result) != batch["image"]).reshape(8, -1).any(axis=1)
    assert changed.all()


@every_operator
@every_dtype
@every_shape
def test_record_and_batch_paths_agree_bit_for_bit(operator, dtype, shape):
    source = grain.MapDataset.source([{"image": image} for image in images(16, shape=shape, dtype=dtype)])
    expected = [record["image"] for record in source.random_map(gdx.AugmentRecord(operator()), seed=7)]
    seeded = source.random_map(gdx.SeedRecords(), seed=7)
    for batch_size in (1, 3, 8):
        for first in range(0, batch_size, 3):  # records take several positions in the batch
            batches = seeded[first:].batch(batch_size, drop_remainder=True).map(gdx.AugmentBatch(operator()))
            result = np.concatenate([np.asarray(batch["image"]) for batch in batches])
            np.testing.assert_array_equal(result, expected[first:][: len(result)], err_msg=f"batches of {batch_size}")


@every_operator
@every_dtype
def test_vmap_and_scan_agree_bit_for_bit(operator, dtype):
    batch = seeded_batch(8, dtype=dtype)
    vmap = gdx.AugmentBatch(operator()).map(batch)["image"]
    scan = gdx.AugmentBatch(operator(batch_strategy="scan")).map(batch)["image"]
    np.testing.assert_array_equal(np.asarray(vmap), np.asarray(scan))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dtype", "clip_range"), [("uint8", (0.0, 1.0)), ("float16", (0.0, 1.0)), ("bfloat16", None), ("float32", None)]
)
def test_a_chain_gives_the_same_bits_compiled_whole_scanned_and_operator_by_operator(dtype, clip_range):
    batch = seeded_batch(8, dtype=dtype)

    def chain(strategy):
        order = ("gaussian", "poisson", "patch_dropout", "salt_pepper", "gaussian")
        settings = {"batch_strategy": strategy, "clip_range": clip_range}
        return [OPERATORS[mode](name=str(index), **settings) for index, mode in enumerate(order)]

    whole = np.asarray(gdx.AugmentBatch(chain("vmap")).map(batch)["image"])
    scanned = np.asarray(gdx.AugmentBatch(chain("scan")).map(batch)["image"])
    np.testing.assert_array_equal(whole, scanned)
    step = batch
    for operator in chain("vmap"):
        step = gdx.AugmentBatch(operator, keep_seed=True).map(step)
    np.testing.assert_array_equal(whole, np.asarray(step["image"]))


@every_operator
def test_apply_batch_agrees_with_the_transform(operator):
    batch = seeded_batch(8)
    expected = np.asarray(gdx.AugmentBatch(operator()).map(batch)["image"])
    result = operator().apply_batch(gdx.Batch(batch))
    np.testing.assert_array_equal(np.asarray(result.data["image"]), expected)
    data, state, metadata = operator().apply_batch(batch, {}, {"split": "train"})
    np.testing.assert_array_equal(np.asarray(data["image"]), expected)
    assert (state, metadata) == ({}, {"split": "train"})


@every_operator
def test_drawing_first_and_applying_then_gives_the_pixels_of_a_batch(operator):
    batch, op = seeded_batch(8), operator()
    expected = np.asarray(gdx.AugmentBatch(op).map(batch)["image"])
    from grain_datarax.random.keys import operator_key, record_keys

    keys = record_keys(operator_key(jax.random.key(0), op.namespace), jnp.asarray(batch["record_seed"]))
    params = jax.jit(lambda keys: op.generate_random_params(keys, {"image": batch["image"].shape}))(keys)
    apply = jax.jit(jax.vmap(lambda image, params: op.apply({"image": image}, {}, {}, params)[0]["image"]))
    np.testing.assert_array_equal(np.asarray(apply(batch["image"], params)), expected)


@every_operator
def test_works_under_jit_nnx_jit_and_vmap(operator):
    batch = seeded_batch(8)
    expected = np.asarray(gdx.AugmentBatch(operator()).map(batch)["image"])
    op = operator()
    for run in (
        jax.jit(lambda data: op.apply_batch(gdx.Batch(data)).data["image"]),
        lambda data: nnx.jit(lambda op, data: op.apply_batch(gdx.Batch(data)).data["image"])(op, data),
        lambda data: jax.jit(jax.vmap(lambda data: op.apply_batch(gdx.Batch(data)).data["image"]))(
            jax.tree.map(lambda leaf: leaf[None], data)
        )[0],
    ):
        np.testing.assert_array_equal(np.asarray(run(batch)), expected)


@every_operator
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_is_differentiable_in_the_image(operator, dtype):
    batch, op = seeded_batch(3, dtype=dtype), operator(clip_range=None)

    def total(image):
        return op.apply_batch(gdx.Batch({**batch, "image": image})).data["image"].astype(jnp.float32).sum()

    gradient = np.asarray(jax.grad(total)(jnp.asarray(batch["image"]))).astype(np.float32)
    assert np.isfinite(gradient).all()
    if op.namespace != "NoiseOperator/poisson":  # counts are steps: flat almost everywhere
        assert set(np.unique(gradient)) <= {0.0, 1.0}
        assert (gradient == 1).any()


@every_operator
def test_the_second_epoch_differs_from_the_first(operator):
    source = grain.MapDataset.source([{"image": image} for image in images(4)]).repeat(2)
    batches = source.random_map(gdx.SeedRecords(), seed=7).batch(4).map(gdx.AugmentBatch(operator()))
    first, second = (np.asarray(batch["image"]) for batch in batches)
    assert (first != second).reshape(4, -1).any(axis=1).all()


@every_operator
def test_a_single_bit_of_the_seed_changes_the_draw(operator):
    batch = seeded_batch(1)
    flipped = np.concatenate(
        [batch["record_seed"] ^ np.uint32([1 << bit, 0]) for bit in range(32)]
        + [batch["record_seed"] ^ np.uint32([0, 1 << bit]) for bit in range(32)]
    )
    many = {"image": np.repeat(batch["image"], 64, axis=0), "record_seed": flipped}
    one = np.asarray(
        gdx.AugmentBatch(operator(num_patches=8) if operator is patch_dropout else operator()).map(many)["image"]
    )
    assert len({image.tobytes() for image in one}) == 64


def drawn(operators, batch, index):
    """What operator `index` of the chain adds to flat images, with the other operators writing to other fields."""
    return np.asarray(gdx.AugmentBatch(operators).map(batch)[f"out{index}"])


def flat_batch(count=64):
    return {"image": np.full((count, 16, 12, 3), 0.5, np.float32), "record_seed": seeded_batch(count)["record_seed"]}


@pytest.mark.parametrize(
    "modes",
    [
        ("gaussian", "gaussian"),
        ("gaussian", "poisson"),
        ("poisson", "poisson"),
        ("salt_pepper", "salt_pepper"),
        ("gaussian", "salt_pepper"),
    ],
)
def test_operators_of_one_chain_draw_independently(modes):
    operators = [noise(mode, target_key=f"out{index}") for index, mode in enumerate(modes)]
    first, second = (drawn(operators, flat_batch(), index).ravel() for index in (0, 1))
    correlation = np.corrcoef(first, second)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(first.size)  # five standard errors


def test_two_patch_dropouts_of_one_chain_draw_independently():
    operators = [patch_dropout(num_patches=1, drop_value=0.0, target_key=f"out{index}") for index in (0, 1)]
    places = [drawn(operators, flat_batch(512), index)[..., 0] == 0 for index in (0, 1)]
    corners = np.stack([[np.argwhere(image)[0] for image in place] for place in places])
    # Uniform over 14 x 9 places each: they meet in 1 of 126, 4.06 +- 2.0 times in 512.
    assert (corners[0] == corners[1]).all(axis=1).sum() < 4.06 + 5 * 2.0


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("inserted", OPERATORS)
def test_inserting_an_operator_leaves_the_draws_of_the_others(inserted, position):
    two = [patch_dropout(target_key="out0"), noise(target_key="out1")]
    settings = {"num_patches": 5} if inserted == "patch_dropout" else {}
    # Of the same class and mode as one that stands there, it is told apart by a name, see the next test.
    name = {"name": "another"} if inserted == "gaussian" else {}
    three = [*two[:position], OPERATORS[inserted](target_key="out2", **settings, **name), *two[position:]]
    batch = flat_batch(8)
    for index in (0, 1):
        np.testing.assert_array_equal(drawn(two, batch, index), drawn(three, batch, index))


@every_operator
def test_reordering_and_removing_operators_leaves_the_draws_of_the_others(operator):
    named = [operator(name=str(index), target_key=f"out{index}") for index in range(3)]
    batch = flat_batch(8)
    for index in range(3):
        expected = drawn(named, batch, index)
        np.testing.assert_array_equal(drawn(named[::-1], batch, index), expected)
        np.testing.assert_array_equal(drawn([named[index]], batch, index), expected)


@every_operator
def test_the_root_key_and_the_stream_decide_the_draw(operator):
    batch = flat_batch(8)

    def run(rngs, **settings):
        op = operator(**settings).copy(rngs=rngs)
        return np.asarray(gdx.AugmentBatch(op).map(batch)["image"]).tobytes()

    assert run(nnx.Rngs(0)) == run(nnx.Rngs(0)) != run(nnx.Rngs(1))
    assert run(nnx.Rngs(noise=5, default=0), stream_name="noise") == run(nnx.Rngs(5))
    assert run(nnx.Rngs(5, other=7), stream_name="noise") == run(nnx.Rngs(5))  # default stands in, as in nnx


@every_operator
def test_seeds_decide_without_advancing_the_stream_and_a_batch_without_seeds_advances_it(operator):
    op, batch = operator(), flat_batch(8)
    once, again = (np.asarray(op.apply_batch(gdx.Batch(batch)).data["image"]) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert int(op.rngs["default"].count[...]) == 0
    unseeded = gdx.Batch({"image": batch["image"]})
    first, second = (np.asarray(op.apply_batch(unseeded).data["image"]) for _ in range(2))
    assert (first != second).any()
    assert int(op.rngs["default"].count[...]) == 2
    assert len({image.tobytes() for image in first}) == 8


@every_operator
def test_fields_that_no_operator_touches_come_out_as_the_same_objects(operator):
    ragged = np.empty(2, object)
    ragged[:] = [[1], [2, 3]]
    rest = {
        "label": np.arange(2, dtype=np.int64),
        "name": np.array(["a", "b"]),
        "ragged": ragged,
        "note": "text",
        "nested": {"deep": np.ones(2), "none": None},
        "list": [np.ones(2)],
    }
    batch = {**rest, **seeded_batch(3)}
    result = gdx.AugmentBatch(operator()).map(batch)
    assert result.keys() == {"image", *rest}
    assert all(result[name] is rest[name] for name in rest)
    record = {**rest, "image": images(1)[0]}
    result = gdx.AugmentRecord(operator()).random_map(record, np.random.default_rng(0))
    assert all(result[name] is rest[name] for name in rest)
    seeded = gdx.SeedRecords().random_map(record, np.random.default_rng(0))
    assert all(seeded[name] is record[name] for name in record)


@every_operator
def test_one_compilation_per_batch_shape(operator):
    class Counting(type(operator())):
        traces = 0

        def effect(self, image, params):
            type(self).traces += 1
            return super().effect(image, params)

    base = operator()
    op = Counting(base.config, rngs=base.rngs)
    augment = gdx.AugmentBatch(op)
    for count in (8, 8, 5, 8, 5):  # 5: a partial last batch
        assert augment.map(seeded_batch(count))["image"].shape[0] == count
    assert Counting.traces == 2


@every_operator
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_of_the_caller_stay_valid_and_unchanged(operator, dtype):
    batch = seeded_batch(8, dtype=dtype)
    before = batch["image"].copy()
    augment = gdx.AugmentBatch(operator())
    expected = np.asarray(augment.map(batch)["image"])
    np.testing.assert_array_equal(batch["image"], before)
    on_device = {name: jnp.asarray(field) for name, field in batch.items()}
    np.testing.assert_array_equal(np.asarray(augment.map(on_device)["image"]), expected)
    np.testing.assert_array_equal(np.asarray(on_device["image"]), before)


@every_operator
def test_donated_arrays_are_given_up(operator):
    batch = {name: jnp.asarray(field) for name, field in seeded_batch(8).items()}
    gdx.AugmentBatch(operator(), donate=True).map(batch)["image"].block_until_ready()
    assert batch["image"].is_deleted()
    assert not batch["record_seed"].is_deleted()


@every_operator
def test_an_empty_batch_comes_out_empty(operator):
    assert gdx.AugmentBatch(operator()).map(seeded_batch(0))["image"].shape == (0, 16, 12, 3)


def test_keep_seed_keeps_the_seed():
    batch = seeded_batch(3)
    assert "record_seed" not in gdx.AugmentBatch(noise()).map(batch)
    assert gdx.AugmentBatch(noise(), keep_seed=True).map(batch)["record_seed"] is batch["record_seed"]


def test_map_does_not_wait_for_the_device():
    class Slow(gdx.ModalityOperator):
        def effect(self, image, params):
            return jax.lax.fori_loop(0, 300, lambda _, x: x @ x * 1e-3, image)

    op = Slow(gdx.ModalityOperatorConfig(field_key="image"))
    augment = gdx.AugmentBatch(op)
    batch = {"image": np.ones((1, 512, 512), np.float32)}
    augment.map(batch)["image"].block_until_ready()
    assert not augment.map(batch)["image"].is_ready()


@pytest.mark.parametrize("names", list(itertools.permutations(OPERATORS, 2)), ids="-".join)
def test_two_operators_in_one_function_give_the_pixels_of_one_after_the_other(names):
    # Large enough for whole vectors: compilers contract products and sums there, or not, by what stands around.
    batch = seeded_batch(64, shape=(32, 32, 3))
    one_by_one = batch["image"]
    for name in names:
        seeded = {"image": one_by_one, "record_seed": batch["record_seed"]}
        one_by_one = np.asarray(gdx.AugmentBatch(OPERATORS[name]()).map(seeded)["image"])
    together = gdx.AugmentBatch([OPERATORS[name]() for name in names]).map(batch)["image"]
    np.testing.assert_array_equal(np.asarray(together), one_by_one)
