"""What Grain's worker processes send: an exception arrives, as itself or as its text, and no element is left out."""

import os
import pickle
import sys
import traceback
from typing import Any

from grain_datarax.orphans import in_grain_worker


def send_all() -> None:
    """In one of Grain's workers: mends how `multiprocessing` sends what it can't pickle, which is not at all."""
    # Grain waits for ever where an exception was not sent, and where an element was not it goes on with the next, as of
    # 0.2.18: https://github.com/google/grain/blob/main/grain/_src/python/dataset/transformations/process_prefetch.py
    if not in_grain_worker():
        return
    from multiprocessing import queues, reduction

    pickler: Any = reduction.ForkingPickler
    pickler.reducer_override = _reduce
    sender: Any = queues.Queue
    sender._on_queue_feeder_error = staticmethod(_end)


def is_end(error: StopIteration) -> bool:
    """Whether the data has ended, and no function of the user's was it that raised StopIteration."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [frame.f_code.co_name for frame in frames if _is_users(frame.f_globals.get("__name__", ""))]
    return not names or "__next__" in names  # of an iterator that is the user's own


def _is_users(module: str) -> bool:
    package = module.partition(".")[0]
    return package not in ("grain", "grain_datarax") and package not in sys.stdlib_module_names


def refusal_of(error: StopIteration) -> RuntimeError:
    """What is to be raised for it."""
    return RuntimeError(
        f"`source` and its operations must not raise StopIteration, which would end the data: got {error!r}. Catch it"
        " there, or use next(iterator, default)."
    )


def _reduce(_: Any, part: Any) -> Any:
    """How the pickler takes `part` apart: an exception that would not come out as it went in becomes its text."""
    if not isinstance(part, BaseException):
        return NotImplemented
    if isinstance(part, StopIteration) and not is_end(part):
        return RuntimeError, refusal_of(part).args
    try:
        pickle.loads(pickle.dumps(part))
    except Exception:  # of its own, too
        return RuntimeError, ("".join(traceback.format_exception_only(part)).strip(),)
    return NotImplemented


def _end(error: Exception, _: Any) -> None:
    traceback.print_exception(error)
    print(
        f"`source` must give elements that pickle takes, to leave a worker process: got {error!r}. Make them arrays,"
        " numbers or strings there, or of classes that a module defines.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)  # so that Grain raises an error, and hands out nothing that comes behind
