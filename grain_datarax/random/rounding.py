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
      value: `float32` or `float64`, any shape.

    Returns:
      `value` with one significant bit less than it holds, 23 or 52, rounded towards zero. Its derivative is 1.
    """
    bits = np.dtype(np.uint64 if value.dtype == jnp.float64 else np.uint32)
    cleared = jax.lax.bitcast_convert_type(value, bits) & ~bits.type(1)
    return jax.lax.bitcast_convert_type(cleared, value.dtype)


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
