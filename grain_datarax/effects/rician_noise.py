"""Rician noise: that of magnitude images, whose real and imaginary parts are noisy."""

import dataclasses

import jax
import jax.numpy as jnp

from grain_datarax.effects.noise import Noise
from grain_datarax.effects.settings import Fraction
from grain_datarax.images import Scale, by_rows
from grain_datarax.random.normal import normal_numbers
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class RicianNoise(Noise):
    """`sqrt((x + N(0, std**2))**2 + N(0, std**2)**2)` for each value, where `x` is counted from the lower end of the
    range, as in magnetic resonance images. Draws both, two arrays `float32 (H, W, C)`.

    What is dark becomes brighter: where `x` is 0 the mean is `std * sqrt(pi / 2)`.

    Attributes:
      std: Standard deviation of either part, a fraction of the value range, or a range of it.

    Example:
      >>> RicianNoise(std=(0.01, 0.1))
      RicianNoise(std=(0.01, 0.1))

    Source: Gudbjartsson & Patz, Magnetic Resonance in Medicine 1995.
    """

    std: Fraction = 0.05

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> tuple[jax.Array, jax.Array]:
        real, imaginary = (rounded(self.std * normal_numbers(part, shape)) for part in jax.random.split(key))
        return real, imaginary

    def pixels(self, image: jax.Array, drawn: tuple[jax.Array, jax.Array], scale: Scale) -> jax.Array:

        def magnitude(image: jax.Array, real: jax.Array, imaginary: jax.Array) -> jax.Array:
            real = scale.to_fractions(image) + real
            length = jnp.sqrt(rounded(real * real) + rounded(imaginary * imaginary))
            return self.rounding(scale).from_fractions(length, image.dtype)

        return by_rows(magnitude, image, *(jnp.broadcast_to(noise, image.shape) for noise in drawn))
