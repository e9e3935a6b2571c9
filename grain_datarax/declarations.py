"""What the settings of a chain may be, beside its effects: what is said once of the fields of a record."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from grain_datarax.containers import RECORD_DRAWS, RECORD_SEED, as_path
from grain_datarax.effects.settings import Integer, Name, Number
from grain_datarax.wording import shown


def checked_seed(seed: Any) -> int:
    """One integer for the whole chain, of 64 bits."""
    if isinstance(seed, int | np.integer) and not 0 <= seed < 2**64:
        raise ValueError(f"`seed` must be from 0 to 2**64 - 1: got {shown(seed)}. Pass one of these.")
    return Integer()("seed", seed)


def checked_images(image: Any) -> str | tuple[str, ...]:
    """One path as itself, several as a tuple."""
    image = as_path(image)
    if isinstance(image, str):
        return Name()("image", image)
    if not isinstance(image, list | tuple):
        raise TypeError(f"`image` must be a field or several: got {shown(image)}. Pass a name, or a list of names.")
    if not image:
        raise ValueError("`image` must name at least one field: got none. Pass a name, or a list of names.")
    paths = _names("image", image)
    return paths[0] if len(paths) == 1 else paths


def checked_labels(labels: Any) -> tuple[str, ...]:
    """Paths as a tuple."""
    labels = as_path(labels)
    labels = (labels,) if isinstance(labels, str) else labels
    if not isinstance(labels, list | tuple):
        raise TypeError(f"`labels` must be a field or several: got {shown(labels)}. Pass a name, or a list of names.")
    return _names("labels", labels)


def checked_range(value_range: Any) -> tuple[float, float] | None:
    """Two numbers, as they are, or None."""
    if value_range is None:
        return None
    if not isinstance(value_range, list | tuple):
        raise TypeError(f"`value_range` must be two numbers: got {shown(value_range)}. Pass (low, high), or None.")
    rule = Number(-1e30, 1e30, "be finite, from -1e30 to 1e30")
    bounds = [_as_it_is(rule("value_range", bound), bound) for bound in value_range]
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise ValueError(
            f"`value_range` must be two numbers, low < high: got {shown(value_range)}. Pass (low, high), or None."
        )
    return bounds[0], bounds[1]


def checked_channels(channels: Any, axes: str) -> tuple[int, ...] | None:
    """Different indices, or None."""
    if channels is None:
        return None
    if not isinstance(channels, list | tuple):
        raise TypeError(f"`channels` must be integers: got {shown(channels)}. Pass a list of indices, or None for all.")
    result = tuple(Integer(least=0)("channels", channel) for channel in channels)
    if not result or len(set(result)) != len(result) or "C" not in axes:
        raise ValueError(
            f"`channels` must be different indices into the axis C of {axes!r}: got {shown(channels)}. Pass None for"
            " all."
        )
    return result


def checked_masks(masks: Any) -> tuple[tuple[str, float | None], ...]:
    """Fields and their fills, in pairs."""
    fill = Number(rule="be filled with a finite number")
    pairs = _pairs("masks", masks, "fills")
    return tuple((path, None if value is None else _as_it_is(fill("masks", value), value)) for path, value in pairs)


def checked_formats(name: str, fields: Any, formats: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Fields and their formats, in pairs."""
    pairs = _pairs(name, fields, "formats")
    for _, each in pairs:
        if not isinstance(each, str) or each not in formats:
            raise ValueError(f"`{name}` must be of a format of {formats}: got {shown(each)}. Pass one of them.")
    return pairs


def _pairs(name: str, fields: Any, values: str) -> tuple[tuple[str, Any], ...]:
    """A mapping from fields, or the pairs that a chain holds."""
    fields = () if fields is None else fields
    pairs = tuple(fields.items()) if isinstance(fields, Mapping) else fields
    if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise TypeError(f"`{name}` must be a mapping from fields to {values}: got {shown(fields)}. Pass a dict.")
    pairs = zip(_names(name, [path for path, _ in pairs]), [value for _, value in pairs], strict=True)
    return tuple(sorted(pairs, key=lambda pair: pair[0]))  # equal mappings are equal in any order


def _names(setting: str, paths: Iterable[Any]) -> tuple[str, ...]:
    return tuple(Name()(setting, as_path(path)) for path in paths)


def _as_it_is(number: float, given: Any) -> float:
    """An integer where one was given: those of 64 bits are no floats."""
    return number if isinstance(given, float | np.floating) else int(given)


def require_fields(**paths: Iterable[str]) -> None:
    """Raises unless these are names of fields, each there once, and none of a seed's; by the setting that has them."""
    seen: list[str] = []
    for setting, its_paths in paths.items():
        for path in its_paths:
            if path in (*seen, RECORD_SEED, RECORD_DRAWS):
                raise ValueError(
                    f"`{setting}` must name fields that play no other part, nor hold or mark a seed: got {shown(path)}."
                    " Name another."
                )
            seen.append(path)
