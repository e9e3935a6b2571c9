"""Noise: gaussian, salt and pepper, poisson."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.operators.modality import ModalityOperator, ModalityOperatorConfig
from grain_datarax.operators.units import (
    ClipRange,
    clip_image,
    integer_full_scale,
    is_float,
    require_fraction,
    to_image,
    to_image_value,
)
from grain_datarax.random.bits import uniform_levels
from grain_datarax.random.keys import as_stream_key
from grain_datarax.random.normal import normal_quantile
from grain_datarax.random.poisson import poisson_levels, poisson_quantile
from grain_datarax.random.rounding import rounded


def gaussian_noise(key: jax.Array, image: jax.Array, *, std: float, mean: float = 0.0) -> jax.Array:
    """Adds normal noise, `image + N(mean, std**2)`, drawn for each value.

    Args:
      key: One PRNG key; the same key gives the same noise.
      image: `(H, W)` or `(H, W, C)`, integer or floating point.
      std: Standard deviation, non-negative; in image units for a floating-point image, a fraction of full scale for an
        integer one. 0 still adds the mean.
      mean: In the units of `std`.

    Returns:
      An image of the same shape and dtype; floating-point values are not clipped.

    Example:
      >>> gaussian_noise(jax.random.key(0), jnp.zeros((8, 8, 3)), std=0.0, mean=0.5)[0, 0]
      Array([0.5, 0.5, 0.5], dtype=float32)

    Source: Hendrycks & Dietterich, ICLR 2019, gaussian noise.
    """
    require_fraction("std", std, image.dtype)
    require_fraction("mean", mean, image.dtype, low=-1.0)
    return add_noise(image, normal_noise(as_stream_key(key), image.shape, std=std, mean=mean))


def salt_pepper_noise(
    key: jax.Array,
    image: jax.Array,
    *,
    salt_prob: float,
    pepper_prob: float,
    salt_value: float = 1.0,
    pepper_value: float = 0.0,
) -> jax.Array:
    """Replaces values by salt with `salt_prob` or by pepper with `pepper_prob`, never both.

    Args:
      key: One PRNG key; the same key replaces the same values.
      image: `(H, W)` or `(H, W, C)`, integer or floating point. Each value decides for itself, also among channels.
      salt_prob: Probability of salt, from 0 to 1.
      pepper_prob: Probability of pepper; both together at most 1.
      salt_value: In image units for a floating-point image, a fraction of full scale for an integer one.
      pepper_value: In the units of `salt_value`.

    Returns:
      An image of the same shape and dtype.

    Example:
      >>> salt_pepper_noise(jax.random.key(0), jnp.full((2, 2), 128, jnp.uint8), salt_prob=1.0, pepper_prob=0.0)[0]
      Array([255, 255], dtype=uint8)

    Source: Hendrycks & Dietterich, ICLR 2019, impulse noise, where each probability is half of the severity.
    """
    require_fraction("salt_value", salt_value, image.dtype)
    require_fraction("pepper_value", pepper_value, image.dtype)
    mask = impulse_mask(as_stream_key(key), image.shape, salt_prob=salt_prob, pepper_prob=pepper_prob)
    return replace_impulses(image, mask, salt_value, pepper_value)


def poisson_noise(key: jax.Array, image: jax.Array, *, lam_scale: float, full_scale: float | None = None) -> jax.Array:
    """Simulates photon counting, `n ~ Poisson(lam_scale * image / full_scale)` for each value, back in image units.

    The mean is `image`, the variance `image * full_scale / lam_scale`: a larger `lam_scale` means more light, less
    noise.

    Args:
      key: One PRNG key; the same key gives the same noise.
      image: `(H, W)` or `(H, W, C)`, integer or floating point; negative values count as 0.
      lam_scale: Photons at full scale, positive. 5 is near darkness, 60 is ImageNet-C's mildest shot noise.
      full_scale: The image value that `lam_scale` photons stand for, positive. None is 1 for a floating-point image
        and the type's maximum for an integer one.

    Returns:
      An image of the same shape and dtype; floating-point values are not clipped.

    Example:
      >>> poisson_noise(jax.random.key(0), jnp.full((8, 8, 3), 0.5), lam_scale=30.0).shape
      (8, 8, 3)

    Source: Hendrycks & Dietterich, ICLR 2019, shot noise.
    """
    if not lam_scale > 0:
        raise ValueError(f"`lam_scale` must be positive: got {lam_scale!r}. Pass the number of photons at full scale.")
    if full_scale is None:
        full_scale = 1.0 if is_float(image.dtype) else integer_full_scale(image.dtype)
    return count_photons(image, poisson_levels(as_stream_key(key), image.shape), lam_scale, full_scale)


def normal_noise(key: jax.Array, shape: tuple[int, ...], *, std: float, mean: float) -> jax.Array:
    """Normal noise of this shape, float32."""
    # 32 bits also for uint8 images: rounded noise of 16-bit levels fails a chi-square test over 4 million draws.
    return mean + rounded(std * normal_quantile(uniform_levels(key, shape)))


def add_noise(image: jax.Array, noise: jax.Array, clip_range: ClipRange = None) -> jax.Array:
    """Adds noise that is in the units of settings."""
    values = image.astype(_compute_type(image.dtype))
    scale = 1 if is_float(image.dtype) else integer_full_scale(image.dtype)
    return to_image(values + rounded(scale * noise), image.dtype, clip_range)


def impulse_mask(key: jax.Array, shape: tuple[int, ...], *, salt_prob: float, pepper_prob: float) -> jax.Array:
    """1 for salt, -1 for pepper, 0 for neither: int8 of this shape."""
    # Half the random bits will do where both probabilities are theirs to one part in 10,000.
    fits = all(
        abs(round(probability * 2**16) / 2**16 - probability) <= 1e-4 * probability
        for probability in (salt_prob, pepper_prob)
    )
    dtype, levels = (np.uint16, 2**16) if fits else (np.uint32, 2**32)
    bits = jax.random.bits(key, shape, dtype)
    mask = jnp.zeros_like(bits, jnp.int8)
    if salt := round(salt_prob * levels):
        mask = jnp.where(bits <= dtype(salt - 1), jnp.int8(1), mask)
    if pepper := min(round(pepper_prob * levels), levels - salt):
        mask = jnp.where(bits >= dtype(levels - pepper), jnp.int8(-1), mask)
    return mask


def replace_impulses(
    image: jax.Array, mask: jax.Array, salt_value: float | jax.Array, pepper_value: float, clip_range: ClipRange = None
) -> jax.Array:
    """Puts salt where the mask is positive and pepper where it is negative; values are in the units of settings."""
    salt = salt_value if isinstance(salt_value, jax.Array) else to_image_value(salt_value, image.dtype)
    pepper = to_image_value(pepper_value, image.dtype)
    # Each `where` has the image as one branch: two scalars have no sharding to infer from on Explicit meshes.
    image = jnp.where(mask > 0, jnp.asarray(salt, image.dtype), image)
    image = jnp.where(mask < 0, jnp.asarray(pepper, image.dtype), image)
    return clip_image(image, clip_range)


def count_photons(
    image: jax.Array,
    levels: jax.Array,
    lam_scale: float,
    full_scale: float | jax.Array,
    clip_range: ClipRange = None,
) -> jax.Array:
    """Turns uniform levels into photon counts for this image, and these into image values."""
    # In rows, behind a barrier: XLA's CPU loops run along the last axis, and channels are too few for its vectors.
    rows = (image.shape[0], math.prod(image.shape[1:]))
    light = jnp.maximum(image.reshape(rows).astype(jnp.float32), 0)
    counts = poisson_quantile(levels.reshape(rows), rounded(light * (lam_scale / full_scale)))
    values = rounded(counts * (full_scale / lam_scale)).astype(_compute_type(image.dtype))
    return jax.lax.optimization_barrier(to_image(values, image.dtype, clip_range)).reshape(image.shape)


def _compute_type(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


Mode = Literal["gaussian", "salt_pepper", "poisson"]
_MODES = ("gaussian", "salt_pepper", "poisson")


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
        `clip_range`, else, for each record, 255 if its maximum exceeds 1.5 and 1 otherwise.
      pepper_value: Salt and pepper: None is the lower end of `clip_range`, or 0 without one.
      lam_scale: Poisson: photons at full scale, positive. More photons, less noise. Full scale is as for salt.
      clip_range: Bounds of the result, and the range that floating-point input must be in; None does not clip.

    Example:
      >>> NoiseOperatorConfig(field_key="image", mode="poisson", lam_scale=30.0).clip_range
      (0.0, 1.0)
    """

    clip_range: ClipRange = dataclasses.field(default=(0.0, 1.0), kw_only=True)
    mode: Mode = dataclasses.field(default="gaussian", kw_only=True)
    noise_std: float = dataclasses.field(default=0.05, kw_only=True)
    noise_mean: float = dataclasses.field(default=0.0, kw_only=True)
    salt_prob: float = dataclasses.field(default=0.01, kw_only=True)
    pepper_prob: float = dataclasses.field(default=0.01, kw_only=True)
    salt_value: float | None = dataclasses.field(default=None, kw_only=True)
    pepper_value: float | None = dataclasses.field(default=None, kw_only=True)
    lam_scale: float = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in _MODES:
            raise ValueError(f"`mode` must be one of {_MODES}: got {self.mode!r}. Pass one of them.")
        largest = float(np.finfo(np.float32).max)
        self._require_number("noise_std", 0, largest, "be non-negative and finite")
        self._require_number("noise_mean", -largest, largest, "be finite")
        self._require_number("salt_prob", 0, 1, "be a probability from 0 to 1")
        self._require_number("pepper_prob", 0, 1, "be a probability from 0 to 1")
        if not self.salt_prob + self.pepper_prob <= 1:
            raise ValueError(
                f"`salt_prob` and `pepper_prob` must add up to at most 1: got {self.salt_prob!r} and"
                f" {self.pepper_prob!r}. Lower one of them."
            )
        self._require_number("salt_value", -largest, largest, "be finite", optional=True)
        self._require_number("pepper_value", -largest, largest, "be finite", optional=True)
        self._require_number("lam_scale", 1e-20, 1e20, "be positive, from 1e-20 to 1e20")
        low, high = self.clip_range or (0.0, 1.0)
        if self.mode == "poisson" and not 1e-15 <= high <= 1e15:  # with lam_scale, both ratios fit into float32
            raise ValueError(
                f"`clip_range` must end at full scale, from 1e-15 to 1e15, for poisson: got {self.clip_range!r}."
                " Pass (0.0, 1.0), or None to take full scale from each record."
            )
        ends = [end for end, value in ((low, self.pepper_value), (high, self.salt_value)) if value is None]
        if self.mode == "salt_pepper" and not np.isfinite(ends).all():
            raise ValueError(
                f"`clip_range` must be finite where salt and pepper take their values from it: got {self.clip_range!r}."
                " Pass salt_value and pepper_value, or finite bounds."
            )


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
      >>> config = NoiseOperatorConfig(field_key="image", noise_std=0.1, stochastic=True)
      >>> operator = NoiseOperator(config, rngs=nnx.Rngs(0))
      >>> result, state, metadata = operator.apply_batch({"image": jnp.full((2, 4, 4, 3), 0.5)}, {}, {})
      >>> result["image"].shape
      (2, 4, 4, 3)
    """

    config: NoiseOperatorConfig
    keeps_scale = True

    @property
    def namespace(self) -> str:
        """The operator's name, or else its class with its mode."""
        return self.name or f"{type(self).__name__}/{self.config.mode}"

    def param_ranges(self, shape: tuple[int, ...]) -> dict[str, tuple[float, float]]:
        del shape
        return {"noise": (-np.inf, np.inf), "noise_mask": (-1, 1), "poisson_samples": (0, 1)}

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        config = self.config
        if config.mode == "gaussian":
            return {"noise": normal_noise(key, shape, std=config.noise_std, mean=config.noise_mean)}
        if config.mode == "salt_pepper":
            mask = impulse_mask(key, shape, salt_prob=config.salt_prob, pepper_prob=config.pepper_prob)
            return {"noise_mask": mask}
        return {"poisson_samples": poisson_levels(key, shape)}

    def effect(self, image: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
        config = self.config
        if config.mode == "gaussian":
            return add_noise(image, _channels_of(params["noise"], image), config.clip_range)
        if config.mode == "salt_pepper":
            mask = _channels_of(params["noise_mask"], image)
            return replace_impulses(image, mask, self._salt(image), self._pepper(), config.clip_range)
        levels = _channels_of(params["poisson_samples"], image)
        full_scale = self._full_scale(image) if is_float(image.dtype) else integer_full_scale(image.dtype)
        return count_photons(image, levels, config.lam_scale, full_scale, config.clip_range)

    def _salt(self, image: jax.Array) -> float | jax.Array:
        return self._full_scale(image) if self.config.salt_value is None else self.config.salt_value

    def _pepper(self) -> float:
        if self.config.pepper_value is not None:
            return self.config.pepper_value
        return 0.0 if self.config.clip_range is None else self.config.clip_range[0]

    def _full_scale(self, image: jax.Array) -> float | jax.Array:
        if not is_float(image.dtype):
            return 1.0
        if self.config.clip_range is not None:
            return self.config.clip_range[1]
        return 1.0 + 254.0 * (jnp.max(image) > 1.5)

    def check_dtype(self, dtype: np.dtype, path: str) -> None:
        super().check_dtype(dtype, path)
        if jnp.dtype(dtype) == jnp.bool_ or (not is_float(dtype) and jnp.iinfo(dtype).bits > 16):
            raise TypeError(
                f'`{path}` must be floating point or an integer of 8 or 16 bits: got {dtype} for field "{path}".'
                " Convert it, for example to uint8 or float32."
            )
        config = self.config
        if config.mode == "gaussian":
            require_fraction("noise_std", config.noise_std, dtype)
            require_fraction("noise_mean", config.noise_mean, dtype, low=-1.0)
        elif config.mode == "salt_pepper":
            require_fraction("salt_value", config.salt_value, dtype)
            require_fraction("pepper_value", config.pepper_value, dtype)

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


def _channels_of(drawn: jax.Array, image: jax.Array) -> jax.Array:
    """The part of a draw for an image that an auxiliary field of this shape takes: its first channels."""
    if drawn.ndim == 3 and image.ndim == 2:
        return drawn[:, :, 0]
    if drawn.ndim == 2 and image.ndim == 3:
        return drawn[:, :, None]
    return drawn[:, :, : image.shape[2]] if drawn.ndim == 3 else drawn
