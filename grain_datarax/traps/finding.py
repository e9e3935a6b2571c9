"""What a rule finds in a pipeline, and what it is told of where that runs."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeAlias

from grain_datarax.pipelines import Step


@dataclasses.dataclass(frozen=True)
class Finding:
    """A trap that a pipeline is in.

    Attributes:
      trap: What it is called.
      where: The step, or steps, of the pipeline.
      why: What goes wrong.
      change: The line to change.
      worst: Whether this run draws wrong numbers without a word, or does not start.
    """

    trap: str
    where: str
    why: str
    change: str
    worst: bool = False

    def __str__(self) -> str:
        return f"{self.trap}: {self.where}\n  why: {self.why}\n  change: {self.change}"


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Where a pipeline runs.

    Attributes:
      processes: How many JAX processes there are.
      has_accelerator: Says whether JAX has one here; asked only where it matters, as it starts a backend.
    """

    processes: int = 1
    has_accelerator: Callable[[], bool] = lambda: False


# What looks for one trap: given the last step of a pipeline.
Rule: TypeAlias = Callable[[Step, Surroundings], Iterator[Finding]]
