"""Resuming through Orbax, on another number of processes or workers too.

`CheckpointSave` and `CheckpointRestore` take the place of those of `grain.checkpoint`, read and write the same files,
and restore where the numbers have changed. With Orbax's API v1 `Elastic(iterator)` takes the place of the iterator.
Where that works, `grain_datarax.elastic` says.
"""

import asyncio
import dataclasses
import json
import re
from collections.abc import Awaitable
from typing import Any

import grain
import orbax.checkpoint as ocp
from etils import epath

from grain_datarax.elastic import AnyIterator, State, carried_over
from grain_datarax.iterators import DeviceDatasetIterator, DeviceIterator
from grain_datarax.states import require_state

ANOTHER_STEP = "Take the checkpoint of another step."


class CheckpointHandler(grain.checkpoint.CheckpointHandler):
    """Grain's handler, but that it restores on another number of processes or workers too."""

    def restore(self, directory: epath.Path, item: Any = None, args: Any = None) -> Any:
        item = item or args.item
        restore(directory, item)
        item.start_prefetch()
        return item


@ocp.args.register_with_handler(CheckpointHandler, for_save=True)  # pyright: ignore[reportArgumentType]
@dataclasses.dataclass
class CheckpointSave(ocp.args.CheckpointArgs):
    """Saves an iterator of a `DeviceLoader` through Orbax, as `grain.checkpoint.CheckpointSave` does.

    Attributes:
      item: The iterator.
    """

    item: Any


@ocp.args.register_with_handler(CheckpointHandler, for_restore=True)  # pyright: ignore[reportArgumentType]
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
        """Saves the iterator's state as the iterator itself does."""
        return await self.iterator.save(directory)

    async def load(self, directory: epath.Path) -> Awaitable[None]:
        """Restores the iterator, see `restore`."""
        return asyncio.to_thread(restore, directory, self.iterator)


def restore(directory: Any, iterator: AnyIterator) -> None:
    """Sets an iterator to where a run of any number of processes and workers stood when it was saved.

    Args:
      directory: Where Grain's handler wrote the states of all processes, `process_0-of-1.json` and so on.
      iterator: The iterator of this process.

    Raises:
      TypeError: If `iterator` is that of a dataset on top of a loader.
      FileNotFoundError: If the state of a process is missing.
      ValueError: If a file holds no state, or they can't be carried over, and what would have worked; or as the
        iterator's `set_state`. The iterator stays where it was.
    """
    if not isinstance(iterator, DeviceIterator | DeviceDatasetIterator):
        raise TypeError(
            f"`iterator` must be that of a DeviceLoader: got {type(iterator).__name__}. Restore one on top of it"
            " through grain.checkpoint, with as many processes and workers as saved it."
        )
    states = _read(epath.Path(directory))
    try:
        state = carried_over(states, iterator)
        (iterator.batches if isinstance(iterator, DeviceIterator) else iterator).set_state(state)
    except ValueError as error:
        error.add_note(f"The states are those in {directory}.")
        raise


def _read(directory: epath.Path) -> list[State]:
    """The states of all processes, in their order."""
    names = sorted(path.name for path in directory.iterdir())
    counts = {int(found[1]) for name in names if (found := re.fullmatch(r"process_\d+-of-(\d+)\.json", name))}
    count = max(counts, default=1)
    expected = [f"process_{index}-of-{count}.json" for index in range(min(count, len(names)))]
    if len(counts) != 1 or not 1 <= count <= len(names) or not set(expected) <= set(names):
        raise FileNotFoundError(
            f"`directory` must hold the states of all processes of one run: got {names} in {directory}. Pass the"
            " folder of the loader in the checkpoint of one step, on a file system that all processes share."
        )
    return [_state_in(directory / name) for name in expected]


def _state_in(path: epath.Path) -> State:
    try:
        state: State = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`state` must be whole, as JSON: got {error} in {path}. {ANOTHER_STEP}") from error
    require_state(state, f" in {path}", ANOTHER_STEP)
    return state
