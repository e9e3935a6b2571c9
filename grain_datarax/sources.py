"""grain.DataLoader, IterDataset or MapDataset -> a dataset of host batches."""

import copy
import functools
import json
import sys
import weakref
from collections.abc import Sized
from typing import Any

import grain

from grain_datarax.endings import Whole, with_errors_for_ends
from grain_datarax.waiting import Awaited, parts_of


def host_batches(source: Any, buffer_size: int) -> grain.IterDataset[Any]:
    """The source as an `IterDataset`, whose iterators are in nobody else's hands."""
    dataset: grain.IterDataset[Any]
    if isinstance(source, grain.MapDataset):
        # Grain's default reads 500 elements ahead, which are batches here.
        dataset = source.to_iter_dataset(grain.ReadOptions(min(buffer_size, 16), buffer_size))
    elif isinstance(source, grain.DataLoader):
        dataset = _LoaderDataset(source)
    elif isinstance(source, grain.experimental.ElasticIterator):
        dataset = _ElasticDataset(source)
    else:
        dataset = source
    dataset = _Rewindable(dataset)
    return Awaited(dataset) if _has_workers(source) else Whole(dataset)


class _ElasticDataset(grain.IterDataset[Any]):
    """A `grain.experimental.ElasticIterator` with iterators of its own, from where its user has left it."""

    def __init__(self, source: grain.experimental.ElasticIterator) -> None:
        super().__init__()
        self._source = source
        self._state = source.get_state()

    def __iter__(self) -> grain.DatasetIterator[Any]:
        # It has one iterator for all who ask, which the thread would run ahead with.
        own = copy.copy(self._source)
        vars(own).pop("_default_iterator", None)
        own.set_state(self._state)
        return iter(own)


class _LoaderDataset(grain.IterDataset[Any]):
    """A `grain.DataLoader` as a dataset."""

    def __init__(self, loader: grain.DataLoader) -> None:
        super().__init__()
        self._loader = with_errors_for_ends(loader)

    def __iter__(self) -> grain.DatasetIterator[Any]:
        return _LoaderDatasetIterator(iter(self._loader))


class _LoaderDatasetIterator(grain.DatasetIterator[Any]):
    """A `grain.DataLoaderIterator` whose states are dicts, the JSON of its own."""

    def __init__(self, iterator: grain.DataLoaderIterator) -> None:
        super().__init__()
        self._iterator = iterator

    def __next__(self) -> Any:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._iterator.get_state())
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._iterator.set_state(json.dumps(state, indent=4).encode())

    def start_prefetch(self) -> None:
        self._iterator.start_prefetch()

    def close(self) -> None:
        super().close()
        self._iterator._iterator.close()  # a DataLoaderIterator has no close of its own


class _Rewindable(grain.IterDataset[Any]):
    """The same elements; what its iterators are set to is where they are, also behind their end."""

    def __iter__(self) -> grain.DatasetIterator[Any]:
        iterator = iter(self._parent)
        _forget_ends(iterator)
        return iterator


def _forget_ends(iterator: Any) -> None:
    """Lets the datasets of workers, and others that are interleaved, forget in `set_state` that they were at their end.

    Grain keeps it (0.2.18), so that states behind say it again, and whoever goes on from these misses what is left:
    https://github.com/google/grain/blob/v0.2.18/grain/_src/python/dataset/transformations/interleave.py
    """
    below = (
        [iterator._iterator._iterator]
        if isinstance(iterator, _LoaderDatasetIterator)
        else getattr(iterator, "_parents", ())
    )
    for each in below:
        _forget_ends(each)
    if "_exhausted_iterator_state" in vars(iterator):
        iterator.set_state = functools.partial(_set_anew, weakref.ref(iterator))


def _set_anew(interleaved: Any, state: dict[str, Any]) -> None:
    iterator = interleaved()
    iterator._exhausted_iterator_state = [None] * len(iterator._exhausted_iterator_state)
    try:
        type(iterator).set_state(iterator, state)
    except BaseException:
        # It may hold iterators of other datasets than it says by now, and would go on with them.
        iterator._iterators_in_use = [None] * len(iterator._iterators_in_use)
        raise


def require_within(loader: grain.DataLoader, state: dict[str, Any]) -> None:
    """Raises a ValueError if a worker would stand outside its records: Grain's workers find out too late."""
    options, workers = loader._shard_options, loader.multiprocessing_options.num_workers
    if state.get("worker_count", 0) != workers or "last_seen_indices" not in state:
        return  # Grain refuses it, or it is that of a loader with FlatMap
    assert options is not None  # the sampler's own, if the loader was given none
    records = len(loader._sampler) if isinstance(loader._sampler, Sized) else sys.maxsize
    records -= records % options.shard_count
    lanes = options.shard_count * max(workers, 1)
    for worker, last in state["last_seen_indices"].items():
        lane = options.shard_index + options.shard_count * int(worker)
        if not lane - lanes <= last < max(records, lane):
            raise ValueError(
                f"`last_seen_indices` must lie within the {records} records: got {last} of worker {worker}. Restore"
                " with the loader that it was saved with."
            )


def is_above_an_elastic_iterator(dataset: grain.IterDataset[Any]) -> bool:
    """Whether the dataset reads from an `ElasticIterator`, at any depth."""
    return any(
        isinstance(parent, grain.experimental.ElasticIterator)
        or (isinstance(parent, grain.IterDataset) and is_above_an_elastic_iterator(parent))
        for parent in dataset.parents
    )


def kind_of(source: Any) -> str:
    """What the source is to Grain, in a word."""
    kinds = (grain.DataLoader, grain.MapDataset, grain.experimental.ElasticIterator, grain.IterDataset)
    return next(str(kind.__name__) for kind in kinds if isinstance(source, kind))


def may_have_workers(source: Any) -> bool:
    """Whether Grain's worker processes may stand behind the source: an `IterDataset` doesn't say."""
    if isinstance(source, grain.DataLoader):
        return bool(source.multiprocessing_options.num_workers > 0)
    return not isinstance(source, grain.MapDataset)


def _has_workers(source: Any) -> bool:
    """Whether worker processes are to be found behind the source, as far as its parts hold each other."""
    return any(
        (isinstance(part, grain.MultiprocessingOptions) and part.num_workers > 0)
        or type(part).__name__ == "ProcessPrefetchIterDataset"  # which Grain has no public name for
        for part in parts_of(source, (grain.DataLoader, grain.IterDataset))
    )
