"""What happened to the records: counted on the device, read when it is there, and never waited for."""

import collections
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
        apart = {index for index, what in tally.columns if what == "applied"} if tally is not None else set()
        with self._lock:
            self._totals[[index for index in range(len(self._names)) if index not in apart], 0] += count
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
                rows = own_rows(tally.rows, count)
                for (index, what), total in zip(tally.columns, rows.sum(axis=0, dtype=np.int64), strict=True):
                    self._totals[index, _KINDS.index(what)] += total
                    if what == "applied":
                        self._totals[index, _KINDS.index("skipped")] += len(rows) - total
            outside = {name: int(row[-1]) for name, row in zip(self._names, self._totals, strict=True) if row[-1]}
            say, self._said = bool(outside) and not self._said, self._said or bool(outside)
        if say:
            warn_of_values_outside("value_range", outside)


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
    return np.concatenate([np.asarray(shard.data)[: max(count - (shard.index[0].start or 0), 0)] for shard in shards])
