"""Traps that cost time alone: work in the wrong place, and reading ahead that takes longer than to read."""

import timeit
from collections.abc import Iterator
from typing import Any

import grain

from grain_datarax.pipelines import Kind, Step
from grain_datarax.transforms import AugmentBatch, AugmentRecord
from grain_datarax.traps.finding import Finding, Surroundings

# Seconds that Grain takes for an element that its threads read ahead, and for each place in their buffer besides, over
# which it walks every time; as measured, with 0.2.18.
_AHEAD = 60e-6
_AHEAD_BY_PLACE = 0.6e-6
# Below so many seconds for an epoch nobody cares.
_NOTICED = 1.0


def augmented_in_workers(last: Step, around: Surroundings) -> Iterator[Finding]:
    """Chains in worker processes, beside an accelerator."""
    for workers in last.chain():
        for step in workers.before() if workers.kind is Kind.WORKERS else ():
            if isinstance(step.transform, AugmentBatch | AugmentRecord) and around.has_accelerator():
                yield Finding(
                    "augmentation in workers",
                    f"{step.where} in front of {workers.where}",
                    "workers augment on the CPU, while this machine has an accelerator.",
                    "Leave it out there, and put gdx.DeviceLoader(source, chain) around all.",
                )


def read_ahead_for_nothing(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Reading ahead that takes longer than the reading itself."""
    for step in last.chain():
        options, records = (step.node._read_options, _records_of(step)) if step.kind is Kind.READ else (None, None)
        if options is None or records is None or not options.num_threads:
            continue
        cost = _AHEAD + _AHEAD_BY_PLACE * options.prefetch_buffer_size
        took = _time_of(records) if cost * len(records) > _NOTICED else None
        if took is not None and took < cost:
            yield Finding(
                "ReadOptions that cost more than the work",
                f"{step.where}, {options}",
                f"a record takes {took * 1e6:.0f} us to read, and Grain {cost * 1e6:.0f} us to read it ahead.",
                "Pass read_options=grain.ReadOptions(num_threads=0, prefetch_buffer_size=0), or where reading may"
                " stall a small buffer, grain.ReadOptions(num_threads=1, prefetch_buffer_size=16).",
            )


def _records_of(step: Step) -> Any:
    """What is read by index; None where that is batches, which take longer anyway."""
    if isinstance(step.node, grain.DataLoader):
        return step.node._data_source
    parent = step.parents[0]
    return None if any(each.kind in (Kind.BATCH, Kind.OTHER) for each in parent.chain()) else parent.node


def _time_of(records: Any) -> float | None:
    """Seconds to read a record, by the first four of them, three times over; None if they can't be read."""
    try:
        return min(timeit.repeat(lambda: [records[index] for index in range(4)], repeat=3, number=1)) / 4
    except Exception:  # whatever the user's source raises, it is told of where it is read in earnest
        return None
