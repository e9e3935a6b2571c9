"""Units: floating-point images are in their own units, integer images in fractions of full scale.

Integer results are rounded, saturated and returned in the same type.
"""

import math

import jax
import jax.numpy as jnp

from grain_datarax.random.rounding import rounded_to

ClipRange = tuple[float, float] | None


def is_float(dtype: jax.typing.DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def integer_full_scale(dtype: jax.typing.DTypeLike) -> int:
    """The largest value of an integer type; 1 for bool."""
    return 1 if jnp.dtype(dtype) == jnp.bool_ else int(jnp.iinfo(dtype).max)


def require_fraction(name: str, value: float | None, dtype: jax.typing.DTypeLike, low: float = 0.0) -> None:
    """Raises `ValueError` if a setting for an integer image is not a fraction of full scale."""
    if value is not None and not is_float(dtype) and not low <= value <= 1:
        raise ValueError(
            f"`{name}` must be a fraction of full scale, from {low:g} to 1, for integer images: got {value!r} for"
            f" {jnp.dtype(dtype)}. Divide it by {integer_full_scale(dtype)}."
        )


def to_image_value(value: float, dtype: jax.typing.DTypeLike) -> float | int:
    """A setting as a value of the image: itself, or that fraction of an integer type's full scale, rounded."""
    return value if is_float(dtype) else round(value * integer_full_scale(dtype))


def to_image(values: jax.Array, dtype: jax.typing.DTypeLike, clip_range: ClipRange) -> jax.Array:
    """Turns computed values into an image: clips them to `clip_range`, rounds and saturates them, and converts.

    Args:
      values: Floating point, in the units of the image's values: 0 to 255 for `uint8`.
      dtype: The image's type.
      clip_range: In the units of settings: fractions of full scale for integers. None clips to the type alone.
    """
    if is_float(dtype):
        clipped = values if clip_range is None else jnp.clip(values, *clip_range)
        return rounded_to(clipped, dtype)
    low, high = integer_bounds(dtype, clip_range)
    return jnp.clip(jnp.round(values), low, high).astype(dtype)


def clip_image(image: jax.Array, clip_range: ClipRange) -> jax.Array:
    """Clips an image in its own type; nothing else changes."""
    if clip_range is None:
        return image
    low, high = clip_range if is_float(image.dtype) else integer_bounds(image.dtype, clip_range)
    return jnp.clip(image, jnp.asarray(low, image.dtype), jnp.asarray(high, image.dtype))


def integer_bounds(dtype: jax.typing.DTypeLike, clip_range: ClipRange) -> tuple[int, int]:
    """The integers between which an image of this type may lie."""
    full_scale = integer_full_scale(dtype)
    if clip_range is None:
        return (0 if jnp.dtype(dtype) == jnp.bool_ else int(jnp.iinfo(dtype).min)), full_scale
    return math.ceil(clip_range[0] * full_scale), math.floor(clip_range[1] * full_scale)
