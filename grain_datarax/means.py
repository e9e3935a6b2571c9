"""The mean of an image: the same bits at any batch size, as integers can be added in any order."""

import jax
import jax.numpy as jnp
import numpy as np


def exact_mean(image: jax.Array) -> jax.Array:
    """The mean of each channel over all pixels.

    Args:
      image: `(H, W, C)`, floating point, in fractions of its value range; to one part in 2**24. What lies outside
        [0, 1] counts as its nearest end, and NaN as 0.

    Returns:
      `float32 (C,)`.

    Example:
      >>> exact_mean(jnp.float32([[[0.0, 0.5], [1.0, 0.5]]])).tolist()
      [0.5, 0.5]
    """
    height, width = image.shape[:2]
    values = jnp.where(image > 0, jnp.minimum(image, 1), 0).astype(jnp.float32)  # which NaN is not
    levels = jnp.round(values * np.float32(2**24)).astype(jnp.uint32)
    # In halves of 12 bits and then of 16, so that no sum of uint32 is too large: rows and columns below 2**16.
    in_rows = [jnp.sum(half, axis=1) for half in (levels >> np.uint32(12), levels & np.uint32(0xFFF))]
    total = jnp.zeros(image.shape[2], jnp.float32)
    for place, rows in zip((2.0**-12, 2.0**-24), in_rows, strict=True):
        for shift, half in ((2.0**16, rows >> np.uint32(16)), (1.0, rows & np.uint32(0xFFFF))):
            total = total + jnp.sum(half, axis=0).astype(jnp.float32) * np.float32(place * shift)  # exact products
    return total / np.float32(height * width)
