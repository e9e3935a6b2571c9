"""Random resized crop: a rectangle of random area and aspect is resized to one size."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.geometric import Crop
from grain_datarax.effects.settings import Number, OrRange, ends
from grain_datarax.images import Scale, own_scale, require_image
from grain_datarax.random.bits import uniform_integers, uniform_levels
from grain_datarax.random.keys import as_stream_key
from grain_datarax.random.powers import exp2
from grain_datarax.random.rounding import rounded
from grain_datarax.resampling import nearest, resampled

_TRIES = 10


def random_resized_crop(
    key: jax.Array,
    image: jax.Array,
    *,
    size: tuple[int, int] | None = None,
    scale: float | tuple[float, float] = (0.08, 1.0),
    ratio: float | tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """Resizes a random rectangle of an image: bilinear, and antialiased where it shrinks.

    Args:
      key: One PRNG key; the same key gives the same rectangle.
      image: `(H, W)` or `(H, W, C)`, integer or floating point.
      size: Height and width of what comes out; None: the image's.
      scale: The rectangle's area, a share of the image's, or a range of it: uniform.
      ratio: Its width by its height, or a range of it: uniform in its logarithm.

    Returns:
      An image of this size and the same dtype; integers are rounded.

    Raises:
      TypeError, ValueError: If a setting breaks its rule, or does not fit the image.

    Example:
      >>> random_resized_crop(jax.random.key(0), jnp.ones((48, 64, 3)), size=(32, 32)).shape
      (32, 32, 3)

    Source: torchvision's `RandomResizedCrop`. The first of ten rectangles that fits into the image is taken, at a
    uniform place; if none fits, the largest in the middle whose ratio is within the range.
    """
    crop = RandomResizedCrop(size=size, scale=scale, ratio=ratio)
    require_image(image)
    shape = image.shape[0], image.shape[1], 1
    if problem := crop.why_not(shape, own_scale(image.dtype), "image"):
        raise ValueError(problem)
    drawn = crop.draw(as_stream_key(key), shape)
    result = crop.pixels(jnp.atleast_3d(image), drawn, own_scale(image.dtype))
    return result.reshape(*result.shape[:2], *image.shape[2:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomResizedCrop(Crop):
    """Resizes a rectangle of random area, aspect and place; see `random_resized_crop`.

    Masks take the pixel that the centre of each of theirs lies in.

    Attributes:
      size: The height and the width of what comes out; None: those of the image.
      scale: The rectangle's area, a share of the image's, or a range of it: uniform.
      ratio: Its width by its height, or a range of it: uniform in its logarithm.

    Example:
      >>> RandomResizedCrop(size=(224, 224), scale=(0.3, 1.0))
      RandomResizedCrop(size=(224, 224), scale=(0.3, 1.0))
    """

    scale: Annotated[
        float | tuple[float, float],
        OrRange(Number(1e-6, 1, "be a share of the image's area, from 1e-6 to 1")),
    ] = (0.08, 1.0)
    ratio: Annotated[
        float | tuple[float, float], OrRange(Number(1e-3, 1e3, "be a width by a height, from 0.001 to 1000"))
    ] = (3 / 4, 4 / 3)

    scales = True

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        del scale
        # As places are computed in int32, in units of 1 / (2 after) of a pixel.
        for length, after in zip(shape, self.size_of(*shape[:2]), strict=False):
            if 2 * max(length, after) * after >= 2**31:
                return (
                    f"`size` must be smaller for an image that is as long, the product of the two below 2**30: got"
                    f' {self.size} for field "{field}" of shape {shape}. Use a smaller one, or cut the image in parts.'
                )
        return None

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        size, levels = np.array(shape[:2], np.int32), uniform_levels(key, (_TRIES, 2))
        share, aspect = (
            np.float32(low) + rounded(np.float32(high - low) * levels[:, axis])
            for axis, (low, high) in enumerate(np.array([ends(self.scale), np.log2(ends(self.ratio))]))
        )
        area = rounded(share * np.float32(shape[0] * shape[1]))
        sides = [rounded(jnp.sqrt(rounded(area * exp2(power)))) for power in (-aspect, aspect)]
        # Behind a barrier, without which XLA takes seconds longer to compile what is drawn for each try.
        tried = jax.lax.optimization_barrier(jnp.round(jnp.stack(sides, axis=1)).astype(jnp.int32))
        fits = ((tried > 0) & (tried <= size)).all(axis=1)
        taken = jnp.array(self._middle(shape[0], shape[1]), jnp.int32)
        for place in reversed(range(_TRIES)):  # the first that fits
            taken = jnp.where(fits[place], tried[place], taken)
        room = size - taken + 1
        corner = uniform_integers(jax.random.fold_in(key, 1), (2,), room)
        return jnp.concatenate([jnp.where(fits.any(), corner, (size - taken) // 2), taken])

    def _middle(self, height: int, width: int) -> tuple[int, int]:
        """The height and the width that are taken where nothing fits."""
        least, most = ends(self.ratio)
        if width / height < least:
            return max(1, round(width / least)), width
        return height, max(1, round(height * most)) if width / height > most else width

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return scale.to_image(resampled(image, drawn, self.size_of(*image.shape[:2])), image.dtype)

    def moved(self, field: jax.Array, drawn: jax.Array, fill: Any) -> jax.Array:
        del fill
        return nearest(field, drawn, self.size_of(*field.shape[:2]))
