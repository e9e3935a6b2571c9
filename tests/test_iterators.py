"""The states of a DeviceLoader's iterators: those of Grain's own, and what is refused."""

import json
import time

import grain
import numpy as np
import pytest
from device_sources import (
    BATCH,
    READ_OPTIONS,
    SEEDED,
    SOURCES,
    chain,
    dataset,
    every_buffer_size,
    every_source,
    expected_from,
    expected_of,
    plain,
    worker_dataset,
)
from helpers import closing, contents, loader, noise, patch_dropout

import grain_datarax as gdx
from grain_datarax.augmenter import launcher_of
from grain_datarax.fingerprint import differences

pytestmark = pytest.mark.once


def test_a_state_of_unnamed_effects_goes_back_and_names_them_where_others_would_go_on():
    source = SOURCES["MapDataset"](None)
    effects = [gdx.GaussianNoise(std=0.1), gdx.PatchDropout(patch_size=(2, 2))]
    with gdx.DeviceLoader(source, gdx.Chain(effects, seed=0)) as batches:
        iterator = iter(batches)
        state, first = iterator.get_state(), contents(next(iterator))
        iterator.set_state(state)
        assert contents(next(iterator)) == first
    with (
        gdx.DeviceLoader(source, gdx.Chain(effects[::-1], seed=0)) as others,
        pytest.raises(ValueError, match=r"\['PatchDropout', 'GaussianNoise'\] for \['GaussianNoise', 'PatchDropout'\]"),
    ):
        iter(others).set_state(state)


# Sources without end: at one, worker processes stop.
@every_source
@every_buffer_size
def test_resuming_at_every_step_gives_the_remaining_batches(source, buffer_size):
    expected, states = expected_from(source, None), []
    with gdx.DeviceLoader(source(None), chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        iterator.start_prefetch()
        for step in range(6):
            states.append(iterator.get_state())
            assert contents(next(iterator)) == expected[step]
    with gdx.DeviceLoader(source(None), chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        for step in (2, 0, 1, 5, 4, 3):
            iterator.set_state(states[step])
            assert iterator.get_state() == states[step]
            assert [contents(next(iterator)) for _ in range(4)] == expected[step : step + 4]


@every_source
def test_states_are_those_of_grains_own_iterator_both_ways(source):
    expected = expected_from(source, None)
    device = iter(gdx.DeviceLoader(source(None), chain()))
    without = iter(gdx.DeviceLoader(source(None), chain(), fingerprint=False))
    augment = gdx.AugmentBatch(chain())
    with closing(plain(source(None))) as own, closing(device), closing(without):
        states = []
        for _ in range(4):
            states.append((own.get_state(), device.get_state()))
            assert without.get_state() == own.get_state()
            next(own), next(device), next(without)
        assert without.get_state() == own.get_state()
        for step, (owns, devices) in enumerate(states):
            own.set_state(devices)
            device.set_state(owns)
            assert [contents(augment.map(next(own))) for _ in range(2)] == expected[step : step + 2]
            assert [contents(next(device)) for _ in range(2)] == expected[step : step + 2]


@every_buffer_size
@pytest.mark.parametrize("name", [name for name in SOURCES if "workers" not in name])
def test_resuming_at_every_step_goes_on_to_the_end(name, buffer_size):
    expected, states = expected_from(SOURCES[name]), []
    with gdx.DeviceLoader(SOURCES[name](), chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        states = [iterator.get_state(), *(iterator.get_state() for _ in iterator)]
        assert len(states) == 5
        for step in (4, 2, 0, 1, 3):
            iterator.set_state(states[step])
            assert [contents(batch) for batch in iterator] == expected[step:]


def test_states_have_the_type_of_grains_own():
    assert isinstance(iter(gdx.DeviceLoader(SOURCES["loader"]())).get_state(), bytes)
    iterator = iter(gdx.DeviceLoader(SOURCES["MapDataset"]()))
    assert isinstance(iterator, grain.DatasetIterator)
    assert isinstance(iterator.get_state(), dict)


def test_an_iterator_can_be_set_back_and_forth():
    expected = expected_from(SOURCES["loader"])
    with closing(iter(gdx.DeviceLoader(SOURCES["loader"](), chain()))) as iterator:
        start = iterator.get_state()
        assert [contents(batch) for batch in iterator] == expected
        end = iterator.get_state()
        iterator.set_state(start)
        assert contents(next(iterator)) == expected[0]
        iterator.set_state(end)
        assert next(iterator, None) is None


def interleaved():
    parts = [dataset(3 * 32)[start::3].batch(BATCH).to_iter_dataset(READ_OPTIONS) for start in range(3)]
    return grain.experimental.InterleaveIterDataset(parts, cycle_length=2)


@pytest.mark.parametrize("part", ["future_states", "iterators_in_use_states", "exhausted", "next_index_in_cycle"])
def test_no_part_of_a_state_may_be_none_but_the_states_of_iterators_that_ended(part):
    with closing(iter(gdx.DeviceLoader(interleaved(), chain()))) as iterator:
        before = iterator.get_state()
        with pytest.raises(ValueError, match=f"`{part}` must be .*: got None"):
            iterator.set_state({**before, part: None})
        assert iterator.get_state() == before
        contents(next(iterator))
        *states, _ = iterator.get_state()["iterators_in_use_states"]
        iterator.set_state({**iterator.get_state(), "iterators_in_use_states": [*states, None]})
        contents(next(iterator))


@pytest.mark.parametrize("indices", [[1, 7], [2, 3]])
def test_a_state_that_grain_refuses_in_the_middle_leaves_no_trace(indices):
    with gdx.DeviceLoader(interleaved(), chain()) as batches:
        expected = [contents(batch) for batch in batches]
    with closing(iter(gdx.DeviceLoader(interleaved(), chain()))) as iterator:
        start = iterator.get_state()
        assert contents(next(iterator)) == expected[0]
        before = iterator.get_state()
        with pytest.raises(ValueError, match="`state` must be one of the same kind of source: got .*IndexError"):
            iterator.set_state({**before, "iterators_in_use_indices": indices})
        assert iterator.get_state() == before
        assert [contents(batch) for batch in iterator] == expected[1:]
        iterator.set_state(start)
        assert [contents(batch) for batch in iterator] == expected


class Twice(grain.experimental.FlatMapTransform):
    max_fan_out = 2

    def flat_map(self, element):
        return [element] * 2


def flat_mapped():
    return loader(
        [gdx.SeedRecords(), gdx.SeedChildren(Twice()), grain.transforms.Batch(BATCH, drop_remainder=True)], workers=2
    )


@pytest.mark.parametrize(
    ("source", "buffer_size"),
    [
        (interleaved, 0),
        (interleaved, 2),
        pytest.param(worker_dataset, 2, marks=pytest.mark.long),
        pytest.param(flat_mapped, 2, marks=pytest.mark.long),
    ],
)
def test_a_state_from_behind_a_rewound_end_has_all_that_is_left(source, buffer_size):
    with gdx.DeviceLoader(source(), chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        start = iterator.get_state()
        expected = [contents(batch) for batch in iterator]
        iterator.set_state(start)
        assert iterator.get_state() == start
        assert contents(next(iterator)) == expected[0]
        behind = iterator.get_state()
        other = iter(batches)
        other.set_state(behind)
        assert [contents(batch) for batch in other] == expected[1:]


CHANGES = {
    "setting": (lambda: [patch_dropout(), noise(noise_std=0.1)], "`noise_std` 0.1 for 0.05 in NoiseOperator"),
    "order": (lambda: [noise(), patch_dropout()], "the operators \\['NoiseOperator.*'\\] for \\['PatchDropout"),
    "number": (lambda: [patch_dropout()], "the operators \\['PatchDropoutOperator.*'\\] for"),
    "name": (lambda: [patch_dropout(), noise(name="other")], "'other'"),
    "none": (lambda: (), "the operators \\[\\] for"),
}


@pytest.mark.parametrize(("operators", "message"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("source", ["loader", "MapDataset"])
def test_a_state_of_other_operators_is_refused(source, operators, message):
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), chain()))) as iterator:
        next(iterator)
        state = iterator.get_state()
    other = gdx.DeviceLoader(SOURCES[source](), operators())
    with closing(iter(other)) as iterator:
        before = iterator.get_state()
        with pytest.raises(ValueError, match=f"`operators` must be those of the checkpoint: got .*{message}"):
            iterator.set_state(state)
        assert iterator.get_state() == before
        assert len(list(iterator)) == 4
    lenient = gdx.DeviceLoader(SOURCES[source](), operators(), strict=False)
    with closing(iter(lenient)) as iterator:
        with pytest.warns(UserWarning, match=message) as warned:
            iterator.set_state(state)
        assert [each.filename for each in warned] == [__file__]
        assert len(list(iterator)) == 3


def test_another_root_key_or_stream_version_is_refused(monkeypatch):
    from flax import nnx

    from grain_datarax import compiled
    from grain_datarax.pages import launch

    state = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise()])).get_state()
    iterator = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise().copy(rngs=nnx.Rngs(1))]))
    with pytest.raises(ValueError, match="`root_key` "):
        iterator.set_state(state)
    for module in (compiled, launch):
        monkeypatch.setattr(module, "STREAM_VERSION", 2)
    iterator = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise()]))
    with pytest.raises(ValueError, match="STREAM_VERSION 2 for 1"):
        iterator.set_state(state)


def test_what_does_not_change_pixels_may_change():
    state = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise()])).get_state()
    assert json.loads(json.dumps(state)) == state
    operators = [noise(batch_strategy="scan", cacheable=True)]
    iter(gdx.DeviceLoader(SOURCES["MapDataset"](), operators)).set_state(state)


def test_a_state_that_grain_refuses_leaves_the_iterator_where_it_was():
    with (
        closing(iter(gdx.DeviceLoader(loader(SEEDED, seed=4), chain()))) as other,
        closing(iter(gdx.DeviceLoader(loader(SEEDED), chain(), buffer_size=4))) as iterator,
    ):
        first = next(iterator)
        time.sleep(0.5)  # the thread is ahead by now
        with pytest.raises(ValueError, match="Sampler in checkpoint does not match") as refused:
            iterator.set_state(other.get_state())
        assert "see grain_datarax.checkpoint" in refused.value.__notes__[0]
        expected = expected_of(loader(SEEDED))
        assert [contents(batch) for batch in (first, *iterator)] == expected


def test_setting_a_state_leaves_it_as_it_is():
    with closing(iter(gdx.DeviceLoader(SOURCES["MapDataset"](), chain()))) as iterator:
        state = iterator.get_state()
        before = json.dumps(state)
        iterator.set_state(state)
        list(iterator)
        assert json.dumps(state) == before


def test_settings_of_a_fingerprint_are_told_apart_by_value():
    states = [
        iter(gdx.DeviceLoader(SOURCES["MapDataset"](), patch_dropout(num_patches=count, name="patches"))).get_state()
        for count in (2, np.int64(2), np.int64(3))
    ]
    assert states[0] == states[1] != states[2]


def entry(**parts):
    """A change of the entry of a state; ... as a part leaves it out."""

    def change(state):
        changed = {**state["grain_datarax"], **parts}
        return {**state, "grain_datarax": {name: part for name, part in changed.items() if part is not Ellipsis}}

    return change


def part(**parts):
    """A change of Grain's part of a state; ... as a part leaves it out."""
    return lambda state: {name: part for name, part in {**state, **parts}.items() if part is not Ellipsis}


BAD_ENTRIES = {
    "entry of another type": (part(grain_datarax=[1]), "`grain_datarax` must be a dict: got \\[1\\]"),
    "no entry": (part(grain_datarax=None), "`grain_datarax` must be a dict: got None"),
    "empty entry": (part(grain_datarax={}), "`stream_version` must be an int: got 'nothing'"),
    "batches as text": (entry(batches="0"), "`batches` must be a number of batches or None: got '0'"),
    "negative batches": (entry(batches=-1), "`batches` must be a number of batches or None: got -1"),
    "no batches": (entry(batches=...), "`batches` must be a number of batches or None: got 'nothing'"),
    "size as text": (entry(batch_size="8"), "`batch_size` must be a number of records: got '8'"),
    "no size": (entry(batch_size=...), "`batch_size` must be a number of records: got 'nothing'"),
    "size None": (entry(batch_size=None), "`batch_size` must be a number of records: got None"),
    "negative size": (entry(batch_size=-8), "`batch_size` must be a number of records: got -8"),
    "no version": (entry(stream_version=...), "`stream_version` must be an int: got 'nothing'"),
    "version as text": (entry(stream_version="1"), "`stream_version` must be an int: got '1'"),
    "no operators": (entry(operators=...), "`operators` must be a list: got 'nothing'"),
    "operators None": (entry(operators=None), "`operators` must be a list: got None"),
    "operators as text": (entry(operators=["noise"]), "`operators` must hold dicts with a `name` each: got 'noise'"),
    "operators without names": (entry(operators=[{}]), "`operators` must hold dicts with a `name` each: got {}"),
    "empty": (lambda _: {}, "`state` must have `(version|next_index)`: got {}"),
}
BAD_STATES = {
    "loader": {
        **BAD_ENTRIES,
        "seen as list": (part(last_seen_indices=[7]), "`last_seen_indices` must have each worker: got \\[7\\]"),
        "seen nothing": (part(last_seen_indices={}), "`last_seen_indices` must have each worker: got {}"),
        "seen as text": (part(last_seen_indices={"0": "7"}), "`last_seen_indices` must be ints: got {'0': '7'}"),
        "seen in between": (part(last_seen_indices={"0": 7.5}), "`last_seen_indices` must be ints: got {'0': 7.5}"),
        "seen too much": (part(last_seen_indices={"0": 32}), "`last_seen_indices` must lie within the 32 records"),
        "seen less than nothing": (part(last_seen_indices={"0": -2}), "`last_seen_indices` must lie within the 32"),
        "no seen": (part(last_seen_indices=...), "`state` must"),
        "workers as text": (part(worker_count="0"), "`worker_count` must be a number of workers: got '0'"),
        "no workers": (part(worker_count=...), "`worker_count` must be a number of workers: got 'nothing'"),
        "last worker as text": (part(last_worker_index="0"), "`last_worker_index` must be a worker or -1: got '0'"),
        "no last worker": (part(last_worker_index=...), "`last_worker_index` must be a worker or -1: got 'nothing'"),
        "no sampler": (part(sampler=...), "`sampler` must be a str: got 'nothing'"),
        "another sampler": (part(sampler="other"), "Sampler in checkpoint does not match"),
        "source None": (part(data_source=None), "`data_source` must be a str: got None"),
    },
    "MapDataset": {
        **BAD_ENTRIES,
        "index as text": (part(next_index="1"), "`next_index` must be an int: got '1'"),
        "index None": (part(next_index=None), "`next_index` must be an int: got None"),
        "index in between": (part(next_index=1.0), "`next_index` must be an int: got 1.0"),
        "index beyond the end": (part(next_index=5), "`state` must be one of the same kind of source.*IndexError"),
        "negative index": (part(next_index=-1), "`state` must be one of the same kind of source.*IndexError"),
        "state of another source": (lambda _: {"global_next_index": 8}, "`state` must have `next_index`"),
        "negative index of another": (lambda _: {"global_next_index": -8}, "`global_next_index` must be a number"),
        "no states of workers": (lambda _: {"iterators_in_use_states": []}, "`iterators_in_use_states` must be a list"),
    },
}


@pytest.mark.parametrize("buffer_size", [0, 2])
@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        pytest.param(source, *bad, id=f"{source}, {name}")
        for source, table in BAD_STATES.items()
        for name, bad in table.items()
    ],
)
def test_a_bad_state_is_refused_and_leaves_the_iterator_where_it_was(source, change, message, buffer_size):
    expected = expected_from(SOURCES[source])
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), chain(), buffer_size=buffer_size))) as iterator:
        assert contents(next(iterator)) == expected[0]
        before = iterator.get_state()
        assert contents(next(iterator)) == expected[1]
        after = iterator.get_state()
        good = before if source == "MapDataset" else json.loads(before)
        bad = change(good)
        with pytest.raises(ValueError, match=message):
            iterator.set_state(bad if source == "MapDataset" else json.dumps(bad).encode())
        assert iterator.get_state() == after
        assert contents(next(iterator)) == expected[2]
        iterator.set_state(before)
        assert contents(next(iterator)) == expected[1]


NO_STATES = {
    "dict for bytes": ("loader", {"next_index": 1}, TypeError, "`state` must be bytes: got {'next_index': 1}"),
    "text for bytes": ("loader", "{}", TypeError, "`state` must be bytes: got '{}'"),
    "no JSON": ("loader", b"{'a", ValueError, '`state` must be JSON: got b"{\'a"'),
    "no text": ("loader", b"\xff", ValueError, "`state` must be JSON: got b'\\\\xff'"),
    "nothing": ("loader", b"", ValueError, "`state` must be JSON: got b''"),
    "too deep": ("loader", b"[" * 100_000, ValueError, "`state` must be JSON: got b'\\[\\["),
    "a list": ("loader", b"[1]", ValueError, "`state` must be a dict: got \\[1\\]"),
    "bytes for a dict": ("MapDataset", b"{}", TypeError, "`state` must be a dict: got b'{}'"),
    "None": ("MapDataset", None, TypeError, "`state` must be a dict: got None"),
}


@pytest.mark.parametrize(("source", "state", "kind", "message"), NO_STATES.values(), ids=NO_STATES)
def test_what_is_no_state_is_refused(source, state, kind, message):
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), chain()))) as iterator:
        next(iterator)
        before = iterator.get_state()
        with pytest.raises(kind, match=message):
            iterator.set_state(state)
        assert iterator.get_state() == before
        assert contents(next(iterator)) == expected_from(SOURCES[source])[1]


BAD_STATES_OF_WORKERS = {
    "one worker": (lambda state: {**state, "iterators_in_use_states": state["iterators_in_use_states"][:1]}, "of 2 wo"),
    "empty": (part(iterators_in_use_states=[{}, {}]), "`iterators_in_use_states` must have `next_index`: got {}"),
    "negative": (part(iterators_in_use_states=[{"next_index": -1}] * 2), "`next_index` must be a number of elements"),
    "turn": (part(next_index_in_cycle=2), "`next_index_in_cycle` must be that of a worker: got 2"),
    "exhausted": (part(exhausted=[0]), "`exhausted` must be of 2 workers"),
    "no next": (part(next_index_in_datasets=...), "`state` must have `next_index_in_datasets`"),
}


@pytest.mark.parametrize(("change", "message"), BAD_STATES_OF_WORKERS.values(), ids=BAD_STATES_OF_WORKERS)
def test_a_bad_state_of_workers_is_refused(change, message):
    # No worker is started, as none is asked for a batch.
    with closing(iter(gdx.DeviceLoader(SOURCES["IterDataset, 2 workers"](), chain()))) as iterator:
        before = iterator.get_state()
        with pytest.raises(ValueError, match=message):
            iterator.set_state(change(before))
        assert iterator.get_state() == before
        iterator.set_state(before)


def test_a_state_that_an_error_of_another_kind_stops_leaves_the_iterator_where_it_was(monkeypatch):
    expected = expected_from(SOURCES["MapDataset"])
    with closing(iter(gdx.DeviceLoader(SOURCES["MapDataset"](), chain()))) as iterator:
        start = iterator.get_state()
        next(iterator)
        before, set_state = iterator.get_state(), type(iterator._parent).set_state

        def interrupt(parent, state):
            set_state(parent, state)
            if state == {"next_index": 0}:
                raise KeyboardInterrupt

        monkeypatch.setattr(type(iterator._parent), "set_state", interrupt)
        with pytest.raises(KeyboardInterrupt):
            iterator.set_state(start)
        assert iterator.get_state() == before
        assert contents(next(iterator)) == expected[1]


@pytest.mark.parametrize("change", [entry(stream_version=...), entry(operators={}), entry(operators=[3])])
def test_differences_of_what_is_no_fingerprint_are_an_error(change):
    good = launcher_of([noise()]).fingerprint()
    bad = change({"grain_datarax": good})["grain_datarax"]
    for sides in [(bad, good), (good, bad), (good, None)]:
        with pytest.raises(ValueError, match="` must (be|hold) .*: got "):
            differences(*sides)


@pytest.mark.parametrize(
    ("source", "start"),
    [
        ("loader", "DeviceIterator(source=DataLoader, "),
        ("MapDataset", "DeviceDatasetIterator(source=MapDataset, "),
        ("IterDataset", "DeviceDatasetIterator(source=IterDataset, "),
        ("ElasticIterator", "DeviceDatasetIterator(source=ElasticIterator, "),
    ],
)
def test_an_iterator_says_how_far_it_is(source, start):
    iterator = iter(gdx.DeviceLoader(SOURCES[source](), chain()))
    with closing(plain(SOURCES[source]())) as own:
        state = own.get_state()
    with iterator:
        assert repr(iterator) == f"{start}batches=0)"
        next(iterator)
        assert repr(iterator) == f"{start}batches=1)"
    assert repr(iterator) == f"{start}batches=1, closed)"
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), chain()))) as iterator:
        iterator.set_state(state)  # of Grain's own, which does not count
        assert repr(iterator) == f"{start}batches=an unknown number)"
        assert len(repr(iterator)) <= 120
