"""What a record draws: made from its key alone, and recognised when a user hands it in."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.pages.module import is_array, keystr
from grain_datarax.purity import kind_of


def require_drawn(drawn: Any) -> dict[str, Any]:
    """What `draw` returned; raises `TypeError` unless that is a mapping of arrays."""
    if not isinstance(drawn, Mapping):
        raise TypeError(
            f"`draw` must return a mapping of arrays: got {_type_name(drawn)}. Give what it draws a name:"
            ' {"name": array}.'
        )
    for path, leaf in jax.tree_util.tree_flatten_with_path(dict(drawn))[0]:
        if not is_array(leaf):
            raise TypeError(
                f"`draw` must return a mapping of arrays: got {type(leaf).__name__} at {keystr(path)}. Leave it"
                " out: settings are there in `self.config`."
            )
    return dict(drawn)


def as_drawn(random_params: Mapping[str, Any], drawn: Any, ranges: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Params of a user's, in the structure and the types of what a record draws.

    Args:
      random_params: The params.
      drawn: The shapes and dtypes of what a record draws.
      ranges: Between which numbers they lie, by name; looked at in NumPy arrays alone.

    Raises:
      TypeError: If an array holds another kind of numbers.
      ValueError: If one is missing, or has another shape, or numbers out of its range.
    """
    remedy = "Pass a row of what generate_random_params returns."
    given = {keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(dict(random_params))[0]}
    values = []
    for path, expected in jax.tree_util.tree_flatten_with_path(drawn)[0]:
        name = keystr(path)
        if name not in given or np.shape(given[name]) != expected.shape:
            shapes = {name: np.shape(value) for name, value in given.items()}
            raise ValueError(f"`random_params` must hold `{name}` of shape {expected.shape}: got {shapes}. {remedy}")
        value = given[name]
        dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
        if kind_of(dtype) is not kind_of(expected.dtype):
            raise TypeError(
                f"`random_params` must hold `{name}` of a type like {expected.dtype}: got {dtype}. {remedy}"
            )
        if name in ranges and not isinstance(value, jax.Array):  # those on a device would be waited for
            _require_range(name, value, *ranges[name], expected.dtype)
        values.append(value if dtype == expected.dtype else jnp.asarray(value, expected.dtype))
    params: dict[str, Any] = jax.tree.unflatten(jax.tree.structure(drawn), values)
    return params


def _type_name(value: Any) -> str:
    return "an array" if isinstance(value, jax.Array) else type(value).__name__


def _require_range(name: str, value: Any, low: Any, high: Any, dtype: np.dtype) -> None:
    """Raises `ValueError` unless a param of a user's is in its range, floats in the type that they are taken as."""
    if whole := kind_of(dtype) is np.integer:
        inside = (low <= value) & (value <= high)
    else:
        with np.errstate(over="ignore"):
            taken = np.asarray(value, dtype)
        inside = (low < taken) & (taken < high)
    if not np.all(inside):
        raise ValueError(
            f"`random_params` must hold `{name}` from {low} to {high}{'' if whole else ', both excluded'}: got values"
            f" from {np.min(value)} to {np.max(value)}. Pass a row of what generate_random_params returns."
        )
