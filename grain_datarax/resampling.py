"""A part of an image at another size: each value a mean of few, added in one order, so that it has the same bits in
every program. `jax.image.resize` multiplies matrices, which add in another order for another batch size.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.images import compute_type
from grain_datarax.random.rounding import rounded

# More are added in a loop, for the sake of compilers.
_MOST_UNROLLED = 16


def resampled(image: jax.Array, box: jax.Array, size: tuple[int, int]) -> jax.Array:
    """A rectangle of an image, resized: bilinear, and where it shrinks antialiased, by a triangle as wide as needed.

    Pixels outside the rectangle have no part in it, as if it had been cut out before.

    Args:
      image: `(H, W, C)`, integer or floating point.
      box: The rectangle's top, left, height and width, integers `(4,)`, inside the image.
      size: The height and the width that it is to have.

    Returns:
      `(*size, C)`, in the image's own units, `float32` (`float64` for images of that type).

    Example:
      >>> steps = jnp.float32([0, 0, 0, 0, 8, 8, 8, 8]).reshape(1, 8, 1)
      >>> [round(float(value), 3) for value in resampled(steps, jnp.array([0, 2, 1, 4]), (1, 2)).ravel()]
      [1.143, 6.857]
    """
    height, width, channels = image.shape
    # Along axis 0 each time, over rows that are as long as can be.
    rows = _along_rows(image.reshape(height, width * channels), box[0], box[2], size[0])
    turned = rows.reshape(size[0], width, channels).transpose(1, 0, 2).reshape(width, size[0] * channels)
    columns = _along_rows(turned, box[1], box[3], size[1])
    return columns.reshape(size[1], size[0], channels).transpose(1, 0, 2)


def nearest(image: jax.Array, box: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The same of values that are not to be computed with: each pixel is the one that its centre lies in."""
    rows, columns = (
        start + ((2 * np.arange(length) + 1) * part) // (2 * length)
        for start, part, length in zip(box[:2], box[2:], size, strict=True)
    )
    return pixels_at(image, rows, columns)


def pixels_at(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """The pixels in these rows and columns, all inside the image."""
    return _rows_at(image, rows).at[:, columns].get(mode="promise_in_bounds")


def _rows_at(image: jax.Array, rows: jax.Array) -> jax.Array:
    found: jax.Array = image.at[rows].get(mode="promise_in_bounds")
    return found


def _along_rows(values: jax.Array, start: jax.Array, length: jax.Array, after: int) -> jax.Array:
    """`length` rows from `start` on become `after` rows."""
    wide, taps = compute_type(values.dtype), math.ceil(2 * max(1.0, len(values) / after))
    # All in units of 1 / (2 after) of a row, or of its share in the triangle's slope: whole numbers, and exact. Below
    # 2**31 for images of up to 2**15 rows.
    centre = (2 * np.arange(after) + 1) * length - after
    reach = 2 * jnp.maximum(length, after)  # of the triangle
    place = (centre - reach) // (2 * after) + 1 + np.arange(taps)[:, None]
    inside = (place >= 0) & (place < length)
    share = jnp.where(inside, jnp.maximum(reach - jnp.abs(centre - 2 * after * place), 0), 0)
    weight = rounded(share.astype(wide) / share.sum(axis=0).astype(wide))
    # Behind a barrier, which keeps XLA from computing them for each value again.
    weight, place = jax.lax.optimization_barrier((weight, start + jnp.clip(place, 0, length - 1)))

    def part(tap: int | jax.Array) -> jax.Array:
        return rounded(weight[tap][:, None] * _rows_at(values, place[tap]).astype(wide))

    total = part(0)
    for tap in range(1, min(taps, _MOST_UNROLLED)):
        total = total + part(tap)
    if taps <= _MOST_UNROLLED:
        return total
    added: jax.Array = jax.lax.fori_loop(_MOST_UNROLLED, taps, lambda tap, total: total + part(tap), total)
    return added
