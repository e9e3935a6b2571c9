"""Batches that a thread of Grain's makes ahead."""

from typing import Any

import grain


def prefetched(dataset: grain.IterDataset[Any], buffer_size: int) -> grain.IterDataset[Any]:
    """The dataset, so many elements of which are made ahead; with a size of 0 there is no thread."""
    if buffer_size == 0:  # Grain's thread would fill a buffer without bounds
        return dataset
    return grain.experimental.ThreadPrefetchIterDataset(_ForThread(dataset), prefetch_buffer_size=buffer_size)


class _ForThread(grain.IterDataset[Any]):
    """The same elements, and none but an Exception."""

    def __iter__(self) -> grain.DatasetIterator[Any]:
        return _ForThreadIterator(iter(self._parent))


class _ForThreadIterator(grain.DatasetIterator[Any]):
    """Raises a RuntimeError for what would end Grain's thread without a word, so that `next` would wait for ever."""

    # Grain hands on Exceptions alone, as of 0.2.18:
    # https://github.com/google/grain/blob/main/grain/_src/python/dataset/transformations/prefetch.py
    def __next__(self) -> Any:
        try:
            return next(self._parent)
        except Exception:
            raise
        except BaseException as error:
            raise RuntimeError(
                f"`source` and `operators` must raise Exceptions alone where batches are made ahead: got {error!r}."
                " Raise another, or pass buffer_size=0."
            ) from error

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._parent.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)
