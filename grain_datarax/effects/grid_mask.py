"""GridMask: a grid of squares, of a random width and at a random place, is filled."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.effects.settings import Share, Side, ends
from grain_datarax.random.bits import uniform_integers
from grain_datarax.random.ranges import length_in_range
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridMask(Occlusion):
    """Fills a square in each unit of a grid. Draws int32 `(4,)`: the grid's shift (y, x), its unit and the squares'
    side, in pixels.

    A pixel is covered where `(y + shift) % unit < side` in both directions; `side` is `round(unit * (1 - keep_ratio))`.

    Attributes:
      unit: The unit of the grid, in pixels (ints) or as a share of the image's shorter side (floats): a number, or a
        range of which each record draws uniformly. The paper has 96 to 224 pixels of 224.
      keep_ratio: The share of each unit's side that is kept, or a range of it; `1 - (1 - keep_ratio)**2` of the pixels.

    Example:
      >>> GridMask(unit=(8, 24), keep_ratio=0.5)
      GridMask(unit=(8, 24), keep_ratio=0.5)

    Source: Chen et al., arXiv 2001.04086, without rotation, as in its code for ImageNet.
    """

    unit: Annotated[Any, Side()] = (96, 224)
    keep_ratio: Share = 0.6

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return self.draw_padded(key, np.array(shape[:2], np.int32), shape)

    def draw_padded(self, key: jax.Array, size: jax.Array | np.ndarray, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        unit = length_in_range(key, ends(self.unit), jnp.minimum(size[0], size[1]))
        side = jnp.round(rounded(unit.astype(jnp.float32) * (1 - jnp.float32(self.keep_ratio)))).astype(jnp.int32)
        shift = uniform_integers(jax.random.fold_in(key, 1), (2,), unit[None])
        return jnp.concatenate([shift, unit[None], side[None]])

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"grid": drawn}

    def covered(self, drawn: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        unit, side = drawn[2], drawn[3]
        rows, columns = ((jnp.arange(length) + drawn[axis]) % unit < side for axis, length in enumerate(shape[:2]))
        return rows[:, None] & columns[None, :]
