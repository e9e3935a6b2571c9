"""Two runs -> what differs between them, bit for bit, and where."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from grain_datarax.testing.rows import Row

# A Python number has no dtype of its own: it takes that of an array of these kinds.
_KINDS = {bool: "b", int: "iu", float: "fV", complex: "c"}
_NOTHING = object()


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two runs have in common, and what not.

    Attributes:
      compared: How many records both have.
      changed: The keys of those that differ, one for each.
      missing: The keys of those that only the first has.
      extra: The keys of those that only the second has.
      first: The key of the first of them, and what differs, in words; empty if there is none.
    """

    compared: int
    changed: tuple[Hashable, ...]
    missing: tuple[Hashable, ...]
    extra: tuple[Hashable, ...]
    first: str


def compare(base: Sequence[Row], other: Sequence[Row], *, ordered: bool) -> Comparison:
    """Compares records that have the same key, the first that came with the first, and so on.

    Args:
      base: The records that are taken for right.
      other: The records that are compared with them.
      ordered: Whether records of the same key must come in the same order; else all that differ are set against
        each other.
    """
    before, after = _by_key(base), _by_key(other)
    compared, changed, missing, extra = 0, [], [], []
    first = ""
    for key, rows in before.items():
        others = after.pop(key, [])
        words = _differences(rows, others, ordered)
        first = first or (f"{key!r}: {words[0]}" if words else "")
        changed += [key] * len(words)
        compared += min(len(rows), len(others))
        missing += [key] * (len(rows) - len(others))
        extra += [key] * (len(others) - len(rows))
    extra += [key for key, rows in after.items() for _ in rows]
    return Comparison(compared, tuple(changed), tuple(missing), tuple(extra), first)


def difference(base: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first difference between two records, in words; empty if they are equal.

    NaN equals NaN; bits, dtypes and shapes count, but not whether an array is NumPy's or JAX's.

    Args:
      base: Fields by path.
      other: The same of another record.

    Example:
      >>> difference({"image": np.zeros((2, 2)), "label": 3}, {"image": np.eye(2), "label": 3})
      '`image`[0, 0] is 1.0, not 0.0'
      >>> difference({"label": np.uint8(3)}, {"label": np.int32(3)})
      '`label` is int32 (), not uint8 ()'
    """
    for path in dict.fromkeys([*base, *other]):
        before, after = base.get(path, _NOTHING), other.get(path, _NOTHING)
        name = f"`{path}`" if path else "it"
        if before is _NOTHING or after is _NOTHING:
            return f"{name} is {'there' if before is _NOTHING else 'missing'}"
        if words := _difference(before, after):
            return name + words
    return ""


def _by_key(rows: Iterable[Row]) -> dict[Hashable, list[Row]]:
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    return groups


def _differences(rows: Sequence[Row], others: Sequence[Row], ordered: bool) -> list[str]:
    """Words for each record that has none like it on the other side."""
    pairs = list(zip(rows, others, strict=False))
    if not ordered:
        left, right = list(rows), list(others)
        for row in rows:
            same = next((other for other in right if not difference(row.leaves, other.leaves)), None)
            if same is not None:
                left.remove(row)
                right.remove(same)
        pairs = list(zip(left, right, strict=False))
    return [words for row, other in pairs if (words := difference(row.leaves, other.leaves))]


def _difference(before: Any, after: Any) -> str:
    old, new = _alike(before, after)
    if not isinstance(old, np.ndarray) or not isinstance(new, np.ndarray):
        return "" if type(old) is type(new) and _equal(old, new) else f" is {new!r}, not {old!r}"
    texts = old.dtype.kind == new.dtype.kind and old.dtype.kind in "SU"  # as long as the longest in their batch
    if (old.dtype != new.dtype and not texts) or old.shape != new.shape:
        return f" is {new.dtype} {new.shape}, not {old.dtype} {old.shape}"
    differs = _differing(old, new)
    if not differs.any():
        return ""
    index = tuple(map(int, np.unravel_index(int(differs.argmax()), differs.shape)))
    place = f"[{', '.join(map(str, index))}]" if index else ""
    return f"{place} is {new[index]!s}, not {old[index]!s}"


def _alike(before: Any, after: Any) -> tuple[Any, Any]:
    """Both as arrays where they are numbers or arrays, texts as texts."""
    before, after = _plain(before), _plain(after)
    if type(before) in _KINDS and isinstance(after, np.ndarray):
        return _taking(after, before), after
    if type(after) in _KINDS and isinstance(before, np.ndarray):
        return before, _taking(before, after)
    if type(before) in _KINDS and type(after) in _KINDS:
        return np.asarray(before), np.asarray(after)
    return before, after


def _plain(value: Any) -> Any:
    if isinstance(value, np.str_ | np.bytes_):
        return value.item()
    return np.asarray(value) if isinstance(value, np.generic) else value


def _taking(array: np.ndarray, number: Any) -> np.ndarray:
    """A Python number in the array's dtype, if it has that kind and fits."""
    if array.dtype.kind in _KINDS[type(number)]:
        try:
            return np.asarray(number, array.dtype)
        except (OverflowError, TypeError):
            pass
    return np.asarray(number)


def _differing(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Which elements differ, in the arrays' shape."""
    if old.dtype.hasobject or old.dtype.kind in "SU":
        pairs = zip(old.ravel().tolist(), new.ravel().tolist(), strict=True)
        return np.array([not _equal(*pair) for pair in pairs], bool).reshape(old.shape)
    differs: np.ndarray = (_bytes(old) != _bytes(new)).any(axis=-1).reshape(old.shape)
    try:
        return np.asarray(differs & ~(np.isnan(old) & np.isnan(new)))
    except TypeError:  # a type without NaN
        return differs


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8)


def _equal(old: Any, new: Any) -> bool:
    try:
        return bool(old == new)
    except ValueError:  # arrays in objects
        return bool(np.array_equal(old, new))
