"""Channel dropout: whole channels are filled."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from grain_datarax.effects.effect import PixelEffect
from grain_datarax.effects.settings import Fraction, Integer, OrRange, ends
from grain_datarax.images import Scale
from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.ranges import in_range
from grain_datarax.random.ranks import ranks


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelDropout(PixelEffect):
    """Fills channels, chosen without replacement, all choices equally likely. Draws which, `bool (C,)`.

    Masks, boxes and keypoints stay as they are.

    Attributes:
      num_channels: How many, fewer than the image has; or a range for each record.
      fill: What fills them, a fraction of the value range, or a range of it.

    Example:
      >>> ChannelDropout(num_channels=(1, 2))
      ChannelDropout(num_channels=(1, 2))

    Source: albumentations' ChannelDropout.
    """

    num_channels: Annotated[int | tuple[int, int], OrRange(Integer(least=1))] = 1
    fill: Fraction = 0.0
    same_on_frame: bool = True

    replaces = True
    by_value = True

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        del scale
        most = ends(self.num_channels)[1]
        if most < shape[2]:
            return None
        return (
            f'`num_channels` must be below {shape[2]}, the number of channels: got {most} for field "{field}". Pass'
            " fewer, or leave the effect out for grey images."
        )

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        low, high = ends(self.num_channels)
        count: Any = low if low == high else in_range(jax.random.fold_in(key, 1), (low, high))
        chosen: jax.Array = ranks(uniform_levels(key, (shape[2],))) < count
        return chosen

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"channels": drawn}

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return jnp.where(drawn, jnp.asarray(scale.value(self.fill, image.dtype), image.dtype), image)
