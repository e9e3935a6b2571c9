"""Brightness and contrast: each value is scaled and shifted, all channels alike."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from grain_datarax.effects.effect import PixelEffect
from grain_datarax.effects.settings import Number, Strength
from grain_datarax.images import Scale, by_rows, compute_type, own_scale, require_fraction, require_image
from grain_datarax.random.rounding import rounded

_CONTRAST = Number(-1, 1e3, "be from -1 to 1000")


def brightness_contrast(image: jax.Array, *, brightness: float, contrast: float) -> jax.Array:
    """Scales and shifts each value, `image * (1 + contrast) + brightness`.

    Args:
      image: `(H, W)` or `(H, W, C)`, integer or floating point.
      brightness: What is added: positive is brighter; in image units for a floating-point image, a fraction of full
        scale for an integer one.
      contrast: By how much values are stretched, about 0: -1 leaves nothing of them, 0 leaves them as they are. From
        -1 to 1000.

    Returns:
      An image of the same shape and dtype; floating-point values are not clipped.

    Raises:
      TypeError, ValueError: If a number is none, or out of bounds, or the image has another number of axes. Arrays of
        JAX, such as traced ones, are not looked at.

    Example:
      >>> brightness_contrast(jnp.float32([[0.0, 0.5]]), brightness=0.25, contrast=-0.5)
      Array([[0.25, 0.5 ]], dtype=float32)

    Source: albumentations, RandomBrightnessContrast with `brightness_by_max=True`, which draws both numbers.
    """
    require_image(image)
    for name, value, rule in (("brightness", brightness, Number()), ("contrast", contrast, _CONTRAST)):
        if not isinstance(value, jax.Array):
            rule(name, value)
    require_fraction("brightness", brightness, image.dtype, low=-1.0)
    return stretch(image, brightness, contrast, own_scale(image.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrightnessContrast(PixelEffect):
    """Scales and shifts each value; see `brightness_contrast`. Both are drawn by default.

    For one alone set the other to 0.

    Attributes:
      brightness: A fraction of the value range, from -1 to 1, or a range of it; positive is brighter.
      contrast: At least -1, or a range; positive stretches values about the lower end of the range, by `1 + contrast`.

    Example:
      >>> BrightnessContrast(brightness=0.1, contrast=0)
      BrightnessContrast(brightness=0.1, contrast=0.0)
    """

    brightness: Annotated[
        float | tuple[float, float], Strength(Number(-1, 1, "be a fraction of the value range, from -1 to 1"))
    ] = (-0.2, 0.2)
    contrast: Annotated[float | tuple[float, float], Strength(_CONTRAST)] = (-0.2, 0.2)
    same_on_frame: bool = True

    by_value = True

    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        del drawn
        return stretch(image, self.brightness, self.contrast, scale)


def stretch(image: jax.Array, brightness: Any, contrast: Any, scale: Scale) -> jax.Array:
    """Adds `contrast` times what is above the lower end of the range, and `brightness` times its width."""
    shift = brightness * scale.width
    if isinstance(shift, jax.Array):
        shift = rounded(shift)

    def adjust(image: jax.Array) -> jax.Array:
        values = image.astype(compute_type(image.dtype))
        stretched = (values - scale.low if scale.low != 0 else values) * contrast
        # In this order 0 and 0 change no bit.
        change = (rounded(stretched) if stretched.dtype == jnp.float32 else stretched) + shift
        return scale.to_image(values + change, image.dtype)

    return by_rows(adjust, image)
