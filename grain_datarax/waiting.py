"""Elements that Grain's worker processes make, for which nobody waits in vain."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import grain

T = TypeVar("T")

# Seconds between two looks at the worker processes, while nothing comes.
LOOK = 1.0
# How many seconds Grain has to notice by itself that a worker has ended, and what that sent before.
GRACE = 5.0
# How many seconds a worker has to start: to import the program, and to read what it is sent.
START = 600.0


class Awaited(grain.IterDataset[Any]):
    """The same elements; an error where Grain waits for a worker process that has ended.

    After an error its iterators begin anew, with other worker processes.
    """

    def __iter__(self) -> grain.DatasetIterator[Any]:
        return _AwaitedIterator(self._parent)


class _AwaitedIterator(grain.DatasetIterator[Any]):
    def __init__(self, dataset: Any) -> None:
        super().__init__()
        self._dataset = dataset
        self._iterator: Any = iter(dataset)
        self._spoilt = False
        self._thread = _Thread()
        self._state: dict[str, Any] = self._iterator.get_state()

    def __next__(self) -> Any:
        element, self._state = self._do(lambda iterator: (next(iterator), iterator.get_state()))
        return element

    def get_state(self) -> dict[str, Any]:
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        if any(process.exitcode is not None for process in _processes_of(self._iterator)):
            self._spoilt = True

        def act(iterator: grain.DatasetIterator[Any]) -> dict[str, Any]:
            iterator.set_state(state)
            after: dict[str, Any] = iterator.get_state()
            return after

        self._state = self._do(act)

    def start_prefetch(self) -> None:
        self._do(lambda iterator: iterator.start_prefetch())

    def close(self) -> None:
        if not self._closed:
            super().close()
            self._close_grains()
            self._thread.end()

    def _do(self, act: Callable[[grain.DatasetIterator[Any]], T]) -> T:
        if self._spoilt:
            # Never again what a worker has died of: it may have taken locks of its queues along, for which the next one
            # would wait.
            self._close_grains()
            self._iterator = iter(self._dataset)
            self._iterator.set_state(self._state)
            self._spoilt = False
        try:
            return self._thread.do(lambda: act(self._iterator), _Watch(self._iterator).look)
        except StopIteration:
            raise
        except BaseException:
            self._spoilt = True
            raise

    def _close_grains(self) -> None:
        if not self._thread.started:  # and with it no worker
            self._iterator.close()
        elif not self._thread.busy:
            with contextlib.suppress(WorkerEnded):
                self._thread.do(self._iterator.close, _Watch(self._iterator).look)
        if self._thread.busy:  # it waits for ever, or longer than somebody who has interrupted it
            for process in _processes_of(self._iterator):
                if process.pid is not None:
                    process.kill()
            _given_up.append(self._iterator)
            self._thread = _Thread()


# Held, since the end of an iterator waits for its threads, which wait for ever.
_given_up: list[Any] = []


class WorkerEnded(RuntimeError):
    """A worker process has ended without Grain's notice."""


class _Watch:
    """Raises a `WorkerEnded` if what is waited for can't come."""

    def __init__(self, iterator: grain.DatasetIterator[Any]) -> None:
        self._iterator = iterator
        self._since: dict[BaseProcess, float] = {}

    def look(self) -> None:
        now = time.monotonic()
        for process in _processes_of(self._iterator):
            if process.pid is None and now - self._since.setdefault(process, now) > START:
                raise WorkerEnded(
                    f"`source` must let its worker processes start: got none within {START:.0f} seconds. See whether"
                    " one was killed, and go on from the last state."
                )
            if process.exitcode is not None and now - self._since.setdefault(process, now) > GRACE:
                raise WorkerEnded(
                    "`source` must keep its worker processes: got one that ended without a word, with exit code"
                    f" {process.exitcode}. See the log, and what `next(iter(source))` raises; then go on from the last"
                    " state."
                )


def parts_of(whole: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """What is held by objects of these kinds that hold each other, in attributes, lists and tuples; `whole` first."""
    seen: set[int] = set()
    parts = [whole]
    while parts:
        part = parts.pop()
        yield part
        if isinstance(part, list | tuple) and len(part) < 1000:  # more than there are workers: records
            parts.extend(part)
        elif isinstance(part, kinds) and id(part) not in seen:
            seen.add(id(part))
            parts.extend(vars(part).values())


def _processes_of(iterator: Any) -> list[BaseProcess]:
    parts = parts_of(iterator, (grain.DatasetIterator, grain.DataLoaderIterator))
    return [part for part in parts if isinstance(part, BaseProcess)]


class _Thread:
    """A thread that does what it is told, one thing after the other; it is started with the first."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self.started = False
        self.busy = False

    def do(self, task: Callable[[], T], look: Callable[[], None]) -> T:
        """What `task` returns or raises, or what `look` raises, which is called every `LOOK` seconds until then."""
        if not self.started:
            self.started = True
            threading.Thread(target=_work, args=(self._tasks, self._results), daemon=True).start()
        assert not self.busy
        self.busy = True
        self._tasks.put(task)
        result, error = self._wait(look)
        self.busy = False
        if error is not None:
            try:
                raise error
            finally:
                del error  # whose traceback holds this frame, and with it what its batch was made of
        done: T = result
        return done

    def _wait(self, look: Callable[[], None]) -> tuple[Any, BaseException | None]:
        while True:
            try:
                return self._results.get(timeout=LOOK)
            except queue.Empty:
                look()

    def end(self) -> None:
        self._tasks.put(None)


def _work(tasks: "queue.SimpleQueue[Any]", results: "queue.SimpleQueue[Any]") -> None:
    while (task := tasks.get()) is not None:
        try:
            results.put((task(), None))
        except BaseException as error:
            results.put((None, error))
        del task  # and the iterator that it holds
