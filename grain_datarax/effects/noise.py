"""What noise has in common: each value gets its own, or all channels of a pixel the same."""

import dataclasses
from typing import Any

import jax

from grain_datarax.effects.effect import PixelEffect
from grain_datarax.images import Scale, compute_type
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Noise(PixelEffect):
    """An effect that draws for each value of an image, `(H, W, C)` or what can be broadcast to it, and changes it.

    Attributes:
      same_on_channel: Whether all channels of a pixel share one draw, as grey grain does; otherwise each draws its own.
      truncate: Whether computed integers are cut off, as ImageNet-C does, instead of rounded to the nearest. Floats
        stay as they are.
    """

    same_on_channel: bool = False
    truncate: bool = False

    def sample(self, key: jax.Array, shape: tuple[int, int, int], size: jax.Array | None = None) -> Any:
        height, width, channels = shape
        return super().sample(key, (height, width, 1 if self.same_on_channel else channels), size)

    def rounding(self, scale: Scale) -> Scale:
        """The scale, with this effect's way to make integers."""
        return dataclasses.replace(scale, truncates=True) if self.truncate else scale


def signal_of(values: jax.Array, scale: Scale) -> jax.Array:
    """Values in the image's own units, counted from the lower end of its range."""
    return values if scale.low == 0 else values - scale.low


def add_noise(image: jax.Array, noise: jax.Array, scale: Scale) -> jax.Array:
    """Adds noise that is in fractions of the scale, and can be broadcast to the image."""
    values = image.astype(compute_type(image.dtype))
    return scale.to_image(values + rounded(scale.width * noise), image.dtype)
