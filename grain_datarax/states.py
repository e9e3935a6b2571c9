"""What a state must be, before anything is set to it: whatever is refused here has moved no iterator."""

import json
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

from grain_datarax.nesting import require_shallow
from grain_datarax.wording import shown

# The one key that is added to Grain's state.
STATE_KEY = "grain_datarax"
AS_IT_WAS = "Pass what `get_state` returned, unchanged."
_LISTS_OF_WORKERS = ("iterators_in_use_states", "iterators_in_use_indices", "exhausted")


def require_state(state: Any, where: str = "", remedy: str = AS_IT_WAS) -> None:
    """Raises an error unless `state` has the form of Grain's states, and its entry under `STATE_KEY` that of ours.

    Args:
      state: Anything; bytes that hold a state as JSON are not one.
      where: Words for the error that say where the state is from, such as " in FILE".
      remedy: What the error says to do.

    Raises:
      ValueError: If a part is missing or of another kind. Parts that Grain has in some states alone are left to it.
    """
    form = _Form(where, remedy)
    form.require(isinstance(state, Mapping), "state", "be a dict", state)
    require_shallow("state", state, f"{remedy}{where}")
    if STATE_KEY in state:
        entry = state[STATE_KEY]
        require_fingerprint(entry, where, remedy)
        batches, size = entry.get("batches", "nothing"), entry.get("batch_size", "nothing")
        form.require(batches is None or _is_count(batches), "batches", "be a number of batches or None", batches)
        form.require(_is_count(size), "batch_size", "be a number of records", size)
    if "last_seen_indices" in state:
        _require_loader_state(state, form)
    for part in _dicts({name: part for name, part in state.items() if name != STATE_KEY}):
        if "global_next_index" in part:
            index = part["global_next_index"]
            form.require(_is_count(index), "global_next_index", "be a number of records", index)
        if "iterators_in_use_states" in part:
            _require_state_of_workers(part, form)


def require_fingerprint(entry: Any, where: str = "", remedy: str = AS_IT_WAS) -> None:
    """Raises a ValueError unless `entry` has the parts of a fingerprint of operators, or of a chain."""
    form = _Form(where, remedy)
    form.require(isinstance(entry, Mapping), STATE_KEY, "be a dict", entry)
    version = entry.get("stream_version", "nothing")
    form.require(_is_count(version), "stream_version", "be an int", version)
    form.require(_is_json(entry), STATE_KEY, "be of JSON's types", entry)
    if "chain" in entry:
        form.require(isinstance(entry["chain"], Mapping), "chain", "be a dict", entry["chain"])
        _require_effects(entry["chain"], form)
        return
    operators = entry.get("operators", "nothing")
    form.require(isinstance(operators, list | tuple), "operators", "be a list", operators)
    for operator in operators:
        named = isinstance(operator, Mapping) and isinstance(operator.get("name"), str)
        form.require(named, "operators", "hold dicts with a `name` each", operator)


def _require_effects(part: Mapping[str, Any], form: "_Form") -> None:
    """Of a chain, or of an effect that holds others."""
    effects = part.get("effects", "nothing")
    form.require(isinstance(effects, list | tuple), "effects", "be a list", effects)
    for effect in effects:
        described = isinstance(effect, Mapping) and isinstance(effect.get("effect"), str)
        named = described and isinstance(effect.get("name"), str | None)
        form.require(named, "effects", "hold dicts with an `effect` each", effect)
        if "effects" in effect:
            _require_effects(effect, form)


def require_like(state: Any, own: Any, name: str = "state") -> None:
    """Raises a ValueError unless `state` has the keys and the kinds of values that `own`, of the same iterator, has.

    What is None in `own` may be anything. Of iterators in use Grain leaves out those that have ended: None for a dict.
    """
    form = _Form("", "Pass a state of the same source; for other numbers of workers see grain_datarax.checkpoint.")
    if own is None or _has_ended(state, own, name):
        return
    kinds: list[tuple[Any, str]] = [
        (Mapping, "be a dict"),
        (list, "be a list"),
        (tuple, "be a list"),
        (numbers.Integral, "be an int"),
    ]
    for kind, rule in kinds:
        allowed = (list, tuple) if kind is tuple else kind  # JSON has lists alone
        form.require(not isinstance(own, kind) or isinstance(state, allowed), name, rule, state)
    if isinstance(own, Mapping):
        for key, part in own.items():
            if key in state:
                require_like(state[key], part, key)
            else:
                empty = isinstance(part, Mapping | list | tuple) and not part
                form.require(empty, name, f"have `{key}`", state)
    elif isinstance(own, list | tuple):
        same = name not in _LISTS_OF_WORKERS or len(state) == len(own)
        form.require(same, name, f"be of {len(own)} workers", state)
        for theirs, part in zip(state, own, strict=False):
            require_like(theirs, part, name)


def _has_ended(state: Any, own: Any, name: str) -> bool:
    return state is None and name == "iterators_in_use_states" and isinstance(own, Mapping)


def _require_loader_state(state: Mapping[str, Any], form: "_Form") -> None:
    seen, count = state["last_seen_indices"], state.get("worker_count", "nothing")
    form.require(_is_count(count), "worker_count", "be a number of workers", count)
    # Compared first: of a damaged number there may be too many workers for any memory.
    each = isinstance(seen, Mapping) and len(seen) == max(count, 1) and set(seen) == set(map(str, range(len(seen))))
    form.require(each, "last_seen_indices", "have each worker", seen)
    form.require(all(map(_is_int, seen.values())), "last_seen_indices", "be ints", seen)
    last = state.get("last_worker_index", "nothing")
    form.require(_is_int(last) and -1 <= last < len(seen), "last_worker_index", "be a worker or -1", last)
    for name in ("sampler", "data_source"):
        form.require(isinstance(state.get(name), str), name, "be a str", state.get(name, "nothing"))


def _require_state_of_workers(state: Mapping[str, Any], form: "_Form") -> None:
    parts = state["iterators_in_use_states"]
    form.require(isinstance(parts, list | tuple) and len(parts) > 0, "iterators_in_use_states", "be a list", parts)
    for part in parts:
        form.require(part is None or isinstance(part, Mapping), "iterators_in_use_states", "hold dicts", part)
        position = 0 if part is None else part.get("next_index", 0)
        form.require(_is_count(position), "next_index", "be a number of elements", position)
    turn = state.get("next_index_in_cycle", "nothing")
    form.require(_is_count(turn) and turn < len(parts), "next_index_in_cycle", "be that of a worker", turn)
    indices = state.get("iterators_in_use_indices", [])
    good = isinstance(indices, list | tuple) and all(map(_is_count, indices))
    form.require(good, "iterators_in_use_indices", "be a list of numbers", indices)


class _Form:
    """Raises the errors about a state's form."""

    def __init__(self, where: str, remedy: str) -> None:
        self._where, self._remedy = where, remedy

    def require(self, good: bool, name: str, rule: str, got: Any) -> None:
        if not good:
            raise ValueError(f"`{name}` must {rule}: got {shown(got)}{self._where}. {self._remedy}")


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _is_int(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_int(value) and value >= 0


def _dicts(part: Any) -> Iterator[Mapping[str, Any]]:
    """All dicts of a state, itself first."""
    if isinstance(part, Mapping):
        yield part
        part = list(part.values())
    if isinstance(part, list | tuple):
        for each in part:
            yield from _dicts(each)
