"""The colours of an image, in planes: one, or red, green and blue, `float32 (H, W)` in fractions of the range."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.rounding import rounded

Planes = Sequence[jax.Array]

# ITU-R BT.601, in torchvision's digits.
_WEIGHTS = (0.2989, 0.587, 0.114)


def grey(planes: Planes) -> jax.Array:
    """How bright the pixels are: `0.2989 R + 0.587 G + 0.114 B`, or the one plane."""
    if len(planes) == 1:
        return planes[0]
    red, green, blue = (rounded(plane * np.float32(weight)) for plane, weight in zip(planes, _WEIGHTS, strict=True))
    return red + green + blue


def blended(planes: Planes, factor: jax.Array, target: jax.Array) -> Planes:
    """`factor * plane + (1 - factor) * target`, clipped; in a form in which a factor of 1 changes no bit."""
    return [jnp.clip(plane + rounded((factor - 1) * (plane - target)), 0, 1) for plane in planes]


def turned(planes: Planes, part: jax.Array) -> Planes:
    """Turns the hue of red, green and blue by a part of the circle, from -0.5 to 0.5.

    The greatest and the least value of each pixel stay, and so do saturation and value of HSV. The hue is kept in
    sixths of the circle times the chroma, which takes no division and is 0 for grey.

    Example:
      >>> [float(plane) for plane in turned([jnp.float32(1), jnp.float32(0.5), jnp.float32(0.5)], jnp.float32(1 / 3))]
      [0.5, 1.0, 0.5]
    """
    red, green, blue = planes
    most, least = (extreme(extreme(red, green), blue) for extreme in (jnp.maximum, jnp.minimum))
    chroma = most - least
    # Products with powers of two are exact.
    third, half = 2 * chroma, rounded(3 * chroma)
    whole = 2 * half
    from_green, from_blue = third + (blue - red), 2 * third + (red - green)
    hue = jnp.where(most == red, green - blue, jnp.where(most == green, from_green, from_blue))
    hue = hue + rounded(rounded(6 * part) * chroma)  # from -4 to 8 chromas
    hue = jnp.where(hue < 0, hue + whole, hue)
    hue = jnp.where(hue >= whole, hue - whole, hue)
    ramps = jnp.abs(hue - half) - chroma, third - jnp.abs(hue - third), third - jnp.abs(hue - 2 * third)
    return [least + jnp.clip(ramp, 0, chroma) for ramp in ramps]


def interleaved(planes: Planes) -> jax.Array:
    """Planes of any type as an image `(H, W, C)`.

    By selection, in which XLA's CPU compiler computes each pixel once: of a concatenation each part would compute all
    that it shares with others for itself, many times over.
    """
    image = jnp.broadcast_to(planes[0][..., None], (*planes[0].shape, len(planes)))
    for channel, plane in enumerate(planes[1:], 1):
        image = jnp.where(np.arange(len(planes)) == channel, plane[..., None], image)
    return image
