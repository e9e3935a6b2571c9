"""Colour jitter: brightness, contrast, saturation and hue, each by a drawn amount, in a drawn order."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.colours import Planes, blended, grey, interleaved, turned
from grain_datarax.effects.effect import PixelEffect
from grain_datarax.effects.settings import Number, OrRange
from grain_datarax.images import Scale, own_scale, require_image
from grain_datarax.means import exact_mean
from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.keys import as_stream_key
from grain_datarax.random.ranks import ranks
from grain_datarax.random.rounding import rounded

_NAMES: tuple[str, ...] = ("brightness", "contrast", "saturation", "hue")
_FACTOR = Annotated[float | tuple[float, float], OrRange(Number(0, 1e3, "be from 0 to 1000"))]
_SHIFT = Annotated[float | tuple[float, float], OrRange(Number(-0.5, 0.5, "be a part of the circle, up to 0.5"))]


def color_jitter(
    key: jax.Array,
    image: jax.Array,
    *,
    brightness: float | tuple[float, float] = 0.0,
    contrast: float | tuple[float, float] = 0.0,
    saturation: float | tuple[float, float] = 0.0,
    hue: float | tuple[float, float] = 0.0,
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue by drawn amounts, in an order that is drawn among all.

    With a drawn factor `f`, brightness is `f x`, contrast `f x + (1 - f) m`, with the mean `m` of the grey image, and
    saturation `f x + (1 - f) g`, with the pixel's own grey `g = 0.2989 R + 0.587 G + 0.114 B`. Hue turns the circle of
    colours by a drawn part of it: red at 0, green at 1/3, blue at 2/3. After each, values are clipped to the range.

    Args:
      key: One PRNG key; the same key draws the same.
      image: `(H, W, 3)` of red, green and blue, or grey, `(H, W)` or `(H, W, 1)`, where saturation and hue change
        nothing. Integer, or floating point from 0 to 1; what lies outside counts as the nearest end.
      brightness: The factor is uniform from `max(0, 1 - brightness)` to `1 + brightness`, or in a range `(low, high)`.
        0 leaves it out.
      contrast: Likewise.
      saturation: Likewise.
      hue: The part is uniform from `-hue` to `hue`, at most 0.5, or in a range. 0 leaves it out.

    Returns:
      An image of the same shape and dtype: the very same where no setting is left for it. `float64` is computed in
      `float32`.

    Raises:
      TypeError, ValueError: If a setting is none, or out of bounds, or the image has another number of axes or
        channels.

    Example:
      >>> color_jitter(jax.random.key(0), jnp.full((1, 1, 3), 100, jnp.uint8), brightness=(2, 2))
      Array([[[200, 200, 200]]], dtype=uint8)

    Source: torchvision, v2.ColorJitter. We compute in `float32` throughout; it rounds bytes down after each change.
    """
    jitter = ColorJitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue)
    require_image(image)
    whole, scale = image[..., None] if image.ndim == 2 else image, own_scale(image.dtype)
    height, width, channels = whole.shape
    if problem := jitter.why_not((height, width, channels), scale, "image"):
        raise ValueError(problem)
    drawn = jitter.draw(as_stream_key(key), (height, width, channels))
    return jitter.pixels(whole, drawn, scale).reshape(image.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorJitter(PixelEffect):
    """Changes brightness, contrast, saturation and hue in a drawn order; see `color_jitter`.

    Draws the factors and the part of the circle of what is not left out, and `order`, `int32 (4,)`: which place
    brightness, contrast, saturation and hue take, where more than one is there. Results lie in the value range also
    where the chain does not clip. An image for which nothing is drawn is left as it is, and clipped if the chain clips:
    where all is left out, or it is grey with saturation and hue alone. Images of `float64` are computed in `float32`.
    Gradients take the mean of contrast for a constant.

    Attributes:
      brightness: The factor is uniform from `max(0, 1 - brightness)` to `1 + brightness`, or in a range `(low, high)`.
      contrast: Likewise. With it the image can't be padded, as the mean is that of the whole image.
      saturation: Likewise.
      hue: The part of the circle is uniform from `-hue` to `hue`, at most 0.5, or in a range.

    Example:
      >>> ColorJitter(brightness=0.4, hue=(0.0, 0.1))
      ColorJitter(brightness=0.4, hue=(0.0, 0.1))
    """

    brightness: _FACTOR = 0.0
    contrast: _FACTOR = 0.0
    saturation: _FACTOR = 0.0
    hue: _SHIFT = 0.0
    same_on_frame: bool = True

    by_value = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.hue, tuple) and self.hue < 0:
            raise ValueError(f"`hue` must be at least 0, or a range: got {self.hue!r}. Pass its absolute value.")

    @property
    def may_be_padded(self) -> bool:
        """Whether images may be padded: without contrast."""
        return "contrast" not in self._ranges

    @property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        """What is not left out, and where its number lies."""
        ranges = {}
        for name in _NAMES:
            value, neutral = getattr(self, name), 0.0 if name == "hue" else 1.0
            least = -0.5 if name == "hue" else 0.0
            low, high = value if isinstance(value, tuple) else (max(least, neutral - value), neutral + value)
            if not low == high == neutral:
                ranges[name] = low, high
        return ranges

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        del scale
        if shape[2] in (1, 3):
            return None
        return (
            f'`channels` must name red, green and blue for ColorJitter: got {shape[2]} channels of field "{field}".'
            " Pass channels=(0, 1, 2), or those that they are."
        )

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> dict[str, jax.Array]:
        del shape
        levels = uniform_levels(key, (8,))  # all of them, so that no setting moves another's draw
        drawn = {}
        for name, (low, high) in self._ranges.items():
            drawn[name] = jnp.clip(low + rounded(np.float32(high - low) * levels[_NAMES.index(name)]), low, high)
        if len(drawn) > 1:
            drawn["order"] = ranks(levels[4:])
        return drawn

    def told(self, drawn: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return drawn

    def pixels(self, image: jax.Array, drawn: Mapping[str, jax.Array], scale: Scale) -> jax.Array:
        if image.shape[2] == 1:
            drawn = {name: number for name, number in drawn.items() if name not in ("saturation", "hue")}
        if drawn.keys().isdisjoint(_NAMES):
            return scale.clip(image)
        # Apart from what comes before and behind it, which each channel would otherwise compute for itself.
        image = jax.lax.optimization_barrier(image)
        planes = [image[..., channel] for channel in range(image.shape[2])]
        fractions = [jnp.clip(scale.to_fractions(plane).astype(jnp.float32), 0, 1) for plane in planes]
        treated = [scale.from_fractions(plane, image.dtype) for plane in jittered(fractions, drawn)]
        result: jax.Array = jax.lax.optimization_barrier(interleaved(treated))
        return result


def jittered(planes: Planes, drawn: Mapping[str, jax.Array]) -> Planes:
    """Applies what was drawn to the planes of an image.

    One program for all orders: as contrast and hue cost most, brightness and saturation have steps on both sides of
    them, and change nothing in those that the drawn order does not give them.
    """
    place = dict(zip(_NAMES, drawn.get("order", np.zeros(4, np.int32)), strict=True))
    for behind_contrast in (False, True) if "contrast" in drawn else (None,):
        if behind_contrast:
            planes = jax.lax.optimization_barrier(planes)  # else the mean and what follows compute them each
            planes = blended(planes, drawn["contrast"], exact_mean(grey(planes)[..., None])[0])
        for behind_hue in (False, True) if "hue" in drawn else (None,):
            if behind_hue:
                here = _is_on(behind_contrast, place["hue"], place["contrast"])
                both = zip(turned(planes, drawn["hue"]), planes, strict=True)
                planes = [jnp.where(here, *each) for each in both]
            for factor, is_saturation, at in _blends(drawn, place):
                here = _is_on(behind_contrast, at, place["contrast"]) & _is_on(behind_hue, at, place["hue"])
                target = jnp.where(is_saturation, grey(planes), 0)
                planes = blended(planes, jnp.where(here, factor, 1), target)
    return planes


def _is_on(behind: bool | None, at: Any, other: Any) -> Any:
    """Whether a place is on this side of another; None: there is no other."""
    return np.True_ if behind is None else (at > other) == behind


def _blends(drawn: Mapping[str, jax.Array], place: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Brightness and saturation in their order: the factor, whether it is that of saturation, and the place."""
    names = [name for name in ("brightness", "saturation") if name in drawn]
    blends: list[tuple[Any, ...]] = [(drawn[name], np.bool_(name == "saturation"), place[name]) for name in names]
    if len(blends) < 2:
        return blends
    swap = place["saturation"] < place["brightness"]
    first, second = ([jnp.where(swap, *pair) for pair in zip(*two, strict=True)] for two in (blends[::-1], blends))
    return [tuple(first), tuple(second)]
