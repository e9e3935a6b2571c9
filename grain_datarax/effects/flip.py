"""Flips: an image is mirrored, left to right or top to bottom."""

import dataclasses
from typing import Any, ClassVar

import jax

from grain_datarax.coordinates import Motion
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.settings import Probability
from grain_datarax.images import require_image


def horizontal_flip(image: jax.Array) -> jax.Array:
    """Mirrors an image left to right.

    Args:
      image: `(H, W)` or `(H, W, C)`, of any type.

    Returns:
      An image of the same shape and dtype, with the same values.

    Raises:
      ValueError: If it is not one image.

    Example:
      >>> import jax.numpy as jnp
      >>> horizontal_flip(jnp.array([[1, 2, 3]])).tolist()
      [[3, 2, 1]]
    """
    require_image(image)
    return jax.lax.rev(image, (1,))


def vertical_flip(image: jax.Array) -> jax.Array:
    """Mirrors an image top to bottom.

    Args:
      image: `(H, W)` or `(H, W, C)`, of any type.

    Returns:
      An image of the same shape and dtype, with the same values.

    Raises:
      ValueError: If it is not one image.

    Example:
      >>> import jax.numpy as jnp
      >>> vertical_flip(jnp.array([[1], [2], [3]])).tolist()
      [[3], [2], [1]]
    """
    require_image(image)
    return jax.lax.rev(image, (0,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(Geometric):
    """Mirrors all frames of a record, or none: it draws nothing but whether it applies, with `p`."""

    p: Probability = 0.5

    # Of an image: 0, or 1.
    axis: ClassVar[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.same_on_frame:
            raise ValueError(
                f"`same_on_frame` must be True for {type(self).__name__}, whose `p` decides for a whole record: got"
                " False. Leave it out."
            )

    def moved(self, field: jax.Array, drawn: Any, fill: Any) -> jax.Array:
        del drawn, fill
        return jax.lax.rev(field, (self.axis,))

    def motion(self, drawn: Any, height: int, width: int) -> tuple[Motion, Motion]:
        del drawn
        still = Motion(0, 1, height, height), Motion(0, 1, width, width)
        turned = Motion(height, -1, height, height), Motion(width, -1, width, width)
        down, across = (turned[axis] if axis == self.axis else still[axis] for axis in (0, 1))
        return down, across


@dataclasses.dataclass(frozen=True, kw_only=True)
class HorizontalFlip(Flip):
    """Mirrors left to right; see `horizontal_flip`. Draws nothing.

    Attributes:
      p: The probability, for each record, that it is flipped; 0.5 also inside a `OneOf`, where 1 flips all taken.

    Example:
      >>> HorizontalFlip(), HorizontalFlip(p=1)
      (HorizontalFlip(), HorizontalFlip(p=1.0))
    """

    axis = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerticalFlip(Flip):
    """Mirrors top to bottom; see `vertical_flip`. Draws nothing.

    Attributes:
      p: The probability, for each record, that it is flipped; 0.5 also inside a `OneOf`, where 1 flips all taken.

    Example:
      >>> VerticalFlip(p=0.1)
      VerticalFlip(p=0.1)
    """

    axis = 0
