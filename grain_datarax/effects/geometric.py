"""Geometric effects: they say where each pixel comes from, and all that belongs to an image follows."""

import abc
import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.coordinates import Motion
from grain_datarax.effects.effect import PixelEffect
from grain_datarax.effects.settings import Optional, Size
from grain_datarax.images import Scale
from grain_datarax.random.rounding import rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometric(PixelEffect):
    """An effect that moves pixels, of all channels: images, masks, boxes and keypoints alike.

    A subclass says how a field is `moved`, and the `motion` of places in it; its draw depends on the image's height and
    width alone, as images that share draws may differ in channels. One that changes these says `size_of`, too, and has
    a `p` of 1.
    """

    same_on_frame: bool = True

    # Whether it may cut pixels away.
    crops: ClassVar[bool] = False
    # Whether it changes lengths: then images are computed with.
    scales: ClassVar[bool] = False

    @property
    def computes(self) -> bool:
        """Whether it computes with values; otherwise they are only moved."""
        return self.scales

    @property
    def clips(self) -> bool:
        """Whether results are clipped to the value range, where the chain says so."""
        return self.scales

    @property
    def pads(self) -> bool:
        """Whether pixels come in that are none of the image, so that masks have to say what they are there."""
        return False

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """The height and the width that an image has then; its own by default."""
        return height, width

    def starts(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The first and last row, and column, of an image of this size that may come to lie at 0, where it crops."""
        del height, width
        return (0, 0), (0, 0)

    def spec(self, spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        height, width, channels = spec.shape
        return jax.ShapeDtypeStruct((*self.size_of(height, width), channels), spec.dtype)

    @abc.abstractmethod
    def moved(self, field: jax.Array, drawn: Any, fill: Any) -> jax.Array:
        """A field of an image, with its pixels where they go; they are not computed with.

        Args:
          field: `(H, W, C)`, of any type.
          drawn: What `draw` returned for this record.
          fill: What pixels are that come from nowhere, for effects that pad.
        """

    @abc.abstractmethod
    def motion(self, drawn: Any, height: int, width: int) -> tuple[Motion, Motion]:
        """Where places in an image of this size go, down and across."""

    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        del scale
        return self.moved(image, drawn, None)

    def mask(self, mask: jax.Array, drawn: Any, ignore: float | None) -> jax.Array:
        return self.moved(mask, drawn, ignore)

    def hidden(self, hidden: jax.Array, drawn: Any) -> jax.Array:
        """Which pixels can't be seen, `bool (H, W, 1)`, moved likewise; those that come from nowhere can't."""
        return self.moved(hidden, drawn, True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop(Geometric):
    """A rectangle becomes the whole image. Draws it, int32 `(4,)`: its top, left, height and width.

    Attributes:
      size: The height and the width of what comes out; None: those of the image.
    """

    size: Annotated[tuple[int, int] | None, Optional(Size())] = None

    crops = True

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        return self.size or (height, width)

    def starts(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, height - 1), (0, width - 1)

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"box": drawn}

    def motion(self, drawn: jax.Array, height: int, width: int) -> tuple[Motion, Motion]:
        after = self.size_of(height, width)
        # By a number with a bit to spare: else compilers turn the quotient and what it is multiplied by round.
        scales: list[Any] = [1, 1]
        if self.scales:
            sides = drawn[2:].astype(jnp.float32)
            scales = [rounded(np.float32(length) / side) for length, side in zip(after, sides, strict=True)]
        down, across = (
            Motion(drawn[axis], scale, before, after[axis])
            for axis, (scale, before) in enumerate(zip(scales, (height, width), strict=True))
        )
        return down, across
