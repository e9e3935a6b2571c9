"""What happened to the records: counted on the device, read when it is there, and never waited for."""

import collections
import dataclasses
import functools
import threading
import warnings
from collections.abc import Sequence

import jax
import numpy as np
from jax.core import Tracer

from grain_datarax.records import Tally

_KINDS = ("applied", "skipped", "outside")


class Counts:
    """The counts of each link of a chain, and the tallies that the device may still be computing.

    Args:
      names: The links.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._totals = np.zeros((len(names), len(_KINDS)), np.int64)
        self._unread: collections.deque[tuple[int, Tally]] = collections.deque()
        self._said = False
        self._lock = threading.Lock()  # Grain may run a transform from several threads

    def add(self, count: int, tally: Tally | None) -> None:
        """Counts the first `count` records of a batch; does not wait for its tally. Tracers are not counted."""
        if tally is not None and isinstance(tally.rows, Tracer):
            return
        columns = tally.columns if tally is not None else ()
        with self._lock:
            self._totals[_places(columns, len(self._names)).always, 0] += count
            if tally is not None:
                self._unread.append((count, tally))
        self._read(wait=False)

    def read(self) -> dict[str, dict[str, int]]:
        """The counts by link; waits for the device where it must."""
        self._read(wait=True)
        totals = self._totals.tolist()
        return {name: dict(zip(_KINDS, row, strict=True)) for name, row in zip(self._names, totals, strict=True)}

    def _read(self, *, wait: bool) -> None:
        with self._lock:
            while self._unread and (wait or is_ready(self._unread[0][1].rows)):
                count, tally = self._unread.popleft()
                rows, places = own_rows(tally.rows, count), _places(tally.columns, len(self._names))
                sums = rows.sum(axis=0, dtype=np.int64)
                self._totals[places.links, places.kinds] += sums
                self._totals[places.sometimes, _KINDS.index("skipped")] += len(rows) - sums[places.kinds == 0]
            say = not self._said and bool(self._totals[:, -1].any())
            self._said = self._said or say
            outside = {
                name: int(row[-1]) for name, row in zip(self._names, self._totals, strict=True) if row[-1] and say
            }
        if say:
            warn_of_values_outside("value_range", outside)


@dataclasses.dataclass(frozen=True)
class _Places:
    """Where the columns of a tally are counted, by index.

    Attributes:
      links: The link of each column.
      kinds: Its kind, an index into `_KINDS`.
      sometimes: The links that do not treat all records.
      always: Those that do.
    """

    links: np.ndarray
    kinds: np.ndarray
    sometimes: np.ndarray
    always: np.ndarray


@functools.cache
def _places(columns: tuple[tuple[int, str], ...], count: int) -> _Places:
    links, kinds = np.array([[index, _KINDS.index(what)] for index, what in columns], int).reshape(-1, 2).T
    sometimes = links[kinds == 0]
    return _Places(links, kinds, sometimes, np.setdiff1d(np.arange(count), sometimes))


def warn_of_values_outside(setting: str, outside: dict[str, int]) -> None:
    """Says that values were clipped which lay outside the range; `outside` has their number by link."""
    warnings.warn(
        f"`{setting}` must hold the values of all images: got {outside} values outside so far, which were clipped to"
        " it. Scale those images, or widen the range; counts() goes on counting.",
        stacklevel=2,
    )


def is_ready(rows: jax.Array | None) -> bool:
    """Whether reading would not wait for the device."""
    return rows is None or bool(rows.is_ready())  # type: ignore[attr-defined]


def own_rows(rows: jax.Array, count: int) -> np.ndarray:
    """The first `count` rows; of a global array those that this process holds, and of their copies the first."""
    shards = [shard for shard in rows.addressable_shards if shard.replica_id == 0]
    with jax.transfer_guard_device_to_host("allow"):  # which is meant; jax.device_get takes longer
        parts = [np.asarray(shard.data)[: max(count - (shard.index[0].start or 0), 0)] for shard in shards]
    return np.concatenate(parts)
