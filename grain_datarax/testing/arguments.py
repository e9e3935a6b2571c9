"""What a user's function takes: which of a pipeline's numbers it can be given, and so which can be varied."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import grain

# What is passed where it is asked for without a default, and not varied.
_NEEDED = {
    "batch_size": 8,
    "worker_count": 0,
    "shard_index": 0,
    "shard_count": 1,
    "per_record": False,
    "epoch": 0,
}
_NAMES = (*_NEEDED, "shard_options")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to make a pipeline; None is left to the function's own default."""

    batch_size: int | None = None
    worker_count: int | None = None
    shard_index: int | None = None
    shard_count: int | None = None
    per_record: bool | None = None
    epoch: int | None = None


class Maker:
    """A user's function that makes a pipeline, and is given only what it takes, by keyword.

    Args:
      function: Takes any of `batch_size`, `worker_count`, `per_record`, `epoch`, and `shard_options` or `shard_index`
        and `shard_count`. What a `functools.partial` has fixed stays.

    Raises:
      TypeError: If it can't be called, or must be given something else.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(
                f"`make_pipeline` must be a function that returns a new pipeline: got {type(function).__name__}. Pass"
                " lambda: pipeline, or better what makes it."
            )
        self._function = function
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(function).parameters.values()
        fixed = set(function.keywords) if isinstance(function, functools.partial) else set()
        taken = {each.name: each for each in parameters if each.kind in kinds and each.name not in fixed}
        self._takes = set(taken)
        self._needs = {name for name, each in taken.items() if each.default is each.empty}
        if unknown := sorted(self._needs - {*_NAMES}):
            raise TypeError(
                f"`make_pipeline` must take none but {', '.join(_NAMES)} without a default: got"
                f" {', '.join(unknown)}. Give it a default, or pass functools.partial(make_pipeline, {unknown[0]}=...)."
            )

    @property
    def name(self) -> str:
        """What it is called."""
        inner = self._function.func if isinstance(self._function, functools.partial) else self._function
        return getattr(inner, "__name__", type(inner).__name__)

    def takes(self, *names: str) -> bool:
        """Whether it takes all of these."""
        return self._takes >= {*names}

    @property
    def takes_shards(self) -> bool:
        """Whether it can be told which shard to read."""
        return self.takes("shard_options") or self.takes("shard_index", "shard_count")

    def __call__(self, setting: Setting) -> Any:
        """A new pipeline."""
        given = {name: value for name, value in dataclasses.asdict(setting).items() if value is not None}
        needed = {name: value for name, value in _NEEDED.items() if name in self._needs}
        if "shard_count" in given or "shard_options" in self._needs:
            index, count = given.get("shard_index", 0), given.get("shard_count", 1)
            given["shard_options"] = grain.sharding.ShardOptions(index, count, drop_remainder=True)
        values = {**needed, **given}
        return self._function(**{name: value for name, value in values.items() if name in self._takes})
