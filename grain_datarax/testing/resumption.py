"""Does a pipeline go on, from each of its states, as if it had never stopped?"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from grain_datarax.testing.arguments import Maker, Setting
from grain_datarax.testing.report import Line, Report
from grain_datarax.testing.rows import (
    Reading,
    Row,
    Run,
    Stored,
    has_states,
    iterating,
    passes_unsaid,
    read,
    stored,
    take,
)
from grain_datarax.testing.verdict import line_of

_READING = Reading(key=None, batched=False)  # whole elements, by their place


def assert_resumable(
    make_pipeline: Callable[..., Any], *, steps: Sequence[int] | None = None, elements: int = 16
) -> Report:
    """Raises unless a pipeline goes on from its states bit for bit as it did: the same batches in the same order.

    At each step two are tried: a new pipeline that is set to the state, as JSON or bytes hold it; and the iterator
    itself, set back to the state that it gave, after it has gone on. `assert_reproducible` tries the first, for fewer
    steps, with worker processes too; here they are those that `make_pipeline` has by default.

    Args:
      make_pipeline: As in `assert_reproducible`.
      steps: After how many batches states are taken. None: at the start, after 1, in the middle, and before the last.
      elements: How many batches are read, at least 2; fewer if there are fewer.

    Returns:
      What was tried; as a string it is a table.

    Raises:
      AssertionError: With that table, if something differs; or if there are no states.
      TypeError, ValueError: If an argument has the wrong type or value.

    Example:
      >>> import grain
      >>> def make_pipeline():
      ...     return grain.MapDataset.range(20).random_map(lambda i, rng: rng.random(3), seed=7).batch(4)
      >>> print(assert_resumable(make_pipeline, steps=(0, 3)))
      5 batches of make_pipeline:
      <BLANKLINE>
          tried                      compared  changed  missing  extra
      ok  step 0 of 5, new pipeline         5        0        0      0
      ok  step 0 of 5, set back             5        0        0      0
      ok  step 3 of 5, new pipeline         2        0        0      0
      ok  step 3 of 5, set back             2        0        0      0
    """
    maker = Maker(make_pipeline)
    with passes_unsaid(), iterating(maker(Setting())) as iterator:
        if not has_states(iterator):
            raise AssertionError(
                f"`make_pipeline` must return a pipeline that can be resumed: got {type(iterator).__name__} without"
                " `get_state` and `set_state`. Return one of Grain's, or a DeviceLoader."
            )
        base, states = _whole(iterator, elements)
        lines = [
            line for step in _steps(steps, len(base.rows)) for line in _lines(maker, iterator, states[step], base, step)
        ]
    return Report(f"{len(base.rows)} batches of {maker.name}:", tuple(lines)).require()


def _whole(iterator: Any, elements: int) -> tuple[Run, Sequence[tuple[Any, Stored]]]:
    """What comes from the start on, and all states: as they are, and as they are kept."""
    rows: list[Row] = []
    states = [_state_of(iterator)]
    for element in itertools.islice(iterator, elements):
        rows += _READING.rows(element, len(rows))
        states.append(_state_of(iterator))
    ended = not any(True for _ in itertools.islice(iterator, 1))
    return Run(tuple(rows), (1,) * len(rows), None, ended), states


def _state_of(iterator: Any) -> tuple[Any, Stored]:
    state = iterator.get_state()
    return state, stored(state)


def _steps(steps: Sequence[int] | None, count: int) -> Sequence[int]:
    if count < 2:
        raise ValueError(f"`elements` must reach 2 batches or more: got {count}. Pass more, or smaller batches.")
    if steps is None:
        return sorted({0, 1, count // 2, count - 1})
    if wrong := [step for step in steps if not 0 <= step < count]:
        raise ValueError(f"`steps` must lie within the {count} batches: got {wrong}. Pass 0 to {count - 1}.")
    return steps


def _lines(maker: Maker, iterator: Any, state: tuple[Any, Stored], base: Run, step: int) -> Iterator[Line]:
    """What comes of a state in a new pipeline, and in the iterator that gave it."""
    rest = Run(base.rows[step:], base.sizes[step:], None, base.ended)
    count = len(rest.rows)

    def new() -> Run:
        return read(maker(Setting()), _READING, count, state=state[1], start=step)

    def set_back() -> Run:
        iterator.set_state(state[0])
        return take(iterator, _READING, count, start=step)

    for how, run in {"new pipeline": new, "set back": set_back}.items():
        tried = f"step {step} of {len(base.rows)}, {how}"
        yield line_of("resume", tried, rest, run, "same", noun="batch")
