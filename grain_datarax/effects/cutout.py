"""Cutout: squares whose centres lie anywhere in the image are filled, as far as they lie inside."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import jax
import numpy as np

from grain_datarax.effects.patches import Patches
from grain_datarax.effects.settings import Integer, Size
from grain_datarax.random.bits import uniform_integers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cutout(Patches):
    """Fills rectangles that may hang over the edge. Draws their corners, int32 `(num_patches, 2)`, as (y, x).

    The centre, the pixel `size // 2` below and right of the corner, is uniform over all pixels, so that the pixels of
    the middle are covered more often than those of the edge, and patches may be larger than the image.

    Attributes:
      patch_size: Their height and width in pixels; the paper has 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN.
      num_patches: How many patches; they may overlap.

    Example:
      >>> Cutout(patch_size=(8, 8), fill="mean")
      Cutout(fill='mean', patch_size=(8, 8))

    Source: DeVries & Taylor 2017. The paper fills with the mean of the dataset, which is 0 where images are normalised
    first: pass `fill=(0.49, 0.48, 0.45)` or the like. Its code covers one pixel less in a side that is odd.
    """

    patch_size: Annotated[tuple[int, int], Size()] = (16, 16)
    num_patches: Annotated[int, Integer(least=1, most=2**24)] = 1

    def colours(self, shape: tuple[int, int, int]) -> int:
        del shape
        return self.num_patches

    def size(self, shape: Sequence[int]) -> tuple[int, int]:
        del shape
        return self.patch_size

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return self.draw_padded(key, np.array(shape[:2], np.int32), shape)

    def draw_padded(self, key: jax.Array, size: jax.Array | np.ndarray, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        centres = uniform_integers(key, (self.num_patches, 2), size[None])
        return centres - np.array(self.patch_size, np.int32) // 2
