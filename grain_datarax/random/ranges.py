"""Numbers of a range, both ends included."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.bits import uniform_integers, uniform_levels
from grain_datarax.random.powers import exp2
from grain_datarax.random.rounding import rounded


def in_range(key: jax.Array, within: tuple[Any, Any], *, log: bool = False) -> jax.Array:
    """A number of a range: `int32` of integers, else `float32`; uniform, or log-uniform.

    Example:
      >>> from grain_datarax.random.keys import as_stream_key
      >>> 2 <= int(in_range(as_stream_key(jax.random.key(0)), (2, 4))) <= 4
      True
    """
    low, high = within
    if isinstance(low, int):
        return low + uniform_integers(key, (1,), np.array([high - low + 1]))[0]
    return level_in_range(uniform_levels(key, ()), within, log=log)


def level_in_range(level: jax.Array, within: tuple[Any, Any], *, log: bool = False) -> jax.Array:
    """Uniform levels in (0, 1) as numbers of a range of floats, `float32` of their shape."""
    low, high = within
    if log:
        return jnp.clip(np.float32(low) * exp2(rounded(np.float32(np.log2(high / low)) * level)), low, high)
    return jnp.clip(low + rounded(np.float32(high - low) * level), low, high)


def length_in_range(key: jax.Array, within: tuple[Any, Any], of: Any) -> jax.Array:
    """A length in pixels, `int32`: of a range of pixels (ints), or of shares (floats) of another; then at least 1."""
    if isinstance(within[0], int):
        return in_range(key, within)
    shares = rounded(level_in_range(uniform_levels(key, ()), within) * jnp.asarray(of).astype(jnp.float32))
    return jnp.maximum(jnp.round(shares), 1).astype(jnp.int32)
