"""The end of iterators: of their threads, their worker processes and their shared memory, at the latest at exit."""

import atexit
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import grain


def ends_within(seconds: float, close: Callable[[], None]) -> bool:
    """Whether `close` ended within that time; it is left to a thread then."""
    # Grain waits without end for a worker that was killed, by Ctrl-C for one, while it was started.
    closing = threading.Thread(target=close, daemon=True)
    try:
        closing.start()
    except RuntimeError:  # Python 3.12 starts none when the interpreter goes down; a second Ctrl-C ends the wait
        close()
        return True
    closing.join(seconds)
    return not closing.is_alive()


_shared_memory: list[Any] = []


def free_shared_memory() -> None:
    """Frees the shared memory of batches in reference cycles, as the end of Grain's iterators leaves them."""
    # Held, since otherwise the garbage collector closes it while Grain's thread does, which fails then, and leaves the
    # file.
    shared = grain.multiprocessing.SharedMemoryArray
    _shared_memory[:] = [array.shm for array in gc.get_objects() if type(array) is shared]
    if _shared_memory:
        gc.collect()


_still_open: weakref.WeakSet[grain.DatasetIterator[Any]] = weakref.WeakSet()
_workers_may_have_run = False


def close_at_exit(iterator: grain.DatasetIterator[Any], may_have_workers: bool) -> None:
    """Closes the iterator before the interpreter goes down, if nobody did."""
    # Threads that still use JAX then make noise, or crash it.
    global _workers_may_have_run
    _workers_may_have_run |= may_have_workers
    _still_open.add(iterator)
    _register()


@functools.cache
def _register() -> None:
    atexit.register(_close_all)


def _close_all() -> None:
    for iterator in list(_still_open):
        iterator.close()
    if _workers_may_have_run:
        free_shared_memory()
        # Grain's thread frees one after the other, and ends with the interpreter: it has to come to the last first.
        if pool := grain.multiprocessing.SharedMemoryArray._del_thread_pool:
            pool.apply_async(bool).wait(timeout=10)
