"""Operators of the package datarax in Grain, and chains in its pipelines. All is skipped where it is not installed, but
not in CI: see .ci/run.
"""

import importlib
import inspect
import pkgutil

import cloudpickle
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_unpickling_starts_no_backend, closing, seeds
from helpers import noise as noise_of_pages

import grain_datarax as gdx

pytest.importorskip("datarax")

import datarax.operators as their_operators
from datarax import Pipeline
from datarax.core.operator import OperatorModule
from datarax.operators.modality import audio, image
from datarax.sources.memory_source import MemorySource, MemorySourceConfig
from datarax.utils.external import to_datarax_operator
from datarax_table import (
    DRAWS,
    OPERATORS,
    PATCHES,
    REFUSED,
    AugmentEach,
    Scenes,
    brightness,
    composite,
    image_op,
    map_op,
    noise,
    one_of,
    sometimes,
)

from grain_datarax.adapters import family_of
from grain_datarax.datarax import ChainOperator
from grain_datarax.fields import flatten

RANDOM = {name: entry for name, entry in OPERATORS.items() if entry[1]}
every_operator = pytest.mark.parametrize(("make", "is_random"), OPERATORS.values(), ids=OPERATORS)


def scenes(count=8):
    """A seeded batch."""
    records = [Scenes(count)[index] for index in range(count)]
    return {name: np.stack([record[name] for record in records]) for name in records[0]} | {"record_seed": seeds(count)}


def loader(operations, *, workers=0, count=24):
    sampler = grain.samplers.IndexSampler(count, shuffle=True, num_epochs=1, seed=3)
    return grain.DataLoader(
        data_source=Scenes(count),
        sampler=sampler,
        operations=operations,
        worker_count=workers,
        read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=8),
    )


def by_record(batch):
    """The bytes of each record's fields, by its id."""
    fields = {path: np.asarray(field) for path, field in flatten(batch).items() if path != "id"}
    return {
        name: {path: (str(field.dtype), field[row].tobytes()) for path, field in fields.items()}
        for row, name in enumerate(batch["id"].tolist())
    }


def all_records(batches):
    return {name: record for batch in batches for name, record in by_record(batch).items()}


@every_operator
def test_batches_of_any_size_records_and_resumed_loaders_agree_bit_for_bit(make, is_random):
    operator = make()
    links, before = [PATCHES, operator], cloudpickle.dumps(operator)
    augment, expected = gdx.AugmentBatch(links), None
    for size in (1, 3, 8):
        batches = loader([gdx.SeedRecords(), grain.transforms.Batch(size), augment])
        with closing(iter(batches)) as iterator:
            first = [next(iterator), next(iterator)]
            state = iterator.get_state()
            found = all_records([*first, *iterator])
        expected = expected or found
        assert len(found) == 24
        assert found == expected, f"batches of {size}"
    with closing(iter(batches)) as iterator:
        iterator.set_state(state)
        assert all_records([*first, *iterator]) == expected, "resumed"
    with closing(iter(loader([gdx.AugmentRecord(links), grain.transforms.Batch(1)]))) as iterator:
        for name, record in all_records([next(iterator), next(iterator)]).items():
            assert {path: field for path, field in record.items() if not path.startswith("record_")} == expected[name]
    assert [count["applied"] for count in augment.counts().values()] == [24 * 3 + 8] * 2
    same = jax.tree.map(lambda field: np.repeat(field[:1], 8, axis=0), scenes()) | {"record_seed": seeds(8)}
    result = [np.asarray(field) for field in flatten(gdx.AugmentBatch(operator).map(same)).values()]
    assert (len({tuple(field[row].tobytes() for field in result) for row in range(8)}) > 1) == is_random
    assert cloudpickle.dumps(operator) == before


@pytest.mark.parametrize("make", [make for make, _ in RANDOM.values()], ids=RANDOM)
def test_device_loaders_give_the_same_bits_on_eight_devices(make):
    links = [PATCHES, make()]
    operations = [gdx.SeedRecords(), grain.transforms.Batch(8)]
    with closing(iter(loader([*operations, gdx.AugmentBatch(links)], count=8))) as iterator:
        expected = all_records(iterator)
    with gdx.DeviceLoader(loader(operations, count=8), links) as batches:
        assert all_records(batches) == expected


@pytest.mark.long
@pytest.mark.parametrize("first", range(4))
def test_worker_processes_give_the_same_bits_also_resumed(first, tmp_path, monkeypatch):
    names = list(OPERATORS)[first::4]
    # Workers that resume need not compile again.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    each = AugmentEach({name: gdx.AugmentBatch([PATCHES, OPERATORS[name][0]()]) for name in names})
    operations = [gdx.SeedRecords(), grain.transforms.Batch(3, drop_remainder=True), each]
    with closing(iter(loader(operations))) as iterator:
        expected = list(iterator)
    assert len(expected) == 8
    in_workers = loader(operations, workers=2)
    with closing(iter(in_workers)) as iterator:
        found = [next(iterator) for _ in range(3)]
        state = iterator.get_state()
    with closing(iter(in_workers)) as iterator:
        iterator.set_state(state)
        found += list(iterator)
    for name in names:
        assert all_records(batch[name] for batch in found) == all_records(batch[name] for batch in expected), name


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_operators_that_cannot_be_pure_are_refused_with_the_reason(make, error, message):
    with pytest.raises(error, match=message):
        gdx.AugmentBatch(make()).map(scenes())


def test_every_exported_operator_is_in_the_table():
    names = ["datarax", "datarax.core.modality", "datarax.core.cross_modal", "datarax.utils.external"]
    for package in (their_operators, image, audio):
        names += [info.name for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    members = [member for name in names for member in vars(importlib.import_module(name)).values()]
    operators = {member for member in members if inspect.isclass(member) and issubclass(member, OperatorModule)}
    made = [make() for make, *_ in (*OPERATORS.values(), *REFUSED.values())]
    tried = {base for operator in made for base in type(operator).__mro__}
    assert len(operators) > 12
    assert operators - tried == set()


def test_chains_operators_of_theirs_and_of_ours_apply_in_their_order():
    batch = scenes()
    links = [PATCHES, noise(), noise_of_pages(), one_of(noise(), brightness()), noise()]
    augment = gdx.AugmentBatch(links)
    names = ["PatchDropout/1x3x4", "NoiseOperator", "NoiseOperator/gaussian", "SelectorOperator", "NoiseOperator#2"]
    assert list(augment.counts()) == names
    assert repr(augment).startswith("AugmentBatch([Chain([PatchDropout(")
    result = augment.map(batch)
    assert augment.counts() == {name: {"applied": 8, "skipped": 0, "outside": 0} for name in names}
    assert result["mask"] is batch["mask"]
    expected = batch
    for link in links[:4]:
        expected = gdx.AugmentBatch(link).map({**expected, "record_seed": batch["record_seed"]})
    np.testing.assert_array_equal(gdx.AugmentBatch(links[:4]).map(batch)["image"], expected["image"])
    assert (np.asarray(result["image"]) != expected["image"]).any(axis=(1, 2, 3)).all()
    counted = gdx.augment(links, batch, counts=True)
    assert list(counted[1]) == names
    np.testing.assert_array_equal(counted[0]["image"], result["image"])
    with pytest.raises(TypeError, match="`operators` must be operators: got 3.* an operator of the package datarax"):
        gdx.AugmentBatch([noise(), 3])


def test_draws_follow_from_the_rngs_the_name_and_the_seed_and_from_no_neighbour():
    def pixels(operators, batch):
        return np.asarray(gdx.AugmentBatch(operators).map(batch)["image"])

    batch = scenes()
    first = pixels(image_op("Noise", **DRAWS), batch)
    np.testing.assert_array_equal(pixels(image_op("Noise", **DRAWS), batch), first)
    assert (pixels(image_op("Noise", seed=1, **DRAWS), batch) != first).any()
    assert (pixels(image_op("Noise", **DRAWS), {**batch, "record_seed": seeds(8, seed=2)}) != first).any()
    nothing = image_op("Brightness", brightness_delta=0.0)
    np.testing.assert_array_equal(pixels([nothing, image_op("Noise", **DRAWS)], batch), first)
    named = image_op("Noise", **DRAWS)
    named.name = "other"
    assert (pixels(named, batch) != first).any()
    assert list(gdx.AugmentBatch([named, image_op("Noise", **DRAWS)]).counts()) == ["other", "NoiseOperator"]
    # The parts of a wrapper draw from its key, as in datarax: not from what they were made with.
    parts = [composite("SEQUENTIAL", image_op("Noise", seed=seed, **DRAWS)) for seed in (0, 1)]
    np.testing.assert_array_equal(*(pixels(part, batch) for part in parts))


def test_operators_in_a_training_step_take_gradients_and_see_changes():
    operator = composite("WEIGHTED_PARALLEL", learnable_weights=True)
    batch = {name: field for name, field in scenes().items() if name != "id"}

    @nnx.jit
    def loss(operator, batch):
        return gdx.augment(operator, batch)["image"].mean()

    gradients = nnx.grad(loss, argnums=nnx.DiffState(0, nnx.Param), graph=True)(operator, batch)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    np.testing.assert_allclose(loss(operator, batch), gdx.AugmentBatch(operator).map(batch)["image"].mean(), rtol=1e-6)
    layered = OPERATORS["with dropout of its own"][0]()
    augment = gdx.AugmentBatch(layered)
    assert (augment.map(batch)["image"] == 0).any()
    layered.layer.deterministic = True
    np.testing.assert_array_equal(augment.map(batch)["image"], batch["image"])
    fixed = OPERATORS["with statistics, in a composite"][0]()
    augment = gdx.AugmentBatch(fixed)
    before = augment.map(batch)["image"]
    fixed.operators[0].set_statistics({"mean": jnp.float32(0.5)})
    np.testing.assert_allclose(augment.map(batch)["image"].mean(), before.mean() - 0.25, atol=0.1)


def test_records_hold_numbers_and_keep_what_no_operator_changes():
    record = {"image": np.zeros((4, 4, 3), np.float32), "label": 2**40, "half": 0.5, "name": "a", "part": {"x": [1]}}
    doubled = map_op(lambda pixels, key: 2 * pixels + 1)
    result = gdx.AugmentRecord([doubled, sometimes(noise(), 0.5)]).random_map(record, np.random.default_rng(0))
    assert {name: result[name] is record[name] for name in record if name != "image"} == dict.fromkeys(
        ["label", "half", "name", "part"], True
    )
    np.testing.assert_array_equal(gdx.AugmentRecord(doubled).random_map(record, None)["image"], 1)
    with pytest.raises(ValueError, match="`element` must have a field of numbers: got the fields name"):
        gdx.AugmentBatch(doubled).map({"name": np.array(["a", "b"])})
    with pytest.raises(KeyError, match="`record_seed` must be in the batch"):
        gdx.AugmentBatch(noise()).map({"image": np.zeros((2, 4, 4, 3), np.float32)})


def test_names_with_dots_indices_and_attributes_lead_to_fields_of_any_record():
    def operator(path):
        config = image.NoiseOperatorConfig(field_key=path, noise_std=0.1, **DRAWS)
        return image.NoiseOperator(config, rngs=nnx.Rngs(0))

    pixels, seed = np.zeros((4, 4, 4, 3), np.float32), seeds(4)
    expected = gdx.AugmentBatch(operator("image")).map({"image": pixels, "record_seed": seed})["image"]
    flat = {"observation.image": pixels, "observation.image.mask": pixels[..., 0], "record_seed": seed}
    augmented = gdx.AugmentBatch(operator("observation.image")).map(flat)
    assert list(augmented) == ["observation.image", "observation.image.mask"]
    assert augmented["observation.image.mask"] is flat["observation.image.mask"]
    np.testing.assert_array_equal(augmented["observation.image"], expected)
    pair = gdx.AugmentBatch(operator("0")).map((pixels, np.arange(4), seed))
    assert isinstance(pair, tuple)
    np.testing.assert_array_equal(pair[0], expected)
    record = gdx.AugmentRecord(operator("0")).random_map((pixels[0], 3, seed[0]), np.random.default_rng(0))
    np.testing.assert_array_equal(record[0], expected[0])


@pytest.mark.parametrize(
    "name", ["parallel, in a dict", "parallel, stacked", "weighted parallel, by the record", "crepe"]
)
def test_specs_say_what_comes_out(name):
    links = [PATCHES, OPERATORS[name][0]()]
    seeded, record = scenes(4), {name: field[0] for name, field in scenes(4).items()}
    for given, transform in (seeded, gdx.AugmentBatch(links)), (record, gdx.AugmentRecord(links)):
        is_batch = given is seeded
        result = transform.map(given) if is_batch else transform.random_map(given, None)
        found = {path: np.asarray(field) for path, field in flatten(result).items()}
        described = jax.tree.map(lambda field: grain.experimental.ShapeDtypeStruct(field.shape, field.dtype), given)
        spec = flatten(transform.output_spec(described))
        assert {path: (tuple(each.shape), each.dtype) for path, each in spec.items()} == {
            path: (field.shape, field.dtype) for path, field in found.items()
        }


def test_a_checkpoint_is_refused_under_other_operators():
    def state(*operators):
        batches = gdx.DeviceLoader(loader([gdx.SeedRecords(), grain.transforms.Batch(8)]), operators)
        with closing(iter(batches)) as iterator:
            return iterator.get_state()

    def restore(saved, *operators):
        batches = gdx.DeviceLoader(loader([gdx.SeedRecords(), grain.transforms.Batch(8)]), operators)
        with closing(iter(batches)) as iterator:
            iterator.set_state(saved)

    saved = state(PATCHES, noise(), sometimes(brightness(), 0.5))
    restore(saved, PATCHES, noise(), sometimes(brightness(), 0.5))
    assert saved == state(PATCHES, noise(), sometimes(brightness(), 0.5))
    for changed, told in [
        (
            [PATCHES, noise(0.2), sometimes(brightness(), 0.5)],
            r"got `operator\.\S*noise_std` 0.2 for 0.1 in NoiseOperator",
        ),
        ([PATCHES, image_op("Noise", noise_std=0.1, seed=1, **DRAWS), sometimes(brightness(), 0.5)], "`root_key`"),
        ([PATCHES, noise(), sometimes(brightness(), 0.6)], "0.6.* in ProbabilisticOperator"),
        ([gdx.Chain(PATCHES.effects, seed=1), noise(), sometimes(brightness(), 0.5)], "`seed` 1 for 0 in the chain"),
        ([noise(), PATCHES, sometimes(brightness(), 0.5)], "the operators .* for"),
    ]:
        with pytest.raises(ValueError, match=told):
            restore(saved, *changed)
    fixed = OPERATORS["with statistics, in a composite"][0]()
    saved = state(fixed)
    fixed.operators[0].set_statistics({"mean": jnp.float32(0.5)})
    with pytest.raises(ValueError, match=r"`statistics\.\S*mean"):
        restore(saved, fixed)


def test_rows_of_padding_and_their_mark_are_no_records():
    seen = []

    def look(data):
        seen.append(sorted(data))
        return {**data, "image": data["image"] + 1}

    operator = to_datarax_operator(look, stochastic=False)
    batches = gdx.DeviceLoader(
        loader([gdx.SeedRecords(), grain.transforms.Batch(8)], count=5), operator, pad_last_batch=True
    )
    with batches:
        (batch,) = batches
    assert batch["valid"].tolist() == [True] * 5 + [False] * 3
    assert set(map(tuple, seen)) == {("audio", "image", "mask", "weights")}
    assert batches.counts() == {"PureJaxAdapter": {"applied": 5, "skipped": 0, "outside": 0}}


def test_integer_images_beyond_a_clip_range_are_refused():
    batch = {"image": np.full((2, 4, 4, 3), 200, np.uint8), "record_seed": seeds(2)}
    with pytest.raises(ValueError, match=r"`clip_range` must hold .*uint8 up to 200 for \(0.0, 1.0\) in NoiseOperator"):
        gdx.AugmentBatch(noise()).map(batch)
    gdx.AugmentBatch(noise()).map({**batch, "image": batch["image"] // 200})
    gdx.AugmentBatch(image_op("Noise", clip_range=(0.0, 255.0), **DRAWS)).map(batch)


def test_operators_start_no_backend_where_they_are_unpickled(tmp_path):
    assert_unpickling_starts_no_backend(gdx.AugmentBatch([noise_of_pages(), one_of(noise(), brightness())]), tmp_path)


def of_version(**methods):
    """An operator on a stand-in for the base class of another version of datarax."""
    base = type("OperatorModule", (nnx.Module,), {"__module__": "datarax.core.operator", **methods})
    operator = type("Add", (base,), {"__module__": __name__})()
    operator.config, operator.stochastic, operator.stream_name = nnx.static(None), True, "augment"
    return operator


OF_KEYS = {
    "0.1.0 to 0.1.3": lambda self, rng, data_shapes: jax.random.normal(rng, data_shapes["image"][:1]),
    "0.1.4 to 0.1.9": lambda self, element_keys, data_shapes: jax.vmap(jax.random.normal)(element_keys),
}


@pytest.mark.parametrize("draw", OF_KEYS.values(), ids=OF_KEYS)
def test_operators_of_versions_before_draw_from_generate_random_params(draw):
    operator = of_version(
        apply=lambda self, data, state, metadata, random_params=None, stats=None: (
            {**data, "image": data["image"] + random_params},
            state,
            metadata,
        ),
        generate_random_params=draw,
        get_statistics=lambda self: None,
    )
    operator.rngs = nnx.Rngs(augment=0)
    assert family_of(type(operator)) == "params"
    assert_draws_by_record(operator)
    assert int(operator.rngs.augment.count.get_value()) == 0


def test_operators_of_the_source_to_come_treat_elements():
    operator = of_version(
        apply=lambda self, element, key=None, stats=None: element.replace(
            data={"image": element.data["image"] + jax.random.normal(key)}
        ),
        compute_statistics=lambda self, batch: None,
    )
    operator._base_key = nnx.Variable(jax.random.key(0))
    assert family_of(type(operator)) == "element"
    assert_draws_by_record(operator)


def assert_draws_by_record(operator):
    batch = {"image": np.zeros((8, 4, 4, 3), np.float32), "record_seed": seeds(8)}
    result = np.asarray(gdx.AugmentBatch(operator).map(batch)["image"])
    assert len({image.tobytes() for image in result}) == 8
    for row in range(8):
        alone = gdx.AugmentBatch(operator).map({name: field[row : row + 1] for name, field in batch.items()})
        np.testing.assert_array_equal(alone["image"][0], result[row])


def test_versions_that_nobody_knows_are_refused():
    operator = of_version(apply=lambda self, elements, seeds: None)
    with pytest.raises(
        TypeError, match=r"`apply` must be that of datarax 0.1.0 to 0.1.17, or .*: got \(elements, seeds\) in datarax"
    ):
        gdx.AugmentBatch(operator)


CHAIN = gdx.Chain([gdx.PatchDropout(num_patches=2, patch_size=(3, 4)), gdx.GaussianNoise(std=0.1)], seed=0)
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 12, 3)).astype(np.uint8)


def served(stage, batch_size, *, shuffle=False, epochs=1):
    """What a pipeline of datarax makes of 12 images."""
    data = {"image": PIXELS, "label": np.arange(12)}
    source = MemorySource(MemorySourceConfig(shuffle=shuffle), data=data, rngs=nnx.Rngs(0))
    pipeline = Pipeline(source=source, stages=[stage], batch_size=batch_size, rngs=nnx.Rngs(0), num_epochs=epochs)
    batches = list(pipeline)
    return {name: np.concatenate([np.asarray(batch[name]) for batch in batches]) for name in batches[0]}


def test_chains_in_a_pipeline_of_datarax_draw_by_epoch_and_index():
    expected = served(ChainOperator(CHAIN), 4)["image"]
    assert expected.dtype == np.uint8
    assert (expected != PIXELS).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(served(ChainOperator(CHAIN), 3)["image"], expected)
    shuffled = served(ChainOperator(CHAIN), 4, shuffle=True)
    assert shuffled["label"].tolist() != list(range(12))
    np.testing.assert_array_equal(shuffled["image"][np.argsort(shuffled["label"])], expected)
    twice = served(ChainOperator(CHAIN), 4, epochs=2)["image"]
    np.testing.assert_array_equal(twice[:12], expected)
    assert (twice[12:] != expected).any(axis=(1, 2, 3)).all()
    other = gdx.Chain(CHAIN.effects, seed=1)
    assert (served(ChainOperator(other), 4)["image"] != expected).any(axis=(1, 2, 3)).all()


def test_chains_are_parts_of_wrappers_of_datarax():
    stage = sometimes(ChainOperator(CHAIN), 0.5)
    result = served(stage, 4)["image"]
    np.testing.assert_array_equal(served(stage, 3)["image"], result)
    assert 0 < (result != PIXELS).any(axis=(1, 2, 3)).sum() < 12


def test_a_chain_operator_says_what_it_takes_and_gives():
    with pytest.raises(TypeError, match="`chain` must be a Chain: got GaussianNoise.* Pass Chain"):
        ChainOperator(gdx.GaussianNoise())
    cast = ChainOperator(gdx.Chain([gdx.GaussianNoise(), gdx.Cast(dtype="float32")], seed=0))
    spec = {"image": jax.ShapeDtypeStruct((4, 4, 3), np.uint8), "label": jax.ShapeDtypeStruct((), np.int32)}
    assert cast.output_spec(spec) == {**spec, "image": jax.ShapeDtypeStruct((4, 4, 3), np.float32)}
    with pytest.raises(ValueError, match="ChainOperator is stochastic and needs a per-record key"):
        cast.apply({"image": PIXELS[0]}, {}, None)
