"""Random erasing: one rectangle of random area and aspect, somewhere inside the image, is filled."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.patches import Patches
from grain_datarax.effects.settings import Number, OrRange, Probability, ends
from grain_datarax.random.bits import uniform_integers, uniform_levels
from grain_datarax.random.ranges import level_in_range
from grain_datarax.random.rounding import rounded

_TRIES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomErasing(Patches):
    """Fills one rectangle at a random place, of random area and aspect. Draws int32 `(1, 4)`, (y, x, height, width).

    The area is uniform, the aspect log-uniform. Sides are rounded to pixels. Of ten such rectangles the first that is
    lower and narrower than the image is taken; if none is, height and width are 0, and nothing is filled, or with
    `inverse` the whole image.

    Attributes:
      p: The probability, for each record, that it is erased; 0.5 as in torchvision and timm.
      scale: The rectangle's area as a share of the image's, a range or a number.
      ratio: Its aspect, height over width, a range or a number.

    Example:
      >>> RandomErasing(ratio=(0.3, 1 / 0.3), fill="noise", p=0.25)
      RandomErasing(p=0.25, fill='noise', ratio=(0.3, 3.3333333333333335))

    Source: Zhong et al., AAAI 2020, by the law of torchvision's and timm's RandomErasing, who draw the aspect
    log-uniformly. Their random fills are normal numbers, those here uniform over the value range, as in the paper.
    """

    p: Probability = 0.5
    scale: Annotated[
        float | tuple[float, float], OrRange(Number(0, 1, "be a share of the image's area, from 0 to 1"))
    ] = (
        0.02,
        0.33,
    )
    ratio: Annotated[float | tuple[float, float], OrRange(Number(1e-3, 1e3, "be from 0.001 to 1000"))] = (0.3, 3.3)

    def size(self, shape: Sequence[int]) -> tuple[int, int] | None:
        del shape
        return None

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return self._draw_in(key, np.array(shape[:2], np.int32))

    def draw_padded(self, key: jax.Array, size: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        return self._draw_in(key, size)

    def _draw_in(self, key: jax.Array, size: Any) -> jax.Array:
        area, aspect = uniform_levels(key, (2, _TRIES))
        pixels = (size[0] * size[1]).astype(jnp.float32)
        side = rounded(jnp.sqrt(rounded(pixels * level_in_range(area, ends(self.scale)))))
        longer = rounded(jnp.sqrt(level_in_range(aspect, ends(self.ratio), log=True)))
        sides = jnp.round(jnp.stack([rounded(side * longer), rounded(side / longer)], axis=1)).astype(jnp.int32)
        fits = (sides < size).all(axis=1)
        first = fits & (jnp.cumsum(fits) == 1)
        chosen = jnp.where(first[:, None], sides, 0).sum(axis=0, dtype=jnp.int32)
        corner = uniform_integers(jax.random.fold_in(key, 1), (2,), size - chosen + 1)
        return jnp.concatenate([corner, chosen])[None]
