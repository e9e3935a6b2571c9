"""What effects of your own are made of: base classes, types of settings, and arithmetic with the same bits everywhere.

Example:
  >>> import dataclasses
  >>> from grain_datarax import extend
  >>> @dataclasses.dataclass(frozen=True)
  ... class Dim(extend.Effect):
  ...     most: extend.Fraction = (0.1, 0.5)
  ...     def image(self, image, drawn):
  ...         return extend.rounded(image * (1 - self.most))
  >>> Dim(p=0.5)
  Dim(p=0.5)
"""

from grain_datarax.coordinates import Motion
from grain_datarax.effects.effect import Effect, PixelEffect
from grain_datarax.effects.geometric import Crop, Geometric
from grain_datarax.effects.patches import Patches
from grain_datarax.effects.settings import Fraction, Number, Probability, Share, Strength
from grain_datarax.images import Scale
from grain_datarax.random.rounding import rounded, rounded_to
from grain_datarax.random.sized import sized_key

__all__ = [
    "Crop",
    "Effect",
    "Fraction",
    "Geometric",
    "Motion",
    "Number",
    "Patches",
    "PixelEffect",
    "Probability",
    "Scale",
    "Share",
    "Strength",
    "rounded",
    "rounded_to",
    "sized_key",
]
