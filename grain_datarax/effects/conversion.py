"""From images to what a model takes: the last effect of a chain, in one pass with those before it."""

import abc
import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.effect import PixelEffect
from grain_datarax.effects.settings import Choice, Number, Rule
from grain_datarax.images import Scale, by_rows, compute_type
from grain_datarax.random.rounding import rounded, rounded_to
from grain_datarax.wording import shown

_TYPES = ("float32", "bfloat16", "float16")


class PerChannel(Rule):
    """A number, or one for each channel."""

    def __init__(self, rule: Number) -> None:
        self.rule = rule

    def __call__(self, name: str, value: Any) -> tuple[float, ...]:
        values = value if isinstance(value, list | tuple) else (value,)
        if not values:
            raise ValueError(f"`{name}` must be a number, or one for each channel: got {shown(value)}. Pass some.")
        return tuple(self.rule(name, each) for each in values)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Conversion(PixelEffect):
    """Turns images into another floating-point type; a chain holds one at most, as its last effect.

    Attributes:
      dtype: What comes out: `"float32"`, `"bfloat16"` or `"float16"`.
    """

    dtype: Annotated[str, Choice(_TYPES)] = "float32"

    def __post_init__(self) -> None:
        if isinstance(self.dtype, type | np.dtype):
            object.__setattr__(self, "dtype", jnp.dtype(self.dtype).name)
        super().__post_init__()
        if self.p != 1:
            raise ValueError(
                f"`p` must be 1 for {type(self).__name__}, as all records have one type: got {self.p!r}. Leave it out."
            )

    @abc.abstractmethod
    def ends(self, scale: Scale) -> np.ndarray:
        """What the two ends of the value range become, `float64`."""

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        del shape
        most, limit = float(np.abs(self.ends(scale)).max()), float(jnp.finfo(self.dtype).max)
        if most <= limit:
            return None
        return (
            f'`dtype` must hold what images become: got {self.dtype}, up to {limit:g}, for {most:g} of field "{field}".'
            ' Pass "bfloat16" or "float32", or scale the images.'
        )

    @property
    def clips(self) -> bool:
        """No: what lies outside the range stays outside."""
        return False

    def spec(self, spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(spec.shape, jnp.dtype(self.dtype))

    @abc.abstractmethod
    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cast(Conversion):
    """Converts the type alone.

    Attributes:
      scale: Turn values into fractions of the value range, as 0 to 255 into 0 to 1; otherwise they stay as they are.

    Example:
      >>> Cast(dtype="bfloat16", scale=True)
      Cast(dtype='bfloat16', scale=True)
    """

    scale: bool = False

    by_value = True

    def ends(self, scale: Scale) -> np.ndarray:
        return np.array([0.0, 1.0] if self.scale else [scale.low, scale.high], np.float64)

    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        del drawn

        def cast(image: jax.Array) -> jax.Array:
            values = scale.to_fractions(image) if self.scale else image.astype(compute_type(image.dtype))
            return rounded_to(values, self.dtype)

        return by_rows(cast, image, apart=True)  # by what `python -m benchmarks.recipes` shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalize(Conversion):
    """`(image - mean) / std` for each channel, where the image is in fractions of its value range.

    Attributes:
      mean: A number, or one for each channel, in fractions of the value range.
      std: Likewise, positive.

    Example:
      >>> Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), dtype="bfloat16")
      Normalize(dtype='bfloat16', mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    """

    mean: Annotated[float | tuple[float, ...], PerChannel(Number(rule="be finite"))]
    std: Annotated[float | tuple[float, ...], PerChannel(Number(1e-30, 1e30, "be positive, from 1e-30 to 1e30"))]

    by_value = True

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if np.size(values) not in (1, shape[2]):
                return (
                    f"`{name}` must be one number, or one for each channel: got {np.size(values)} for field"
                    f' "{field}" of {shape[2]} channels. Pass as many.'
                )
        return super().why_not(shape, scale, field)

    def ends(self, scale: Scale) -> np.ndarray:
        del scale
        mean, std = (np.asarray(each, np.float64) for each in (self.mean, self.std))
        return np.concatenate([np.ravel((end - mean) / std) for end in (0.0, 1.0)])

    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        del drawn
        wide = compute_type(image.dtype)
        mean, std = (np.broadcast_to(np.asarray(each, np.float64), image.shape[-1]) for each in (self.mean, self.std))
        # One product and one sum, with constants that NumPy has computed.
        factor = (1 / (scale.width * std)).astype(wide)
        shift = ((scale.low / scale.width + mean) / std).astype(wide)

        def normalize(image: jax.Array, factor: np.ndarray, shift: np.ndarray) -> jax.Array:
            return rounded_to(rounded(image.astype(wide) * factor) - shift, self.dtype)

        return by_rows(normalize, image, by_channel=(factor, shift), apart=True)
