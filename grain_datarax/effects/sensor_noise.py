"""Sensor noise: what a camera adds, of which a part grows with the light."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from grain_datarax.effects.noise import Noise, add_noise
from grain_datarax.effects.settings import Number, Strength
from grain_datarax.images import Scale, by_rows
from grain_datarax.random.normal import normal_numbers
from grain_datarax.random.rounding import rounded

_Part = Annotated[float | tuple[float, float], Strength(Number(0, 1, "be from 0 to 1"), log=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensorNoise(Noise):
    """Normal noise of variance `shot * x + read**2` for each value, where `x` is in fractions of the value range, as
    raw images have it: in proportion to the light. Draws standard normal numbers, `float32 (H, W, C)`.

    Attributes:
      shot: The variance that light of the whole range adds: 1 over the photons at its upper end. A range is drawn
        log-uniformly.
      read: The standard deviation in the dark, a fraction of the value range. A range is drawn log-uniformly.

    Example:
      >>> SensorNoise(shot=(1e-4, 1.2e-2), read=(1e-3, 3e-2))
      SensorNoise(shot=(0.0001, 0.012), read=(0.001, 0.03))

    Source: Foi et al., IEEE TIP 2008; Brooks et al., CVPR 2019, have these ranges of `shot`, and `read` follow from it.
    """

    shot: _Part = 0.01
    read: _Part = 0.01

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return normal_numbers(key, shape)

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        shot, read = jnp.asarray(self.shot), jnp.asarray(self.read)
        dark = rounded(read * read)

        def expose(image: jax.Array, normal: jax.Array) -> jax.Array:
            light = jnp.maximum(scale.to_fractions(image), 0)
            std = rounded(jnp.sqrt(rounded(light * shot) + dark))
            return add_noise(image, rounded(std * normal), self.rounding(scale))

        return by_rows(expose, image, jnp.broadcast_to(drawn, image.shape))
