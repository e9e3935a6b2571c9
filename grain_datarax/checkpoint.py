"""Resuming on another number of processes or workers: the states of all processes of a run, carried over to this one.

`CheckpointSave` and `CheckpointRestore` take the place of those of `grain.checkpoint`, read and write the same files,
and restore where the numbers have changed. With Orbax's API v1 `Elastic(iterator)` takes the place of the iterator.

What was consumed must be the beginning of the global order, since that is what the new processes leave out:

- A `grain.DataLoader` (sharded by `shard_options`, with a sampler without shards) deals its records out to processes
  and, in each, to workers, in turns. That is a beginning after every step with 0 or 1 workers, and after each round of
  W steps with W workers. Batches may have another size afterwards.
- A dataset that is read in order, such as `MapDataset.batch`, with or without `mp_prefetch`: after every step. Slice it
  for each process behind `SeedRecords`, by `[process::processes]`, and before `batch`. The new batches of all processes
  together must divide what was consumed; they always do if their size stays.
- `grain.experimental.ElasticIterator`: after every step.

Anything else is refused. All remaining records then come out once, with the pixels that they would have had. Only what
`drop_remainder` leaves out at the end of a run depends on the numbers of processes and workers, as it always does.
"""

import asyncio
import dataclasses
import json
import re
from collections.abc import Awaitable, Sequence
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath

from grain_datarax.device import STATE_KEY, DeviceDatasetIterator, DeviceIterator
from grain_datarax.operators.batch import record_count
from grain_datarax.placement import has_rows

State = dict[str, Any]
AnyIterator = DeviceIterator | DeviceDatasetIterator


class _ElasticHandler(grain.checkpoint.CheckpointHandler):
    """Grain's handler, which restores on another number of processes or workers too."""

    def restore(self, directory: epath.Path, item: Any = None, args: Any = None) -> Any:
        item = item or args.item
        restore(directory, item)
        item.start_prefetch()
        return item


@ocp.args.register_with_handler(_ElasticHandler, for_save=True)
@dataclasses.dataclass
class CheckpointSave(ocp.args.CheckpointArgs):
    """Saves an iterator of a `DeviceLoader` through Orbax, as `grain.checkpoint.CheckpointSave` does.

    Attributes:
      item: The iterator.
    """

    item: Any


@ocp.args.register_with_handler(_ElasticHandler, for_restore=True)
@dataclasses.dataclass
class CheckpointRestore(ocp.args.CheckpointArgs):
    """Restores an iterator of a `DeviceLoader` through Orbax, see `restore`.

    Attributes:
      item: The iterator.
    """

    item: Any


@dataclasses.dataclass
class Elastic:
    """An iterator of a `DeviceLoader` for Orbax's API v1: `load_checkpointables(path, {"data": Elastic(iterator)})`.

    Attributes:
      iterator: The iterator.
    """

    iterator: AnyIterator

    async def save(self, directory: Any) -> Awaitable[None]:
        return await self.iterator.save(directory)

    async def load(self, directory: epath.Path) -> Awaitable[None]:
        return asyncio.to_thread(restore, directory, self.iterator)


def restore(directory: Any, iterator: AnyIterator) -> None:
    """Sets an iterator to where a run of any number of processes and workers stood when it was saved.

    Args:
      directory: Where Grain's handler wrote the states of all processes, `process_0-of-1.json` and so on.
      iterator: The iterator of this process.

    Raises:
      FileNotFoundError: If the state of a process is missing.
      ValueError: If the state can't be carried over, and what would have worked; or as the iterator's `set_state`.
    """
    state = carried_over(_read(epath.Path(directory)), iterator)
    (iterator.batches if isinstance(iterator, DeviceIterator) else iterator).set_state(state)


def _read(directory: epath.Path) -> list[State]:
    """The states of all processes, in their order."""
    names = sorted(path.name for path in directory.iterdir())
    counts = {int(found[1]) for name in names if (found := re.fullmatch(r"process_\d+-of-(\d+)\.json", name))}
    expected = [f"process_{index}-of-{max(counts, default=1)}.json" for index in range(max(counts, default=1))]
    if len(counts) != 1 or not set(expected) <= set(names):
        raise FileNotFoundError(
            f"`directory` must hold the states of all processes of one run: got {names} in {directory}. Pass the"
            " folder of the loader in the checkpoint of one step, on a file system that all processes share."
        )
    return [json.loads((directory / name).read_text()) for name in expected]


def carried_over(states: Sequence[State], iterator: AnyIterator) -> State:
    """The state for an iterator that goes on where the processes of another run stood.

    Args:
      states: Those of all its processes, in their order, as dicts.
      iterator: The iterator of this process.

    Raises:
      ValueError: If these states can't be carried over.
    """
    batches = iterator.batches if isinstance(iterator, DeviceIterator) else iterator
    if isinstance(batches.source, grain.DataLoader):
        return _of_loader(states, batches.source)
    return _of_dataset(states, batches, jax.process_index(), jax.process_count())


def _of_loader(states: Sequence[State], loader: grain.DataLoader) -> State:
    """The loader's records are dealt out in turns to lanes: to the workers of each process, processes first."""
    if any("last_seen_indices" not in state for state in states):
        raise ValueError(
            "`states` must be those of a grain.DataLoader: got others, or FlatMap is among its operations."
        )
    # Processes that hold the same rows have been given the same records: they count as one.
    shards = sorted({tuple(state["last_seen_indices"].values()) for state in states})
    workers, options = loader.multiprocessing_options.num_workers, loader._shard_options
    old, new = (len(shards), len(shards[0])), (options.shard_count, max(workers, 1))
    if old == new and states[0]["worker_count"] == workers:
        return next(s for s in states if tuple(s["last_seen_indices"].values()) == shards[options.shard_index])
    lanes = old[0] * old[1]
    consumed = {}
    for shard, last_seen in enumerate(shards):
        for worker, last in enumerate(last_seen):
            lane = shard + old[0] * worker
            consumed[lane], misplaced = divmod(last - lane + lanes, lanes)
            if misplaced:
                raise ValueError(
                    f"`states` must be those of shards 0 to {old[0] - 1} of one grain.DataLoader: got the last seen"
                    f" indices {shards}. Shard by shard_options, with a sampler without shards."
                )
    total = sum(consumed.values())
    if any(count != _dealt(total, lane, lanes) for lane, count in consumed.items()):
        raise ValueError(_why_no_prefix(consumed, old, (new[0], workers)))
    if total % new[0]:
        raise ValueError(
            f"`states` must have consumed a multiple of the {new[0]} processes that go on: got {total} records. Take"
            " another step, or another number of processes."
        )
    lanes = new[0] * new[1]
    mine = [options.shard_index + new[0] * worker for worker in range(new[1])]
    last = {str(worker): lane + lanes * (_dealt(total, lane, lanes) - 1) for worker, lane in enumerate(mine)}
    state = {**states[0], "last_seen_indices": last, "last_worker_index": -1, "worker_count": workers}
    if STATE_KEY in state:
        state[STATE_KEY] = {**state[STATE_KEY], "batches": None, "batch_size": 0}
    return state


def _dealt(total: int, lane: int, lanes: int) -> int:
    """How many of the first `total` records this lane is dealt."""
    return max(0, -((lane - total) // lanes))


def _why_no_prefix(consumed: dict[int, int], old: tuple[int, int], new: tuple[int, int]) -> str:
    by_shard = [[consumed[shard + old[0] * worker] for worker in range(old[1])] for shard in range(old[0])]
    if any(counts != by_shard[0] for counts in by_shard):
        return (
            f"`states` must be those of one step of all processes: got {by_shard} records that the workers of each have"
            " consumed. Save all processes at the same step; a Filter lets them drift apart."
        )
    counts = by_shard[0]
    step = sum(counts) // (max(counts) - min(counts))  # the workers are a batch apart
    before = step - step % old[1]
    return (
        f"`states` must be those after whole rounds of the {old[1]} workers to go on with {new[0]} processes of"
        f" {new[1]} workers: got those of step {step}. Take those of step {before} or {before + old[1]}, or go on with"
        f" {old[0]} processes of {old[1]} workers."
    )


def _of_dataset(states: Sequence[State], batches: DeviceDatasetIterator, process: int, processes: int) -> State:
    if "global_next_index" in states[0]:  # an ElasticIterator's, which counts the records of all processes
        if any(state["global_next_index"] != states[0]["global_next_index"] for state in states):
            raise ValueError(
                f"`states` must be those of one step of all processes: got {states}. Save at the same step."
            )
        return states[0]
    template = batches.get_state()
    if len(states) == processes and len(_positions(states[0])) == len(_positions(template)):
        return states[process]
    step, batch_size = _progress(states)
    consumed, new_size = step * batch_size * len(states), _batch_size(batches.source)
    new_step, remainder = divmod(consumed, new_size * processes)
    if remainder:
        raise ValueError(
            f"`states` must have consumed a multiple of the new batches of all processes, {new_size} records in each of"
            f" {processes}: got {consumed}. Take the step after a multiple of {new_size * processes} records, or keep"
            " the size of all batches together."
        )
    entry = {**states[0][STATE_KEY], "batches": new_step, "batch_size": new_size}
    return {**_at(template, new_step), STATE_KEY: entry}


def _positions(state: State) -> list[int]:
    """How far each worker is; one number without workers, none for a dataset of another kind."""
    parts = state.get("iterators_in_use_states", [state])
    return [part["next_index"] for part in parts if part is not None and "next_index" in part]


def _progress(states: Sequence[State]) -> tuple[int, int]:
    """The step of all processes and the size of a process's batches."""
    entries = [state.get(STATE_KEY, {}) for state in states]
    step, batch_size = entries[0].get("batches"), entries[0].get("batch_size")
    if any((entry.get("batches"), entry.get("batch_size")) != (step, batch_size) for entry in entries):
        raise ValueError(f"`states` must be those of one step of all processes: got {entries}. Save at the same step.")
    if step is None:
        raise ValueError(
            "`states` must come from a DeviceLoader that counted its batches from the start: got those of Grain's own"
            " iterator, or fingerprint=False. Restore with as many processes and workers as saved them."
        )
    for state in states:
        if sum(_positions(state)) != step:
            raise ValueError(
                f"`states` must count batches in order: got {_positions(state)} after step {step}. Batch a MapDataset,"
                " before to_iter_dataset and without a filter, or restore with as many processes and workers as saved"
                " them."
            )
    return step, batch_size


def _batch_size(source: grain.IterDataset | grain.MapDataset) -> int:
    """The number of records of a batch, from the first."""
    if isinstance(source, grain.MapDataset):
        batch = source[0]
    else:
        iterator = iter(source)
        batch = next(iterator)
        iterator.close()
    return record_count([leaf for leaf in jax.tree.leaves(batch) if has_rows(leaf)])


def _at(template: State, step: int) -> dict[str, Any]:
    """The state of an iterator like the template's after this many batches."""
    if "next_index" in template:
        return {**template, "next_index": step}
    count = len(template["iterators_in_use_states"])
    return {
        **template,
        "next_index_in_cycle": step % count,
        "next_index_in_datasets": count,
        "iterators_in_use_indices": list(range(count)),
        "iterators_in_use_states": [{"next_index": -((worker - step) // count)} for worker in range(count)],
        "exhausted": [0] * count,
    }
