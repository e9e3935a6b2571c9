"""The iterators of a `DeviceLoader`: its batches, with the state of Grain's own iterators."""

import copy
import json
import warnings
from collections.abc import Awaitable, Iterator, Mapping
from typing import Any, Self

import grain

from grain_datarax.agreement import Agreement
from grain_datarax.containers import Record, require_record
from grain_datarax.fingerprint import differences
from grain_datarax.repeats import PassWatch
from grain_datarax.shutdown import ends_within, free_shared_memory
from grain_datarax.sources import forget_ends, kind_of, may_have_workers, require_within
from grain_datarax.stage import Stage
from grain_datarax.states import STATE_KEY, require_like, require_state
from grain_datarax.wording import shown

# How many seconds `close` waits for threads and worker processes.
PATIENCE = 30


class DeviceDatasetIterator(grain.DatasetIterator[Any]):
    """Augmented batches of a `DeviceLoader` over a dataset. Its states are dicts, as those of `grain.DatasetIterator`.

    Not to be made by users: `iter(DeviceLoader(...))` does.
    """

    def __init__(
        self,
        batches: grain.DatasetIterator[Any],
        stage: Stage,
        entry: dict[str, Any] | None,
        strict: bool,
        source: Any,
        agreement: Agreement | None = None,
        passes: PassWatch | None = None,
    ) -> None:
        super().__init__(batches)
        forget_ends(batches)
        self.source = source
        self.group_count = stage.group_count
        self._stage = stage
        self._entry = entry
        self._strict = strict
        self._agreement = agreement  # with other processes, of which the thread may be waiting for
        self._passes = passes
        self._own_form: dict[str, Any] | None = None
        self._last_state: dict[str, Any] | None = None
        self._batches: int | None = 0  # handed out since the start; unknown after a state of Grain's own
        self._batch_size = 0  # of all processes together, the largest so far

    def __next__(self) -> Record:
        self._require_open()
        try:
            element = next(self._parent)
        except StopIteration:
            if may_have_workers(self.source):
                free_shared_memory()
            if self._passes and self._batches:
                self._passes.ends()
            raise
        if self._passes and self._batches == 0:
            self._passes.begins()
        if not isinstance(element, tuple):  # None, which Grain passes by our stage
            require_record(element)
        batch, largest = element
        if self._batches is not None:
            self._batches += 1
        self._batch_size = max(self._batch_size, largest * self.group_count)
        return batch

    # Any, for type checkers, which can't tell the iterators of a DeviceLoader apart: each takes what it gave.
    def get_state(self) -> Any:
        """The state of Grain's iterator after the batch that was handed out last, and the fingerprint: a dict."""
        own = self._parent.get_state() if self._last_state is None else self._last_state
        state: dict[str, Any] = copy.deepcopy(own)
        if self._entry is None:
            return state
        return {**state, STATE_KEY: {**self._entry, "batches": self._batches, "batch_size": self._batch_size}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on behind the batch that was last when `state` was taken, from this iterator or from Grain's own.

        Raises:
          TypeError: If `state` is no dict.
          ValueError: If it is no state of such an iterator, its operators are others, or Grain refuses it.

        Whatever it raises, the iterator stays where it was.
        """
        self._require_open()
        if not isinstance(state, Mapping):
            raise TypeError(f"`state` must be a dict: got {shown(state)}. Pass what `get_state` returned.")
        require_state(state)
        saved = state.get(STATE_KEY, {})
        self._compare(saved)
        # Copied: Grain keeps its parts, and writes into them.
        self._set_grains(copy.deepcopy({name: part for name, part in state.items() if name != STATE_KEY}))
        self._passes = None  # what comes again is asked for
        self._batches = saved.get("batches")
        self._batch_size = saved.get("batch_size", 0)
        self._stage.largest = self._batch_size // self.group_count

    def __repr__(self) -> str:
        batches = "an unknown number" if self._batches is None else self._batches
        return f"{type(self).__name__}(source={kind_of(self.source)}, batches={batches}{', closed' * self._closed})"

    def _set_grains(self, state: dict[str, Any]) -> None:
        """Sets Grain's iterator, or leaves it where it was."""
        if self._agreement is None:
            self._set_parents(state)
            return
        self._agreement.interrupt()
        try:
            self._set_parents(state)
        finally:
            self._agreement.restart()

    def _set_parents(self, state: dict[str, Any]) -> None:
        before = copy.deepcopy(self._parent.get_state())
        # As it was before any other state was set: of a strange one Grain keeps strange parts.
        self._own_form = copy.deepcopy(before) if self._own_form is None else self._own_form
        if "last_seen_indices" not in state:
            require_like(state, self._own_form)
        elif isinstance(self.source, grain.DataLoader):
            require_within(self.source, state)
        try:
            self._parent.set_state(state)
            self._parent.get_state()  # which some states break that it took
        except BaseException as error:
            self._parent.set_state(before)
            if not isinstance(error, Exception):
                raise
            refusal = ValueError(
                f"`state` must be one of the same kind of source: got {shown(state)}, at which Grain raised {error!r}."
                " Restore with the source that it was saved with."
            )
            refusal.add_note("If only the numbers of processes or workers are others, see grain_datarax.checkpoint.")
            raise refusal from error

    def close(self) -> None:
        """Ends the thread and the worker processes, waits for them, and frees the shared memory of their batches.

        It waits for `PATIENCE` seconds, and warns if something goes on then.
        """
        if self._closed:
            return
        self._last_state = self._parent.get_state()
        if self._agreement is not None:
            self._agreement.interrupt()
        if not ends_within(PATIENCE, super().close):
            warnings.warn(
                f"`iterator` must end within {PATIENCE} seconds when it is closed: got no end of {self.source}. It is"
                " left to the end of the program.",
                stacklevel=2,
            )
            return
        self._parents = ()  # whose __del__ fails when the interpreter goes down
        if may_have_workers(self.source):
            free_shared_memory()

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("`iterator` must be open: this one was closed. Make another by iter(loader).")

    def _compare(self, saved: dict[str, Any]) -> None:
        if not saved or self._entry is None:
            return
        if found := differences(saved, self._entry):
            message = f"`operators` must be those of the checkpoint: got {', '.join(found)}."
            if self._strict:
                raise ValueError(
                    f"{message} Restore with the operators that it was saved with, or pass strict=False to DeviceLoader"
                    " to go on with these."
                )
            caller = 4 if isinstance(self.source, grain.DataLoader) else 3  # over a loader, DeviceIterator calls
            warnings.warn(f"{message} Going on with these, as strict=False.", stacklevel=caller)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class DeviceIterator(Iterator[Record]):
    """Augmented batches of a `DeviceLoader` over a `grain.DataLoader`. Its states are bytes, as those of the loader's.

    Not to be made by users: `iter(DeviceLoader(...))` does.
    """

    def __init__(self, batches: DeviceDatasetIterator) -> None:
        self.batches = batches

    def __next__(self) -> Record:
        return next(self.batches)

    def __repr__(self) -> str:
        return repr(self.batches).replace(type(self.batches).__name__, type(self).__name__, 1)

    def get_state(self) -> Any:
        """As `DeviceDatasetIterator.get_state`, as JSON: bytes."""
        return json.dumps(self.batches.get_state(), indent=4).encode()

    def set_state(self, state: bytes) -> None:
        """As `DeviceDatasetIterator.set_state`, from JSON; a TypeError if `state` is no bytes."""
        if not isinstance(state, bytes):
            raise TypeError(f"`state` must be bytes: got {shown(state)}. Pass what `get_state` returned.")
        try:
            parsed = json.loads(state)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"`state` must be JSON: got {shown(state)}, which has {error}. Pass what `get_state` returned,"
                " unchanged."
            ) from error
        require_state(parsed)
        self.batches.set_state(parsed)

    def start_prefetch(self) -> None:
        """Starts to make batches ahead, before the first is asked for."""
        self.batches.start_prefetch()

    def close(self) -> None:
        """Ends the thread and the worker processes, and waits for them."""
        self.batches.close()

    async def save(self, directory: Any) -> Awaitable[None]:
        """Saves the state, for Orbax's API v1: returns what goes on in the background."""
        rest: Awaitable[None] = await self.batches.save(directory)
        return rest

    async def load(self, directory: Any) -> Awaitable[None]:
        """Restores the state, for Orbax's API v1: returns what goes on in the background."""
        rest: Awaitable[None] = await self.batches.load(directory)
        return rest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
