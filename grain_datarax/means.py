"""The mean of an image: the same bits at any batch size, as integers can be added in any order."""

import jax
import jax.numpy as jnp
import numpy as np

# Of a fraction of 1; so many in as many rows do not exceed int32.
_STEPS, _ROWS = 2**24, 32


def exact_mean(image: jax.Array) -> jax.Array:
    """The mean of each channel over all pixels.

    Args:
      image: `(H, W, C)`: integers up to 2**24, or floating point in fractions of the value range, to one part in 2**24.
        Of fractions, what lies outside [0, 1] counts as its nearest end, and NaN as 0. At most 2**16 rows and columns.

    Returns:
      `float32 (C,)`.

    Example:
      >>> exact_mean(jnp.float32([[[0.0, 0.5], [1.0, 0.5]]])).tolist()
      [0.5, 0.5]
    """
    height, width, channels = image.shape
    if jnp.issubdtype(image.dtype, jnp.floating):
        values = jnp.where(image > 0, jnp.minimum(image, 1), 0).astype(jnp.float32)  # which NaN is not
        levels, step = jnp.round(values * np.float32(_STEPS)).astype(jnp.int32), 1 / _STEPS
    else:
        levels, step = image.astype(jnp.int32), 1.0
    # Rows first, as these are long, and of those a few at a time, as XLA's CPU compiler writes what is to be added into
    # memory for longer sums.
    few = max(rows for rows in range(1, _ROWS + 1) if height % rows == 0)
    summed = jnp.sum(levels.reshape(height // few, few, width * channels), axis=1)
    total = jnp.zeros(channels, jnp.float32)
    for row, unit in _halves(summed, 15):
        for part, place in _halves(jnp.sum(row, axis=0).reshape(width, channels), 16):
            total = total + jnp.sum(part, axis=0).astype(jnp.float32) * np.float32(unit * place)  # exact products
    return total * np.float32(step / (height * width))


def _halves(values: jax.Array, bits: int) -> list[tuple[jax.Array, int]]:
    """Integers in two parts, and what each counts for. The lower one has no sign: there sums have twice the room."""
    return [(values >> bits, 2**bits), ((values & (2**bits - 1)).astype(jnp.uint32), 1)]
