"""Rounding that a compiler cannot optimise away."""

import jax
import jax.numpy as jnp
import numpy as np


@jax.custom_jvp
def rounded(value: jax.Array) -> jax.Array:
    """Rounds a product before it is added to or multiplied again, so that it has the same bits in every program.

    Compilers merge `constant * (constant * x)`, turn `a / sqrt(b)` into `a * rsqrt(b)` and fuse `a * b + c` into one
    rounding, or not, depending on what stands around: the last bit then depends on the batch, the mesh and the
    neighbouring operators. None of them looks through the bits of a number, and clearing the last one costs a single
    instruction.

    Args:
      value: `float32`, any shape; `float64`, which there is under x64 alone, stays as it is.

    Returns:
      `value` with 23 significant bits, one less than it holds, rounded towards zero. Its derivative is 1.
    """
    if value.dtype == jnp.float64:
        return value
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32) & np.uint32(0xFFFFFFFE)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


@rounded.defjvp
def _derivative(values: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return rounded(*values), tangents[0]


def rounded_to(value: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Converts to a floating-point type, also where a compiler would keep more bits between two operations.

    `reduce_precision` is the one rounding that XLA promises to keep.
    """
    if value.dtype == dtype:
        return value
    bits = jnp.finfo(dtype)
    return jax.lax.reduce_precision(value, bits.nexp, bits.nmant).astype(dtype)
