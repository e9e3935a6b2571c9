"""Poisson counts by inverting the distribution function: one uniform level per count, no loop that depends on the data.

Drawing the levels needs no mean, so that they can be drawn before the image is known.
"""

import math

import jax
import jax.numpy as jnp

from grain_datarax.random.rounding import rounded

# Below this mean the distribution function is summed, above it the quantile is expanded. At 10 both agree with the
# exact law to a chi-square test over 4 million draws; P(N > 40 | mean 10) is 4e-13, far below the levels' resolution.
_SWITCH = 10.0
_MOST_SUMMED = 40


def poisson_quantile(level: jax.Array, mean: jax.Array) -> jax.Array:
    """Turns uniform levels into Poisson counts: the least `n` with `P(N <= n) >= level`.

    Args:
      level: `float32`, in (0, 1), any shape. A larger level gives a larger or equal count.
      mean: `float32`, non-negative, of the same shape. 0 gives 0, infinity infinity, NaN
        NaN.

    Returns:
      Counts, `float32`, of the same shape.

    Example:
      >>> poisson_quantile(jnp.float32([0.1, 0.5, 0.9]), jnp.float32([4.0, 4.0, 4.0]))
      Array([2., 4., 7.], dtype=float32)

    Source: summation from the tail; above a mean of 10 the Cornish-Fisher expansion to order 1 / mean (Giles, ACM
    Transactions on Mathematical Software 42, 2016, equation for Q_N2).
    """
    # Without the barriers XLA's fusion computes what stands before and behind anew for each of the many uses.
    level, mean = jax.lax.optimization_barrier((level, mean))
    count = jnp.where(mean < _SWITCH, _by_summation(level, mean), _by_expansion(level, mean))
    return jax.lax.optimization_barrier(jnp.where(jnp.isinf(mean), mean, count))


def _by_summation(level: jax.Array, mean: jax.Array) -> jax.Array:
    mean = jnp.minimum(mean, _SWITCH)
    probability = jnp.exp(-mean)
    probabilities = []
    for n in range(1, _MOST_SUMMED + 1):
        probability = rounded(probability * rounded(mean * (1 / n)))
        probabilities.append(probability)
    # Summed from the tail, small terms first: P(N >= n) keeps its relative accuracy where it is tiny.
    above = 1 - level
    survival = count = jnp.zeros_like(probability)
    for probability in reversed(probabilities):
        survival = survival + probability
        count = count + (survival > above).astype(count.dtype)
    return count


def _by_expansion(level: jax.Array, mean: jax.Array) -> jax.Array:
    mean = jnp.maximum(mean, _SWITCH)
    root = rounded(jnp.sqrt(mean))
    normal = rounded(math.sqrt(2) * jax.lax.erf_inv(2 * level - 1))
    square = rounded(normal * normal)
    half_order = rounded(rounded(normal * (1 / 36 + rounded(square * (1 / 72)))) / root)
    first_order = rounded((rounded(square * (7 / 810 + rounded(square * (1 / 270)))) - 8 / 405) / mean)
    quantile = mean + rounded(root * normal) + (1 / 3 + rounded(square * (1 / 6))) - half_order + first_order
    return jnp.maximum(jnp.floor(quantile), 0)
