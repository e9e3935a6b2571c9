"""A run, set against the base -> what is wrong with it."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from grain_datarax.testing.comparison import compare
from grain_datarax.testing.report import Line, listed
from grain_datarax.testing.rows import Run

# In which order records must come: as in the base, those of one key as there, or any.
Order: TypeAlias = Literal["same", "by key", "any"]


def line_of(
    axis: str, tried: str, base: Run, run: Callable[[], Run], order: Order, shards: int = 1, noun: str = "record"
) -> Line:
    """What comes of a run, set against another."""
    try:
        other = run()
    except Exception as error:
        return failed(axis, tried, error)
    in_order = order != "any" and not base.workers and not other.workers
    found = compare(base.rows, other.rows, ordered=order == "same" or in_order)
    # What one has handed out is lost in the other if that came to its end.
    missing, extra = found.missing if other.ended else (), found.extra if base.ended else ()
    faults = [f"{noun} {found.first}. Changed are {listed(found.changed)}"] if found.first else []
    faults += _order_faults(base, other) if order == "same" else []
    epochs = max(Counter(row.key for row in base.rows).values(), default=1)
    dropped = 0 if order == "same" else _in_remainders(other, shards) + (shards - 1) * epochs
    faults += _count_faults(f"{noun}s lost", missing, dropped)
    faults += _count_faults(f"{noun}s new or doubled", extra, 0 if order == "same" else _in_remainders(base, 1))
    if not found.compared and not faults:
        faults.append(f"no {noun} came that was there before")
    return Line(axis, tried, found.compared, found.changed, missing, extra, tuple(faults))


def failed(axis: str, tried: str, error: Exception) -> Line:
    """What comes of a run that raised."""
    flags = " Call absl.flags.FLAGS.mark_as_parsed() first (google/grain#1355)"
    remedy = flags if type(error).__name__ == "UnparsedFlagAccessError" else ""
    return Line(axis, tried, 0, faults=(f"raised {type(error).__name__}: {error}{remedy}",))


def _order_faults(base: Run, other: Run) -> list[str]:
    pairs = enumerate(zip(base.rows, other.rows, strict=False))
    moved = next((place for place, (before, after) in pairs if before.key != after.key), None)
    if moved is None:
        return []
    return [f"another order: record {other.rows[moved].key!r} came as number {moved}, not {base.rows[moved].key!r}"]


def _in_remainders(run: Run, shards: int) -> int:
    """How many records may be dropped with batches that are not full, one for each worker of each shard."""
    if run.largest > min(run.sizes, default=0):  # one that is not full was handed out
        return 0
    return shards * max(run.workers, 1) * max(run.largest - 1, 0)


def _count_faults(what: str, keys: Sequence[object], explained: int) -> list[str]:
    if len(keys) <= explained:
        return []
    remainders = f", of which dropped remainders explain {explained}" if explained else ""
    return [f"{len(keys)} {what}{remainders}: {listed(keys)}"]
