"""Poisson noise: photons are counted."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.noise import Noise
from grain_datarax.effects.settings import Number, Strength, ends
from grain_datarax.images import Scale, by_rows, compute_type, own_scale, require_image
from grain_datarax.random.keys import as_stream_key
from grain_datarax.random.poisson import poisson_levels, poisson_quantile
from grain_datarax.random.rounding import rounded
from grain_datarax.wording import shown

# What `photons` may be: the ratios to a value range then fit into float32.
PHOTONS = Number(1e-20, 1e20, "be positive, from 1e-20 to 1e20")


def poisson_noise(key: jax.Array, image: jax.Array, *, lam_scale: float, full_scale: float | None = None) -> jax.Array:
    """Simulates photon counting, `n ~ Poisson(lam_scale * image / full_scale)` for each value, back in image units.

    The mean is `image`, the variance `image * full_scale / lam_scale`: a larger `lam_scale` means more light, less
    noise.

    Args:
      key: One PRNG key; the same key gives the same noise.
      image: `(H, W)` or `(H, W, C)`, integer or floating point; negative values count as 0.
      lam_scale: Photons at full scale, positive. 5 is near darkness, 60 is ImageNet-C's mildest shot noise.
      full_scale: The image value that `lam_scale` photons stand for, positive. None is 1 for a floating-point image
        and the type's maximum for an integer one.

    Returns:
      An image of the same shape and dtype; floating-point values are not clipped.

    Example:
      >>> poisson_noise(jax.random.key(0), jnp.full((8, 8, 3), 0.5), lam_scale=30.0).shape
      (8, 8, 3)

    Source: Hendrycks & Dietterich, ICLR 2019, shot noise.
    """
    require_image(image)
    if not lam_scale > 0:
        raise ValueError(
            f"`lam_scale` must be positive: got {shown(lam_scale)}. Pass the number of photons at full scale."
        )
    scale = own_scale(image.dtype)
    if full_scale is not None:
        scale = Scale(0, full_scale, scale.bounds)
    return count_photons(image, poisson_levels(as_stream_key(key), image.shape), lam_scale, scale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoissonNoise(Noise):
    """Simulates photon counting; see `poisson_noise`. Draws levels in (0, 1), `float32 (H, W, C)`.

    Light is counted from the lower end of the value range: the mean is the image, the variance
    `(image - low) * (high - low) / photons`. Values below the range are dark.

    Attributes:
      photons: How many photons the upper end of the value range stands for, or a range of it: more photons, less noise.
        From 1e-20 to 1e20; 5 is near darkness, 60 is ImageNet-C's mildest shot noise.

    Example:
      >>> PoissonNoise(photons=60)
      PoissonNoise(photons=60.0)
    """

    photons: Annotated[float | tuple[float, float], Strength(PHOTONS)]

    by_value = True

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        del shape
        if all(1e-30 <= photons / scale.width <= 1e30 for photons in ends(self.photons)):
            return None
        return (
            f"`photons` must be from 1e-30 to 1e30 for each unit of the value range: got {self.photons} for"
            f' {(scale.low, scale.high)} of field "{field}". Pass another number, or scale the images.'
        )

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return poisson_levels(key, shape)

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        levels = jnp.broadcast_to(drawn, image.shape)
        return count_photons(image, levels, self.photons, self.rounding(scale))


def count_photons(image: jax.Array, levels: jax.Array, photons: Any, scale: Scale) -> jax.Array:
    """Turns uniform levels into photon counts for this image, and these into image values."""

    # Where each record draws its own, these are numbers of JAX, and a compiler may merge them with what follows.
    per_unit, per_photon = photons / scale.width, scale.width / photons
    if isinstance(photons, jax.Array):
        per_unit, per_photon = rounded(photons * np.float32(1 / scale.width)), rounded(per_photon)

    def count(image: jax.Array, levels: jax.Array) -> jax.Array:
        light = image.astype(jnp.float32)
        if scale.low != 0:
            light = light - scale.low
        counts = poisson_quantile(levels, rounded(jnp.maximum(light, 0) * per_unit))
        values = rounded(counts * per_photon)
        if scale.low != 0:
            values = values + scale.low
        return scale.to_image(values.astype(compute_type(image.dtype)), image.dtype)

    return by_rows(count, image, levels)
