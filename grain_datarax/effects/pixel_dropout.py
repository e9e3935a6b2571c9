"""Pixel dropout: single pixels are filled."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.effects.settings import Share
from grain_datarax.random.bits import treated_bits


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelDropout(Occlusion):
    """Fills each pixel with a probability, or with `same_on_channel=False` each value. Draws which, `bool (H, W)`.

    Attributes:
      drop_prob: The probability, or a range of it.

    Example:
      >>> PixelDropout(drop_prob=0.05, fill="noise")
      PixelDropout(fill='noise', drop_prob=0.05)

    Source: albumentations' PixelDropout.
    """

    drop_prob: Share = 0.01

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        prob: Any = self.drop_prob  # a number by now, met to one part in 2**24
        most = jnp.round(jnp.float32(2**24) * prob).astype(jnp.int32)
        drawn = treated_bits(lambda bits: (bits >> np.uint32(8)).astype(jnp.int32) < most, key, shape[:2], 32)
        covered: jax.Array = jax.lax.optimization_barrier(drawn)  # else XLA hashes again for each channel
        return covered

    def covered(self, drawn: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        return drawn
