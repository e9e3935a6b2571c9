"""Medians of calls that take turns."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Hashable
from typing import Any

import jax

# Prepares the arguments, which is not timed, and returns what is.
Call = Callable[[], Callable[[], Any]]


@dataclasses.dataclass
class Compiled:
    """A compiled function, the seconds that took, and its scratch memory in bytes."""

    run: Callable
    seconds: float
    scratch: int


def compiled(function: Callable, *arguments: Any) -> Compiled:
    start = time.perf_counter()
    run = jax.jit(function).lower(*arguments).compile()
    return Compiled(run, time.perf_counter() - start, run.memory_analysis().temp_size_in_bytes)


def call(run: Callable, *arguments: Any) -> Call:
    return lambda: lambda: run(*arguments)


def donating_call(function: Callable, first: jax.Array, *others: Any) -> Call:
    """A call that is given the buffer of its first argument, a fresh copy each time."""
    run = jax.jit(function, donate_argnums=0)

    def prepare() -> Callable[[], Any]:
        donated = jax.block_until_ready(first.copy())
        return lambda: run(donated, *others)

    return prepare


def medians(calls: dict[Hashable, Call], repeats: int) -> dict[Hashable, float]:
    """Seconds of each call; each round times every call once, so that drifts of the machine meet all of them."""
    seconds: dict[Hashable, list[float]] = {name: [] for name in calls}
    for turn in range(-1, repeats):
        for name, prepare in calls.items():
            run = prepare()
            start = time.perf_counter()
            result = jax.block_until_ready(run())
            elapsed = time.perf_counter() - start
            del result  # freeing memory is not timed
            if turn >= 0:  # the first turn compiles and warms up
                seconds[name].append(elapsed)
    return {name: statistics.median(times) for name, times in seconds.items()}
