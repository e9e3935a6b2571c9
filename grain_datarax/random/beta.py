"""Numbers of the symmetric beta law by inverting its distribution function: one uniform level per number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.rounding import rounded

_STEPS = 1024


def symmetric_beta(key: jax.Array, alpha: float) -> jax.Array:
    """One number of Beta(alpha, alpha), `float32`.

    Not `jax.random.beta`, whose last bits depend on how many records are drawn for at once.

    Args:
      key: A key of `STREAM`.
      alpha: From 0.001 to 1000; 1 is uniform.

    Example:
      >>> from grain_datarax.random.keys import as_stream_key
      >>> bool(0 <= symmetric_beta(as_stream_key(jax.random.key(0)), 0.2) <= 1)
      True
    """
    level = uniform_levels(key, ())
    if alpha == 1:
        return level
    # Of the lower half of the law, x; below an alpha of 1 by t = x**alpha, which is smoother in the level.
    root = rounded(jnp.sqrt(rounded(jnp.sqrt(2 * jnp.minimum(level, 1 - level)))))
    place = root * _STEPS  # so that the tails, where the quantile is steep, have steps enough
    step = jnp.minimum(place.astype(jnp.int32), _STEPS - 1)
    # Not by index: a gather has no sharding to infer from on Explicit meshes. All but one are 0, so sums are exact.
    table, at_step = _quantiles(alpha), np.arange(_STEPS) == step
    start, end = (jnp.where(at_step, quantiles, 0).sum() for quantiles in (table[:-1], table[1:]))
    power = start + rounded((place - step) * (end - start))
    lower = power if alpha > 1 else jnp.exp(rounded(jnp.log(power) * np.float32(1 / alpha)))
    lower = jnp.minimum(lower, 0.5)
    return jnp.where(level < 0.5, lower, 1 - lower)


@functools.cache
def _quantiles(alpha: float) -> np.ndarray:
    """`x**min(alpha, 1)` at levels from 0 to 1/2 of Beta(alpha, alpha), in equal steps of their fourth roots."""
    grid = np.linspace(0, 1, 64 * _STEPS + 1)
    if alpha > 1:
        power = 0.5 * grid
        density = (4 * power * (1 - power)) ** (alpha - 1)
    else:  # the density of t, which is nowhere infinite
        power = 0.5**alpha * grid
        density = (1 - power ** (1 / alpha)) ** (alpha - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    quantiles: np.ndarray = np.interp(below[-1] * np.linspace(0, 1, _STEPS + 1) ** 4, below, power)
    return quantiles.astype(np.float32)
