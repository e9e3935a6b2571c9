"""Traps of the program around a pipeline that starts worker processes."""

import ast
import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import Self

from absl import flags
from grain._src.core import profiler  # what Grain itself asks before it starts a worker

from grain_datarax.pipelines import Kind, Step
from grain_datarax.traps.finding import Finding


@dataclasses.dataclass(frozen=True)
class Program:
    """The program that reads a pipeline.

    Attributes:
      path: Its file; None if there is none, as in a notebook.
      guarded: Whether workers, which run the file again, do no work of its own then; None if it can't be read.
      flags_parsed: Whether Grain can ask its absl flags.
    """

    path: pathlib.Path | None
    guarded: bool | None
    flags_parsed: bool

    @classmethod
    def running(cls) -> Self:
        """This process's."""
        file = getattr(sys.modules.get("__main__"), "__file__", None)
        path = pathlib.Path(file) if file else None
        tree = _parsed(path)
        return cls(path, None if tree is None else _has_guard(tree), _grain_can_ask())

    @classmethod
    def of_file(cls, path: pathlib.Path | None) -> Self:
        """One that is not run here: whether it parses flags is read from its text."""
        tree = _parsed(path)
        if tree is None:
            return cls(path, None, True)
        return cls(path, _has_guard(tree) or not _works(tree), _grain_can_ask() or _parses_flags(tree))


def traps_of_program(last: Step, program: Program) -> Iterator[Finding]:
    """What is wrong with the program of a pipeline that has workers."""
    workers = next((step for step in last.chain() if step.kind is Kind.WORKERS), None)
    if workers is None:
        return
    if not program.flags_parsed:
        yield Finding(
            "unparsed absl flags",
            workers.where,
            "Grain asks an absl flag before it starts workers, and raises UnparsedFlagAccessError"
            " (https://github.com/google/grain/issues/1355).",
            "Start the program by absl.app.run(main), or call absl.flags.FLAGS.mark_as_parsed() first.",
            worst=True,
        )
    if program.guarded is False:
        yield Finding(
            "no __main__ guard",
            f"{workers.where}, in {program.path}",
            "each worker runs this file from the top, where it would start workers of its own, and ends with an error.",
            'Put what runs under `if __name__ == "__main__":`.',
            worst=True,
        )


def _grain_can_ask() -> bool:
    try:
        profiler.is_worker_profiling_enabled()
    except flags.UnparsedFlagAccessError:
        return False
    return True


def _parsed(path: pathlib.Path | None) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes()) if path is not None else None
    except (OSError, SyntaxError, ValueError):  # a zip, for example
        return None


def _has_guard(tree: ast.Module) -> bool:
    names = (node.test for node in tree.body if isinstance(node, ast.If))
    return any("__name__" in ast.unparse(test) and "__main__" in ast.unparse(test) for test in names)


def _works(tree: ast.Module) -> bool:
    """Whether a module does more than to define and import."""
    return any(
        isinstance(node, ast.For | ast.While | ast.With)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        for node in tree.body
    )


def _parses_flags(tree: ast.Module) -> bool:
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(call.endswith(("app.run", "mark_as_parsed", "FLAGS")) for call in calls)
