"""The states of all processes of a run, carried over to a run of another number of processes or workers.

What was consumed must be the beginning of the global order, since that is what the new processes leave out:

- A `grain.DataLoader` (sharded by `shard_options`, with a sampler without shards) deals its records out to processes
  and, in each, to workers, in turns. That is a beginning after every step with 0 or 1 workers, and after each round of
  W steps with W workers. Batches may have another size afterwards.
- `MapDataset.batch`, with or without `mp_prefetch` (not with `sequential_slice`): after every step. Slice the dataset
  for each process behind `SeedRecords`, by `[process::processes]`, and before `batch`. The batches of all processes
  together must keep their size.
- `grain.experimental.ElasticIterator`: after every step.

Anything else is refused; with the numbers of processes and workers that saved it, a state is restored as Grain does.
All remaining records then come out once, with the pixels that they would have had. Only what `drop_remainder` leaves
out at the end of a run depends on the numbers of processes and workers, as it always does.
"""

from collections.abc import Sequence
from typing import Any

import grain
import jax

from grain_datarax.iterators import DeviceDatasetIterator, DeviceIterator
from grain_datarax.leaves import record_count
from grain_datarax.placement import has_rows
from grain_datarax.states import STATE_KEY, require_state
from grain_datarax.wording import shown

State = dict[str, Any]
AnyIterator = DeviceIterator | DeviceDatasetIterator


def carried_over(states: Sequence[State], iterator: AnyIterator) -> State:
    """The state for an iterator that goes on where the processes of another run stood.

    Args:
      states: Those of all its processes, in their order, as dicts.
      iterator: The iterator of this process.

    Raises:
      TypeError: If `states` is no list.
      ValueError: If one is no state, or they can't be carried over.
    """
    if not isinstance(states, list | tuple):
        raise TypeError(f"`states` must be a list: got {shown(states)}. Pass one dict for each process.")
    if not states:
        raise ValueError("`states` must be those of all processes: got none. Pass one dict for each process.")
    for process, state in enumerate(states):
        require_state(state, f" of process {process}")
    batches = iterator.batches if isinstance(iterator, DeviceIterator) else iterator
    if isinstance(batches.source, grain.DataLoader):
        return _of_loader(states, batches.source)
    return _of_dataset(states, batches)


def _of_loader(states: Sequence[State], loader: grain.DataLoader) -> State:
    """The loader's records are dealt out in turns to lanes: to the workers of each process, processes first."""
    workers, options = loader.multiprocessing_options.num_workers, loader._shard_options
    assert options is not None  # the sampler's own, if the loader was given none
    if any("last_seen_indices" not in state for state in states):  # with FlatMap it is that of a dataset
        saved_workers = len(states[0].get("iterators_in_use_states", [states[0]]))
        if (len(states), saved_workers) == (jax.process_count(), max(workers, 1)):
            return states[jax.process_index()]
        raise ValueError(
            "`checkpoint` must be that of a grain.DataLoader without FlatMap: got another. Restore it with the source,"
            " and as many processes and workers, that it was saved with."
        )
    for name in ("worker_count", "sampler", "data_source"):
        if any(state[name] != states[0][name] for state in states):
            raise ValueError(
                f"`checkpoint` must be of one run: got `{name}` {', '.join(repr(state[name]) for state in states)}."
                " Pass the states of all processes of one step."
            )
    # Processes that hold the same rows have been given the same records: they count as one shard.
    shards = list({tuple(_last_seen(state)): state for state in states}.values())
    if (len(shards), shards[0]["worker_count"]) == (options.shard_count, workers):
        as_many = len(states) == jax.process_count()
        return states[jax.process_index()] if as_many else shards[options.shard_index]
    consumed = _consumed(shards)
    total = sum(consumed.values())
    if any(count != _dealt(total, lane, len(consumed)) for lane, count in consumed.items()):
        raise ValueError(_why_no_beginning(shards, consumed, options.shard_count, workers))
    if total % options.shard_count:
        raise ValueError(
            f"`checkpoint` must have consumed a multiple of the {options.shard_count} processes that go on: got"
            f" {total} records. Take that of another step, or another number of processes."
        )
    lanes = options.shard_count * max(workers, 1)
    mine = range(options.shard_index, lanes, options.shard_count)
    last = {str(worker): lane + lanes * (_dealt(total, lane, lanes) - 1) for worker, lane in enumerate(mine)}
    state: State = {**shards[0], "last_seen_indices": last, "last_worker_index": -1, "worker_count": workers}
    if STATE_KEY in state:
        state[STATE_KEY] = {**state[STATE_KEY], "batches": None}
    return state


def _last_seen(state: State) -> list[int]:
    """The index of the last record of each worker."""
    return [state["last_seen_indices"][str(worker)] for worker in range(len(state["last_seen_indices"]))]


def _consumed(shards: Sequence[State]) -> dict[int, int]:
    """How many records each lane has consumed; a lane's records are those whose number is its own modulo all lanes."""
    lanes = len(shards) * len(shards[0]["last_seen_indices"])
    consumed = {}
    for shard, state in enumerate(shards):
        for worker, last in enumerate(_last_seen(state)):
            lane = shard + len(shards) * worker
            consumed[lane], misplaced = divmod(last - lane + lanes, lanes)
            if misplaced or consumed[lane] < 0:
                raise ValueError(
                    f"`checkpoint` must hold shards 0 to {len(shards) - 1} of one grain.DataLoader: got the last seen"
                    f" indices {[state['last_seen_indices'] for state in shards]}. Shard by shard_options, with a"
                    " sampler without shards."
                )
    return consumed


def _dealt(total: int, lane: int, lanes: int) -> int:
    """How many of the first `total` records this lane is dealt."""
    return max(0, -((lane - total) // lanes))


def _why_no_beginning(shards: Sequence[State], consumed: dict[int, int], new_shards: int, new_workers: int) -> str:
    workers = len(shards[0]["last_seen_indices"])
    by_shard = [[consumed[shard + len(shards) * worker] for worker in range(workers)] for shard in range(len(shards))]
    if any(counts != by_shard[0] for counts in by_shard):
        return (
            f"`checkpoint` must be of one step of all processes: got {by_shard} records that the workers of each have"
            " consumed. Save all processes at the same step; a Filter lets them drift apart."
        )
    step = shards[0].get(STATE_KEY, {}).get("batches")
    which = "that after a whole round"
    if step is not None:
        before = step - step % workers
        which = f"that of step {before} or {before + workers}"
    return (
        f"`checkpoint` must be of a whole round of the {workers} workers to go on with {new_shards} processes of"
        f" {new_workers} workers: got that of step {'unknown' if step is None else step}. Take {which}, or go on with"
        f" {len(shards)} processes of {workers} workers."
    )


def _of_dataset(states: Sequence[State], batches: DeviceDatasetIterator) -> State:
    if any("global_next_index" in state for state in states):  # an ElasticIterator's, which counts all records
        if any(state.get("global_next_index") != states[0].get("global_next_index") for state in states):
            raise ValueError(f"`checkpoint` must be of one step of all processes: got {states}. Save at the same step.")
        return states[0]
    template, entry = batches.get_state(), states[0].get(STATE_KEY, {})
    same = len(states) == jax.process_count() and _layout(states[0]) == _layout(template)
    if same and not (isinstance(batches.source, grain.MapDataset) or _counts_batches(states[0])):
        return states[jax.process_index()]
    size = _batch_size(batches.source) * batches.group_count
    sizes = {state.get(STATE_KEY, {}).get("batch_size") for state in states}
    if entry.get("batches") and sizes != {size}:
        raise ValueError(
            f"`checkpoint` must be of batches of {size} records of all processes together: got"
            f" {', '.join(sorted(map(str, sizes)))}. Keep that size, or use grain.experimental.ElasticIterator, which"
            " need not."
        )
    return states[jax.process_index()] if same else {**_at(template, _step(states)), STATE_KEY: entry}


def _positions(state: State) -> list[int]:
    """How far each worker is; one number without workers, none for a dataset of another kind."""
    parts = state.get("iterators_in_use_states", [state])
    return [part["next_index"] for part in parts if part is not None and isinstance(part.get("next_index"), int)]


def _layout(state: State) -> tuple[bool, int]:
    """Whether there are workers, and how many positions."""
    return "next_index" in state, len(_positions(state))


def _counts_batches(state: State) -> bool:
    """Whether the positions are numbers of batches, not of records that are batched later."""
    step, positions = state.get(STATE_KEY, {}).get("batches"), _positions(state)
    return bool(step and positions) and positions == _in_turns(step, len(positions))


def _step(states: Sequence[State]) -> int:
    """How many batches all processes have handed out."""
    steps = [state.get(STATE_KEY, {}).get("batches") for state in states]
    if None in steps:
        raise ValueError(
            "`checkpoint` must come from a DeviceLoader that counted its batches from the start: got that of Grain's"
            " own iterator, or of fingerprint=False. Restore it with as many processes and workers as saved it."
        )
    if len(set(steps)) != 1:
        raise ValueError(f"`checkpoint` must be of one step of all processes: got {steps}. Save at the same step.")
    for state in states:
        positions = _positions(state)
        if not positions or positions != _in_turns(steps[0], len(positions)):
            raise ValueError(
                f"`checkpoint` must count batches in order: got {positions} after step {steps[0]}. Batch a MapDataset,"
                " before to_iter_dataset and without a filter, or restore with as many processes and workers as saved"
                " it."
            )
    return int(steps[0])


def _in_turns(step: int, workers: int) -> list[int]:
    """How many of the first batches each of the workers has made."""
    return [_dealt(step, worker, workers) for worker in range(workers)]


def _batch_size(source: grain.IterDataset[Any] | grain.MapDataset[Any]) -> int:
    """The number of records in the first batch of this process."""
    if isinstance(source, grain.MapDataset):
        batch = source[0] if len(source) else None
    else:
        iterator = iter(source)
        try:
            batch = next(iterator, None)
        finally:
            iterator.close()
    if batch is None:
        raise ValueError(f"`source` must have a first batch: got none from {source}. Give each process records.")
    return record_count([leaf for leaf in jax.tree.leaves(batch) if has_rows(leaf)])


def _at(template: State, step: int) -> State:
    """The state of an iterator like the template's after this many batches."""
    if "next_index" in template:
        return {**template, "next_index": step}
    if "iterators_in_use_states" not in template:
        raise ValueError(
            f"`checkpoint` must be of the same kind of source: got one that counts batches, for {template}. Restore it"
            " with the source that it was saved with."
        )
    count = len(template["iterators_in_use_states"])
    return {
        **template,
        "next_index_in_cycle": step % count,
        "next_index_in_datasets": count,
        "iterators_in_use_indices": list(range(count)),
        "iterators_in_use_states": [{"next_index": position} for position in _in_turns(step, count)],
        "exhausted": [0] * count,
    }
