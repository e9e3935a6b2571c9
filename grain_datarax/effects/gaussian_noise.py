"""Gaussian noise: a normal number is added to each value."""

import dataclasses
from typing import Annotated, Any

import jax

from grain_datarax.effects.noise import Noise, add_noise
from grain_datarax.effects.settings import Fraction, Number, Strength
from grain_datarax.images import Scale, own_scale, require_fraction, require_image
from grain_datarax.random.keys import as_stream_key
from grain_datarax.random.normal import normal_numbers
from grain_datarax.random.rounding import rounded


def gaussian_noise(key: jax.Array, image: jax.Array, *, std: float, mean: float = 0.0) -> jax.Array:
    """Adds normal noise, `image + N(mean, std**2)`, drawn for each value.

    Args:
      key: One PRNG key; the same key gives the same noise.
      image: `(H, W)` or `(H, W, C)`, integer or floating point.
      std: Standard deviation, non-negative; in image units for a floating-point image, a fraction of full scale for an
        integer one. 0 still adds the mean.
      mean: In the units of `std`.

    Returns:
      An image of the same shape and dtype; floating-point values are not clipped.

    Example:
      >>> import jax.numpy as jnp
      >>> gaussian_noise(jax.random.key(0), jnp.zeros((8, 8, 3)), std=0.0, mean=0.5)[0, 0]
      Array([0.5, 0.5, 0.5], dtype=float32)

    Source: Hendrycks & Dietterich, ICLR 2019, gaussian noise.
    """
    require_image(image)
    require_fraction("std", std, image.dtype)
    require_fraction("mean", mean, image.dtype, low=-1.0)
    noise = normal_noise(as_stream_key(key), image.shape, std=std, mean=mean)
    return add_noise(image, noise, own_scale(image.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianNoise(Noise):
    """Adds normal noise to each value; see `gaussian_noise`. Draws it, `float32 (H, W, C)`, in the units of `std`.

    Attributes:
      std: Standard deviation, a fraction of the value range, or a range of it. 0 still adds the mean.
      mean: A fraction of the value range, from -1 to 1, or a range of it.

    Example:
      >>> GaussianNoise(std=0.1)
      GaussianNoise(std=0.1)
    """

    std: Fraction = 0.05
    mean: Annotated[
        float | tuple[float, float], Strength(Number(-1, 1, "be a fraction of the value range, from -1 to 1"))
    ] = 0.0

    by_value = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return normal_noise(key, shape, std=self.std, mean=self.mean)

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return add_noise(image, drawn, self.rounding(scale))


def normal_noise(key: jax.Array, shape: tuple[int, ...], *, std: Any, mean: Any) -> jax.Array:
    """Normal noise of this shape, float32; of a standard deviation and a mean of Python or of JAX."""
    noise: jax.Array = mean + rounded(std * normal_numbers(key, shape))
    return noise
