"""Records that share a seed, and so their noise: found on the host, and said once."""

import functools
import threading
import warnings
from typing import Any

import numpy as np

from grain_datarax.seeding import RECORD_SEED

_CAUSES = (
    " Where datasets are mixed, draw behind that, or pass each its own SeedRecords(salt=...); where a FlatMap or an"
    " oversampling makes several records of one, wrap it in SeedChildren, or give each the seed"
    " child_seed(seed, place). One record that SeedRecords(key=...) meets twice has one seed: leave it."
)
_NEXT_PASS = (
    "which repeats every pixel, as Grain draws the same in each pass. For new ones, pass once over all epochs:"
    " IndexSampler(..., num_epochs=n), or dataset.repeat(n) in front of SeedRecords; or make a loader for each epoch,"
    " its sampler or dataset seeded by the epoch, and SeedRecords(salt=str(epoch)), as neighbouring seeds of samplers"
    " share their generators. For an evaluation that is to repeat, or what is read twice on purpose, leave it."
)


class SeedWatch:
    """Looks at the seeds of host batches, and warns once of seeds that are there twice in one.

    Args:
      passes: Warn once also when the first batch comes again behind others.
    """

    def __init__(self, *, passes: bool) -> None:
        self._passes = passes
        self._first: np.ndarray | None = None
        self._others_came = False
        self._said_twice = self._said_again = False
        self._lock = threading.Lock()  # Grain may run a transform from several threads

    def __reduce__(self) -> Any:  # a copy in another process begins anew
        return functools.partial(SeedWatch, passes=self._passes), ()

    def look(self, seeds: np.ndarray) -> None:
        """Looks at the seeds of a batch, uint32 `(B, 2)`; at nothing else."""
        if seeds.shape[1:] != (2,) or seeds.dtype != np.uint32 or not len(seeds):
            return  # which is told of where shapes are looked at
        whole = np.ascontiguousarray(seeds).view(np.uint64).ravel()
        if not self._said_twice and has_equal(whole):
            with self._lock:
                say, self._said_twice = not self._said_twice, True
            if say:
                _warn_of_equal(whole)
        if self._passes and not self._said_again:
            self._look_for_the_first(whole)

    def _look_for_the_first(self, whole: np.ndarray) -> None:
        if self._first is None:
            self._first = whole.copy()
        elif whole[0] != self._first[0] or not np.array_equal(whole, self._first):
            self._others_came = True
        elif self._others_came:
            with self._lock:
                say, self._said_again = not self._said_again, True
            if say:
                warn_of_next_pass(f"`{RECORD_SEED}` must be new in each epoch: got those of the first batch again")


class PassWatch:
    """Warns once of a pass over a loader that follows a whole one."""

    def __init__(self) -> None:
        self._passed = self._said = False

    def ends(self) -> None:
        """A pass has come to its end."""
        self._passed = True

    def begins(self) -> None:
        """A pass begins, from the start."""
        if self._passed and not self._said:
            self._said = True
            warn_of_next_pass("`loader` must give new records in each epoch: got another pass over the same one")


def has_equal(values: np.ndarray) -> bool:
    """Whether a value is there twice; 0 may be, in rows of padding."""
    ordered = np.sort(values)
    return bool(((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)).any())


def warn_of_next_pass(what: str) -> None:
    """Says that a source was passed over before, and what to do."""
    warnings.warn(f"{what}, {_NEXT_PASS}", stacklevel=2)


def _warn_of_equal(values: np.ndarray) -> None:
    different, first, counts = np.unique(values, return_index=True, return_counts=True)
    shared = (counts > 1) & (different != 0)
    rows = np.flatnonzero(values == different[shared][first[shared].argmin()])
    warnings.warn(
        f"`{RECORD_SEED}` must differ from record to record: got {(counts[shared] - 1).sum()} of {len(values)} that"
        f" others in the batch have, too, such as rows {rows[0]} and {rows[1]}, which get the same noise.{_CAUSES}",
        stacklevel=2,
    )
