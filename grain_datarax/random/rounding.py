"""Rounding that a compiler cannot optimise away."""

import jax
import jax.numpy as jnp


def rounded(value: jax.Array, dtype: jax.typing.DTypeLike | None = None) -> jax.Array:
    """Rounds a product before it is added to, so that it has the same bits in every program.

    Compilers merge `constant * (constant * x)`, fuse `a * b + c` into one rounding and drop the rounding of a
    narrow type between two operations, or not, depending on what stands around: the last bit then depends on the
    batch, the mesh and the neighbouring operators. `reduce_precision` is the one operation that XLA promises to keep,
    if it asks for fewer bits than the type has: hence 23 significant bits for `float32`, one less than it holds.

    Args:
      value: Floating point, any shape.
      dtype: Round to this type's bits instead, to convert to it afterwards.

    Returns:
      The rounded values, in `value`'s type.
    """
    bits = jnp.finfo(value.dtype if dtype is None else dtype)
    return jax.lax.reduce_precision(value, bits.nexp, bits.nmant - (1 if dtype is None else 0))
