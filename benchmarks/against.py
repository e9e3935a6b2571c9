"""Times two versions of the package in turns, each in a process of its own that waits while the other works."""

import functools
import importlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Self

from benchmarks import timing

THIS = pathlib.Path(__file__).resolve().parents[1]

# By call: seconds, one number for each round.
Seconds = dict[str, list[float]]


class Version:
    """A process that times the package in a folder when it is asked to; to be used in a `with` statement."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = pathlib.Path(folder).resolve()

    def __enter__(self) -> Self:
        # These benchmarks, also for another version; two processes share the memory of one accelerator.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.against", str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=THIS,
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
        self._answer()
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()  # closes its input, which ends it

    def _answer(self) -> str:
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"`folder` must hold a version that can be timed: got {self._folder}. See its error.")
        return line

    def timed(
        self,
        module: str,
        description: Mapping[str, Any],
        form: str,
        shape: tuple[int, ...],
        dtype: str,
        *,
        repeats: int,
    ) -> Callable[[], dict[str, float]]:
        """A function that times one round: median seconds of what the module's `calls` makes of these."""
        request = json.dumps([repeats, module, description, form, shape, dtype])

        def run() -> dict[str, float]:
            print(request, file=self._process.stdin, flush=True)
            return json.loads(self._answer())

        return run


def in_turns(runs: Mapping[Hashable, Callable[[], dict[str, float]]], rounds: int) -> dict[Hashable, Seconds]:
    """The seconds of each version, round by round, for a minute at most; every second round begins with the last."""
    result: dict[Hashable, Seconds] = {version: {} for version in runs}
    start = time.perf_counter()
    for turn in range(rounds):
        if time.perf_counter() - start > 60:
            break
        for version in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            for call, seconds in runs[version]().items():
                result[version].setdefault(call, []).append(seconds)
    return result


def ratio(ours: list[float], others: list[float]) -> float:
    """The median over rounds, so that drifts of the machine meet both."""
    return statistics.median(our / other for our, other in zip(ours, others, strict=True))


@functools.lru_cache(maxsize=1)  # rounds of one row follow on each other, and batches take memory
def _calls(module: str, arguments: str) -> dict[str, timing.Call]:
    return importlib.import_module(module).calls(*json.loads(arguments))


def _serve(folder: str) -> None:
    """Answers requests, a line each, with the package in the folder."""
    sys.path.insert(0, folder)
    found = importlib.import_module("grain_datarax").__file__
    if not pathlib.Path(found).resolve().is_relative_to(folder):
        raise ValueError(f"`folder` must be a checkout of grain_datarax: got {folder}. Pass the folder that holds it.")
    print("ready", flush=True)
    for line in sys.stdin:
        repeats, module, *arguments = json.loads(line)
        print(json.dumps(timing.medians(_calls(module, json.dumps(arguments)), repeats)), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
