"""Pad and crop: an image gets a border, and is cut out again at a random place."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.geometric import Crop
from grain_datarax.effects.settings import Fraction, Integer, Number, Rule
from grain_datarax.images import Scale, own_scale, require_fraction, require_image
from grain_datarax.random.bits import uniform_integers
from grain_datarax.random.keys import as_stream_key
from grain_datarax.resampling import pixels_at
from grain_datarax.wording import shown


def pad_crop(
    key: jax.Array,
    image: jax.Array,
    *,
    padding: int | tuple[int, int],
    mode: Literal["constant", "reflect", "edge"] = "constant",
    fill: float = 0.0,
    size: tuple[int, int] | None = None,
) -> jax.Array:
    """Pads an image on all sides and cuts a rectangle out at a random place: a random shift.

    Args:
      key: One PRNG key; the same key gives the same place.
      image: `(H, W)` or `(H, W, C)`, integer or floating point.
      padding: How many pixels come on each side, or above and below, and left and right; at most 2**15.
      mode: What they are: `"constant"`, `"reflect"`, the image mirrored at its outermost pixels, or `"edge"`, these.
      fill: The constant; in image units for a floating-point image, a fraction of full scale for an integer one.
      size: Height and width of the rectangle, at most the padded image's; None: the image's.

    Returns:
      An image of this size and the same dtype; its values are not computed with.

    Raises:
      TypeError, ValueError: If a setting breaks its rule, or does not fit the image.

    Example:
      >>> pad_crop(jax.random.key(0), jnp.ones((32, 32, 3)), padding=4).shape
      (32, 32, 3)

    Source: He et al., CVPR 2016: 4 pixels of zeros for images of 32 x 32. The top-left corner is uniform over all
    places at which the rectangle lies inside the padded image.
    """
    crop, fill = PadCrop(padding=padding, size=size, mode=mode), Number()("fill", fill)
    require_image(image)
    _require_constant(fill, mode)
    require_fraction("fill", fill, image.dtype)
    shape = image.shape[0], image.shape[1], 1
    if problem := crop.why_not(shape, own_scale(image.dtype), "image"):
        raise ValueError(problem)
    value = own_scale(image.dtype).value(fill, image.dtype)
    result = crop.moved(jnp.atleast_3d(image), crop.draw(as_stream_key(key), shape), value)
    return result.reshape(*result.shape[:2], *image.shape[2:])


def _require_constant(fill: Any, mode: str) -> None:
    """Raises `ValueError` if a constant is given that nothing is padded with."""
    if fill != 0.0 and mode != "constant":
        raise ValueError(
            f'`fill` must be left out where nothing is padded with it: got {shown(fill)} for mode="{mode}". Leave it'
            ' out, or use mode="constant".'
        )


class Padding(Rule):
    """Pixels on each side, or on those above and below, and on those left and right."""

    # So that places fit into int32.
    most = 2**15

    def __call__(self, name: str, value: Any) -> int | tuple[int, int]:
        if isinstance(value, list | tuple) and len(value) != 2:
            raise ValueError(f"`{name}` must be an integer or two: got {shown(value)}. Pass one, or (height, width).")
        sides = value if isinstance(value, list | tuple) else (value, value)
        height, width = (Integer(least=0)(name, side) for side in sides)
        if max(height, width) > self.most:
            raise ValueError(f"`{name}` must be at most {self.most}: got {shown(value)}. Pass a smaller number.")
        return height if height == width else (height, width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PadCrop(Crop):
    """Pads on all sides and crops at a random place; see `pad_crop`. Its box may begin at negative places.

    Attributes:
      padding: Pixels on each side, or (height, width): those above and below, and those left and right.
      size: The height and the width of what comes out; None: those of the image.
      mode: `"constant"`, `"reflect"`, or `"edge"`. Masks have to say what they are in a constant padding.
      fill: What a constant padding is, a fraction of the value range, or a range of it for each record.

    Example:
      >>> PadCrop(padding=4)
      PadCrop()
    """

    padding: Annotated[int | tuple[int, int], Padding()] = 4
    mode: Literal["constant", "reflect", "edge"] = "constant"
    fill: Fraction = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_constant(self.fill, self.mode)

    @property
    def pads(self) -> bool:
        """Whether masks have to say what they are in the padding."""
        return self.mode == "constant" and self.padding != 0

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        del scale
        of_what = f'field "{field}" of shape {shape}'
        if self.mode == "reflect" and any(side >= length for side, length in zip(self._sides, shape, strict=False)):
            return (
                f"`padding` must be smaller than an image that is reflected: got {self.padding} for {of_what}. Use less"
                ' of it, or mode="edge".'
            )
        if any(room < 1 for room in self._room(shape)):
            return f"`size` must fit inside the padded image: got {self.size} for {of_what}. Use a smaller one, or pad."
        return None

    @property
    def _sides(self) -> tuple[int, int]:
        return self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)

    def _room(self, shape: Sequence[int]) -> list[int]:
        """At how many places the rectangle may begin, down and across."""
        sizes = zip(shape, self._sides, self.size_of(shape[0], shape[1]), strict=False)
        return [length + 2 * side - size + 1 for length, side, size in sizes]

    def starts(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        down, across = (
            (-side, room - 1 - side) for room, side in zip(self._room((height, width)), self._sides, strict=True)
        )
        return down, across

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        corner = uniform_integers(key, (2,), np.array(self._room(shape))) - np.array(self._sides, np.int32)
        return jnp.concatenate([corner, np.array(self.size_of(*shape[:2]), np.int32)])

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return self.moved(image, drawn, scale.value(self.fill, image.dtype))

    def hidden(self, hidden: jax.Array, drawn: jax.Array) -> jax.Array:
        return dataclasses.replace(self, mode="constant", fill=0.0).moved(hidden, drawn, True)

    def moved(self, field: jax.Array, drawn: jax.Array, fill: Any) -> jax.Array:
        lengths, after = field.shape[:2], self.size_of(*field.shape[:2])
        places = [drawn[axis] + np.arange(length, dtype=np.int32) for axis, length in enumerate(after)]
        if self.mode == "reflect":
            last = [length - 1 for length in lengths]
            places = [end - jnp.abs(end - jnp.abs(place)) for place, end in zip(places, last, strict=True)]
        held = [jnp.clip(place, 0, length - 1) for place, length in zip(places, lengths, strict=True)]
        found = pixels_at(field, *held)
        if not self.pads:
            return found
        down, across = (place == other for place, other in zip(places, held, strict=True))
        inside = (down[:, None] & across[None, :])[..., None]
        return jnp.where(inside, found, jnp.asarray(fill, field.dtype))
