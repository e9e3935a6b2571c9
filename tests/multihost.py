"""Starts several processes of `jax.distributed` on this machine."""

import pathlib
import socket
import subprocess
import sys


def launch(processes, directory, *arguments, module="multihost_process"):
    """Runs a scenario of the module in this many processes, and raises if one fails."""
    # Not a file of its own, which worker processes would run again, with all its imports.
    program = f"import sys, {module}; {module}.main(*sys.argv[1:])"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, coordinator, str(processes), str(index), directory, *map(str, arguments)],
            cwd=pathlib.Path(__file__).parent,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, "\n".join(errors)
