"""A function's result in a second process, started anew."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

import absl.flags
import cloudpickle

_Result = TypeVar("_Result")

# How many seconds a process may take to end: its threads and worker processes do so first.
_PATIENCE = 30


def in_second_process(function: Callable[[], _Result], timeout: float) -> _Result:
    """What a function returns in a process of its own, whose strings have other hashes.

    Args:
      function: Anything that cloudpickle takes.
      timeout: How many seconds it may take.

    Raises:
      TimeoutError: If it takes longer.
      RuntimeError: If it raises, or its process ends.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    # No daemon: these may not have children, such as Grain's workers.
    process = context.Process(target=_run, args=(cloudpickle.dumps(function), sender), daemon=False)
    try:
        with _other_hashes():
            process.start()
        sender.close()
        if not receiver.poll(timeout):
            process.terminate()
            raise TimeoutError(f"`timeout` must suffice for the second process: got {timeout} seconds. Pass more.")
        succeeded, result = cloudpickle.loads(receiver.recv_bytes())
    except EOFError:
        process.join(_PATIENCE)
        raise RuntimeError(
            f"The second process ended with exit code {process.exitcode} and said nothing. If this is a program, put it"
            ' under `if __name__ == "__main__":`, as Grain\'s workers need it too.'
        ) from None
    finally:
        receiver.close()
        sender.close()
        _end(process)
    if not succeeded:
        raise RuntimeError(f"The second process raised {result}")
    return result  # type: ignore[no-any-return]


def _run(pickled: bytes, sender: Connection) -> None:
    # Iterators are closed on the way: the workers of a process that is just gone go on for ever.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    absl.flags.FLAGS.mark_as_parsed()  # which Grain's workers ask for (google/grain#1355)
    try:
        answer = cloudpickle.dumps((True, cloudpickle.loads(pickled)()))
    except Exception as error:
        answer = cloudpickle.dumps((False, "".join(traceback.format_exception(error))))
    sender.send_bytes(answer)
    sender.close()


def _end(process: BaseProcess) -> None:
    if process.pid is None:  # never started
        return
    process.join(_PATIENCE)
    for stop in (process.terminate, process.kill):
        if process.is_alive():
            stop()
            process.join(_PATIENCE)
    process.close()


@contextlib.contextmanager
def _other_hashes() -> Generator[None]:
    """Python started in this block seeds its hashes otherwise, even where the environment fixes that."""
    name = "PYTHONHASHSEED"
    before = os.environ.get(name)
    os.environ[name] = "2" if before == "1" else "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
