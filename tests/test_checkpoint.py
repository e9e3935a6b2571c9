"""Checkpoints through Orbax, and those that go on with another number of processes or workers."""

import itertools
import json

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import orbax.checkpoint.experimental.v1 as ocp_v1
import pytest
from device_sources import BATCH, SEEDED, SOURCES, chain, dataset, expected_from, expected_of, worker_dataset
from flax import nnx
from helpers import closing, contents, loader

import grain_datarax as gdx
from grain_datarax import checkpoint
from grain_datarax.elastic import carried_over

ONE_DEVICE = jax.sharding.NamedSharding(
    jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",)), jax.sharding.PartitionSpec("data")
)


def state_of(model):
    return nnx.split(model)[1]


def every_source_by(ways):
    """Sources with worker processes, which take seconds to start, with the last of the ways alone."""
    return pytest.mark.parametrize(
        ("source", "way"),
        [
            pytest.param(make, way, marks=[pytest.mark.long] * ("workers" in source), id=f"{source}, {name}")
            for source, make in SOURCES.items()
            for name, way in list(ways.items())["workers" in source :]
        ],
    )


@every_source_by({"grain": grain.checkpoint, "grain_datarax": checkpoint})
def test_orbax_restores_a_model_and_the_iterator_together(source, way, tmp_path):
    expected = expected_from(source)
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    with ocp.CheckpointManager(tmp_path) as manager, gdx.DeviceLoader(source(), chain()) as batches:
        iterator = iter(batches)
        next(iterator)
        data = way.CheckpointSave(iterator)
        manager.save(1, args=ocp.args.Composite(model=ocp.args.StandardSave(state_of(model)), data=data))
        next(iterator)  # while the checkpoint is being written
        manager.wait_until_finished()
    abstract = state_of(nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(1))))
    with ocp.CheckpointManager(tmp_path) as manager, gdx.DeviceLoader(source(), chain()) as batches:
        iterator = iter(batches)
        data = way.CheckpointRestore(iterator)
        restored = manager.restore(1, args=ocp.args.Composite(model=ocp.args.StandardRestore(abstract), data=data))
        assert restored["data"] is iterator
        np.testing.assert_array_equal(restored["model"]["kernel"].get_value(), model.kernel.get_value())
        assert [contents(batch) for batch in iterator] == expected[1:]


@every_source_by({"itself": lambda iterator: iterator, "Elastic": checkpoint.Elastic})
def test_orbax_v1_restores_the_iterator(source, way, tmp_path):
    expected = expected_from(source)
    with gdx.DeviceLoader(source(), chain()) as batches:
        iterator = iter(batches)
        next(iterator)
        ocp_v1.save_checkpointables(tmp_path / "one", {"data": way(iterator)})
    with gdx.DeviceLoader(source(), chain()) as batches:
        iterator = iter(batches)
        ocp_v1.load_checkpointables(tmp_path / "one", {"data": way(iterator)})
        assert [contents(batch) for batch in iterator] == expected[1:]


def test_one_manager_goes_on_saving_after_it_has_restored_what_grain_saved(tmp_path):
    expected = expected_of(loader(SEEDED))
    with gdx.DeviceLoader(loader(SEEDED), chain()) as batches:
        with ocp.CheckpointManager(tmp_path) as manager:
            iterator = iter(batches)
            next(iterator)
            manager.save(1, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        with ocp.CheckpointManager(tmp_path) as manager:
            iterator = iter(batches)
            manager.restore(1, args=ocp.args.Composite(data=checkpoint.CheckpointRestore(iterator)))
            next(iterator)
            manager.save(2, args=ocp.args.Composite(data=checkpoint.CheckpointSave(iterator)))
            manager.wait_until_finished()
            iterator = iter(batches)
            manager.restore(2, args=ocp.args.Composite(data=checkpoint.CheckpointRestore(iterator)))
            assert [contents(batch) for batch in iterator] == expected[2:]


RECORDS = 96


def shard_of(processes, process, workers, batch_size=BATCH, **kwargs):
    stages = [gdx.SeedRecords(), grain.transforms.Batch(batch_size)]
    source = loader(stages, count=RECORDS, workers=workers, shards=processes, shard=process, **kwargs)
    return iter(gdx.DeviceLoader(source, chain(), sharding=ONE_DEVICE))


def leg(states, processes, workers, steps=None, batch_size=BATCH):
    """Goes on from the states of all processes with others, one after the other; the records and their states."""
    seen, after = {}, []
    for process in range(processes):
        with shard_of(processes, process, workers, batch_size) as iterator:
            if states is not None:
                iterator.set_state(json.dumps(carried_over(states, iterator)).encode())
            for _, batch in zip(range(steps or RECORDS), iterator, strict=False):
                for label, image in zip(np.asarray(batch["label"]).tolist(), np.asarray(batch["image"]), strict=True):
                    assert label not in seen
                    seen[label] = image.tobytes()
            after.append(json.loads(iterator.get_state()))
    return seen, after


@pytest.fixture(scope="module")
def uninterrupted():
    seen, _ = leg(None, 1, 0)
    assert len(seen) == RECORDS
    return seen


# processes, workers, steps, batch size; None: to the end
JOURNEYS = {
    "1 -> 2 -> 4 -> 1 processes": [(1, 0, 3, 8), (2, 0, 2, 4), (4, 0, 1, 2), (1, 0, None, 8)],
    "3 -> 2 processes, other batches": [(3, 0, 2, 4), (2, 0, 1, 8), (4, 0, None, 5)],
    "2 -> 0 -> 3 workers": [(1, 2, 2, 8), (1, 0, 1, 8), (1, 3, None, 8)],
    "2 x 2 -> 4 x 1 -> 1 x 3": [(2, 2, 2, 4), (4, 1, 3, 2), (1, 3, None, 8)],
}


@pytest.mark.parametrize(
    "journey",
    [pytest.param(legs, marks=[pytest.mark.long] * any(leg[1] for leg in legs)) for legs in JOURNEYS.values()],
    ids=JOURNEYS,
)
def test_a_loader_goes_on_with_other_processes_workers_and_batches(journey, uninterrupted):
    seen, states = {}, None
    for processes, workers, steps, batch_size in journey:
        part, states = leg(states, processes, workers, steps, batch_size)
        assert not seen.keys() & part.keys()
        seen |= part
    assert seen == uninterrupted


@pytest.mark.long
def test_a_loader_in_the_middle_of_a_round_says_which_steps_would_do():
    for steps, before, after in [(1, 0, 2), (5, 4, 6)]:
        _, states = leg(None, 2, 2, steps, batch_size=4)
        same = shard_of(2, 1, 2, batch_size=4)
        assert carried_over(states, same) == states[1]
        message = (
            f"a whole round of the 2 workers to go on with 1 processes of 0 workers: got that of step {steps}. Take"
            f" that of step {before} or {after}"
        )
        with pytest.raises(ValueError, match=message):
            carried_over(states, shard_of(1, 0, 0))


def after(processes, steps, **kwargs):
    return leg(None, processes, 0, steps, **kwargs)[1]


REFUSED = {
    "other steps": (lambda: [after(2, 1)[0], after(2, 2)[1]], "`checkpoint` must be of one step of all processes"),
    "a missing process": (lambda: after(3, 1)[:2], "must hold shards 0 to 1 of one grain.DataLoader"),
    "left over": (lambda: after(1, 1, batch_size=5), "must have consumed a multiple of the 4 processes.*got 5 records"),
    "FlatMap": (lambda: [{"next_index": 3}] * 2, "must be that of a grain.DataLoader without FlatMap"),
}


@pytest.mark.parametrize(("states", "message"), REFUSED.values(), ids=REFUSED)
def test_states_of_loaders_that_can_not_be_carried_over_are_refused(states, message):
    with pytest.raises(ValueError, match=message):
        carried_over(states(), shard_of(4, 0, 0))


class Twice(grain.experimental.FlatMapTransform):
    max_fan_out = 2

    def flat_map(self, element):
        return [element, element]


def test_a_loader_with_flat_map_goes_on_with_the_numbers_that_saved_it(tmp_path):
    stages = [gdx.SeedRecords(), Twice(), grain.transforms.Batch(BATCH)]
    expected = [np.asarray(batch["label"]).tolist() for batch in gdx.DeviceLoader(loader(stages))]
    iterator = iter(gdx.DeviceLoader(loader(stages)))
    next(iterator)
    (tmp_path / "process_0-of-1.json").write_bytes(iterator.get_state())
    iterator = iter(gdx.DeviceLoader(loader(stages)))
    checkpoint.restore(tmp_path, iterator)
    assert [np.asarray(batch["label"]).tolist() for batch in iterator] == expected[1:]


def test_shards_that_have_drifted_apart_keep_their_own_states():
    states = [after(2, 2)[0], after(2, 1)[1]]  # as behind a Filter
    for process in range(2):
        assert carried_over(states, shard_of(2, process, 0)) == states[process]


def test_a_dataset_with_other_batches_is_refused_on_the_same_processes_too():
    with closing(iter(gdx.DeviceLoader(dataset().batch(8)))) as iterator:
        next(iterator)
        state = iterator.get_state()
    with pytest.raises(ValueError, match="of batches of 16 records of all processes together: got 8"):
        carried_over([state], iter(gdx.DeviceLoader(dataset().batch(16))))
    assert carried_over([state], iter(gdx.DeviceLoader(dataset().batch(8)))) == state


def test_a_sampler_that_shards_is_refused():
    def sharded(process, processes):
        options = grain.sharding.ShardOptions(shard_index=process, shard_count=processes)
        return grain.DataLoader(
            data_source=range(RECORDS),
            sampler=grain.samplers.IndexSampler(RECORDS, options, shuffle=True, num_epochs=1, seed=3),
            operations=[Record(), *SEEDED],
        )

    with gdx.DeviceLoader(sharded(0, 1)) as one, gdx.DeviceLoader(sharded(0, 2)) as two:
        iterator, other = iter(one), iter(two)
        next(iterator)
        state = carried_over([json.loads(iterator.get_state())], other)
        with pytest.raises(ValueError, match="Sampler in checkpoint does not match"):
            other.set_state(json.dumps(state).encode())


class Record(grain.transforms.Map):
    def map(self, element):
        return {"label": element}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_datasets_and_elastic_iterators_go_on_from_the_file_of_any_process(steps):
    # As processes 0 and 1 of two would: what differs between them is their slice.
    sources = [dataset(64)[index::2].batch(4) for index in range(2)]
    states = []
    for source in sources:
        with closing(iter(gdx.DeviceLoader(source, chain(), sharding=ONE_DEVICE))) as iterator:
            for _ in range(steps):
                next(iterator)
            states.append(iterator.get_state())
            states[-1]["grain_datarax"]["batch_size"] *= 2  # a process of two knows that there is another
    expected = expected_of(dataset(64).batch(8))
    for kept in (states, states[::-1]):
        with closing(iter(gdx.DeviceLoader(dataset(64).batch(8), chain()))) as iterator:
            iterator.set_state(carried_over(kept, iterator))
            one_process = iterator.get_state()
            assert [contents(batch) for batch in iterator] == expected[steps:]
    with closing(iter(gdx.DeviceLoader(dataset(64).batch(16), chain()))) as iterator:
        for kept in (states, [one_process]):
            with pytest.raises(ValueError, match="of batches of 16 records of all processes together: got 8"):
                carried_over(kept, iterator)


def batched_first(size):
    return dataset(64).batch(size).to_iter_dataset()


def batched_last(size):
    return dataset(64).to_iter_dataset().batch(size)


def test_a_dataset_that_counts_batches_goes_on_with_batches_of_the_same_size_alone():
    with closing(iter(gdx.DeviceLoader(batched_first(8), chain()))) as iterator:
        next(iterator)
        state = iterator.get_state()
    assert carried_over([state], iter(gdx.DeviceLoader(batched_first(8)))) == state
    with pytest.raises(ValueError, match="of batches of 16 records of all processes together: got 8"):
        carried_over([state], iter(gdx.DeviceLoader(batched_first(16))))
    with closing(iter(gdx.DeviceLoader(batched_last(8), chain()))) as iterator:
        seen = [contents(next(iterator))[0]]
        state = iterator.get_state()
    with closing(iter(gdx.DeviceLoader(batched_last(16), chain()))) as iterator:
        iterator.set_state(carried_over([state], iterator))
        seen += [contents(batch)[0] for batch in itertools.islice(iterator, 3)]
    assert [label for labels in seen for label in labels] == [record["label"] for record in dataset(64)][: 8 + 3 * 16]


@pytest.mark.long
@pytest.mark.parametrize(
    "journey", [[(2, 1), (0, 1), (3, None)], [(0, 1), (1, 1), (0, None)], [(2, 0), (0, 1), (1, None)]]
)
def test_datasets_go_on_with_other_numbers_of_workers(journey):
    expected = expected_of(dataset().batch(BATCH))
    states = None
    for workers, take in journey:
        with gdx.DeviceLoader(worker_dataset(workers=workers), chain()) as batches:
            iterator = iter(batches)
            if states is not None:
                iterator.set_state(carried_over(states, iterator))
            got = [contents(batch) for _, batch in zip(range(take if take is not None else 9), iterator, strict=False)]
            assert got == expected[: len(got)]
            expected = expected[len(got) :]
            states = [iterator.get_state()]
    assert not expected


def test_states_of_datasets_that_can_not_be_carried_over_are_refused():
    def state(source, **kwargs):
        with closing(iter(gdx.DeviceLoader(source, **kwargs))) as iterator:
            next(iterator)
            return iterator.get_state()

    iterator = iter(gdx.DeviceLoader(dataset().batch(BATCH)))
    good = state(dataset().batch(BATCH))
    records = state(dataset().to_iter_dataset().batch(BATCH))
    for states, message in [
        ([records, records], "must count batches in order: got \\[8\\] after step 1"),
        ([good, state(dataset().batch(2 * BATCH))], "batches of 8 records of all processes together: got 16, 8"),
        ([good, {**good, "grain_datarax": {**good["grain_datarax"], "batches": 2}}], "must be of one step of all"),
        ([state(dataset().batch(BATCH), fingerprint=False)] * 2, "must come from a DeviceLoader that counted"),
    ]:
        with pytest.raises(ValueError, match=message):
            carried_over(states, iterator)
    elastic = grain.experimental.ElasticIterator(dataset(), BATCH, grain.sharding.NoSharding())
    with pytest.raises(ValueError, match="must be of one step of all processes"):
        carried_over([{"global_next_index": 8}, {"global_next_index": 16}], iter(gdx.DeviceLoader(elastic)))


def test_a_folder_without_the_states_of_all_processes_is_refused(tmp_path):
    iterator = iter(gdx.DeviceLoader(dataset().batch(BATCH)))
    with pytest.raises(FileNotFoundError, match="`directory` must hold the states of all processes"):
        checkpoint.restore(tmp_path, iterator)
    (tmp_path / "process_1-of-2.json").write_text(json.dumps(iterator.get_state()))
    with pytest.raises(FileNotFoundError, match="got \\['process_1-of-2.json'\\]"):
        checkpoint.restore(tmp_path, iterator)
    (tmp_path / "process_0-of-2.json").write_text(json.dumps(iterator.get_state()))
    checkpoint.restore(tmp_path, iterator)


def test_other_operators_are_refused_here_too(tmp_path):
    state = iter(gdx.DeviceLoader(dataset().batch(BATCH), chain())).get_state()
    (tmp_path / "process_0-of-1.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="`operators` must be those of the checkpoint"):
        checkpoint.restore(tmp_path, iter(gdx.DeviceLoader(dataset().batch(BATCH), chain()[:1])))


def changed(**parts):
    return lambda state: json.dumps({**json.loads(state), **parts})


BAD_FILES = {
    "empty": ("MapDataset", lambda _: "", "`state` must be whole, as JSON: got .* in .*process_0-of-1.json"),
    "truncated": ("MapDataset", lambda state: state[:-9], "`state` must be whole, as JSON: got .* in .*process_0-of-1"),
    "truncated, loader": ("loader", lambda state: state[:50], "`state` must be whole, as JSON: got .* in .*process_0"),
    "no text": ("loader", lambda _: "\udcff", "`state` must be whole, as JSON: got .* in .*process_0-of-1.json"),
    "list": ("MapDataset", lambda _: "[1]", "`state` must be a dict: got \\[1\\] in .*process_0-of-1.json"),
    "list, loader": ("loader", lambda _: "[]", "`state` must be a dict: got \\[\\] in .*process_0-of-1.json"),
    "nothing": ("MapDataset", lambda _: "{}", "`checkpoint` must come from a DeviceLoader that counted its batches"),
    "nothing, loader": ("loader", lambda _: "{}", "`state` must have `version`"),
    "entry": ("MapDataset", changed(grain_datarax={}), "`stream_version` must be an int: got 'nothing' in .*process_0"),
    "entry, loader": ("loader", changed(grain_datarax=[]), "`grain_datarax` must be a dict: got \\[\\] in .*process_0"),
    "list for seen": (
        "loader",
        changed(last_seen_indices=[7]),
        "`last_seen_indices` must have each worker: got \\[7\\]",
    ),
    "no workers": ("loader", changed(last_seen_indices={}), "`last_seen_indices` must have each worker: got {} in"),
    "text": ("loader", changed(last_seen_indices={"0": "7"}), "`last_seen_indices` must be ints: got {'0': '7'} in"),
    "less than nothing": ("loader", changed(last_seen_indices={"0": -9}), "`last_seen_indices` must lie within the 32"),
    "index": ("MapDataset", changed(next_index="1"), "`next_index` must be an int|must count batches in order"),
    "states of workers": ("MapDataset", changed(iterators_in_use_states=3), "`iterators_in_use_states` must be a list"),
    "parts of workers": ("loader", changed(iterators_in_use_states=[3]), "`iterators_in_use_states` must hold dicts"),
    "other source": (
        "ElasticIterator",
        lambda _: '{"next_index": 1}',
        "`checkpoint` must come from a DeviceLoader that",
    ),
}


@pytest.mark.parametrize(("source", "change", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_by_its_name_and_leaves_the_iterator_where_it_was(source, change, message, tmp_path):
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), chain()))) as iterator:
        next(iterator)
        before = iterator.get_state()
        text = before.decode() if isinstance(before, bytes) else json.dumps(before)
        (tmp_path / "process_0-of-1.json").write_text(change(text), errors="surrogateescape")
        with pytest.raises(ValueError, match=message) as refused:
            checkpoint.restore(tmp_path, iterator)
        assert str(tmp_path) in "\n".join([str(refused.value), *getattr(refused.value, "__notes__", ())])
        assert iterator.get_state() == before
        assert contents(next(iterator)) == expected_from(SOURCES[source])[1]


@pytest.mark.parametrize("name", ["process_0-of-0.json", "process_0-of-99999999999.json"])
def test_files_of_no_process_or_of_too_many_are_refused(name, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(FileNotFoundError, match="`directory` must hold the states of all processes of one run: got"):
        checkpoint.restore(tmp_path, iter(gdx.DeviceLoader(dataset().batch(BATCH))))


def test_what_are_no_states_of_one_run_is_refused():
    loaded = after(2, 1)
    entry = {"iterators_in_use_states": [None], "next_index_in_cycle": 0}
    for states, kind, message in [
        ([], ValueError, "`states` must be those of all processes: got none"),
        ({}, TypeError, "`states` must be a list: got {}"),
        ([loaded[0], None], ValueError, "`state` must be a dict: got None of process 1"),
        ([loaded[0], {**loaded[1], "sampler": "other"}], ValueError, "must be of one run: got `sampler` "),
        ([loaded[0], {**loaded[1], "last_seen_indices": {"0": -15}}], ValueError, "must hold shards 0 to 1 of one"),
        (
            [loaded[0], {**loaded[1], "worker_count": 2, "last_seen_indices": {"0": 1, "1": 3}}],
            ValueError,
            "must be of one run: got `worker_count` 0, 2",
        ),
        ([entry, entry], ValueError, "must be that of a grain.DataLoader without FlatMap"),
    ]:
        with pytest.raises(kind, match=message):
            carried_over(states, shard_of(1, 0, 0))
    elastic = iter(gdx.DeviceLoader(SOURCES["ElasticIterator"]()))
    states = [iter(gdx.DeviceLoader(dataset(64)[index::2].batch(4))).get_state() for index in range(2)]
    with pytest.raises(ValueError, match="`checkpoint` must be of the same kind of source"):
        carried_over(states, elastic)
    with pytest.raises(ValueError, match="`checkpoint` must be of one step of all processes"):
        carried_over([{"global_next_index": 8}, states[0]], elastic)


def test_the_order_of_the_workers_in_a_file_does_not_matter():
    saved = shard_of(1, 0, 11, batch_size=1).get_state()
    state = json.loads(saved)
    shuffled = {**state, "last_seen_indices": dict(sorted(state["last_seen_indices"].items()))}
    assert list(shuffled["last_seen_indices"]) != list(state["last_seen_indices"])
    iterator = shard_of(1, 0, 0)
    assert carried_over([shuffled], iterator) == carried_over([state], iterator)
