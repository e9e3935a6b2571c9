"""The iterators of a `DeviceLoader`: its batches, with the state of Grain's own iterators."""

import contextlib
import copy
import dataclasses
import json
import threading
import warnings
from collections.abc import Awaitable, Generator, Iterator, Mapping
from typing import Any, Self

import grain

from grain_datarax.agreement import Agreement
from grain_datarax.containers import Record, require_record
from grain_datarax.fingerprint import differences
from grain_datarax.repeats import PassWatch
from grain_datarax.shutdown import ends_within, free_shared_memory
from grain_datarax.sources import kind_of, may_have_workers, require_within
from grain_datarax.stage import Stage
from grain_datarax.states import STATE_KEY, require_like, require_state
from grain_datarax.wording import shown

# How many seconds `close` waits for threads and worker processes.
PATIENCE = 30


@dataclasses.dataclass(frozen=True)
class _Position:
    """Where an iterator is: behind the batch that it handed out last.

    Attributes:
      state: That of Grain's iterator.
      batches: How many were handed out since the start; None after a state of Grain's own.
      batch_size: How many records of all processes together the largest had so far.
    """

    state: dict[str, Any]
    batches: int | None
    batch_size: int


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
        self._lock = threading.RLock()  # for which the handler of a signal in the same thread does not wait
        self.source = source
        self.group_count = stage.group_count
        self._stage = stage
        self._entry = entry
        self._strict = strict
        self._agreement = agreement  # with other processes, of which the thread may be waiting for
        self._passes = passes
        self._position = _Position(copy.deepcopy(batches.get_state()), 0, 0)
        # As it was before any other state was set: of a strange one Grain keeps strange parts.
        self._own_form = copy.deepcopy(self._position.state)
        self._astray = False  # whether Grain's iterator may be elsewhere, since an error came out of it

    def __next__(self) -> Record:
        with self._alone():
            if self._astray:
                self._go_to(self._position)
            self._astray = True
            try:
                batch, self._position = self._read()
            except StopIteration:
                self._astray = False
                raise
            except BaseException as error:
                # Where processes go on in step, Ctrl-C in one has not moved what its thread makes ahead.
                self._astray = self._agreement is None or isinstance(error, Exception)
                raise
            self._astray = False
            return batch

    def _read(self) -> tuple[Record, _Position]:
        """The next batch, and where it ends."""
        batches, size = self._position.batches, self._position.batch_size
        try:
            element = next(self._parent)
        except StopIteration:
            if may_have_workers(self.source):
                free_shared_memory()
            if self._passes and batches:
                self._passes.ends()
            raise
        if self._passes and batches == 0:
            self._passes.begins()
        if not isinstance(element, tuple):  # None, which Grain passes by our stage
            require_record(element)
        batch, largest = element
        state = copy.deepcopy(self._parent.get_state())
        size = max(size, largest * self.group_count)
        return batch, _Position(state, None if batches is None else batches + 1, size)

    # Any, for type checkers, which can't tell the iterators of a DeviceLoader apart: each takes what it gave.
    def get_state(self) -> Any:
        """The state of Grain's iterator after the batch that was handed out last, and the fingerprint: a dict."""
        position = self._position
        state: dict[str, Any] = copy.deepcopy(position.state)
        if self._entry is None:
            return state
        return {**state, STATE_KEY: {**self._entry, "batches": position.batches, "batch_size": position.batch_size}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on behind the batch that was last when `state` was taken, from this iterator or from Grain's own.

        Raises:
          TypeError: If `state` is no dict.
          ValueError: If it is no state of such an iterator, its operators are others, or Grain refuses it.

        Whatever it raises, the iterator stays where it was.
        """
        with self._alone():
            if not isinstance(state, Mapping):
                raise TypeError(f"`state` must be a dict: got {shown(state)}. Pass what `get_state` returned.")
            require_state(state)
            saved = state.get(STATE_KEY, {})
            self._compare(saved)
            own = {name: part for name, part in state.items() if name != STATE_KEY}
            self._go_to(_Position(own, saved.get("batches"), saved.get("batch_size", 0)))
            self._passes = None  # what comes again is asked for

    def __repr__(self) -> str:
        batches = "an unknown number" if self._position.batches is None else self._position.batches
        return f"{type(self).__name__}(source={kind_of(self.source)}, batches={batches}{', closed' * self._closed})"

    def _go_to(self, position: _Position) -> None:
        """Sets Grain's iterator, or leaves it where it was."""
        state = copy.deepcopy(position.state)  # Grain keeps its parts, and writes into them
        if self._agreement is None:
            self._set_parents(state)
        else:
            self._agreement.interrupt()
            try:
                self._set_parents(state)
            finally:
                self._agreement.restart()
        self._stage.largest = position.batch_size // self.group_count
        self._position = dataclasses.replace(position, state=copy.deepcopy(self._parent.get_state()))
        self._astray = False

    def _set_parents(self, state: dict[str, Any]) -> None:
        before = copy.deepcopy(self._position.state)
        if "last_seen_indices" not in state:
            require_like(state, self._own_form)
        elif isinstance(self.source, grain.DataLoader):
            require_within(self.source, state)
        try:
            self._parent.set_state(state)
            self._parent.get_state()  # which some states break that it took
        except BaseException as error:
            self._parent.set_state(before)
            self._stage.largest = self._position.batch_size // self.group_count
            if not isinstance(error, Exception):
                raise
            got = f"{shown(state)}, at which Grain raised {error!r}"
            if isinstance(error, ValueError):  # which says in Grain's words what is another
                said = str(error).partition("\n")[0]
                got = f"one of which Grain says: {said.rstrip('.')}"
            refusal = ValueError(
                f"`state` must be one of the same kind of source: got {got}. Restore with the source that it was saved"
                " with."
            )
            refusal.add_note("If only the numbers of processes or workers are others, see grain_datarax.checkpoint.")
            raise refusal from error

    def close(self) -> None:
        """Ends the thread and the worker processes, waits for them, and frees the shared memory of their batches.

        It waits for `PATIENCE` seconds, and warns if something goes on then.
        """
        if self._closed:
            return
        if self._agreement is not None:
            self._agreement.interrupt()
        idle = self._lock.acquire(timeout=PATIENCE)
        try:
            ended = idle and ends_within(PATIENCE, super().close)
        finally:
            if idle:
                self._lock.release()
        if not ended:
            warnings.warn(
                f"`iterator` must end within {PATIENCE} seconds when it is closed: got no end of {self.source}. It is"
                " left to the end of the program.",
                stacklevel=2,
            )
            return
        self._parents = ()  # whose __del__ fails when the interpreter goes down
        if may_have_workers(self.source):
            free_shared_memory()

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """For as long as a call lasts that moves the iterator."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "`iterator` must be used by one thread at a time: got a call while another thread's goes on. Let one"
                " thread call `next`, and hand batches on to others, or give each an iterator of its own."
            )
        try:
            if self._closed:
                raise ValueError("`iterator` must be open: this one was closed. Make another by iter(loader).")
            yield
        finally:
            self._lock.release()

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
