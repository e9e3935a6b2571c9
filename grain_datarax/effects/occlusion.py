"""What occlusions have in common: which pixels are covered, and what fills them."""

import abc
import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.effect import PixelEffect
from grain_datarax.effects.settings import Number, Strength
from grain_datarax.images import Scale, is_float
from grain_datarax.means import exact_mean
from grain_datarax.random.bits import uniform_levels
from grain_datarax.wording import shown

_WORDS = ("mean", "random", "noise")


class Fill(Strength):
    """A fraction of the value range, a range of it, one for each channel, or a word."""

    def __init__(self) -> None:
        remedy = "Divide it by the range's width, 255 for uint8."
        super().__init__(Number(0, 1, "be a fraction of the value range, from 0 to 1", remedy))

    def __call__(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            if value not in _WORDS:
                raise ValueError(f"`{name}` must be one of {_WORDS}, or numbers: got {shown(value)}. Pass one of them.")
            return str(value)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, list | tuple) or (len(value) == 2 and not isinstance(value[0], list | tuple)):
            return super().__call__(name, value)
        nested = len(value) == 1 and isinstance(value[0], list | tuple)
        channels = tuple(self.rule(name, each) for each in (value[0] if nested else value))
        if not channels or (not nested and len(channels) < 3):
            raise ValueError(
                f"`{name}` must be a number, a range (low, high), or one for each channel: got {shown(value)}. Pass"
                " three or more, or ((first, second),) for two channels."
            )
        return (channels,) if len(channels) < 3 else channels  # as two of them would be a range

    def is_drawn(self, value: Any) -> bool:
        return value in ("random", "noise") or (isinstance(value, tuple) and by_channel(value) is None)


def by_channel(fill: Any) -> tuple[float, ...] | None:
    """What fills each channel, where that is said."""
    if not isinstance(fill, tuple) or len(fill) == 2:  # a number or a word, or a range
        return None
    channels: tuple[float, ...] = fill[0] if isinstance(fill[0], tuple) else fill
    return channels


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Occlusion(PixelEffect):
    """An effect that covers pixels. A subclass says which are `covered`; what becomes of images and masks follows.

    Attributes:
      fill: What the image's covered pixels become: a fraction of its value range, or a range `(low, high)` of which
        each record draws; one for each channel, `(red, green, blue)` (of two channels `((first, second),)`); `"mean"`,
        the image's own, channel by channel, in which floats outside the range count as its ends; `"random"`, a colour
        for each patch, or one for the record where patches are not counted; or `"noise"`, one for each pixel, uniform
        over the value range. What is drawn is as exact as `float32`.
      inverse: Whether what would be covered is kept, and all else is covered; `"random"` is one colour then.
      same_on_channel: Whether all channels lose the same pixels; otherwise each draws its own, and masks, boxes and
        keypoints lose the pixels that no channel of the first image has left.
    """

    fill: Annotated[Any, Fill()] = 0.0
    inverse: bool = False
    same_on_channel: bool = True
    same_on_frame: bool = True

    replaces = True

    @abc.abstractmethod
    def covered(self, drawn: Any, shape: tuple[int, int, int]) -> jax.Array:
        """Which pixels of an image of this shape are covered: `bool (H, W)`."""

    def colours(self, shape: tuple[int, int, int]) -> int:
        """How many colours a `"random"` fill draws: one for each patch, or 1 where patches are not counted."""
        del shape
        return 1

    def spread(self, drawn: Any, colours: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        """Each patch's colour, of `(colours, C)`, at its pixels: `(H, W, C)`, or what can be broadcast to it."""
        del drawn, shape
        return colours[0]

    @property
    def computes(self) -> bool:
        return isinstance(self.fill, str)

    @property
    def may_be_padded(self) -> bool:
        return super().may_be_padded and self.fill != "mean"

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        if self.fill == "mean" and scale.bounds is None:
            return (
                '`fill` must be numbers, "random" or "noise" where results are not clipped, as the mean is that of'
                f' values in the range: got "mean" for field "{field}". Leave out clip=False, or pass a value_range.'
            )
        channels = by_channel(self.fill)
        if channels is None or len(channels) == shape[2]:
            return None
        return (
            f'`fill` must be one value, or one for each channel: got {len(channels)} for field "{field}" of {shape[2]}'
            " channels. Pass as many."
        )

    def draw_setting(self, name: str, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        if name != "fill" or not isinstance(self.fill, str):
            return super().draw_setting(name, key, shape)
        if self.fill == "noise":
            return uniform_levels(key, shape)
        # In a row, which no key takes for an image.
        colours = self.colours(shape)
        return uniform_levels(key, (colours * shape[2],)).reshape(colours, shape[2])

    def sample(self, key: jax.Array, shape: tuple[int, int, int], size: jax.Array | None = None) -> Any:
        if self.same_on_channel:
            return super().sample(key, shape, size)
        sample = super().sample
        return jax.vmap(lambda key: sample(key, (*shape[:2], 1), size))(jax.random.split(key, shape[2]))

    def hidden(self, drawn: Any, shape: tuple[int, int, int]) -> jax.Array:
        """Which values are covered in the end: `bool (H, W, 1)`, or `(H, W, C)` where channels draw apart."""
        if self.same_on_channel:
            covered = self.covered(drawn, shape)[..., None]
        else:
            covered = jax.vmap(lambda drawn: self.covered(drawn, (*shape[:2], 1)), out_axes=-1)(drawn)
        return ~covered if self.inverse else covered

    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        height, width, channels = image.shape
        filling = jnp.asarray(self.filling(image, drawn, scale), image.dtype)
        hidden = self.hidden(drawn, (height, width, channels))
        if self.same_on_channel:
            return jnp.where(hidden, filling, image)
        # An axis more makes JAX spread all of them as the image is, where devices have parts of it.
        return jnp.where(hidden[None], filling, image)[0]

    def filling(self, image: jax.Array, drawn: Any, scale: Scale) -> Any:
        """What fills the covered pixels, in the image's own values: what can be broadcast to `(H, W, C)`."""
        fill, channels = self.fill, by_channel(self.fill)
        if channels is not None:
            return np.array([scale.value(each, image.dtype) for each in channels])
        if isinstance(fill, str):
            if not is_float(image.dtype):
                return scale.to_image(exact_mean(image), image.dtype)
            return scale.from_fractions(exact_mean(scale.to_fractions(image)), image.dtype)
        if np.ndim(fill) == 0:
            return scale.value(fill, image.dtype)
        values = scale.any_value(fill, image.dtype)
        return values if values.ndim == 3 else self._colours_by_pixel(drawn, values, image.shape)

    def _colours_by_pixel(self, drawn: Any, colours: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        height, width, channels = shape
        if self.inverse:
            return colours[0]
        if self.same_on_channel:
            return self.spread(drawn, colours, (height, width, channels))

        def of_channel(drawn: Any, colours: jax.Array) -> jax.Array:
            spread = self.spread(drawn, colours[:, None], (height, width, 1))
            return jnp.broadcast_to(spread, (height, width, 1))[..., 0]

        return jax.vmap(of_channel, in_axes=(0, 1), out_axes=-1)(drawn, colours)

    def mask(self, mask: jax.Array, drawn: Any, ignore: float | None) -> jax.Array:
        if ignore is None:
            return mask
        height, width, channels = mask.shape
        hidden = self.hidden(drawn, (height, width, channels)).all(axis=-1, keepdims=True)
        return jnp.where(hidden, jnp.asarray(ignore, mask.dtype), mask)
