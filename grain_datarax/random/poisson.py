"""Poisson counts by inverting the distribution function: one uniform level per count, no loop that depends on the data.

Drawing the levels needs no mean, so that they can be drawn before the image is known.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.keys import as_stream_key
from grain_datarax.random.normal import normal_quantile, polynomial
from grain_datarax.random.rounding import rounded
from grain_datarax.random.sized import is_sized

# Counts below this are found by summing their probabilities, the others by expansion.
_LEAST_EXPANDED = 10
# Fitted by tools/fit_quantiles.py for levels from 2**-24 to 1 - 2**-24 and all means; `s` is within these bounds there.
_QUADRATIC = (0.166666821, -0.0139072432, 3.87536252e-3, -1.3458211e-3, 3.97920919e-4, -6.69259896e-5, 4.36858378e-6)
_CONSTANT = (0.33333518, -0.0276510511, 7.65580456e-3, -3.33829057e-3, 3.66039798e-4)
_INVERSE = (-0.0197541697, 0.0150782679)
_LARGEST_S = 6.3


def poisson(key: jax.Array, mean: jax.typing.ArrayLike) -> jax.Array:
    """Draws Poisson counts.

    Args:
      key: One PRNG key.
      mean: Any shape, taken as `float32`, non-negative; see `poisson_quantile`.

    Returns:
      Counts, `float32`, of the same shape.

    Example:
      >>> counts = poisson(jax.random.key(0), jnp.full((100, 100), 7.0))
      >>> bool(abs(counts.mean() - 7) < 0.1), bool(abs(counts.var() - 7) < 0.4)
      (True, True)
    """
    mean = jnp.asarray(mean, jnp.float32)
    return poisson_quantile(poisson_levels(as_stream_key(key), mean.shape), mean)


def poisson_levels(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The levels for counts of this shape, `float32`: `uniform_levels`.

    Args:
      key: A key of `STREAM`, or a `sized_key`, which draws in the shape itself.
      shape: The shape.
    """
    if is_sized(key):
        return uniform_levels(key, shape)

    # Drawn in one row: XLA then keeps the bits, instead of hashing in the quantile's loop, which gets too long for its
    # CPU compiler to vectorise.
    def in_one_row(key: jax.Array) -> jax.Array:
        return uniform_levels(key, (math.prod(shape),)).reshape(shape)

    levels: jax.Array = jax.lax.platform_dependent(
        key, cpu=in_one_row, default=functools.partial(uniform_levels, shape=shape)
    )
    return levels


def poisson_quantile(level: jax.Array, mean: jax.Array) -> jax.Array:
    """Turns uniform levels into Poisson counts: the least `n` with `P(N <= n) >= level`.

    Up to a mean of 1000 at most one count in 10,000 is not that one but its neighbour. Up to 1e5, where `float32` has
    few bits left below one, it is one in 200.

    Args:
      level: `float32`, odd multiples of 2**-24 in (0, 1), any shape. A larger level gives a larger or equal count.
      mean: `float32`, of the same shape. 0 gives 0, infinity infinity; NaN and negative means give NaN.

    Returns:
      Counts, `float32`, of the same shape.

    Example:
      >>> poisson_quantile(jnp.float32([0.1, 0.5, 0.9]), jnp.float32([4.0, 4.0, 4.0]))
      Array([2., 4., 7.], dtype=float32)

    Source: the expansion in `s = z / sqrt(mean)`, with `z` the normal quantile, is that of Giles, ACM Transactions on
    Mathematical Software 42, 2016; the polynomials are our own.
    """
    level, mean = jax.lax.stop_gradient((level, mean))  # counts are steps: flat, but for what is infinite at 0
    beyond, counted = _by_summation(level, mean)
    root = rounded(jnp.sqrt(mean))
    count = jnp.where(beyond < 0, _by_expansion(level, mean, root), counted)
    return jnp.where(root < jnp.inf, count, root)  # infinity, or NaN


def _by_summation(level: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far the probabilities of the small counts get beyond the level, and how many of these it exceeds."""
    probability = jnp.exp(-mean)
    # (1 - level) - P(N > n): small where it decides, so that little is lost in rounding.
    beyond = (1 - level) - (1 - probability)
    count = _sign_bit(beyond)
    for n in range(1, _LEAST_EXPANDED):
        probability = rounded(probability * rounded(mean * np.float32(1 / n)))
        beyond = beyond + probability
        count = count + _sign_bit(beyond)
    return beyond, count.astype(jnp.float32)


def _sign_bit(value: jax.Array) -> jax.Array:
    """1 for negative numbers, else 0: `uint32`. Adding it takes a GPU one instruction less than a comparison does."""
    return jax.lax.bitcast_convert_type(value, jnp.uint32) >> np.uint32(31)


def _by_expansion(level: jax.Array, mean: jax.Array, root: jax.Array) -> jax.Array:
    normal = normal_quantile(level)
    s = jnp.minimum(normal / root, _LARGEST_S)
    quadratic = rounded(rounded(normal * normal) * polynomial(_QUADRATIC, s))
    constant = polynomial(_CONSTANT, s) + polynomial(_INVERSE, s) / mean
    return jnp.floor(mean + (rounded(root * normal) + (quadratic + constant)))
