"""What an image means: its value range, with rounding and saturation; its axes, to (H, W, C) and back."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.rounding import rounded, rounded_to
from grain_datarax.wording import shown

Range = tuple[float, float] | None

# What is cut off is taken for so much more, as products of float32 may fall short of a whole number.
_HAIR = 2.0**-12

# Integers up to here are exact in float32, in which images are computed.
_LARGEST_EXACT = 2**24


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the values of an image mean. Settings are fractions of its range: `low` is 0 and `high` is 1.

    Attributes:
      low: The value that is 0 in settings.
      high: The value that is 1 in settings.
      bounds: Results are clipped to these values; None does not clip. Integers saturate at their type besides. Where
        `limits` says so, values may lie outside them.
      truncates: Whether integers are cut off instead of rounded to the nearest.
    """

    low: Any = 0.0
    high: Any = 1.0
    bounds: Range = None
    truncates: bool = False

    @property
    def width(self) -> Any:
        """How far `high` is above `low`."""
        return self.high - self.low

    def value(self, fraction: Any, dtype: jax.typing.DTypeLike) -> Any:
        """A setting as a value of the image; rounded for integers.

        One that was drawn is as exact as `float32`: ends are met, also of integers beyond 2**24, and what is between
        them to 2**-22 of the range.
        """
        if isinstance(fraction, jax.Array) and not is_computable(dtype, self):
            return self._large_value(fraction, dtype)
        if isinstance(fraction, jax.Array):
            values = self.low + rounded(fraction * self.width)
            return values if is_float(dtype) else jnp.clip(self._whole(values), self.low, self.high)
        if is_float(dtype):
            return fraction if (self.low, self.high) == (0, 1) else self.low + fraction * self.width
        steps = math.floor(fraction * self.width + _HAIR) if self.truncates else round(fraction * self.width)
        return int(min(self.low + steps, self.high))  # above 2**53 the product may round beyond

    def _large_value(self, fraction: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
        # Steps above the low end, unsigned, as these may be twice as many as a signed type has; the sum wraps into it.
        unsigned = jnp.dtype(f"uint{jnp.iinfo(dtype).bits}")
        width, most = np.float32(self.width), np.array(self.width, unsigned)
        last = width if int(width) <= self.width else np.nextafter(width, np.float32(0))
        steps = jnp.clip(self._whole(rounded(fraction * width)), 0, last).astype(unsigned)
        low = np.array(self.low % 2 ** jnp.iinfo(dtype).bits, unsigned)
        return jax.lax.bitcast_convert_type(jnp.where(fraction >= 1, most, steps) + low, dtype)

    def any_value(self, levels: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Uniform levels in (0, 1) as values of the image, all of them equally likely."""
        if is_float(dtype):
            values: jax.Array = self.low + rounded(levels * self.width)
            return values
        steps: jax.Array = jnp.floor(levels * (self.width + 1)).astype(jnp.int32)
        values = steps + self.low
        return values

    def to_fractions(self, image: jax.Array) -> jax.Array:
        """An image as fractions of its range, `float32`, or `float64` for images of that type."""
        values = image.astype(compute_type(image.dtype))
        if (self.low, self.high) == (0, 1):
            return values
        return (
            rounded((values - self.low) * (1 / self.width))
            if values.dtype == jnp.float32
            else ((values - self.low) / self.width)
        )

    def from_fractions(self, fractions: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Turns fractions into an image of this type: see `to_image`."""
        values = fractions.astype(compute_type(dtype))
        if (self.low, self.high) != (0, 1):
            values = rounded(values * self.width) + self.low
        return self.to_image(values, dtype)

    def to_image(self, values: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Turns computed values, in the image's own units, into an image: clips, rounds, saturates and converts."""
        if is_float(dtype):
            return rounded_to(values if self.bounds is None else jnp.clip(values, *self.bounds), dtype)
        low, high = integer_limits(dtype) if self.bounds is None else self.bounds
        return jnp.clip(self._whole(values), low, high).astype(dtype)

    def _whole(self, values: jax.Array) -> jax.Array:
        return jnp.floor(values + np.float32(_HAIR)) if self.truncates else jnp.round(values)

    def limits(self, dtype: jax.typing.DTypeLike) -> Range:
        """`bounds`, or None where no value of this type can lie outside them."""
        return None if not is_float(dtype) and self.bounds == integer_limits(dtype) else self.bounds

    def clip(self, image: jax.Array) -> jax.Array:
        """Clips an image in its own type; nothing else changes."""
        if (limits := self.limits(image.dtype)) is None:
            return image
        low, high = (jnp.asarray(limit, image.dtype) for limit in limits)
        return jnp.clip(image, low, high)

    def outside(self, image: jax.Array) -> jax.Array:
        """Which values lie outside `bounds`; NaN does."""
        assert self.bounds is not None
        low, high = (jnp.asarray(bound, image.dtype) for bound in self.bounds)
        return ~((image >= low) & (image <= high))

    def count_outside(self, image: jax.Array) -> jax.Array:
        """How many values lie outside `bounds`, `int32`."""

        def in_parts(image: jax.Array) -> jax.Array:
            # Sums of at most 32, in int8: XLA's CPU compiler vectorises these, and for longer ones writes all that is
            # to be added into memory first.
            lengths = [max(part for part in range(1, 33) if size % part == 0) for size in image.shape]
            axis = int(np.argmax(lengths))
            split = (*image.shape[:axis], -1, lengths[axis], *image.shape[axis + 1 :])
            return jnp.sum(jnp.sum(self.outside(image).reshape(split), axis=axis + 1, dtype=jnp.int8), dtype=jnp.int32)

        def at_once(image: jax.Array) -> jax.Array:
            return jnp.sum(self.outside(image), dtype=jnp.int32)

        count: jax.Array = jax.lax.platform_dependent(image, cpu=in_parts, default=at_once)
        return count


# For images whose values are their own fractions.
UNIT = Scale()

# By XLA's CPU compiler. What it concatenates along the last axis is computed in loops of its own, too.
_BARRIERS_ARE_DROPPED = jax.__version_info__ < (0, 11)


def scale_of(
    dtype: jax.typing.DTypeLike, value_range: Range, *, clip: bool, field: str, setting: str = "value_range"
) -> Scale:
    """The scale of images of this type.

    Args:
      dtype: The images' type.
      value_range: What their values mean; None: the type's range for unsigned integers, (0, 1) for floats.
      clip: Whether results are clipped to that range.
      field: The images' name, for errors.
      setting: What the range is called, for errors.

    Raises:
      ValueError: If the type has no range of its own, or can't hold the one that is given.
    """
    dtype = jnp.dtype(dtype)
    if value_range is None:
        if not is_float(dtype) and jnp.issubdtype(dtype, jnp.signedinteger):
            raise ValueError(
                f"`value_range` must be given for signed integers, which have no full scale of their own: got None for"
                f' field "{field}" of {dtype}. Pass the least and the greatest value, such as (-1024, 3071) for'
                " computed tomography."
            )
        value_range = (0.0, 1.0) if is_float(dtype) else integer_limits(dtype)
    low, high = value_range
    if is_float(dtype):
        low, high = float(low), float(high)
        with np.errstate(over="ignore"):
            ends = [float(np.asarray(end, dtype)) for end in (low, high)]
        if not (np.isfinite(ends).all() and ends[0] < ends[1]):
            raise ValueError(
                f"`{setting}` must be two values that the type of the images tells apart: got {value_range} for field"
                f' "{field}" of {dtype}. Pass others, or convert the images to float32.'
            )
        return Scale(low, high, (low, high) if clip else None)
    limits = integer_limits(dtype)
    if not (limits[0] <= low and high <= limits[1]) or low != int(low) or high != int(high):
        raise ValueError(
            f'`{setting}` must be of integers from {limits[0]} to {limits[1]}: got {value_range} for field "{field}"'
            f" of {dtype}. Pass the images' own values, not fractions."
        )
    low, high = int(low), int(high)
    return Scale(low, high, (low, high) if clip else None)


def own_scale(dtype: jax.typing.DTypeLike) -> Scale:
    """The scale of images without a declared range: floats are in their own units, integers go up to their maximum."""
    return UNIT if is_float(dtype) else Scale(0, integer_limits(dtype)[1])


def require_fraction(name: str, value: float | None, dtype: jax.typing.DTypeLike, low: float = 0.0) -> None:
    """Raises `ValueError` if a setting for an integer image is not a fraction of full scale."""
    if value is not None and not is_float(dtype) and not low <= value <= 1:
        raise ValueError(
            f"`{name}` must be a fraction of full scale, from {low:g} to 1, for integer images: got {shown(value)} for"
            f" {jnp.dtype(dtype)}. Divide it by {integer_limits(dtype)[1]}."
        )


def is_float(dtype: jax.typing.DTypeLike) -> bool:
    """Whether images of this type are floating point."""
    return jnp.issubdtype(dtype, jnp.floating)


def compute_type(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The floating-point type that images of this type are computed in."""
    wide: jnp.dtype = jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
    return wide


def is_computable(dtype: jax.typing.DTypeLike, scale: Scale) -> bool:
    """Whether all values of the range are exact in the type that images are computed in."""
    return is_float(dtype) or max(abs(scale.low), abs(scale.high)) <= _LARGEST_EXACT


def integer_limits(dtype: jax.typing.DTypeLike) -> tuple[int, int]:
    """The least and the greatest value of an integer type; 0 and 1 for bool."""
    return (0, 1) if jnp.dtype(dtype) == jnp.bool_ else (int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max))


def require_image(image: Any) -> None:
    """Raises `ValueError` unless this is one image, `(H, W)` or `(H, W, C)`, with at least one pixel."""
    shape = tuple(np.shape(image))
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"`image` must be one image, (H, W) or (H, W, C), with at least one pixel: got shape {shape}. Use jax.vmap"
            " for a batch, or Chain."
        )


def is_number(dtype: jax.typing.DTypeLike) -> bool:
    """Whether JAX computes with values of this type: integers and floats of 8 to 64 bits, in native byte order."""
    if jnp.issubdtype(dtype, jnp.integer):
        bits = jnp.iinfo(dtype).bits
    elif is_float(dtype):
        bits = jnp.finfo(dtype).bits
    else:
        return False
    return 8 <= bits <= 64 and np.dtype(dtype).isnative


def require_image_type(dtype: Any, field: str) -> None:
    """Raises `TypeError` unless JAX can hold images of this type: 8 to 32 bits, 16 or 32 for floats, native order."""
    dtype = np.dtype(dtype)
    if dtype != jnp.bool_ and (not is_number(dtype) or (is_float(dtype) and dtype.itemsize < 2)):
        raise TypeError(
            f"`{field}` must be an image of bools, integers or floats of 8 to 64 bits, 16 or more for floats, in native"
            f' byte order: got {dtype} for field "{field}". Convert it, for example to uint8 or float32.'
        )
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise TypeError(
            f'`{field}` must have a dtype of at most 32 bits: got {dtype} for field "{field}". Convert it, to float32'
            " for example, or enable 64 bits: jax.config.update('jax_enable_x64', True)."
        )


def by_rows(
    treat: Callable[..., jax.Array],
    image: jax.Array,
    *others: jax.Array,
    by_channel: Sequence[np.ndarray] = (),
    apart: bool = False,
) -> jax.Array:
    """Applies a function that treats each value for itself; `(H, W)` or `(H, W, C)`, and others of the same shape.

    Constants `by_channel`, `(C,)`, come behind these. With `apart` the CPU first computes what it is applied to.

    On the CPU it is given rows `(H, W C)`: XLA's loops run along the last axis there, and channels are too few for
    their vectors. On other devices a reshaped image would be another one in memory.
    """

    def in_rows(*images: jax.Array) -> jax.Array:
        rows = (image.shape[0], math.prod(image.shape[1:]))
        images = jax.lax.optimization_barrier(images) if apart else images
        parts = [each.reshape(rows) for each in images]
        parts += [np.broadcast_to(np.tile(each, image.shape[1]), rows) for each in by_channel]
        if apart and _BARRIERS_ARE_DROPPED and rows[1] > 1:
            middle = rows[1] // 2
            halves = [treat(*(part[:, side] for part in parts)) for side in (slice(middle), slice(middle, None))]
            return jnp.concatenate(halves, axis=1).reshape(image.shape)
        treated = treat(*parts)
        # Behind a barrier, which keeps the loop from taking the image's shape.
        behind: jax.Array = jax.lax.optimization_barrier(treated)
        return behind.reshape(image.shape)

    def at_once(*images: jax.Array) -> jax.Array:
        return treat(*images, *by_channel)

    result: jax.Array = jax.lax.platform_dependent(image, *others, cpu=in_rows, default=at_once)
    return result


AXES = ("HW", "HWC", "CHW", "THW", "THWC", "TCHW")


def to_hwc(image: jax.Array, axes: str) -> jax.Array:
    """An image of these axes as `(H, W, C)`, or as `(T, H, W, C)` where there are frames.

    Example:
      >>> to_hwc(jnp.zeros((3, 8, 6)), "CHW").shape, to_hwc(jnp.zeros((5, 8, 6)), "THW").shape
      ((8, 6, 3), (5, 8, 6, 1))
    """
    if "C" not in axes:
        return image[..., None]
    return jnp.moveaxis(image, -3, -1) if axes.endswith("CHW") else image


def from_hwc(image: jax.Array, axes: str) -> jax.Array:
    """The inverse of `to_hwc`."""
    if "C" not in axes:
        return image[..., 0]
    return jnp.moveaxis(image, -1, -3) if axes.endswith("CHW") else image


def chosen(image: Any, axes: str, channels: Sequence[int] | None) -> Any:
    """These channels of an image, or of a batch of images, of NumPy or of JAX; all for None."""
    if channels is None:
        return image
    place = (..., np.array(channels), *(slice(None) for _ in axes[axes.index("C") + 1 :]))
    return image[place]


def hwc_shape(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    """The shape that `to_hwc` gives, without the frames."""
    sizes = dict(zip(axes, shape, strict=True))
    return sizes["H"], sizes["W"], sizes.get("C", 1)


def looks_channels_first(shape: Sequence[int]) -> bool:
    """Whether a shape that should be `(H, W, C)` looks like `(C, H, W)`, or like frames `(T, H, W)`."""
    return len(shape) == 3 and shape[2] > 4 and shape[0] < min(shape[1:])


def layout_hint(shape: Sequence[int]) -> str:
    """What to add to an error about a shape that seems to have its axes in another order."""
    return f" The shape {tuple(shape)} {_LAYOUT_ADVICE}" if looks_channels_first(shape) else ""


_LAYOUT_ADVICE = (
    "looks like channels first (CHW) or grey video (THW): move that axis behind, jnp.moveaxis(image, -3, -1), or say"
    ' so: grain_datarax.Chain(..., axes="CHW"), or "THW".'
)


@functools.cache
def warn_of_layout(shape: tuple[int, ...], field: str) -> None:
    """Says once that patches, or moves, cut across what look like channels or frames, if they do."""
    if looks_channels_first(shape):
        warnings.warn(
            "`image` must be (H, W, C), as patches are cut from axes 0 and 1, and pixels move along them: got shape"
            f' {tuple(shape)} for field "{field}". It {_LAYOUT_ADVICE}',
            stacklevel=2,
        )
