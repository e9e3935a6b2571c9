"""Patch dropout: rectangles of an image are filled with one value.

It fills pixels, as ViT occlusion studies do; it drops no tokens and saves no compute (unlike PatchDropout, Liu et al.,
WACV 2023), and its patches stay inside the image (unlike cutout, DeVries & Taylor 2017).
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.patches import Patches, drop_patches, why_no_room
from grain_datarax.effects.settings import Extent, Integer, OrRange, ends
from grain_datarax.images import Scale, own_scale, require_fraction, require_image
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
    require_image(image)
    require_fraction("drop_value", drop_value, image.dtype)
    if problem := why_no_room(patch_size, image.shape, f"shape {image.shape}"):
        raise ValueError(problem)
    positions = patch_positions(as_stream_key(key), image.shape, num_patches=num_patches, patch_size=patch_size)
    value = own_scale(image.dtype).value(drop_value, image.dtype)
    return drop_patches(image, positions, patch_size=patch_size, value=value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchDropout(Patches):
    """Fills rectangles at random places; see `patch_dropout`.

    Draws their corners, int32 `(num_patches, 2)`, as (y, x), and where sizes are drawn, too, or images are padded,
    `(num_patches, 4)`, as (y, x, height, width). Of a range of numbers it draws the most, and puts those that are too
    many outside the image.

    Attributes:
      num_patches: How many patches, or a range for each record; 0 drops none. They may overlap.
      patch_size: Their height and width, each in pixels (an int), as a share of the image's (a float), or a range of
        either: then each patch draws its own.

    Example:
      >>> PatchDropout(num_patches=(1, 4), patch_size=(16, (0.1, 0.25)))
      PatchDropout(num_patches=(1, 4), patch_size=(16, (0.1, 0.25)))
    """

    num_patches: Annotated[int | tuple[int, int], OrRange(Integer(0, 2**24))] = 4
    patch_size: Annotated[tuple[Any, Any], Extent()] = (8, 8)

    @property
    def namespace(self) -> str:
        """The effect's name, or else its class with the number and the size of its patches."""
        parts = (self.num_patches, *self.patch_size)
        texts = ["-".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in parts]
        return self.name or f"{type(self).__name__}/{'x'.join(texts)}"

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        (_, height), (_, width) = self._sides(shape)
        no_room = why_no_room((height, width), shape, f'field "{field}" of shape {shape}')
        return no_room or super().why_not(shape, scale, field)

    def colours(self, shape: tuple[int, int, int]) -> int:
        del shape
        most: int = ends(self.num_patches)[1]
        return max(1, most)

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        _, most = ends(self.num_patches)
        size = self.size(shape)
        if size is None:
            return self._draw_in(key, shape[:2], self._draw_sizes(jax.random.fold_in(key, 1), most, shape))
        positions = patch_positions(key, shape, num_patches=most, patch_size=size)
        return self._of_a_number(key, positions, -np.array(size, np.int32))

    def draw_padded(self, key: jax.Array, size: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        _, most = ends(self.num_patches)
        if self.size(shape) is None:
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

    def size(self, shape: Sequence[int]) -> tuple[int, int] | None:
        if any(isinstance(side, tuple) for side in self.patch_size):
            return None
        (height, _), (width, _) = self._sides(shape)
        return height, width


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


def patch_positions(
    key: jax.Array, shape: Sequence[int], *, num_patches: int, patch_size: tuple[int, int]
) -> jax.Array:
    """The top-left corners of the patches in an image of this shape: int32 `(num_patches, 2)`, as (y, x)."""
    room = np.subtract(shape[:2], patch_size) + 1
    return uniform_integers(key, (num_patches, 2), room[None])
