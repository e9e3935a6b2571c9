"""A pipeline, run in many ways: what becomes of its records in each."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from grain_datarax.testing.arguments import Maker, Setting
from grain_datarax.testing.process import in_second_process
from grain_datarax.testing.report import Line
from grain_datarax.testing.rows import Reading, Run, Stored, read
from grain_datarax.testing.verdict import Order, failed, line_of


class NotTried(Exception):
    """Why an axis can't be varied."""


@dataclasses.dataclass(frozen=True, eq=False)
class Matrix:
    """The ways in which a pipeline is run.

    Attributes:
      maker: What makes the pipeline.
      reading: How its records are read.
      records: How many of them.
      values: Of `batch_size`, `worker_count` and `shard_count`: those that are tried, the base first.
      steps: After how many batches it is resumed; None: after 1, and in the middle.
      timeout: How many seconds a second process may take.
    """

    maker: Maker
    reading: Reading
    records: int
    values: Mapping[str, Sequence[int]]
    steps: Sequence[int] | None
    timeout: float
    _by_workers: dict[int, Run] = dataclasses.field(default_factory=dict)

    def takes(self, name: str) -> bool:
        """Whether the pipeline can be told this."""
        return self.maker.takes_shards if name == "shard_count" else self.maker.takes(name)

    def others(self, name: str) -> Sequence[int]:
        """What is tried of this, beside the base."""
        if not self.takes(name):
            missing = "`shard_options`, nor `shard_index` and `shard_count`" if name == "shard_count" else f"`{name}`"
            raise NotTried(f"{self.maker.name} has no {missing}")
        if not self.values[name][1:]:
            raise NotTried(f"one value alone was asked for, {self.values[name][0]}")
        return self.values[name][1:]

    def setting(self, **varied: Any) -> Setting:
        """That of the base, but for what is varied."""
        base = Setting(shard_index=0, per_record=False, **{name: values[0] for name, values in self.values.items()})
        return dataclasses.replace(base, **varied)

    @functools.cached_property
    def base(self) -> Run:
        """The run that others are compared with."""
        return self.run(self.setting(), self.records)

    def run(self, setting: Setting, limit: int, state: Stored | None = None) -> Run:
        """A new pipeline, from its start or a state."""
        reading = dataclasses.replace(self.reading, batched=self.reading.batched and not setting.per_record)
        found = read(self.maker(setting), reading, limit, state=state)
        workers = setting.worker_count if self.takes("worker_count") else 0
        return dataclasses.replace(found, workers=max(found.workers, workers or 0))

    def lanes(self, setting: Setting) -> Run:
        """All shards and their workers, a batch of each further than they need to be, as none waits for another."""
        count = setting.shard_count or 1
        batch = max(self.base.largest, setting.batch_size or 0 if self.takes("batch_size") else 0)
        limit = -(-self.records // count) + max(setting.worker_count or 0, 1) * batch
        runs = [self.run(dataclasses.replace(setting, shard_index=index), limit) for index in range(count)]
        return Run(
            rows=tuple(row for run in runs for row in run.rows),
            sizes=tuple(size for run in runs for size in run.sizes),
            states=runs[0].states if count == 1 else None,
            ended=all(run.ended for run in runs),
            workers=runs[0].workers,
        )

    def with_workers(self, count: int) -> Run:
        """The base with so many worker processes."""
        if count == self.values["worker_count"][0]:
            return self.base
        if count not in self._by_workers:
            self._by_workers[count] = self.lanes(self.setting(worker_count=count))
        return self._by_workers[count]

    def line(self, axis: str, tried: str, run: Callable[[], Run], order: Order, shards: int = 1) -> Line:
        """What comes of a run, set against the base."""
        return line_of(axis, tried, self.base, run, order, shards)


def _second_run(matrix: Matrix) -> Iterator[Line]:
    yield matrix.line("second_run", "second run", lambda: matrix.run(matrix.setting(), matrix.records), "same")


def _second_process(matrix: Matrix) -> Iterator[Line]:
    task = functools.partial(_run_anew, matrix.maker, matrix.setting(), matrix.reading, matrix.records)
    yield matrix.line("second_process", "second process", lambda: in_second_process(task, matrix.timeout), "same")


def _run_anew(maker: Maker, setting: Setting, reading: Reading, limit: int) -> Run:
    return dataclasses.replace(read(maker(setting), reading, limit), states=None)


def _batch_size(matrix: Matrix) -> Iterator[Line]:
    for size in matrix.others("batch_size"):
        setting = matrix.setting(batch_size=size)
        run = functools.partial(matrix.run, setting, matrix.records)
        yield matrix.line("batch_size", f"batch_size={size}", run, "by key")


def _per_record(matrix: Matrix) -> Iterator[Line]:
    if not matrix.takes("per_record"):
        raise NotTried(f"{matrix.maker.name} has no `per_record`")
    run = functools.partial(matrix.run, matrix.setting(per_record=True), matrix.records)
    yield matrix.line("per_record", "per_record=True", run, "by key")


def _worker_count(matrix: Matrix) -> Iterator[Line]:
    for count in matrix.others("worker_count"):
        run = functools.partial(matrix.with_workers, count)
        yield matrix.line("worker_count", f"worker_count={count}", run, "any")


def _shard_count(matrix: Matrix) -> Iterator[Line]:
    for count in matrix.others("shard_count"):
        run = functools.partial(matrix.lanes, matrix.setting(shard_count=count))
        yield matrix.line("shard_count", f"shard_count={count}", run, "any", count)


def _together(matrix: Matrix) -> Iterator[Line]:
    largest = {name: max(values) for name, values in matrix.values.items() if matrix.takes(name) and values[1:]}
    if len(largest) < 2:
        raise NotTried(f"fewer than two of {', '.join(matrix.values)} can be varied")
    tried = ", ".join(f"{name}={value}" for name, value in largest.items())
    run = functools.partial(matrix.lanes, matrix.setting(**largest))
    yield matrix.line("together", tried, run, "any", largest.get("shard_count", 1))


def _resume(matrix: Matrix) -> Iterator[Line]:
    for count in matrix.values["worker_count"] if matrix.takes("worker_count") else (0,):
        among = f", worker_count={count}" if matrix.takes("worker_count") else ""
        try:
            whole = matrix.with_workers(count) if matrix.takes("worker_count") else matrix.base
        except Exception as error:
            yield failed("resume", f"resume{among}", error)
            continue
        if whole.states is None:
            raise NotTried("its iterator has no `get_state` and `set_state`")
        for step in _steps(matrix.steps, whole):
            tried = f"resume at step {step} of {len(whole.sizes)}{among}"
            rest = dataclasses.replace(whole, rows=whole.rows[sum(whole.sizes[:step]) :])
            run = functools.partial(
                matrix.run, matrix.setting(worker_count=count), len(rest.rows), whole.states[step - 1]
            )
            yield line_of("resume", tried, rest, run, "same")


# In the order in which they are tried.
AXES: Mapping[str, Callable[[Matrix], Iterator[Line]]] = {
    "second_run": _second_run,
    "second_process": _second_process,
    "batch_size": _batch_size,
    "per_record": _per_record,
    "worker_count": _worker_count,
    "shard_count": _shard_count,
    "together": _together,
    "resume": _resume,
}


def _steps(asked: Sequence[int] | None, run: Run) -> Sequence[int]:
    """After how many batches a run is resumed: behind those, something must be left."""
    possible = [step for step in range(1, len(run.sizes)) if sum(run.sizes[:step]) < len(run.rows)]
    if not possible:
        raise NotTried("there is one batch alone")
    if asked is None:
        return sorted({possible[0], possible[len(possible) // 2]})
    if wrong := sorted({*asked} - {*possible}):
        raise ValueError(
            f"`resume_steps` must leave something of the {len(run.sizes)} batches: got {wrong}. Pass 1 to"
            f" {possible[-1]}."
        )
    return asked
