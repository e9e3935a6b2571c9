"""Grid dropout: exactly so many cells of a grid are filled, as in ViT occlusion studies and hide-and-seek."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.effects.settings import CountOrShare, Size, ends
from grain_datarax.images import Scale
from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.ranges import in_range
from grain_datarax.random.ranks import ranks
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridDropout(Occlusion):
    """Fills cells of a grid, chosen without replacement: all choices of as many are equally likely. Draws which,
    `bool (rows, columns)`.

    The grid begins in the upper left corner; cells at the lower and the right edge are cut off where the size is no
    multiple of theirs. Padded images are refused, as the grid's cells are numbered by the image's size.

    Attributes:
      patch_size: Height and width of the cells in pixels.
      num_patches: How many cells: a number (int), a share of all (float), or a range of either for each record.

    Example:
      >>> GridDropout(patch_size=(16, 16), num_patches=0.75)
      GridDropout(num_patches=0.75)

    Source: Naseer et al., NeurIPS 2021 (PatchDrop); Kumar Singh & Lee, ICCV 2017 (hide-and-seek), who hide each cell
    with a probability instead, so that their number varies.
    """

    patch_size: Annotated[tuple[int, int], Size()] = (16, 16)
    num_patches: Annotated[Any, CountOrShare()] = 0.5

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The number of rows and of columns."""
        return -(-shape[0] // self.patch_size[0]), -(-shape[1] // self.patch_size[1])

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        most, (rows, columns) = ends(self.num_patches)[1], self.grid(shape)
        if isinstance(most, int) and most > rows * columns:
            return (
                f"`num_patches` must be at most {rows * columns}, the number of cells: got {most} for field"
                f' "{field}" of shape {shape}. Pass fewer, or a smaller patch_size.'
            )
        return super().why_not(shape, scale, field)

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        rows, columns = self.grid(shape)
        place = ranks(uniform_levels(key, (rows * columns,))).reshape(rows, columns)
        chosen: jax.Array = place < self._count(jax.random.fold_in(key, 1), rows * columns)
        return chosen

    def _count(self, key: jax.Array, cells: int) -> Any:
        """How many cells are filled."""
        low, high = ends(self.num_patches)
        if low == high:
            return round(low * cells) if isinstance(low, float) else low
        drawn = in_range(key, (low, high))
        return jnp.round(rounded(drawn * np.float32(cells))) if isinstance(low, float) else drawn

    def colours(self, shape: tuple[int, int, int]) -> int:
        rows, columns = self.grid(shape)
        return rows * columns

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"cells": drawn}

    def covered(self, drawn: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return self._by_pixel(drawn, shape)

    def spread(self, drawn: jax.Array, colours: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del drawn
        rows, columns = self.grid(shape)
        return self._by_pixel(colours.reshape(rows, columns, -1), shape)

    def _by_pixel(self, cells: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """What is said of each cell, `(rows, columns, ...)`, at its pixels."""
        for axis, side in enumerate(self.patch_size):  # one at a time, else JAX can't tell the sharding of a batch
            before, behind = cells.shape[: axis + 1], cells.shape[axis + 1 :]
            repeated = jnp.broadcast_to(jnp.expand_dims(cells, axis + 1), (*before, side, *behind))
            cells = repeated.reshape(*before[:axis], before[axis] * side, *behind)
        return cells[: shape[0], : shape[1]]
