"""Powers of two by the same few operations everywhere: compilers have several for one number and for many."""

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.normal import polynomial

# Of 2**x from 0 to 1: Taylor's, whose error is below float32's.
_SERIES = tuple(float(np.log(2.0) ** k / np.prod(np.arange(1.0, k + 1))) for k in range(9))


def exp2(exponent: jax.Array) -> jax.Array:
    """`2**exponent`, `float32`, for exponents from -126 to 127; others count as the nearest.

    Example:
      >>> [round(float(power), 4) for power in exp2(jnp.float32([-1.0, 0.0, 0.5]))]
      [0.5, 1.0, 1.4142]
    """
    exponent = jnp.clip(exponent, -126, 127)
    whole = jnp.floor(exponent)
    scale = jax.lax.bitcast_convert_type((whole.astype(jnp.int32) + 127) << 23, jnp.float32)
    return scale * polynomial(_SERIES, exponent - whole)
