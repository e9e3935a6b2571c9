"""What operators and sources raise arrives at `next`, and neither ends the data nor leaves it waiting."""

import asyncio
import threading

import grain
import numpy as np
import pytest
from device_sources import BATCH, SEEDED, SOURCES, Map, chain, dataset, expected_from
from helpers import closing, contents, loader
from sources import records

import grain_datarax as gdx

pytestmark = pytest.mark.once


class Own(BaseException):
    """No Exception."""


NO_EXCEPTIONS = [SystemExit(3), GeneratorExit(), KeyboardInterrupt(), asyncio.CancelledError(), Own("own")]
every_no_exception = pytest.mark.parametrize("error", NO_EXCEPTIONS, ids=lambda error: type(error).__name__)


class Raises(gdx.ModalityOperator):
    def effect(self, image, params):
        raise self.error


def raises(error):
    operator = Raises(gdx.ModalityOperatorConfig(field_key="image"))
    operator.error = error
    return operator


def raised_within(seconds, act):
    """What `act` raises; fails if it still goes on then, as a `next` that waits for ever does."""
    raised = []

    def catch():
        try:
            raised.append(act())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=catch, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"
    return raised[0]


def failing_at(label, error):
    def check(record):
        if record["label"] == label:
            raise error
        return record

    return Map(check)


class FailingSource:
    """Records as those of `dataset`, the 20th of which raises an error."""

    def __init__(self, error):
        self._records, self._error = dataset(), error

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        if index == 19:
            raise self._error
        return self._records[index]

    def __repr__(self):
        return "FailingSource"


def iter_dataset(error):
    return grain.MapDataset.source(FailingSource(error)).to_iter_dataset(grain.ReadOptions(0, 0)).batch(BATCH)


# The third batch of each raises it.
FAILING = {
    "loader, its source": lambda error: grain.DataLoader(
        data_source=FailingSource(error),
        sampler=grain.samplers.SequentialSampler(32, seed=3),
        operations=[grain.transforms.Batch(BATCH)],
    ),
    "loader, an operation": lambda error: loader([failing_at(18, error), *SEEDED], shuffle=False),
    "MapDataset": lambda error: grain.MapDataset.source(FailingSource(error)).batch(BATCH),
    "IterDataset": iter_dataset,
    "IterDataset, a map behind Batch": lambda error: (
        dataset()
        .to_iter_dataset(grain.ReadOptions(0, 0))
        .batch(BATCH)
        .map_with_index(lambda index, batch: failing_at(index, error).map({"label": 2}) and batch)
    ),
}


@pytest.mark.parametrize("buffer_size", [0, 2])
@pytest.mark.parametrize("source", ["loader", "MapDataset", "IterDataset", "ElasticIterator"])
def test_stop_iteration_out_of_an_operator_does_not_end_the_data(source, buffer_size):
    batches = iter(gdx.DeviceLoader(SOURCES[source](), raises(StopIteration(5)), buffer_size=buffer_size))
    with closing(batches) as iterator:
        raised = raised_within(20, lambda: next(iterator))
        assert isinstance(raised, RuntimeError)
        assert "`operators` must not raise StopIteration: got StopIteration(5) on a batch" in str(raised)
        assert isinstance(raised.__cause__, StopIteration)


def raise_stop(*_):
    raise StopIteration(5)


class MapStops(grain.transforms.Map):
    map = raise_stop


class RandomMapStops(grain.transforms.RandomMap):
    random_map = raise_stop


class TfRandomMapStops(grain.transforms.TfRandomMap):
    np_random_map = raise_stop


class FilterStops(grain.transforms.Filter):
    filter = raise_stop


class FlatMapStops(grain.experimental.FlatMapTransform):
    max_fan_out = 2
    flat_map = raise_stop


STOPPING = {
    **{kind.__name__: lambda kind=kind: loader([*SEEDED[:1], kind(), *SEEDED[1:]]) for kind in
       (MapStops, RandomMapStops, TfRandomMapStops, FilterStops, FlatMapStops)},
    "batch_fn": lambda: loader([*SEEDED[:1], grain.transforms.Batch(BATCH, batch_fn=raise_stop)]),
    "loader, its source": lambda: FAILING["loader, its source"](StopIteration(5)),
    "MapDataset": lambda: FAILING["MapDataset"](StopIteration(5)),
    "MapDataset, a map": lambda: dataset().map(raise_stop).batch(BATCH),
    "IterDataset, a map behind Batch": lambda: FAILING["IterDataset, a map behind Batch"](StopIteration(5)),
}  # fmt: skip


@pytest.mark.parametrize("buffer_size", [0, 2])
@pytest.mark.parametrize("source", STOPPING)
def test_stop_iteration_out_of_a_source_does_not_end_the_data(source, buffer_size):
    with closing(iter(gdx.DeviceLoader(STOPPING[source](), buffer_size=buffer_size))) as iterator:
        raised = raised_within(20, lambda: list(iterator))
        assert isinstance(raised, RuntimeError)
        assert "must not raise StopIteration, which would end the data: got StopIteration(5)" in str(raised)
        assert isinstance(raised.__cause__, StopIteration)


class Limited(grain.IterDataset):
    """An iterator of the user's own, which ends in a function that its `__next__` calls."""

    def __iter__(self):
        return LimitedIterator(iter(self._parent))


class LimitedIterator(grain.DatasetIterator):
    def __next__(self):
        return self.advance()

    def advance(self):
        batch = next(self._parent)
        if 28 in batch["label"]:
            raise StopIteration
        return batch

    def get_state(self):
        return self._parent.get_state()

    def set_state(self, state):
        self._parent.set_state(state)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
def test_an_iterator_of_the_users_own_ends_the_data(workers):
    batches = Limited(grain.MapDataset.source(records(40)).batch(BATCH).to_iter_dataset())
    options = grain.MultiprocessingOptions(num_workers=workers)
    with closing(iter(gdx.DeviceLoader(batches.mp_prefetch(options) if workers else batches))) as iterator:
        assert len(raised_within(60, lambda: list(iterator))) == 3


class PaddedBatch:
    """A batch function that can put its arrays into shared memory, as Grain asks it to."""

    shared = False

    def enable_shared_memory_output(self):
        self.shared = True

    def __call__(self, records):
        return {"label": np.array([record["label"] for record in records]), "shared": self.shared}


@pytest.mark.long
def test_a_batch_function_is_asked_for_shared_memory_as_without_a_device_loader():
    source = loader([grain.transforms.Batch(BATCH, batch_fn=PaddedBatch())], workers=1)
    with closing(iter(source)) as own, closing(iter(gdx.DeviceLoader(source))) as device:
        assert [next(own)["shared"], next(device)["shared"]] == [True, True]


@every_no_exception
@pytest.mark.parametrize("source", ["loader", "MapDataset", "IterDataset"])
def test_what_is_no_exception_arrives_from_an_operator_in_the_thread(source, error):
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), raises(error)))) as iterator:
        before = iterator.get_state()
        raised = raised_within(20, lambda: next(iterator))
        assert isinstance(raised, RuntimeError)
        assert f"must raise Exceptions alone where batches are made ahead: got {error!r}" in str(raised)
        assert raised.__cause__ is error
        assert iterator.get_state() == before


@every_no_exception
@pytest.mark.parametrize("source", FAILING)
def test_what_is_no_exception_arrives_from_a_source_in_the_thread(source, error):
    with closing(iter(gdx.DeviceLoader(FAILING[source](error)))) as iterator:
        next(iterator), next(iterator)
        before = iterator.get_state()
        raised = raised_within(20, lambda: next(iterator))
        assert isinstance(raised, RuntimeError)
        assert raised.__cause__ is error
        assert iterator.get_state() == before


@every_no_exception
@pytest.mark.parametrize("source", FAILING)
def test_without_a_thread_it_goes_through_as_it_is(source, error):
    with closing(iter(gdx.DeviceLoader(FAILING[source](error), buffer_size=0))) as iterator:
        next(iterator), next(iterator)
        with pytest.raises(type(error)) as raised:
            next(iterator)
        assert raised.value is error
    with closing(iter(gdx.DeviceLoader(SOURCES["MapDataset"](), raises(error), buffer_size=0))) as iterator:
        with pytest.raises(type(error)) as raised:
            next(iterator)
        assert raised.value is error


@pytest.mark.parametrize("buffer_size", [0, 2])
@pytest.mark.parametrize("source", ["loader", "MapDataset", "IterDataset", "ElasticIterator"])
def test_a_source_that_has_ended_ends_the_data(source, buffer_size):
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), chain(), buffer_size=buffer_size))) as iterator:
        assert [contents(batch) for batch in iterator] == expected_from(SOURCES[source])
        assert isinstance(raised_within(20, lambda: next(iterator)), StopIteration)
