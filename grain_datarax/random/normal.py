"""Normal numbers by inverting the distribution function: one uniform level per number."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.rounding import rounded

# Fitted by tools/fit_quantiles.py; relative error 3e-7.
_TOP = (1.25331443, 0.490711869, 0.0997464941, 0.0132086574, 1.08531335e-3, 1.03499394e-5)
_BOTTOM = (1.0, 0.129738009, 0.0325647113, 2.99355959e-3, 1.18483573e-4)


def normal_quantile(level: jax.Array) -> jax.Array:
    """Turns uniform levels into standard normal numbers.

    Args:
      level: `float32`, odd multiples of 2**-24 in (0, 1), any shape; see `uniform_levels`.

    Returns:
      `float32` of the same shape, from -5.2947 to 5.2947, in the order of the levels; `1 - level` gives the negative.

    Example:
      >>> [round(float(number), 2) for number in normal_quantile(jnp.float32([0.025, 0.25, 0.975]))]
      [-1.96, -0.67, 1.96]

    Source: Giles, GPU Computing Gems 2, 2011, for the variable `-log(1 - x**2)`; the ratio of polynomials is our own.
    """
    # One formula without a branch: beside other functions lax.erf_inv keeps XLA's CPU loops from being vectorised.
    centred = 2 * level - 1
    depth = -jnp.log(rounded((1 - centred) * (1 + centred)))
    return rounded(centred * (polynomial(_TOP, depth) / polynomial(_BOTTOM, depth)))


def polynomial(coefficients: Sequence[float], value: jax.Array) -> jax.Array:
    """`c[0] + c[1] value + c[2] value**2 + ...` by Horner's rule, `float32`."""
    result = jnp.full_like(value, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = rounded(result * value) + np.float32(coefficient)
    return result


def normal_numbers(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers of this shape, `float32`."""
    # 32 bits also for uint8 images: rounded noise of 16-bit levels fails a chi-square test over 4 million draws.
    return normal_quantile(uniform_levels(key, shape))
