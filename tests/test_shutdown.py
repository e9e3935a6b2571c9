"""The end of a DeviceLoader's iterators: of their threads, their worker processes, and of the program."""

import gc
import signal
import subprocess
import sys
import threading
import time

import pytest
from device_sources import SOURCES, chain

import grain_datarax as gdx

pytestmark = pytest.mark.once


def grains_deleter(thread):
    """Grain has one pool of threads for the whole process, which frees shared memory."""
    return "ThreadPool" in str(thread) or any(name in thread.name for name in ("(worker)", "(_handle_"))


def own_threads():
    return {thread for thread in threading.enumerate() if not grains_deleter(thread)}


@pytest.mark.parametrize(
    ("source", "way"),
    [
        pytest.param(SOURCES[name], way, marks=[pytest.mark.long] * ("workers" in name), id=f"{name}, {way}")
        for name in SOURCES
        for way in ["iterator", "loader", "with iterator", "with loader", "dropped", "exhausted"]
        if "workers" not in name
        or (name, way) in {("loader, 2 workers", "dropped"), ("IterDataset, 2 workers", "iterator")}
    ],
)
def test_closing_ends_every_thread(source, way):
    before = own_threads()
    batches = gdx.DeviceLoader(source(), chain(), buffer_size=4)
    iterator = iter(batches)
    next(iterator)
    if way == "iterator":
        iterator.close()
        iterator.close()
    elif way == "loader":
        batches.close()
    elif way == "with iterator":
        with iterator:
            next(iterator)
    elif way == "with loader":
        with batches:
            next(iterator)
    elif way == "exhausted":
        assert len(list(iterator)) == 3
        assert next(iterator, None) is None
        assert next(iterator, None) is None
    if way not in ("dropped", "exhausted"):
        with pytest.raises(ValueError, match="`iterator` must be open"):
            next(iterator)
        state = iterator.get_state()
        with pytest.raises(ValueError, match="`iterator` must be open"):
            iterator.set_state(state)
    del iterator, batches
    gc.collect()
    deadline = time.monotonic() + 10  # Grain's reading threads are told to end, and not waited for
    while own_threads() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own_threads() - before


SCRIPT = """
import os
import sys
import time
sys.path.insert(0, {tests!r})
if __name__ == "__main__":  # the imports too: worker processes run the rest
    from absl import flags
    from device_sources import *
    flags.FLAGS.mark_as_parsed()
    # Slow to close files, so that two threads that close the same one are sure to meet.
    close = os.close
    os.close = lambda file: (time.sleep(0.003), close(file))
    batches = gdx.DeviceLoader(SOURCES[{source!r}](), chain(), buffer_size={buffer_size})
    iterator = iter(batches)
    batch = next(iterator)
    {ending}
"""
ENDINGS = {"left open": "pass", "dropped": "del iterator, batches", "used up": "for batch in iterator: pass"}


@pytest.mark.long
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("source", ["loader", "loader, 2 workers"])
def test_the_program_ends_without_a_sound(source, ending, tmp_path):
    script = tmp_path / "script.py"
    tests = __file__.rpartition("/")[0]
    script.write_text(SCRIPT.format(tests=tests, source=source, ending=ENDINGS[ending], buffer_size=2))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


KILLED = """
import os
import sys
if __name__ != "__main__":
    os._exit(1)  # a worker that dies before it has read its dataset: the pipe holds no more than 64 KiB
sys.path.insert(0, {tests!r})
import signal
from absl import flags
from device_sources import *
from grain_datarax import iterators, waiting
flags.FLAGS.mark_as_parsed()
iterators.PATIENCE = 1
{then}
with gdx.DeviceLoader(loader(SEEDED, count=256, workers=1), chain()) as batches:
    next(iter(batches))
"""
INTERRUPTED = """
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 2)
"""


def program_whose_worker_is_killed(tmp_path, then):
    script = tmp_path / "script.py"
    script.write_text(KILLED.format(tests=__file__.rpartition("/")[0], then=then))
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.long
def test_the_program_can_be_interrupted_while_it_waits_for_a_worker_that_was_killed(tmp_path):
    done = program_whose_worker_is_killed(tmp_path, INTERRUPTED)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr
    assert "`iterator` must end within 1 seconds when it is closed" in done.stderr


@pytest.mark.long
def test_the_wait_for_a_worker_that_was_killed_while_it_was_started_ends(tmp_path):
    done = program_whose_worker_is_killed(tmp_path, "waiting.START = 2")
    assert done.returncode == 1
    assert "`source` must let its worker processes start: got none within 2 seconds" in done.stderr
