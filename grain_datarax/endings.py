"""Sources and operations of users, in which StopIteration is an error: to Grain it would be the end of the data."""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from grain_datarax.parcels import is_end, refusal_of


def with_errors_for_ends(loader: grain.DataLoader) -> grain.DataLoader:
    """The same loader, with the same states; its workers unpickle something of ours, whatever its operations are."""
    own = copy.copy(loader)
    own._data_source = _Source(loader._data_source)
    own._operations = [_operation(operation) for operation in loader._operations]
    own._dataset = own._create_dataset()
    return own


class Whole(grain.IterDataset[Any]):
    """The same elements, which end where Grain ends them.

    Grain's `IterDataset.batch` ends a batch where an element raises StopIteration, and tells nobody.
    """

    def __iter__(self) -> grain.DatasetIterator[Any]:
        return _WholeIterator(iter(self._parent))


class _WholeIterator(grain.DatasetIterator[Any]):
    def __next__(self) -> Any:
        try:
            return next(self._parent)
        except StopIteration as error:
            if is_end(error):
                raise
            raise refusal_of(error) from error

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._parent.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)


class _Source:
    """The same records of a data source, told by Grain from others by the same text."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        return _called(self._source.__getitem__, index)

    def __repr__(self) -> str:
        in_memory = isinstance(self._source, list | tuple | np.ndarray)  # as in Grain's DataLoader
        return str(type(self._source)) if in_memory else repr(self._source)


class _Map(grain.transforms.Map):
    def __init__(self, map_: Callable[..., Any]) -> None:
        self._map = map_

    def map(self, element: Any) -> Any:
        return _called(self._map, element)


class _RandomMap(grain.transforms.RandomMap):
    def __init__(self, random_map: Callable[..., Any]) -> None:
        self._random_map = random_map

    def random_map(self, element: Any, rng: np.random.Generator) -> Any:
        return _called(self._random_map, element, rng)


class _Filter(grain.transforms.Filter):
    def __init__(self, filter_: Callable[..., Any]) -> None:
        self._filter = filter_

    def filter(self, element: Any) -> Any:
        return _called(self._filter, element)


class _FlatMap(grain.experimental.FlatMapTransform):
    def __init__(self, flat_map: Callable[..., Any], max_fan_out: int) -> None:
        self._flat_map, self.max_fan_out = flat_map, max_fan_out

    def flat_map(self, element: Any) -> Any:
        return _called(self._flat_map, element)


def _operation(operation: Any) -> Any:
    if isinstance(operation, grain.transforms.Map):
        return _Map(operation.map)
    if isinstance(operation, grain.transforms.RandomMap):
        return _RandomMap(operation.random_map)
    if isinstance(operation, grain.transforms.TfRandomMap):
        return _RandomMap(operation.np_random_map)
    if isinstance(operation, grain.transforms.Filter):
        return _Filter(operation.filter)
    if isinstance(operation, grain.experimental.FlatMapTransform):
        return _FlatMap(operation.flat_map, operation.max_fan_out)
    if isinstance(operation, grain.transforms.Batch) and operation.batch_fn is not None:
        return dataclasses.replace(operation, batch_fn=_batch_function(operation.batch_fn))
    return operation


def _batch_function(function: Any) -> Callable[..., Any]:
    own = functools.partial(_called, function)
    if hasattr(function, "enable_shared_memory_output"):  # asked for by Grain
        vars(own)["enable_shared_memory_output"] = function.enable_shared_memory_output
    return own


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except StopIteration as error:
        raise refusal_of(error) from error
