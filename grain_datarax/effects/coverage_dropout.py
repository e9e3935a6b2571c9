"""Coverage dropout: so much of the image is filled, by patches that do not overlap."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.effects.settings import Share, Size
from grain_datarax.random.bits import uniform_integers, uniform_levels
from grain_datarax.random.ranks import ranks


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoverageDropout(Occlusion):
    """Fills a given share of the pixels by patches that do not overlap.

    The patches are cells of a grid that is shifted at random, taken in a random order until the share is covered; of
    the last one only the upper rows are filled, and cells at the edges are cut off. What is covered falls short of the
    share by less than a row of a patch. Padded images are refused. Draws how many rows of each cell are filled, int32
    `(rows, columns)`, and the grid's shift, int32 `(2,)`.

    Attributes:
      coverage: The share of the pixels that is covered, or a range of it for each record.
      patch_size: Height and width of the patches in pixels.

    Example:
      >>> CoverageDropout(coverage=(0.1, 0.4), patch_size=(8, 8))
      CoverageDropout(coverage=(0.1, 0.4), patch_size=(8, 8))

    Source: our own; a target for the share that is covered, as in studies of robustness against occlusion.
    """

    coverage: Share = 0.3
    patch_size: Annotated[tuple[int, int], Size()] = (16, 16)

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> tuple[jax.Array, jax.Array]:
        shift = uniform_integers(jax.random.fold_in(key, 1), (2,), np.array(self.patch_size, np.int32))
        heights, widths = (
            _lengths(shift[axis], length, side)
            for axis, (length, side) in enumerate(zip(shape[:2], self.patch_size, strict=True))
        )
        areas = (heights[:, None] * widths[None, :]).ravel()
        order = ranks(uniform_levels(key, areas.shape))
        wanted = jnp.round(jnp.float32(self.coverage) * np.float32(shape[0] * shape[1])).astype(jnp.int32)
        left = (wanted - _before(areas, order)).reshape(len(heights), len(widths))
        rows = jnp.clip(left // jnp.maximum(widths, 1), 0, jnp.where(widths > 0, heights[:, None], 0))
        return rows.astype(jnp.int32), shift

    def told(self, drawn: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        return {"rows": drawn[0], "shift": drawn[1]}

    def covered(self, drawn: tuple[jax.Array, jax.Array], shape: tuple[int, int, int]) -> jax.Array:
        rows, shift = drawn
        in_row, in_column = (
            (np.arange(length) + shift[axis]) // side == np.arange(_cells(length, side))[:, None]
            for axis, (length, side) in enumerate(zip(shape[:2], self.patch_size, strict=True))
        )
        # How many rows of a pixel's cell are filled: by a product, as a gather has no sharding to infer from on
        # Explicit meshes. All sums have one term, which is exact.
        filled = jnp.matmul(
            jnp.matmul(in_row.T.astype(jnp.float32), rows.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST),
            in_column.astype(jnp.float32),
            precision=jax.lax.Precision.HIGHEST,
        )
        row, height = jnp.arange(shape[0]), self.patch_size[0]
        place = jnp.where(row + shift[0] < height, row, (row + shift[0]) % height)  # the first are cut off above
        return place[:, None] < filled


def _cells(length: int, side: int) -> int:
    """How many cells lie in a length, at any shift."""
    return (length + side - 2) // side + 1


def _lengths(shift: jax.Array, length: int, side: int) -> jax.Array:
    """What lies inside the image of each cell: int32."""
    starts = np.arange(_cells(length, side)) * side - shift
    return jnp.clip(starts + side, 0, length) - jnp.clip(starts, 0, length)


def _before(areas: jax.Array, order: jax.Array) -> jax.Array:
    """The area of all that come earlier, for each."""
    by_order = jax.lax.sort((order, areas), num_keys=1)[1]
    before = jnp.cumsum(by_order) - by_order
    place = jax.lax.sort((order, jnp.arange(len(areas), dtype=jnp.int32)), num_keys=1)[1]
    return jax.lax.sort((place, before), num_keys=1)[1]
