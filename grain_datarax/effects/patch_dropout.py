"""Patch dropout: rectangles of an image are filled with one value.

It fills pixels, as ViT occlusion studies do; it drops no tokens and saves no compute (unlike PatchDropout, Liu et al.,
WACV 2023), and its patches stay inside the image (unlike cutout, DeVries & Taylor 2017).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.effect import Occlusion
from grain_datarax.effects.settings import Extent, Integer, OrRange, ends
from grain_datarax.images import Scale, own_scale, require_fraction
from grain_datarax.random.bits import uniform_integers, uniform_levels
from grain_datarax.random.keys import as_stream_key
from grain_datarax.random.rounding import rounded


def patch_dropout(
    key: jax.Array, image: jax.Array, *, num_patches: int, patch_size: tuple[int, int], drop_value: float = 0.0
) -> jax.Array:
    """Fills `num_patches` rectangles at random places with `drop_value`.

    Args:
      key: One PRNG key; the same key gives the same places.
      image: `(H, W)` or `(H, W, C)`, integer or floating point.
      num_patches: How many patches; they may overlap.
      patch_size: Their height and width in pixels, at most the image's.
      drop_value: In image units for a floating-point image, a fraction of full scale for an integer one.

    Returns:
      An image of the same shape and dtype.

    Raises:
      ValueError: If a patch does not fit, or `drop_value` is no fraction for an integer image.

    Example:
      >>> image = patch_dropout(jax.random.key(0), jnp.ones((8, 8)), num_patches=1, patch_size=(2, 3))
      >>> int(image.size - image.sum())
      6

    Source: the top-left corner is uniform over all places at which the patch lies inside the image.
    """
    require_fraction("drop_value", drop_value, image.dtype)
    if problem := why_no_room(patch_size, image.shape, f"shape {image.shape}"):
        raise ValueError(problem)
    positions = patch_positions(as_stream_key(key), image.shape, num_patches=num_patches, patch_size=patch_size)
    value = own_scale(image.dtype).value(drop_value, image.dtype)
    return drop_patches(image, positions, patch_size=patch_size, value=value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchDropout(Occlusion):
    """Fills rectangles at random places; see `patch_dropout`.

    Draws their corners, int32 `(num_patches, 2)`, as (y, x), and where sizes are drawn, too, or images are padded,
    `(num_patches, 4)`, as (y, x, height, width). Of a range of numbers it draws the most, and puts those that are too
    many outside the image.

    Attributes:
      num_patches: How many patches, or a range for each record; 0 drops none. They may overlap.
      patch_size: Their height and width, each in pixels (an int), as a share of the image's (a float), or a range of
        either: then each patch draws its own.
      fill: What fills them, a fraction of the value range, or a range of it for each record.

    Example:
      >>> PatchDropout(num_patches=(1, 4), patch_size=(16, (0.1, 0.25)))
      PatchDropout(num_patches=(1, 4), patch_size=(16, (0.1, 0.25)))
    """

    num_patches: Annotated[int | tuple[int, int], OrRange(Integer(least=0))] = 4
    patch_size: Annotated[tuple[Any, Any], Extent()] = (8, 8)

    @property
    def namespace(self) -> str:
        """The effect's name, or else its class with the number and the size of its patches."""
        parts = (self.num_patches, *self.patch_size)
        texts = ["-".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in parts]
        return self.name or f"{type(self).__name__}/{'x'.join(texts)}"

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        del scale
        (_, height), (_, width) = self._sides(shape)
        return why_no_room((height, width), shape, f'field "{field}" of shape {shape}')

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        _, most = ends(self.num_patches)
        size = self._size(shape)
        if size is None:
            return self._draw_in(key, shape[:2], self._draw_sizes(jax.random.fold_in(key, 1), most, shape))
        positions = patch_positions(key, shape, num_patches=most, patch_size=size)
        return self._of_a_number(key, positions, -np.array(size, np.int32))

    def draw_padded(self, key: jax.Array, size: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        _, most = ends(self.num_patches)
        if self._size(shape) is None:
            sizes = self._draw_sizes(jax.random.fold_in(key, 1), most, size)
        else:
            sides = [_side_of(*each) for each in zip(self.patch_size, size, shape, strict=False)]
            sizes = jnp.broadcast_to(jnp.stack(sides), (most, 2))
        return self._draw_in(key, size, sizes)

    def _draw_in(self, key: jax.Array, size: Any, sizes: jax.Array) -> jax.Array:
        """Where patches of these sizes lie in an image of this height and width, and their sizes."""
        room = jnp.maximum(jnp.asarray(size) - sizes + 1, 1)  # of a size that is not known before, there may be none
        drawn = jnp.concatenate([uniform_integers(key, sizes.shape, room), sizes], axis=1)
        return self._of_a_number(key, drawn, np.zeros(4, np.int32))

    def _of_a_number(self, key: jax.Array, drawn: jax.Array, nowhere: np.ndarray) -> jax.Array:
        """These patches, of which a drawn number stays and the others lie nowhere."""
        least, most = ends(self.num_patches)
        if least == most:
            return drawn
        count = least + uniform_integers(jax.random.fold_in(key, 2), (1,), np.array([most - least + 1]))
        return jnp.where((np.arange(most) < count)[:, None], drawn, nowhere)

    def _draw_sizes(self, key: jax.Array, count: int, shape: Sequence[int] | jax.Array) -> jax.Array:
        """The height and the width of each patch, int32 `(count, 2)`."""
        sizes = []
        for number, side in enumerate(self.patch_size):
            length: Any = shape[number]
            low, high = ends(side)
            if isinstance(low, float):
                level = uniform_levels(jax.random.fold_in(key, number), (count,))
                drawn = jnp.round((low + rounded((high - low) * level)) * jnp.float32(length)).astype(jnp.int32)
            else:
                drawn = low + uniform_integers(jax.random.fold_in(key, number), (count,), np.array([high - low + 1]))
            sizes.append(jnp.clip(drawn, 1, length))
        return jnp.stack(sizes, axis=1)

    def _sides(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """The least and the greatest height and width in pixels."""
        sides = [(*ends(side), length) for side, length in zip(self.patch_size, shape, strict=False)]
        return [(_in_pixels(low, length), _in_pixels(high, length)) for low, high, length in sides]

    def _size(self, shape: Sequence[int]) -> tuple[int, int] | None:
        """The height and the width of all patches in pixels; None where each draws its own."""
        if any(isinstance(side, tuple) for side in self.patch_size):
            return None
        (height, _), (width, _) = self._sides(shape)
        return height, width

    def _size_of(self, drawn: jax.Array, shape: Sequence[int]) -> tuple[int, int] | None:
        """The same, for what was drawn: None where the sizes are part of it."""
        return None if drawn.shape[-1] == 4 else self._size(shape)

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"positions": drawn}

    def covered(self, drawn: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return covered_by_patches(drawn, shape[:2], self._size_of(drawn, shape))

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return self._drop(image, drawn, scale, in_place=False)

    def pixels_in_place(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return self._drop(image, drawn, scale, in_place=True)

    def _drop(self, image: jax.Array, drawn: jax.Array, scale: Scale, *, in_place: bool) -> jax.Array:
        value, size = scale.value(self.fill, image.dtype), self._size_of(drawn, image.shape)
        return drop_patches(image, drawn, patch_size=size, value=value, in_place=in_place)


def _in_pixels(side: int | float, length: int) -> int:
    return max(1, round(side * length)) if isinstance(side, float) else side


def _side_of(side: int | float, length: jax.Array, most: int) -> jax.Array:
    """The same, of a length that JAX alone knows, at most this."""
    if isinstance(side, int):
        return length * 0 + side  # not a constant, which has no sharding on Explicit meshes
    # Rounded as above; not by index, as a gather has no sharding to infer from on Explicit meshes.
    by_length = np.array([_in_pixels(side, each) for each in range(most + 1)], np.int32)
    found: jax.Array = jnp.where(np.arange(most + 1) == length, by_length, 0).sum(dtype=jnp.int32)
    return found


def why_no_room(patch_size: tuple[int, int], shape: Sequence[int], of_what: str, instead: str = "") -> str | None:
    """Says why a patch does not fit inside an image of this shape, `(H, W, ...)`, or returns None."""
    if patch_size[0] <= shape[0] and patch_size[1] <= shape[1]:
        return None
    return f"`patch_size` must fit inside the image: got {patch_size} for {of_what}. Use a smaller patch{instead}."


def patch_positions(
    key: jax.Array, shape: Sequence[int], *, num_patches: int, patch_size: tuple[int, int]
) -> jax.Array:
    """The top-left corners of the patches in an image of this shape: int32 `(num_patches, 2)`, as (y, x)."""
    room = np.subtract(shape[:2], patch_size) + 1
    return uniform_integers(key, (num_patches, 2), room[None])


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
