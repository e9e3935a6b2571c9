"""Speckle noise: each value is changed in proportion to itself."""

import dataclasses
from typing import Annotated, Any

import jax

from grain_datarax.effects.noise import Noise, signal_of
from grain_datarax.effects.settings import Number, Strength
from grain_datarax.images import Scale, compute_type
from grain_datarax.random.normal import normal_numbers
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeckleNoise(Noise):
    """`x + x N(0, std**2)` for each value, where `x` is counted from the lower end of the range. Draws the normal
    numbers times `std`, `float32 (H, W, C)`.

    Attributes:
      std: Standard deviation in proportion to the value, from 0 to 1, or a range of it.

    Example:
      >>> SpeckleNoise(std=(0.15, 0.6))
      SpeckleNoise(std=(0.15, 0.6))

    Source: Hendrycks & Dietterich, ICLR 2019, speckle noise.
    """

    std: Annotated[
        float | tuple[float, float],
        Strength(Number(0, 1, "be a standard deviation in proportion to the value, up to 1")),
    ] = 0.15

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        std: Any = self.std  # a number by now
        return rounded(std * normal_numbers(key, shape))

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        values = image.astype(compute_type(image.dtype))
        noisy = values + rounded(signal_of(values, scale) * drawn)
        return self.rounding(scale).to_image(noisy, image.dtype)
