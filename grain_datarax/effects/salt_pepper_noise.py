"""Salt and pepper: some values are replaced by the greatest, and some by the least."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.noise import Noise
from grain_datarax.effects.settings import Fraction, Share, ends
from grain_datarax.images import Scale, own_scale, require_fraction, require_image
from grain_datarax.random.bits import treated_bits
from grain_datarax.random.keys import as_stream_key


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
    require_image(image)
    require_fraction("salt_value", salt_value, image.dtype)
    require_fraction("pepper_value", pepper_value, image.dtype)
    mask = impulse_mask(as_stream_key(key), image.shape, salt_prob=salt_prob, pepper_prob=pepper_prob)
    scale = own_scale(image.dtype)
    return replace_impulses(
        image, mask, salt=scale.value(salt_value, image.dtype), pepper=scale.value(pepper_value, image.dtype)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaltPepperNoise(Noise):
    """Replaces values by salt or pepper; see `salt_pepper_noise`. Draws 1 for salt, -1 for pepper, else 0: `int8`.

    Attributes:
      salt_prob: Probability of salt for each value, or a range of it; channels decide independently.
      pepper_prob: Probability of pepper, or a range of it; both together at most 1.
      salt_value: A fraction of the value range, or a range of it, which is as exact as `float32`, also for integers
        beyond 2**24.
      pepper_value: A fraction of the value range, or a range of it.

    Example:
      >>> SaltPepperNoise(salt_prob=0.02, pepper_prob=0.0)
      SaltPepperNoise(salt_prob=0.02, pepper_prob=0.0)
    """

    salt_prob: Share = 0.01
    pepper_prob: Share = 0.01
    salt_value: Fraction = 1.0
    pepper_value: Fraction = 0.0

    replaces = True
    by_value = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_exclusive(ends(self.salt_prob)[1], ends(self.pepper_prob)[1])

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return impulse_mask(key, shape, salt_prob=self.salt_prob, pepper_prob=self.pepper_prob)

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        scale = self.rounding(scale)
        salt, pepper = (scale.value(value, image.dtype) for value in (self.salt_value, self.pepper_value))
        return replace_impulses(image, drawn, salt=salt, pepper=pepper)


def require_exclusive(salt_prob: float, pepper_prob: float) -> None:
    """Raises `ValueError` if salt and pepper can't exclude each other with these probabilities."""
    if not salt_prob + pepper_prob <= 1:
        raise ValueError(
            f"`salt_prob` and `pepper_prob` must add up to at most 1: got {salt_prob!r} and {pepper_prob!r}. Lower one"
            " of them."
        )


def impulse_mask(key: jax.Array, shape: tuple[int, ...], *, salt_prob: Any, pepper_prob: Any) -> jax.Array:
    """1 for salt, -1 for pepper, 0 for neither: int8 of this shape."""
    if isinstance(salt_prob, jax.Array) or isinstance(pepper_prob, jax.Array):
        return _mask_of_drawn(key, shape, salt_prob, pepper_prob)
    dtype, levels = (np.uint16, 2**16) if _fit_into_16_bits(salt_prob, pepper_prob) else (np.uint32, 2**32)
    salt = round(salt_prob * levels)
    pepper = min(round(pepper_prob * levels), levels - salt)

    def impulses(bits: jax.Array) -> jax.Array:
        mask = jnp.zeros_like(bits, jnp.int8)
        if salt:
            mask = jnp.where(bits <= dtype(salt - 1), jnp.int8(1), mask)
        if pepper:
            mask = jnp.where(bits >= dtype(levels - pepper), jnp.int8(-1), mask)
        return mask

    return treated_bits(impulses, key, shape, np.dtype(dtype).itemsize * 8)


def _mask_of_drawn(key: jax.Array, shape: tuple[int, ...], salt_prob: Any, pepper_prob: Any) -> jax.Array:
    """The same where each record draws its own probabilities: these are met to one part in 2**24."""
    salt, pepper = (jnp.round(jnp.float32(2**24) * prob).astype(jnp.int32) for prob in (salt_prob, pepper_prob))

    def impulses(bits: jax.Array) -> jax.Array:
        level = (bits >> np.uint32(8)).astype(jnp.int32)
        return (level < salt).astype(jnp.int8) - (level >= 2**24 - pepper).astype(jnp.int8)

    return treated_bits(impulses, key, shape, 32)


def _fit_into_16_bits(salt_prob: float, pepper_prob: float) -> bool:
    """Whether half the random bits will do: salt, pepper and neither have their probabilities to one part in 10,000."""
    salt, pepper = (round(probability * 2**16) / 2**16 for probability in (salt_prob, pepper_prob))
    wanted = (salt_prob, pepper_prob, 1 - salt_prob, 1 - pepper_prob, 1 - (salt_prob + pepper_prob))
    given = (salt, pepper, 1 - salt, 1 - pepper, 1 - (salt + pepper))
    # 32 bits do not hold what is smaller than half of 2**-32 either.
    return all(abs(got - want) <= 1e-4 * want + 2**-33 for want, got in zip(wanted, given, strict=True))


def replace_impulses(
    image: jax.Array, mask: jax.Array, *, salt: float | jax.Array, pepper: float | jax.Array
) -> jax.Array:
    """Puts salt where the mask is positive and pepper where it is negative; both are the image's own values."""
    # Each `where` has the image as one branch: two scalars have no sharding to infer from on Explicit meshes.
    image = jnp.where(mask > 0, jnp.asarray(salt, image.dtype), image)
    return jnp.where(mask < 0, jnp.asarray(pepper, image.dtype), image)
