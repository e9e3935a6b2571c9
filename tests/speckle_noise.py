"""Speckle noise, as a user writes it: one law in one file, and one row in effect_table.py."""

import dataclasses

from grain_datarax.effects.effect import Effect
from grain_datarax.effects.gaussian_noise import normal_noise
from grain_datarax.effects.settings import Fraction
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeckleNoise(Effect):
    """`image * (1 + N(0, std**2))` for each value. Source: Hendrycks & Dietterich, ICLR 2019, speckle noise."""

    std: Fraction = 0.15

    by_value = True

    def draw(self, key, shape):
        return normal_noise(key, shape, std=self.std, mean=0.0)

    def image(self, image, drawn):
        return image + rounded(image * drawn)
