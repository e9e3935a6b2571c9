"""Patch gaussian: normal noise in one square of the image."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.noise import Noise, add_noise
from grain_datarax.effects.patches import covered_by_patches
from grain_datarax.effects.settings import Fraction, Side, ends
from grain_datarax.images import Scale
from grain_datarax.random.bits import uniform_integers
from grain_datarax.random.normal import normal_numbers
from grain_datarax.random.ranges import length_in_range
from grain_datarax.random.rounding import rounded
from grain_datarax.random.sized import sized_key


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchGaussian(Noise):
    """Adds normal noise to the values of a square that lies anywhere and may hang over the edge; all others keep their
    bits, or are clipped to the range. Draws the noise, `float32 (H, W, C)`, and the square, int32 `(1, 4)`, as
    (y, x, height, width).

    Attributes:
      side: The square's side in pixels (ints), as a share of the image's shorter side (floats), or a range of
        either for each record.
      std: Standard deviation, a fraction of the value range, or a range of it.

    Example:
      >>> PatchGaussian(side=(0.1, 0.5), std=(0.0, 1.0))
      PatchGaussian(side=(0.1, 0.5), std=(0.0, 1.0))

    Source: Lopes et al., arXiv 1906.02611. The centre is uniform over all pixels.
    """

    side: Annotated[Any, Side()] = 25
    std: Fraction = 0.1

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> tuple[jax.Array, jax.Array]:
        return self._draw_in(key, np.array(shape[:2], np.int32), shape)

    def draw_padded(self, key: jax.Array, size: jax.Array, shape: tuple[int, int, int]) -> tuple[jax.Array, jax.Array]:
        return self._draw_in(sized_key(key, size, shape[:2]), size, shape)

    def _draw_in(self, key: jax.Array, size: Any, shape: tuple[int, int, int]) -> tuple[jax.Array, jax.Array]:
        noise = rounded(self.std * normal_numbers(key, shape))
        shorter = jnp.minimum(size[0], size[1])
        length = length_in_range(jax.random.fold_in(key, 1), ends(self.side), shorter)
        corner = uniform_integers(jax.random.fold_in(key, 2), (2,), size) - length // 2
        return noise, jnp.concatenate([corner, length[None], length[None]])[None]

    def told(self, drawn: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        return {"positions": drawn[1]}

    def pixels(self, image: jax.Array, drawn: tuple[jax.Array, jax.Array], scale: Scale) -> jax.Array:
        noise, square = drawn
        inside = covered_by_patches(square, (image.shape[0], image.shape[1]), None)[..., None]
        return jnp.where(inside, add_noise(image, noise, self.rounding(scale)), scale.clip(image))
