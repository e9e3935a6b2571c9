"""Rectangles of an image, all of one size or each of its own: which pixels they cover, and how they are filled."""

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.images import Scale


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Patches(Occlusion):
    """An occlusion by rectangles. A subclass draws their corners, int32 `(patches, 2)`, as (y, x), and says their
    `size`, or draws their sizes, too: `(patches, 4)`, as (y, x, height, width).
    """

    @abc.abstractmethod
    def size(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """The height and the width of all patches in an image of this shape; None where each draws its own."""

    def size_of(self, drawn: jax.Array, shape: Sequence[int]) -> tuple[int, int] | None:
        """The same, for what was drawn: None where the sizes are part of it."""
        return None if drawn.shape[-1] == 4 else self.size(shape)

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"positions": drawn}

    def covered(self, drawn: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return covered_by_patches(drawn, shape[:2], self.size_of(drawn, shape))

    def spread(self, drawn: jax.Array, colours: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        rows, columns = _inside(drawn, shape[:2], self.size_of(drawn, shape))

        def paint(canvas: jax.Array, patch: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            row, column, colour = patch
            return jnp.where((row[:, None] & column[None, :])[..., None], colour, canvas), None

        blank = jnp.broadcast_to(colours[0], shape)
        return jax.lax.scan(paint, blank, (rows, columns, colours[: len(rows)]))[0]

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return self._drop(image, drawn, scale, in_place=False)

    def pixels_in_place(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return self._drop(image, drawn, scale, in_place=True)

    def _drop(self, image: jax.Array, drawn: jax.Array, scale: Scale, *, in_place: bool) -> jax.Array:
        patches_differ = isinstance(self.fill, jax.Array) and self.fill.ndim > 0
        if self.inverse or patches_differ or not self.same_on_channel:
            return super().pixels(image, drawn, scale)
        value, size = self.filling(image, drawn, scale), self.size_of(drawn, image.shape)
        return drop_patches(image, drawn, patch_size=size, value=value, in_place=in_place)


def why_no_room(patch_size: tuple[int, int], shape: Sequence[int], of_what: str, instead: str = "") -> str | None:
    """Says why a patch does not fit inside an image of this shape, `(H, W, ...)`, or returns None."""
    if patch_size[0] <= shape[0] and patch_size[1] <= shape[1]:
        return None
    return f"`patch_size` must fit inside the image: got {patch_size} for {of_what}. Use a smaller patch{instead}."


def drop_patches(
    image: jax.Array, positions: jax.Array, *, patch_size: tuple[int, int] | None, value: Any, in_place: bool = True
) -> jax.Array:
    """Fills the patches with these top-left corners; what hangs over the edge is cut off.

    Args:
      image: `(H, W)` or `(H, W, C)`.
      positions: `(num_patches, 2)`, as (y, x); without a `patch_size` `(num_patches, 4)`, as (y, x, height, width).
      patch_size: Height and width in pixels.
      value: The image's own value that fills them.
      in_place: Whether the image's memory may be overwritten.
    """
    filled = jnp.asarray(value, image.dtype)
    height, width = image.shape[:2]

    def select(image: jax.Array, positions: jax.Array) -> jax.Array:
        covered = covered_by_patches(positions, (height, width), patch_size)
        return jnp.where(covered.reshape(covered.shape + (1,) * (image.ndim - 2)), filled, image)

    # Where one device has a part of the image alone, JAX can't tell how a scatter's result is spread.
    whole = not any(jax.typeof(image).sharding.spec) if isinstance(image, jax.Array) else True
    if not whole or patch_size is None or not _is_cheaper_to_scatter(len(positions), patch_size, (height, width)):
        return select(image, positions)
    scatter = functools.partial(_scatter, patch_size=patch_size, value=filled)
    # Not on TPU, where XLA takes up to 105 seconds to compile it, and 43 times the memory of the batch. Else a GPU
    # copies the image first, where it would select in the kernel that comes next.
    on_gpu = scatter if in_place else select
    dropped: jax.Array = jax.lax.platform_dependent(
        image, positions, tpu=select, cuda=on_gpu, rocm=on_gpu, default=scatter
    )
    return dropped


def covered_by_patches(positions: jax.Array, size: tuple[int, int], patch_size: tuple[int, int] | None) -> jax.Array:
    """Which pixels of an image of this height and width lie in a patch, see `drop_patches`: `bool (H, W)`."""
    compared = functools.partial(_compared, size=size, patch_size=patch_size)
    counted = functools.partial(_counted, size=size, patch_size=patch_size)
    scattered = compared
    if patch_size is not None and _is_cheaper_to_scatter(len(positions), patch_size, size):
        scattered = functools.partial(_scattered, size=size, patch_size=patch_size)
    # By what `python -m benchmarks.lowered` shows: a word for 32 patches is computed where it is used.
    gpu = compared if len(positions) <= 32 else scattered
    tpu = compared if len(positions) <= 256 else counted
    covered: jax.Array = jax.lax.platform_dependent(positions, tpu=tpu, cuda=gpu, rocm=gpu, default=scattered)
    return covered


def _scattered(positions: jax.Array, *, size: tuple[int, int], patch_size: tuple[int, int]) -> jax.Array:
    return _scatter(jnp.zeros(size, bool), positions, patch_size=patch_size, value=jnp.asarray(True))


def _compared(positions: jax.Array, *, size: tuple[int, int], patch_size: tuple[int, int] | None) -> jax.Array:
    # A bit for each of 32 patches: a pixel is covered where its row and its column have one in common.
    in_rows, in_columns = (_words(inside) for inside in _inside(positions, size, patch_size))
    common = jnp.zeros(size, jnp.uint32)
    for rows, columns in zip(in_rows, in_columns, strict=True):
        common = common | (rows[:, None] & columns[None, :])
    return common != 0


def _counted(positions: jax.Array, *, size: tuple[int, int], patch_size: tuple[int, int] | None) -> jax.Array:
    # How many patches cover a pixel is a product of matrices, which TPUs are made for; bfloat16 holds 0 and 1.
    in_rows, in_columns = (inside.astype(jnp.bfloat16) for inside in _inside(positions, size, patch_size))
    return jnp.matmul(in_rows.T, in_columns, preferred_element_type=jnp.float32) > 0


def _is_cheaper_to_scatter(count: int, patch_size: tuple[int, int], size: tuple[int, int]) -> bool:
    # In fifths of the time that one pixel and one word take: measured on CPU by `python -m benchmarks`, whose rows of
    # many patches stand on either side of it.
    words = -(-count // 32)
    scatter = 20 * count * patch_size[0] * patch_size[1]
    return scatter <= size[0] * size[1] * words + 6 * count * (size[0] + size[1])


def _scatter(image: jax.Array, positions: jax.Array, *, patch_size: tuple[int, int], value: jax.Array) -> jax.Array:
    # Touches nothing but the patches: in place, where the image's buffer is donated.
    row = positions[:, 0, None, None] + jnp.arange(patch_size[0])[None, :, None]
    column = positions[:, 1, None, None] + jnp.arange(patch_size[1])[None, None, :]
    return image.at[row, column].set(value, mode="drop", wrap_negative_indices=False)


def _inside(
    positions: jax.Array, size: tuple[int, int], patch_size: tuple[int, int] | None
) -> tuple[jax.Array, jax.Array]:
    """Which rows and which columns each patch covers: `bool (num_patches, H)` and `(num_patches, W)`."""
    starts = positions[:, :1], positions[:, 1:2]
    sides: Any = patch_size or (positions[:, 2:3], positions[:, 3:])
    rows, columns = (
        (start <= jnp.arange(length)) & (jnp.arange(length) < start + side)
        for start, length, side in zip(starts, size, sides, strict=True)
    )
    return rows, columns


def _words(inside: jax.Array) -> list[jax.Array]:
    """The patches that cover each row, or column: a bit for each, in one `uint32 (size,)` for every 32."""
    bit = np.left_shift(np.uint32(1), np.arange(len(inside), dtype=np.uint32) % 32)
    bits = jnp.where(inside, bit[:, None], np.uint32(0))
    words = [bits[first : first + 32] for first in range(0, len(inside), 32)]
    return [jax.lax.reduce(word, np.uint32(0), jax.lax.bitwise_or, (0,)) for word in words]
