"""A DeviceLoader is a dataset of Grain's: what Grain has goes on top of it, and resumes exactly."""

import json

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from device_sources import SOURCES, Map, chain, dataset, every_source, expected_from
from helpers import closing, contents
from orbax.checkpoint.experimental import v1 as ocp_v1

import grain_datarax as gdx
from grain_datarax import checkpoint

pytestmark = pytest.mark.once


def on_the_host(batch):
    return jax.tree.map(np.asarray, batch)


def twice(batch):
    return {**batch, "twice": batch["label"] * 2}


# What is put on top of a loader; each hands out its batches as they are, with fields added at most.
ON_TOP = {
    "nothing": lambda loader: loader,
    "map": lambda loader: loader.map(twice),
    "apply": lambda loader: loader.apply([Map(twice), Map(on_the_host)]),
    "mix": lambda loader: grain.IterDataset.mix([loader, loader], [1, 1]),
    "mix of two, by name": lambda loader: grain.IterDataset.mix({"a": loader.map(twice), "b": loader.map(twice)}),
    "a thread": lambda loader: grain.experimental.ThreadPrefetchIterDataset(loader.map(twice), prefetch_buffer_size=2),
    "random_map": lambda loader: loader.seed(1).random_map(lambda batch, rng: {**batch, "drawn": rng.integers(1000)}),
    "limit": lambda loader: grain.experimental.LimitIterDataset(loader, 3),
    "device_put": lambda loader: grain.experimental.device_put(loader, jax.devices()[0]),
}
WITHOUT_WORKERS = [name for name in SOURCES if "workers" not in name]
every_top = pytest.mark.parametrize("top", ON_TOP.values(), ids=ON_TOP)


@every_top
@pytest.mark.parametrize("source", WITHOUT_WORKERS)
@pytest.mark.parametrize("buffer_size", [0, 2])
def test_what_is_on_top_resumes_exactly_at_every_step(source, top, buffer_size):
    composed = top(gdx.DeviceLoader(SOURCES[source](), chain(), buffer_size=buffer_size))
    assert isinstance(composed, grain.IterDataset)
    # Of Grain's; it compares NumPy's arrays alone.
    grain.experimental.assert_equal_output_after_checkpoint(composed.map(on_the_host))


@every_source
def test_what_is_on_top_gets_the_batches_of_the_loader(source):
    with gdx.DeviceLoader(source(), chain()) as loader, closing(iter(loader.map(twice))) as iterator:
        next(iterator)
        state = json.loads(json.dumps(iterator.get_state()))
        rest = list(iterator)
        assert [contents(batch) for batch in rest] == expected_from(source)[1:]
        np.testing.assert_array_equal(rest[0]["twice"], rest[0]["label"] * 2)
        with closing(iter(loader.map(twice))) as again:
            again.set_state(state)
            assert contents(next(again)) == expected_from(source)[1]


def test_a_loader_over_a_data_loader_has_states_of_bytes_whatever_is_on_top_of_it():
    loader = gdx.DeviceLoader(SOURCES["loader"](), chain())
    before = iter(loader).get_state()
    mapped = loader.map(twice)
    composed = iter(mapped).get_state()
    assert isinstance(before, bytes)
    assert iter(loader).get_state() == before
    assert composed == json.loads(before)  # `map` adds nothing


OPERATORS = {
    "chain": lambda: gdx.Chain([gdx.GaussianNoise(std=(0.1, 0.2), p=0.5), gdx.PatchDropout(patch_size=(2, 2))], seed=0),
    "operators": chain,
    "none": lambda: (),
}


@pytest.mark.parametrize("operators", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("source", WITHOUT_WORKERS)
def test_states_are_trees_of_numbers_and_text_to_orbax(source, operators, tmp_path):
    # https://github.com/google/orbax/issues/413
    with gdx.DeviceLoader(SOURCES[source](), operators()) as loader:
        iterator = iter(loader.map(twice))
        next(iterator)
        state, expected = iterator.get_state(), contents(next(iterator))
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "state", state)
            restored = checkpointer.restore(tmp_path / "state")
        iterator.set_state(restored)
        assert iterator.get_state() == state
        assert contents(next(iterator)) == expected


@pytest.mark.parametrize("source", WITHOUT_WORKERS)
def test_both_apis_of_orbax_take_what_is_on_top(source, tmp_path):
    with gdx.DeviceLoader(SOURCES[source](), chain()) as loader:
        iterator = iter(loader.map(twice))
        next(iterator)
        with ocp.CheckpointManager(tmp_path / "v0") as manager:
            manager.save(1, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        ocp_v1.save_checkpointables(tmp_path / "v1", {"data": iterator})
        again = iter(loader.map(twice))
        with ocp.CheckpointManager(tmp_path / "v0") as manager:
            manager.restore(1, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(again)))
        assert contents(next(again)) == expected_from(SOURCES[source])[1]
        ocp_v1.load_checkpointables(tmp_path / "v1", {"data": again})
        assert contents(next(again)) == expected_from(SOURCES[source])[1]


def test_on_other_numbers_of_processes_the_loader_itself_is_restored(tmp_path):
    composed = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), chain()).map(twice))
    with pytest.raises(TypeError, match="`iterator` must be that of a DeviceLoader: got .*through grain.checkpoint"):
        checkpoint.restore(tmp_path, composed)


def test_a_state_of_other_operators_is_refused_below_what_is_on_top():
    state = iter(gdx.DeviceLoader(SOURCES["loader"](), chain()).map(twice)).get_state()
    other = iter(gdx.DeviceLoader(SOURCES["loader"](), chain()[:1]).map(twice))
    with pytest.raises(ValueError, match="`operators` must be those of the checkpoint"):
        other.set_state(state)


def test_its_length_is_that_which_grain_knows():
    assert len(gdx.DeviceLoader(SOURCES["MapDataset"](3), chain())) == len(list(SOURCES["MapDataset"](3))) == 12
    for source in ("loader", "IterDataset", "ElasticIterator"):
        loader = gdx.DeviceLoader(SOURCES[source](), chain())
        with pytest.raises(
            TypeError,
            match=f"must be that of a MapDataset: got a loader over {source}".replace("over loader", "over DataLoader"),
        ):
            len(loader)
        assert loader
        assert len(list(loader)) == 4


ITERATORS_ALONE = {
    "next": (next, TypeError),
    "get_state": (lambda loader: loader.get_state(), AttributeError),
    "set_state": (lambda loader: loader.set_state({}), AttributeError),
    "start_prefetch": (lambda loader: loader.start_prefetch(), AttributeError),
}


@pytest.mark.parametrize("source", WITHOUT_WORKERS)
@pytest.mark.parametrize(("act", "kind"), ITERATORS_ALONE.values(), ids=ITERATORS_ALONE)
def test_what_iterators_have_is_asked_of_iterators(source, act, kind):
    loader = gdx.DeviceLoader(SOURCES[source](), chain())
    with pytest.raises(
        kind, match="must be asked of an iterator: got a DeviceLoader. Call `batches = iter\\(loader\\)`"
    ):
        act(loader)
    with pytest.raises(AttributeError, match="has no attribute 'batch_size'"):
        loader.batch_size  # noqa: B018
    batches = iter(loader)
    assert next(batches)
    batches.set_state(batches.get_state())


@pytest.mark.parametrize("top", [lambda loader: loader, lambda loader: loader.map(twice)], ids=["itself", "map"])
def test_worker_processes_belong_below_it(top):
    options = grain.MultiprocessingOptions(num_workers=1)
    above = top(gdx.DeviceLoader(SOURCES["MapDataset"](), chain())).mp_prefetch(options)
    with pytest.raises(
        TypeError, match="`DeviceLoader` must stay in the process that has the devices: got pickled. Cal"
    ):
        next(iter(above))


@pytest.mark.parametrize("operators", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("settings", [{}, {"keep_seed": True}, {"pad_last_batch": True}], ids=str)
def test_the_element_spec_is_that_of_its_batches(operators, settings):
    spec = grain.experimental.ShapeDtypeStruct

    class Images(grain.transforms.Map):
        def map(self, element):
            return {"image": np.zeros((8, 8, 3), np.uint8), "label": np.int64(element), "inner": {"weight": 0.5}}

        def output_spec(self, input_spec):
            inner = {"weight": spec(shape=(), dtype=np.float64)}
            return {"image": spec(shape=(8, 8, 3), dtype=np.uint8), "label": input_spec, "inner": inner}

    source = grain.MapDataset.range(32).map(Images()).random_map(gdx.SeedRecords(), seed=1)
    source = source.batch(8, drop_remainder=True)
    for below in (source, source.to_iter_dataset()):
        loader = gdx.DeviceLoader(below, operators(), **settings)
        told = grain.experimental.get_element_spec(loader)
        batch = next(iter(loader))
        assert jax.tree.structure(told) == jax.tree.structure(batch)
        for leaf, field in zip(jax.tree.leaves(told), jax.tree.leaves(batch), strict=True):
            assert leaf.dtype == field.dtype
            assert tuple(leaf.shape) in (field.shape, (None, *field.shape[1:]))
    with pytest.raises(NotImplementedError, match="`source` must be a dataset for an element spec: got a DataLoader"):
        grain.experimental.get_element_spec(gdx.DeviceLoader(SOURCES["loader"](), chain()))


def test_loaders_go_on_top_of_what_is_on_top_of_loaders():
    below = gdx.DeviceLoader(dataset().batch(8), chain()[:1], keep_seed=True)
    above = gdx.DeviceLoader(below.map(lambda batch: batch), chain()[1:])
    assert [contents(batch) for batch in above] == expected_from(SOURCES["MapDataset"])
