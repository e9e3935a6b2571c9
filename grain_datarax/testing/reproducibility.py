"""Does every record come out the same, whatever its pipeline is run with?"""

from collections.abc import Callable, Sequence
from typing import Any

from grain_datarax.testing.arguments import Maker
from grain_datarax.testing.matrix import AXES, Matrix, NotTried
from grain_datarax.testing.report import Line, Report
from grain_datarax.testing.rows import Key, Only, Reading, passes_unsaid


def assert_reproducible(
    make_pipeline: Callable[..., Any],
    *,
    key: Key,
    records: int = 128,
    axes: Sequence[str] | None = None,
    batch_sizes: Sequence[int] = (3, 1, 8),
    worker_counts: Sequence[int] = (0, 2),
    shard_counts: Sequence[int] = (1, 2),
    resume_steps: Sequence[int] | None = None,
    fields: Sequence[str] | None = None,
    batched: bool = True,
    timeout: float = 300.0,
) -> Report:
    """Runs a pipeline in many ways, and raises unless each record comes out the same in all, bit for bit.

    One thing is varied at a time, and what comes out is compared with the base: the first batch size, the first number
    of workers, one shard, from the start. What can't be varied is named in the report, with the reason.

    | axis | what is tried | what `make_pipeline` takes for it | order |
    | --- | --- | --- | --- |
    | `second_run` | a new pipeline in this process | | the same |
    | `second_process` | one in a process of its own, in which strings have other hashes | | the same |
    | `batch_size` | other batch sizes | `batch_size` | of each key |
    | `per_record` | single records, augmented before they would be batched | `per_record` | of each key |
    | `worker_count` | other numbers of worker processes | `worker_count` | any |
    | `shard_count` | all shards, of other numbers | `shard_options`, or `shard_index` and `shard_count` | any |
    | `together` | the largest batches, most workers and most shards | two of these | any |
    | `resume` | a new pipeline that is set to a state, with every number of workers | | the same |

    The same key again, in another epoch, is compared with the same occurrence, or where any order is right with any of
    them. `resume` needs an iterator with `get_state` and `set_state`; states go through JSON, or are bytes. Records
    that are lost or doubled are looked for where all have been read. Dropped remainders explain some: in each worker of
    each shard less than a batch, unless one that is not full was handed out, and for each epoch less than the number of
    shards.

    Args:
      make_pipeline: Returns a new pipeline: a `grain.DataLoader`, `MapDataset` or `IterDataset`, a `DeviceLoader`, or
        any iterable of batches. It is called with those of the keyword arguments above that it takes, but for those
        that a `functools.partial` fixes: `shard_options` is a `grain.sharding.ShardOptions`, and `per_record=True` asks
        for single records. For the second process it must be one that can be imported, or that cloudpickle takes.
      key: What tells records apart: a field or several, by path, or a function of a record, which returns None for a
        row of padding.
      records: How many are compared, from the start; fewer if there are fewer.
      axes: Which are varied, alone, in `together` and in `resume`. None: all that can be.
      batch_sizes: The first is the base. Over several devices they must divide.
      worker_counts: The first is the base. Workers need absl's flags parsed: `absl.flags.FLAGS.mark_as_parsed()`.
      shard_counts: The base is 1.
      resume_steps: After how many batches it is resumed. None: after 1, and in the middle.
      fields: Which are compared, by path. None: all.
      batched: False: `make_pipeline` returns single records always.
      timeout: How many seconds the second process may take. It needs the accelerator too: leave it out where one
        process takes all of it.

    Returns:
      What was tried; as a string it is a table.

    Raises:
      AssertionError: With that table, if something differs.
      TypeError, ValueError: If an argument has the wrong type or value.
      KeyError: If a field is missing.

    Example:
      >>> import grain
      >>> def make_pipeline(batch_size, per_record=False):
      ...     dataset = grain.MapDataset.range(12).random_map(lambda i, rng: {"id": i, "x": rng.random()}, seed=7)
      ...     return dataset if per_record else dataset.batch(batch_size)
      >>> axes = ("second_run", "batch_size", "per_record", "resume")
      >>> print(assert_reproducible(make_pipeline, key="id", axes=axes))
      12 records of make_pipeline, against batch_size=3:
      <BLANKLINE>
          tried                  compared  changed  missing  extra
      ok  second run                   12        0        0      0
      ok  batch_size=1                 12        0        0      0
      ok  batch_size=8                 12        0        0      0
      ok  per_record=True              12        0        0      0
      ok  resume at step 1 of 4         9        0        0      0
      ok  resume at step 2 of 4         6        0        0      0
      <BLANKLINE>
      not tried: second_process, worker_count, shard_count, together (left out by `axes`)
    """
    values = {
        "batch_size": _values("batch_sizes", batch_sizes, 1),
        "worker_count": _values("worker_counts", worker_counts, 0),
        "shard_count": _values("shard_counts", (1, *shard_counts), 1),
    }
    _values("records", (records,), 1)
    if unknown := sorted({*(axes or ())} - {*AXES}):
        raise ValueError(f"`axes` must be of {', '.join(AXES)}: got {', '.join(unknown)}. Correct or leave out.")
    if axes is not None:
        values = {name: given if name in axes else given[:1] for name, given in values.items()}
    reading = Reading(key, None if fields is None else Only(tuple(fields)), batched)
    matrix = Matrix(Maker(make_pipeline), reading, records, values, resume_steps, timeout)
    with passes_unsaid():
        lines, notes = _tried(matrix, axes)
    subject = f"{len(matrix.base.rows)} records of {matrix.maker.name}, against {_base_of(matrix)}:"
    return Report(subject, lines, notes).require()


def _tried(matrix: Matrix, axes: Sequence[str] | None) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """What came of the axes, and what could not be tried."""
    lines: list[Line] = []
    notes: list[str] = []
    for axis, lines_of in AXES.items():
        if axes is None or axis in axes:
            try:
                lines += lines_of(matrix)
            except NotTried as reason:
                if axes is not None:
                    raise ValueError(f"`axes` must be such as can be varied: got {axis}, but {reason}.") from None
                notes.append(f"not tried: {axis} ({reason})")
    if axes is not None and (left := [axis for axis in AXES if axis not in axes]):
        notes.append(f"not tried: {', '.join(left)} (left out by `axes`)")
    if not matrix.base.ended:
        notes.append(f"not looked at: lost and doubled records (there are more than `records`={matrix.records})")
    return tuple(lines), tuple(notes)


def _base_of(matrix: Matrix) -> str:
    taken = [f"{name}={values[0]}" for name, values in matrix.values.items() if matrix.takes(name)]
    return ", ".join(taken) or "its own defaults"


def _values(name: str, values: Sequence[int], least: int) -> Sequence[int]:
    if not values or not min(values) >= least:
        raise ValueError(f"`{name}` must be {least} or more: got {values}. Pass such a number.")
    return tuple(dict.fromkeys(values))
