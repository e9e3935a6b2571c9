"""A record and its partner, which travels with it, become one: MixUp and CutMix."""

import abc
import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.effect import PixelEffect
from grain_datarax.effects.settings import Number
from grain_datarax.images import Scale, compute_type
from grain_datarax.random.beta import symmetric_beta
from grain_datarax.random.bits import uniform_integers
from grain_datarax.random.rounding import rounded, rounded_to


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Mixing(PixelEffect):
    """Mixes a record with its partner: images, labels and masks, by shares that add up to 1.

    The partner is a record of the same fields, nested in this one (`Chain(partner="partner")`): zip the dataset with a
    shuffled one of its own, so that no record depends on the batch that it is in.

    Attributes:
      alpha: The record's own share is drawn from Beta(alpha, alpha): 1 is uniform, less is nearer to 0 or 1.
    """

    alpha: Annotated[float, Number(1e-3, 1e3, "be from 0.001 to 1000")] = 1.0
    same_on_frame: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.same_on_frame:
            raise ValueError(
                f"`same_on_frame` must be True for {type(self).__name__}, as a record has one label: got False. Leave"
                " it out."
            )

    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        del drawn, scale  # a chain mixes it with its partner
        return image

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {"share": self.share(drawn)}

    @abc.abstractmethod
    def share(self, drawn: Any) -> jax.Array:
        """The record's own share, from 0 to 1."""

    @abc.abstractmethod
    def mixed(self, image: jax.Array, partner: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        """Two images `(H, W, C)`, mixed."""

    def mixed_mask(self, mask: jax.Array, partner: jax.Array, drawn: Any) -> jax.Array:
        """Two masks `(H, W, C)` of raw values; by default the record's own."""
        del partner, drawn
        return mask

    def mixed_label(self, label: jax.Array, partner: jax.Array, drawn: Any) -> jax.Array:
        """Two labels, floating point, mixed by their shares."""
        wide = compute_type(label.dtype)
        return rounded_to(_mean(label.astype(wide), partner.astype(wide), self.share(drawn)), label.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixUp(Mixing):
    """`share * image + (1 - share) * partner`, labels alike. Draws the share, `float32`; masks stay as they are.

    Attributes:
      alpha: The record's own share is drawn from Beta(alpha, alpha).

    Example:
      >>> MixUp(alpha=0.4, p=0.5)
      MixUp(p=0.5, alpha=0.4)

    Source: Zhang et al., ICLR 2018.
    """

    alpha: Annotated[float, Number(1e-3, 1e3, "be from 0.001 to 1000")] = 0.2

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        return symmetric_beta(key, self.alpha)

    def share(self, drawn: jax.Array) -> jax.Array:
        return drawn

    def mixed(self, image: jax.Array, partner: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        wide = compute_type(image.dtype)
        return scale.to_image(_mean(image.astype(wide), partner.astype(wide), drawn), image.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutMix(Mixing):
    """A rectangle is the partner's, in masks too; labels are mixed by area. Draws int32 `(6,)`: its top,
    left, bottom and right, and the image's size.

    The rectangle has the sides `sqrt(1 - share)` of the image's, is centred anywhere in the image, and is cut off at
    its edges. Boxes and keypoints in it count as covered.

    Attributes:
      alpha: The record's own share, before the rectangle is cut off, is drawn from Beta(alpha, alpha).

    Example:
      >>> CutMix()
      CutMix()

    Source: Yun et al., ICCV 2019.
    """

    replaces = True

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        half = 0.5 * jnp.sqrt(1 - symmetric_beta(key, self.alpha))
        size = np.array(shape[:2])
        centre = uniform_integers(jax.random.fold_in(key, 1), (2,), size)
        sides = jnp.floor(rounded(half * size.astype(np.float32))).astype(jnp.int32)
        return jnp.concatenate(
            [jnp.maximum(centre - sides, 0), jnp.minimum(centre + sides, size), size.astype(np.int32)]
        )

    def told(self, drawn: jax.Array) -> dict[str, jax.Array]:
        return {**super().told(drawn), "box": drawn[:4]}

    def share(self, drawn: jax.Array) -> jax.Array:
        top, left, bottom, right, height, width = drawn
        area, whole = (bottom - top) * (right - left), height * width
        share: jax.Array = 1 - area.astype(jnp.float32) / whole.astype(jnp.float32)
        return share

    def mixed(self, image: jax.Array, partner: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        del scale
        return jnp.where(_inside(drawn, image.shape), partner, image)

    def mixed_mask(self, mask: jax.Array, partner: jax.Array, drawn: jax.Array) -> jax.Array:
        return jnp.where(_inside(drawn, mask.shape), partner, mask)

    def mask(self, mask: jax.Array, drawn: jax.Array, ignore: float | None) -> jax.Array:
        return mask if ignore is None else jnp.where(_inside(drawn, mask.shape), jnp.asarray(ignore, mask.dtype), mask)


def _mean(own: jax.Array, partner: jax.Array, share: jax.Array) -> jax.Array:
    return partner + rounded((own - partner) * share)  # so that the mean of equal ones is the same


def _inside(drawn: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    top, left, bottom, right = drawn[:4]
    row, column = jnp.arange(shape[0])[:, None, None], jnp.arange(shape[1])[None, :, None]
    inside: jax.Array = (top <= row) & (row < bottom) & (left <= column) & (column < right)
    return inside
