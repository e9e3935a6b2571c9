"""Uniform noise: a number of an interval is added to each value."""

import dataclasses

import jax

from grain_datarax.effects.noise import Noise, add_noise
from grain_datarax.effects.settings import Fraction
from grain_datarax.images import Scale
from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformNoise(Noise):
    """`x + U(-amplitude, amplitude)` for each value, as of a coarse quantiser. Draws it, `float32 (H, W, C)`.

    Attributes:
      amplitude: How far a value may move, a fraction of the value range, or a range of it; the standard deviation is
        `amplitude / sqrt(3)`.

    Example:
      >>> UniformNoise(amplitude=0.1)
      UniformNoise()

    Source: albumentations' AdditiveNoise with noise_type="uniform".
    """

    amplitude: Fraction = 0.1

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return rounded(self.amplitude * (2 * uniform_levels(key, shape) - 1))

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return add_noise(image, drawn, self.rounding(scale))
