"""Multiplicative noise: each value is multiplied by a number near 1."""

import dataclasses
from typing import Annotated

import jax

from grain_datarax.effects.noise import Noise, signal_of
from grain_datarax.effects.settings import Number, OrRange, ends
from grain_datarax.images import Scale, compute_type
from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.ranges import level_in_range
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiplicativeNoise(Noise):
    """`x * U(low, high)`, where `x` is counted from the lower end of the range. Draws the factors, `float32 (H, W, C)`,
    or `(1, 1, C)` where they are not drawn for each value.

    Attributes:
      multiplier: The factors' range `(low, high)`, or one number.
      elementwise: Whether each value draws its own factor; otherwise each channel does, or with `same_on_channel` the
        image.

    Example:
      >>> MultiplicativeNoise(multiplier=(0.5, 1.5), elementwise=False)
      MultiplicativeNoise(multiplier=(0.5, 1.5), elementwise=False)

    Source: albumentations' MultiplicativeNoise.
    """

    multiplier: Annotated[float | tuple[float, float], OrRange(Number(0, 1e6, "be from 0 to 1e6"))] = (0.9, 1.1)
    elementwise: bool = True

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        if self.elementwise:
            return level_in_range(uniform_levels(key, shape), ends(self.multiplier))
        return level_in_range(uniform_levels(key, (shape[2],)), ends(self.multiplier))[None, None]

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        values = image.astype(compute_type(image.dtype))
        noisy = values + rounded(signal_of(values, scale) * (drawn - 1))  # in a form in which 1 changes no bit
        return self.rounding(scale).to_image(noisy, image.dtype)
