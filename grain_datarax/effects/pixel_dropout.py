"""Pixel dropout: single pixels are filled."""

import dataclasses
from typing import Any

import jax

from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.effects.settings import Share
from grain_datarax.random.bits import uniform_levels


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelDropout(Occlusion):
    """Fills each pixel with a probability, or with `same_on_channel=False` each value. Draws which, `bool (H, W)`.

    Attributes:
      drop_prob: The probability, or a range of it.

    A fill of `"random"` is one colour for the record.

    Example:
      >>> PixelDropout(drop_prob=0.05, fill="noise")
      PixelDropout(fill='noise', drop_prob=0.05)

    Source: albumentations' PixelDropout.
    """

    drop_prob: Share = 0.01

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        drop_prob: Any = self.drop_prob  # a number by now
        covered: jax.Array = uniform_levels(key, shape[:2]) < drop_prob
        return covered

    def covered(self, drawn: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        return drawn
