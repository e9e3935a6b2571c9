"""Traps of data that are dealt out to hosts or devices: twice, in pieces, or with a rest."""

import sys
from collections.abc import Iterator
from typing import Any

import grain

from grain_datarax.pipelines import Kind, Step, count_of, is_sharded, is_share
from grain_datarax.traps.finding import Finding, Surroundings


def dealt_by_the_sampler(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Samplers that shard."""
    for step in last.chain():
        if step.kind is not Kind.READ or not isinstance(step.node, grain.DataLoader):
            continue
        of_sampler: Any = getattr(step.node._sampler, "_shard_options", None)
        of_loader = step.node._shard_options
        if not is_sharded(of_sampler):
            continue
        several_times = not is_sharded(of_loader)
        yield Finding(
            "sharding in the sampler",
            f"{step.parents[0].where}, {of_sampler!r}, in a DataLoader with {of_loader!r}",
            "the loader reads this share as if it were all: some records come several times, and others never."
            if several_times
            else "each host has a piece of the data of its own, whatever the loader says: with another number of hosts"
            " records come in other batches, and get other numbers.",
            f"Shard in the loader alone, DataLoader(..., shard_options={_call_of(of_sampler)}), and leave"
            " shard_options out of the sampler.",
            worst=several_times and of_sampler.shard_count > 1,
        )


def dealt_with_a_rest(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Batches that may be smaller than the others, dealt out to hosts or devices."""
    loaders = [step for step in last.chain() if step.kind is Kind.DEVICE]
    if any(step.node._pad_last_batch or step.node._equalize for step in loaders):
        return
    over_devices = any(step.node.sharding.num_devices > 1 for step in loaders)
    for step in last.chain():
        if step.kind is not Kind.BATCH or not _has_rest(step, last):
            continue
        if over_devices or any(is_share(each) or _is_sharded_loader(each) for each in step.chain()):
            yield Finding(
                "drop_remainder=False with a sharding",
                f"{step.where}, of what is dealt out to {'devices' if over_devices else 'hosts'}",
                "the last batch has fewer rows: the step is compiled once more for them, and they may not divide over"
                " the devices.",
                "Pass drop_remainder=True to Batch; or, to evaluate all records, gdx.DeviceLoader(...,"
                ' pad_last_batch=True), over several hosts equalize="pad".',
            )


def _has_rest(batch: Step, last: Step) -> bool:
    """Whether some batch may be smaller than the others."""
    # Public in an operation of a DataLoader, private in a dataset.
    size, dropped = (
        getattr(batch.node, name, getattr(batch.node, f"_{name}", None)) for name in ("batch_size", "drop_remainder")
    )
    if dropped or getattr(batch.node, "batch_fn", None) is not None:  # a function of the user's, which may pad
        return False
    count = count_of(batch.parents[0])
    if count is None or count >= sys.maxsize // 2 or not isinstance(size, int):
        return count is None
    workers = max((step.workers for step in last.chain() if batch in step.before()), default=1)
    return any(len(range(worker, count, workers)) % size for worker in range(workers))


def _is_sharded_loader(step: Step) -> bool:
    return isinstance(step.node, grain.DataLoader) and is_sharded(step.node._shard_options)


def _call_of(options: Any) -> str:
    if isinstance(options, grain.sharding.ShardByJaxProcess):
        return f"grain.sharding.ShardByJaxProcess(drop_remainder={options.drop_remainder})"
    return f"grain.sharding.{options!r}"
