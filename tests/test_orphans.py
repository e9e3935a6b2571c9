"""Nothing of a program that was killed goes on: its worker processes end with it, and their shared memory goes."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.once, pytest.mark.long]
PROGRAM = pathlib.Path(__file__).parent / "orphan_process.py"
SECONDS = 2


def alive(group):
    """The processes of a group, but for those that are dead and nobody has asked for."""
    lines = subprocess.run(["ps", "-A", "-ww", "-o", "pgid=,stat=,pid=,args="], capture_output=True, text=True).stdout
    found = [line.split(maxsplit=3) for line in lines.splitlines()]
    return [" ".join(rest) for number, state, *rest in found if int(number) == group and not state.startswith("Z")]


def left(prefix):
    """Shared memory and semaphores, where they are files."""
    return [name for name in os.listdir("/dev/shm") if prefix in name] if os.path.isdir("/dev/shm") else []


@contextlib.contextmanager
def running(phase, source, prefix, log):
    environment = {**os.environ, "PREFIX": prefix}
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM), phase, source],
        stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        program.stdout.close()


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


# Phase, source, signal, and how many seconds after the first worker process is there, or after the program says that it
# has come so far, it is killed.
KILLED = {
    "while workers start, at once": ("start", "loader", signal.SIGTERM, 0.0),
    "in a map that loops": ("loop", "mp_prefetch", signal.SIGKILL, 0.2),
    "in steady state, without operations of ours": ("steady", "loader without seeds", signal.SIGTERM, 0.1),
}
THOROUGH = {
    f"{phase}, {source}, {number.name}, {delay}": (phase, source, number, delay)
    for source in ("loader", "mp_prefetch")
    for number in (signal.SIGKILL, signal.SIGTERM)
    for phase, delays in {
        "start": (0.0, 0.1, 0.3, 1.0, 2.0), "steady": (0.0,), "full": (0.0,), "sleep": (0.0,), "loop": (0.0,), "close": (0.5,),
    }.items()
    for delay in delays
}  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "source", "number", "delay"),
    [pytest.param(*case, id=name) for name, case in KILLED.items()]
    + [pytest.param(*case, id=name, marks=pytest.mark.thorough) for name, case in THOROUGH.items()],
)
def test_nothing_outlives_a_program_that_was_killed(phase, source, number, delay, tmp_path):
    prefix = f"gdx{os.getpid() % 2**16:04x}_"  # Python takes no longer one
    with open(tmp_path / "log", "w+") as log, running(phase, source, prefix, log) as program:
        assert program.stdout.readline() == "ready\n", (tmp_path / "log").read_text()
        if phase == "start":
            assert wait_for(lambda: [each for each in alive(program.pid) if "spawn_main" in each], 60)
        time.sleep(delay)
        assert [each for each in alive(program.pid) if "spawn_main" in each]
        assert left(prefix) or not os.path.isdir("/dev/shm")
        program.send_signal(number)
        assert program.wait() == -number
        killed = time.monotonic()
        assert wait_for(lambda: not alive(program.pid), SECONDS), alive(program.pid)
        program.stdout.read()  # to its end, which `python train.py | tail` waits for
        assert time.monotonic() - killed < SECONDS + 1
        assert not left(prefix)
