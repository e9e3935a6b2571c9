"""The promise inside Grain: real loaders, real worker processes, real resumption."""

import json
import logging

import cloudpickle
import grain
import jax
import numpy as np
import pytest
from flax import nnx
from helpers import (
    OPERATORS,
    Records,
    assert_unpickling_starts_no_backend,
    closing,
    contents,
    loader,
    noise,
    patch_dropout,
    pixels,
)

import grain_datarax as gdx


def chain():
    return [OPERATORS[mode](name=mode) for mode in OPERATORS]


def operations(batch_size=4, **kwargs):
    return [gdx.SeedRecords(), grain.transforms.Batch(batch_size, **kwargs), gdx.AugmentBatch(chain())]


@pytest.fixture(scope="module")
def expected():
    """Every record's pixels in two epochs of a loader without workers or shards."""
    return pixels(loader(operations(), epochs=2))


def test_epochs_differ(expected):
    assert len(expected) == 64
    assert len(set(expected.values())) == 64


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_pixels_do_not_depend_on_the_batch_size(expected, batch_size):
    assert pixels(loader(operations(batch_size), epochs=2)) == expected


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_pixels_do_not_depend_on_workers(expected, workers):
    assert pixels(loader(operations(), epochs=2, workers=workers)) == expected


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_pixels_do_not_depend_on_shards(expected, shards):
    parts = [pixels(loader(operations(), epochs=2, shard=shard, shards=shards)) for shard in range(shards)]
    images = [image for part in parts for image in part.values()]
    assert sorted(images) == sorted(expected.values())


@pytest.mark.long
def test_pixels_do_not_depend_on_shards_with_workers(expected):
    parts = [pixels(loader(operations(), epochs=2, shard=shard, shards=2, workers=2)) for shard in range(2)]
    assert sorted(image for part in parts for image in part.values()) == sorted(expected.values())


def test_augmenting_records_gives_the_same_pixels(expected):
    by_record = [gdx.AugmentRecord(chain()), grain.transforms.Batch(4)]
    assert pixels(loader(by_record, epochs=2)) == expected
    both = [gdx.SeedRecords(), gdx.AugmentRecord(chain()[:2]), grain.transforms.Batch(4), gdx.AugmentBatch(chain()[2:])]
    assert pixels(loader(both, epochs=2)) == expected


def seeded_dataset():
    source = grain.MapDataset.source(Records(32)).shuffle(seed=1).repeat(2)
    return source.random_map(gdx.SeedRecords(), seed=7)


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", ["before", "behind"])
def test_pixels_of_a_dataset_do_not_depend_on_worker_processes(workers, place):
    expected = pixels(seeded_dataset().batch(4).map(gdx.AugmentBatch(chain())))
    augment = gdx.AugmentBatch(chain())
    options = grain.MultiprocessingOptions(num_workers=workers)
    if place == "before":
        dataset = seeded_dataset().batch(4).map(augment).to_iter_dataset().mp_prefetch(options)
    else:
        dataset = seeded_dataset().batch(4).to_iter_dataset().mp_prefetch(options).map(augment)
    assert pixels(dataset) == expected


def test_a_dataset_augments_in_the_threads_of_grain_and_counts_every_record():
    operator = noise()
    dataset = seeded_dataset().batch(1).map(gdx.AugmentBatch(operator)).to_iter_dataset()
    assert sum(1 for _ in dataset) == 64
    assert operator.get_operation_stats() == {"applied_count": 64, "skipped_count": 0}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_resuming_at_every_step_gives_the_remaining_batches(workers):
    def start():
        two = [patch_dropout(), noise()]
        stages = [gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(two)]
        return iter(loader(stages, count=8, epochs=2, workers=workers))

    whole, states = [], []
    with closing(start()) as iterator:
        for _ in range(4):
            states.append(iterator.get_state())
            whole.append(contents(next(iterator)))
        assert next(iterator, None) is None
    for step, state in enumerate(states):
        resumed = start()
        resumed.set_state(state)
        with closing(resumed):
            assert [contents(batch) for batch in resumed] == whole[step:]


def test_checkpoints_of_a_dataset_resume_to_the_same_elements():
    dataset = seeded_dataset().batch(4).to_iter_dataset().map(gdx.AugmentBatch(chain()))
    dataset = dataset.map(lambda batch: jax.tree.map(np.asarray, batch))
    grain.experimental.assert_equal_output_after_checkpoint(dataset)


def test_a_partial_last_batch_is_augmented():
    sizes = [len(batch["label"]) for batch in loader(operations(12))]
    assert sizes == [12, 12, 8]


class BackendsStarted(grain.transforms.Map):
    """Writes into the batch what JAX has started in this process, and whether this is the parent."""

    def map(self, element):
        from jax._src import xla_bridge  # there is no public way to ask without starting a backend

        return {
            **element,
            "backends": np.array(sorted(xla_bridge._backends)),
            "is_numpy": np.array(all(type(field) is np.ndarray for field in element.values())),
            "platforms": np.array(str(jax.config.jax_platforms)),
        }


@pytest.mark.long
def test_seeding_starts_no_backend_in_a_worker():
    batches = list(loader([gdx.SeedRecords(), grain.transforms.Batch(8), BackendsStarted()], workers=2))
    assert all(batch["backends"].size == 0 for batch in batches)
    assert batches[0]["record_seed"].shape == (8, 2)


@pytest.mark.long
def test_augmenting_in_a_worker_runs_on_the_cpu_and_returns_numpy(monkeypatch):
    # Workers inherit a default platform that does not exist: whoever opens it fails.
    monkeypatch.setenv("JAX_PLATFORMS", "an_accelerator")
    for operation in (gdx.AugmentBatch(noise()), gdx.AugmentRecord(noise())):
        stages = [gdx.SeedRecords(), grain.transforms.Batch(8)]
        stages.insert(2 if isinstance(operation, gdx.AugmentBatch) else 0, operation)
        if isinstance(operation, gdx.AugmentRecord):
            del stages[1]
        batches = list(loader([*stages, BackendsStarted()], workers=1))
        for batch in batches:
            assert batch["backends"].tolist() == ["cpu"]
            assert batch["platforms"] == "cpu"
            assert batch["is_numpy"]
        assert len(batches) == 4


class RaisesUnpicklable(gdx.ModalityOperator):
    def effect(self, image, params):
        return image if image.sum() > 0 else -image  # a JAX error that does not survive pickling


@pytest.mark.long
def test_an_error_of_jax_in_a_worker_arrives_as_its_text():
    operator = RaisesUnpicklable(gdx.ModalityOperatorConfig(field_key="image"))
    with pytest.raises(Exception, match="TracerBoolConversionError"):
        list(loader([gdx.SeedRecords(), grain.transforms.Batch(8), gdx.AugmentBatch(operator)], workers=1))


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_input_arrives_as_its_own_error(workers):
    operator = patch_dropout(patch_size=(64, 64))
    with pytest.raises(Exception, match="`patch_size` must fit inside the image"):
        list(loader([gdx.SeedRecords(), grain.transforms.Batch(8), gdx.AugmentBatch(operator)], workers=workers))


def test_the_worker_says_once_where_it_runs(monkeypatch, caplog):
    from grain_datarax import workers

    monkeypatch.setattr(workers, "in_grain_worker", lambda: True)
    monkeypatch.setattr(workers, "_told", False)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # this process keeps its platform
    with caplog.at_level(logging.INFO, "grain_datarax"):
        batches = list(loader(operations()))
    assert len([record for record in caplog.records if "worker process" in record.message]) == 1
    assert all(type(batch["image"]) is np.ndarray for batch in batches)


def test_transforms_are_pickled_without_jax_arrays_and_give_the_same_pixels():
    batch = {
        "image": np.full((2, 8, 8, 3), 0.5, np.float32),
        "record_seed": np.arange(4, dtype=np.uint32).reshape(2, 2),
    }
    operators = [*(operator for operator in chain()), noise(stochastic=False, cacheable=True, name="fixed")]
    operators[0].set_statistics({"mean": jax.numpy.ones(3)})
    augment = gdx.AugmentBatch(operators)
    expected = np.asarray(augment.map(batch)["image"])
    pickled = cloudpickle.dumps(augment)
    assert b"ArrayImpl" not in pickled
    assert b"_reconstruct_array" not in pickled
    copy = cloudpickle.loads(cloudpickle.dumps(cloudpickle.loads(pickled)))  # twice: not yet unpacked
    np.testing.assert_array_equal(np.asarray(copy.map(batch)["image"]), expected)
    assert "AugmentBatch" in repr(augment)
    assert repr(copy) == repr(augment)


class Doubled(nnx.Module):
    def __init__(self):
        self.factor = nnx.Param(jax.numpy.float32(2.0))

    def __call__(self, data):
        return {"mean": data["image"].mean() * self.factor[...]}


# Made by calls: workers import this module, and must find no JAX array in it.
@pytest.mark.parametrize(
    "settings",
    [dict, lambda: {"precomputed_stats": {"mean": jax.numpy.zeros(3)}}, lambda: {"batch_stats_fn": Doubled()}],
    ids=["plain", "precomputed_stats", "batch_stats_fn"],
)
def test_unpickling_starts_no_backend(settings, tmp_path):
    assert_unpickling_starts_no_backend(gdx.AugmentBatch(noise(**settings())), tmp_path)


def test_element_specs_are_inferred():
    spec = grain.experimental.ShapeDtypeStruct

    class Images(grain.transforms.Map):
        def map(self, element):
            return {"image": np.zeros((8, 8, 3), np.uint8), "label": element}

        def output_spec(self, input_spec):
            return {"image": spec(shape=(8, 8, 3), dtype=np.uint8), "label": input_spec}

    seeded = grain.MapDataset.range(8).map(Images()).random_map(gdx.SeedRecords(), seed=1)
    batched = seeded.batch(4, drop_remainder=True)
    target = noise(target_key="augmented")
    for dataset in (
        seeded,
        batched.map(gdx.AugmentBatch(target)),
        batched.map(gdx.AugmentBatch(target, keep_seed=True)),
        grain.MapDataset.range(8).map(Images()).random_map(gdx.AugmentRecord(target), seed=1),
    ):
        inferred = grain.experimental.get_element_spec(dataset)
        element = jax.tree.map(np.asarray, dataset[0])
        is_spec = lambda leaf: isinstance(leaf, spec)  # noqa: E731
        told = jax.tree.map(lambda leaf: (tuple(leaf.shape), np.dtype(leaf.dtype)), inferred, is_leaf=is_spec)
        assert told == jax.tree.map(lambda field: (field.shape, field.dtype), element)


def test_a_dataset_without_a_seed_is_told_so_by_grain():
    with pytest.raises(ValueError, match="requires a seed"):
        grain.MapDataset.source(Records(2)).random_map(gdx.SeedRecords())


# What the code leans on in Grain; an upgrade that changes it says so here.


def test_grain_seeds_a_record_by_its_position_alone():
    first = [batch["record_seed"] for batch in loader([gdx.SeedRecords()], seed=5)]
    second = [batch["record_seed"] for batch in loader([gdx.SeedRecords()], seed=6)]
    expected = [np.random.Philox(key=5 + index).random_raw(1).view(np.uint32) for index in range(32)]
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(first[1:], second[:-1])  # as the docstring of SeedRecords warns


def test_grain_states_do_not_know_the_operations():
    iterator = iter(loader(operations()))
    next(iterator)
    assert set(json.loads(iterator.get_state())) == {
        "version", "last_seen_indices", "last_worker_index", "worker_count", "sampler", "data_source"
    }  # fmt: skip


class ProcessName(grain.transforms.Map):
    def map(self, element):
        import multiprocessing

        return {**element, "process": multiprocessing.current_process().name}


@pytest.mark.long
def test_grain_names_its_workers_as_the_transforms_expect():
    names = {str(record["process"]) for record in loader([ProcessName()], workers=1)}
    assert all(name.startswith("grain-process-prefetch") for name in names)
