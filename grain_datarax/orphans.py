"""Grain's worker processes end with their parent, however it died."""

import multiprocessing
import os
import re
import select
import sys
import threading
import time


def in_grain_worker() -> bool:
    """Whether this is one of Grain's worker processes."""
    # By name: a training process may itself be a child, and must keep its accelerator.
    return multiprocessing.current_process().name.startswith("grain-process-prefetch")


def end_with_parent() -> None:
    """In one of Grain's workers: starts a thread that ends the process once its parent is dead."""
    # Grain tells workers to end, which a parent that was killed can't. The signal that Linux sends by PR_SET_PDEATHSIG
    # comes when the thread that started the worker ends, and Grain's do, at each `set_state`.
    if in_grain_worker():
        threading.Thread(target=_wait_and_end, args=(_pipe_of_start(),), daemon=True).start()


def _pipe_of_start() -> int | None:
    """What is read from the parent while the program is imported, before there is a `parent_process()`."""
    found = re.search(r"\bpipe_handle=(\d+)", " ".join(sys.orig_argv))
    if multiprocessing.parent_process() is not None or found is None:
        return None
    return os.dup(int(found[1]))


def _wait_and_end(pipe: int | None) -> None:
    while (parent := multiprocessing.parent_process()) is None:
        if pipe is not None and _is_hung_up(pipe):
            os._exit(1)
        time.sleep(0.1)
    if pipe is not None:
        os.close(pipe)
    # A fork of the parent may hold the pipe open, which tells of its end.
    while parent.is_alive() and os.getppid() == parent.pid:
        parent.join(timeout=1)
    os._exit(1)


def _is_hung_up(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLHUP)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
