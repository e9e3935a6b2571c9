"""Noise as the reference page has it: the laws are those of `grain_datarax.effects`."""

import abc
import dataclasses
import functools
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.gaussian_noise import normal_noise
from grain_datarax.effects.noise import add_noise
from grain_datarax.effects.poisson_noise import PHOTONS, count_photons
from grain_datarax.effects.salt_pepper_noise import impulse_mask, replace_impulses, require_exclusive
from grain_datarax.effects.settings import Number
from grain_datarax.images import Range, Scale, is_float, require_fraction, require_image_type
from grain_datarax.pages.modality import ModalityOperator, ModalityOperatorConfig
from grain_datarax.pages.units import require_finite
from grain_datarax.random.poisson import poisson_levels
from grain_datarax.wording import shown

_LARGEST = float(np.finfo(np.float32).max)
_PROBABILITY = Number(0, 1, "be a probability from 0 to 1")
_FINITE = Number(-_LARGEST, _LARGEST, "be finite")


@dataclasses.dataclass(frozen=True)
class NoiseOperatorConfig(ModalityOperatorConfig):
    """Settings of noise. Values are in image units for a floating-point image, fractions of full scale for integers.

    Attributes:
      mode: `"gaussian"`, `"salt_pepper"` or `"poisson"`.
      noise_std: Gaussian: standard deviation, non-negative.
      noise_mean: Gaussian: mean; for integer images from -1 to 1.
      salt_prob: Salt and pepper: probability of salt, from 0 to 1.
      pepper_prob: Salt and pepper: probability of pepper; both together at most 1.
      salt_value: Salt and pepper: None is full scale: the maximum of an integer type, else the upper end of
        `clip_range`, else, for each record, 255 if a value exceeds 1.5 and 1 otherwise; that is said in a warning once.
      pepper_value: Salt and pepper: None is the lower end of `clip_range`, or 0 without one.
      lam_scale: Poisson: photons at full scale, positive. More photons, less noise. Full scale is as for salt; light is
        counted from the lower end of `clip_range` for images that take their scale from it.
      clip_range: Bounds of the result, and the range that floating-point input must be in; None does not clip.

    Example:
      >>> NoiseOperatorConfig(field_key="image", mode="poisson", lam_scale=30.0).clip_range
      (0.0, 1.0)
    """

    clip_range: Range = dataclasses.field(default=(0.0, 1.0), kw_only=True)
    mode: Literal["gaussian", "salt_pepper", "poisson"] = dataclasses.field(default="gaussian", kw_only=True)
    noise_std: float = dataclasses.field(default=0.05, kw_only=True)
    noise_mean: float = dataclasses.field(default=0.0, kw_only=True)
    salt_prob: float = dataclasses.field(default=0.01, kw_only=True)
    pepper_prob: float = dataclasses.field(default=0.01, kw_only=True)
    salt_value: float | None = dataclasses.field(default=None, kw_only=True)
    pepper_value: float | None = dataclasses.field(default=None, kw_only=True)
    lam_scale: float = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in _LAWS:
            raise ValueError(f"`mode` must be one of {tuple(_LAWS)}: got {shown(self.mode)}. Pass one of them.")
        self._require(
            noise_std=Number(0, _LARGEST, "be non-negative and finite"),
            noise_mean=_FINITE,
            salt_prob=_PROBABILITY,
            pepper_prob=_PROBABILITY,
            lam_scale=PHOTONS,
        )
        require_exclusive(self.salt_prob, self.pepper_prob)
        self._require(**{name: _FINITE for name in ("salt_value", "pepper_value") if getattr(self, name) is not None})
        _LAWS[self.mode].check_settings(self)


class NoiseOperator(ModalityOperator):
    """Adds noise to an image; see `gaussian_noise`, `salt_pepper_noise` and `poisson_noise`.

    Draws, for each record, an array of the image's shape:

    - gaussian: `noise`, float32, what is added, in the units of `noise_std`.
    - salt_pepper: `noise_mask`, int8, 1 for salt, -1 for pepper, 0 for neither.
    - poisson: `poisson_samples`, float32 in (0, 1), levels that the inverse distribution function turns into counts.

    An auxiliary field that shares the draw takes its first channels; it may not have more channels than the image.

    Args:
      config: The settings.
      rngs: The rng streams.
      name: See `DataraxModule`.

    Example:
      >>> from flax import nnx
      >>> import jax.numpy as jnp
      >>> config = NoiseOperatorConfig(field_key="image", noise_std=0.1, stochastic=True)
      >>> operator = NoiseOperator(config, rngs=nnx.Rngs(0))
      >>> result, state, metadata = operator.apply_batch({"image": jnp.full((2, 4, 4, 3), 0.5)}, {}, {})
      >>> result["image"].shape
      (2, 4, 4, 3)
    """

    config: NoiseOperatorConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    keeps_scale = True

    @property
    def namespace(self) -> str:
        """The operator's name, or else its class with its mode."""
        return self.name or f"{type(self).__name__}/{self.config.mode}"

    @property
    def _law(self) -> "type[_Law]":
        return _LAWS[self.config.mode]

    def param_ranges(self, shape: tuple[int, ...]) -> Mapping[str, tuple[Any, Any]]:
        del shape
        return {self._law.param: self._law.param_range}

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        return {self._law.param: self._law.draw(self.config, key, shape)}

    def effect(self, image: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
        return self._law.effect(
            self.config, image, _channels_of(params[self._law.param], image), self.scale(image.dtype)
        )

    def check_dtype(self, dtype: np.dtype, path: str) -> None:
        require_image_type(dtype, path)
        if jnp.dtype(dtype) == jnp.bool_ or (not is_float(dtype) and jnp.iinfo(dtype).bits > 16):
            raise TypeError(
                f'`{path}` must be floating point or an integer of 8 or 16 bits: got {dtype} for field "{path}".'
                " Convert it, for example to uint8 or float32."
            )
        super().check_dtype(dtype, path)
        self._law.check_dtype(self.config, dtype)

    def misfit(self, shapes: dict[str, tuple[int, ...]]) -> str | None:
        channels = {path: (*shape, 1)[2] for path, shape in shapes.items() if len(shape) in (2, 3)}
        most = channels.get(self.config.field_key, 0)
        for path, _ in self._treated_fields():
            if channels.get(path, 0) > most:
                return (
                    f"`auxiliary_fields` must have at most the image's {most} channels to share its noise: got"
                    f' {channels[path]} for field "{path}". Pass preserve_auxiliary=True to leave it as it is.'
                )
        return super().misfit(shapes)


class _Law(abc.ABC):
    """One mode: its settings, what it draws, and its effect."""

    param: ClassVar[str]
    param_range: ClassVar[tuple[float, float]]

    @staticmethod
    def check_settings(config: NoiseOperatorConfig) -> None:
        """Raises for settings that this mode alone minds; there are none by default."""
        del config

    @staticmethod
    @abc.abstractmethod
    def check_dtype(config: NoiseOperatorConfig, dtype: np.dtype) -> None:
        """Raises for settings that are in other units than images of this type."""

    @staticmethod
    @abc.abstractmethod
    def draw(config: NoiseOperatorConfig, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """What one record draws."""

    @staticmethod
    @abc.abstractmethod
    def effect(config: NoiseOperatorConfig, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        """What becomes of its image."""


class _Gaussian(_Law):
    param = "noise"
    param_range = (-np.inf, np.inf)

    @staticmethod
    def check_dtype(config: NoiseOperatorConfig, dtype: np.dtype) -> None:
        require_fraction("noise_std", config.noise_std, dtype)
        require_fraction("noise_mean", config.noise_mean, dtype, low=-1.0)

    @staticmethod
    def draw(config: NoiseOperatorConfig, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return normal_noise(key, shape, std=config.noise_std, mean=config.noise_mean)

    @staticmethod
    def effect(config: NoiseOperatorConfig, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        del config
        return add_noise(image, drawn, scale)


class _SaltPepper(_Law):
    param = "noise_mask"
    param_range = (-1, 1)

    @staticmethod
    def check_settings(config: NoiseOperatorConfig) -> None:
        ends = zip(config.clip_range or (0.0, 1.0), (config.pepper_value, config.salt_value), strict=True)
        if not np.isfinite([end for end, value in ends if value is None]).all():
            raise ValueError(
                "`clip_range` must be finite where salt and pepper take their values from it: got"
                f" {shown(config.clip_range)}. Pass salt_value and pepper_value, or finite bounds."
            )

    @staticmethod
    def check_dtype(config: NoiseOperatorConfig, dtype: np.dtype) -> None:
        for name in ("salt_value", "pepper_value"):
            require_fraction(name, getattr(config, name), dtype)
            require_finite(name, getattr(config, name), dtype)
        if config.salt_value is None:
            warn_of_guess(config, dtype)

    @staticmethod
    def draw(config: NoiseOperatorConfig, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return impulse_mask(key, shape, salt_prob=config.salt_prob, pepper_prob=config.pepper_prob)

    @staticmethod
    def effect(config: NoiseOperatorConfig, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        own = image_scale(image, scale, config.clip_range)
        salt, pepper = config.salt_value, config.pepper_value
        values = {
            "salt": own.high if salt is None else scale.value(salt, image.dtype),
            "pepper": own.low if pepper is None else scale.value(pepper, image.dtype),
        }
        return scale.clip(replace_impulses(image, drawn, **values))


class _Poisson(_Law):
    param = "poisson_samples"
    param_range = (0, 1)

    @staticmethod
    def check_settings(config: NoiseOperatorConfig) -> None:
        low, high = config.clip_range or (0.0, 1.0)
        if not 1e-15 <= high - low <= 1e15:  # with lam_scale, both ratios fit into float32
            raise ValueError(
                f"`clip_range` must be from 1e-15 to 1e15 wide for poisson: got {shown(config.clip_range)}. Pass the"
                " least and the greatest value, such as (0.0, 1.0), or None to take full scale from each record."
            )

    @staticmethod
    def check_dtype(config: NoiseOperatorConfig, dtype: np.dtype) -> None:
        warn_of_guess(config, dtype)

    @staticmethod
    def draw(config: NoiseOperatorConfig, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        del config
        return poisson_levels(key, shape)

    @staticmethod
    def effect(config: NoiseOperatorConfig, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        return count_photons(image, drawn, config.lam_scale, image_scale(image, scale, config.clip_range))


_LAWS: dict[str, type[_Law]] = {"gaussian": _Gaussian, "salt_pepper": _SaltPepper, "poisson": _Poisson}


def _channels_of(drawn: jax.Array, image: jax.Array) -> jax.Array:
    """The part of a draw for an image that an auxiliary field of this shape takes: its first channels."""
    if drawn.ndim == 3 and image.ndim == 2:
        return drawn[:, :, 0]
    if drawn.ndim == 2 and image.ndim == 3:
        return drawn[:, :, None]
    return drawn[:, :, : image.shape[2]] if drawn.ndim == 3 else drawn


def image_scale(image: jax.Array, scale: Scale, clip_range: Range) -> Scale:
    """Where full scale is, for one image: integers know, floats have it from `clip_range`, or else it is guessed."""
    if not is_float(image.dtype):
        return scale
    if clip_range is not None:
        return Scale(*clip_range, clip_range)
    # Not by the maximum, which keeps NaN or loses it by how it is vectorised.
    return Scale(0.0, 1.0 + 254.0 * jnp.any(image > 1.5), None)


def warn_of_guess(config: NoiseOperatorConfig, dtype: np.dtype) -> None:
    """Says once for each configuration that full scale is guessed from the values of each record."""
    if is_float(dtype) and config.clip_range is None:
        _say_once(
            f"`clip_range` should say what full scale is for {config.mode} on floating-point images: got None for field"
            f' "{config.field_key}". It is guessed, 255 for a record with a value above 1.5 and 1 for others. Pass'
            " (0.0, 1.0), for example."
        )


@functools.cache
def _say_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
