"""The states of a DeviceLoader's iterators: those of Grain's own, and what is refused."""

import json
import time

import grain
import numpy as np
import pytest
from device_sources import SEEDED, SOURCES, chain, every_buffer_size, every_source, expected_from, expected_of, plain
from helpers import closing, contents, loader, noise, patch_dropout

import grain_datarax as gdx


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

    from grain_datarax.operators import fingerprint

    state = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise()])).get_state()
    iterator = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise().copy(rngs=nnx.Rngs(1))]))
    with pytest.raises(ValueError, match="`root_key` "):
        iterator.set_state(state)
    monkeypatch.setattr(fingerprint, "STREAM_VERSION", 2)
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
