"""What a chain does to the fields of each record: effects, one after the other. Pure."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.effects.effect import Effect
from grain_datarax.images import chosen, from_hwc, to_hwc
from grain_datarax.purity import same_each_time
from grain_datarax.random.bits import STREAM, uniform_levels
from grain_datarax.random.keys import record_keys
from grain_datarax.visibility import covered_share, is_visible

Fields = Mapping[str, jax.Array]

# Where it is noted what effects have covered: a mask beside those of the user, whose paths are not empty.
_COVERED = ""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tally:
    """What is counted of a batch, record by record.

    Attributes:
      rows: `int32 (B, columns)`.
      columns: For each column the effect's index and what is counted: `"applied"`, whether the record was treated;
        `"outside"`, how many of its values arrived outside the value range and were clipped to it by this effect.
    """

    rows: jax.Array
    columns: tuple[tuple[int, str], ...] = dataclasses.field(metadata={"static": True})


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The pure function of a chain, told apart by the chain's text: there 1, 1.0 and True are three.

    Attributes:
      text: The chain's text.
      in_place: Whether results take the buffers of what they are made from.
      chain: The chain.
    """

    text: str
    in_place: bool
    chain: Chain = dataclasses.field(compare=False)

    def augment(self, fields: Fields, seeds: jax.Array) -> tuple[dict[str, jax.Array], Tally | None]:
        """Applies the effects to each record of a batch. Pure, to be compiled.

        Args:
          fields: The images, masks, boxes and keypoints, by path, with the batch as axis 0.
          seeds: `uint32 (B, 2)`, the records' seeds.

        Returns:
          The images and masks, what can be seen of boxes and keypoints, and what is to be counted, if anything.
        """
        chain = self.chain
        result = {path: field for path, field in fields.items() if path not in chain.seen}
        if chain.seen:
            first = to_hwc(fields[chain.images[0]], chain.axes)[..., 0]
            result[_COVERED] = (first != 0) & False  # not zeros_like, which has no sharding on Explicit meshes
        counted: dict[tuple[int, str], jax.Array] = {}
        outside = self._outside(fields)
        if outside is not None and self.in_place:  # else XLA copies what is written to while it is being looked at
            outside, result = jax.lax.optimization_barrier((outside, result))
        for index, (effect, words) in enumerate(zip(chain.effects, chain.key_words(), strict=True)):
            keys = [record_keys(jax.random.wrap_key_data(jnp.asarray(key), impl=STREAM), seeds) for key in words]
            result, applies = jax.vmap(functools.partial(self._treat, effect))(keys, result)
            if applies is not None:
                counted[index, "applied"] = applies.astype(jnp.int32)
            if outside is not None and not effect.replaces:  # the first that clips finds them all, the next none
                counted[index, "outside"] = outside if applies is None else jnp.where(applies, outside, 0)
                outside = outside - counted[index, "outside"]
        if chain.seen:
            result |= self._seen(fields, result.pop(_COVERED))
        tally = Tally(jnp.stack(list(counted.values()), axis=-1), tuple(counted)) if counted else None
        return result, tally

    def _outside(self, fields: Fields) -> jax.Array | None:
        """How many values of each record lie outside the range, `int32 (B,)`; None where nothing clips to it."""
        chain, counts = self.chain, []
        for path in chain.images:
            scale = chain.scale(fields[path].dtype, path)
            if scale.limits(fields[path].dtype) is not None:
                counts.append(jax.vmap(scale.count_outside)(chosen(fields[path], chain.axes, chain.channels)))
        computes = any(not effect.replaces for effect in chain.effects)
        return functools.reduce(jnp.add, counts) if counts and computes else None

    def _treat(
        self, effect: Effect, keys: Sequence[jax.Array], fields: Fields
    ) -> tuple[dict[str, jax.Array], jax.Array | None]:
        """One effect on one record: its fields, and whether it applies, if that is not always so."""
        chain, (key, key_of_p) = self.chain, keys
        images = {path: to_hwc(fields[path], chain.axes) for path in chain.images}
        shapes = {path: self._treated_shape(image) for path, image in images.items()}
        draws = {shapes[path]: _draw(effect, key, shapes[path], image.shape[:-3]) for path, image in images.items()}
        result = dict(fields)
        for path, image in images.items():
            scale = chain.scale(image.dtype, path)
            treat = functools.partial(_image, effect, scale=scale, in_place=self.in_place)
            result[path] = from_hwc(self._channels(effect, image, draws[shapes[path]], treat), chain.axes)
        drawn = draws[shapes[chain.images[0]]]
        for path, fill in {**chain.fills, _COVERED: True}.items():
            if fill is not None and path in fields:
                axes = chain.axes if fields[path].ndim == len(chain.axes) else chain.axes.replace("C", "")
                cover = functools.partial(_mask, effect, fill=fill)
                result[path] = from_hwc(_by_frame(effect, cover, to_hwc(fields[path], axes), drawn), axes)
        if effect.p == 1:
            return result, None
        applies = uniform_levels(key_of_p, ()) < effect.p
        return {path: jnp.where(applies, field, fields[path]) for path, field in result.items()}, applies

    def _treated_shape(self, image: jax.Array) -> tuple[int, int, int]:
        """The `(H, W, C)` that effects see of an image."""
        height, width, channels = image.shape[-3:]
        return height, width, channels if self.chain.channels is None else len(self.chain.channels)

    def _channels(self, effect: Effect, image: jax.Array, drawn: Any, treat: Callable[..., jax.Array]) -> jax.Array:
        """Treats the channels that the chain names."""
        treated = _by_frame(effect, treat, chosen(image, "HWC", self.chain.channels), drawn)
        return treated if self.chain.channels is None else image.at[..., np.array(self.chain.channels)].set(treated)

    def _seen(self, fields: Fields, covered: jax.Array) -> dict[str, jax.Array]:
        """What can be seen of boxes and keypoints of a batch, where these pixels are covered."""
        boxes, keypoints = self.chain.box_formats, self.chain.keypoint_formats
        seen = {}
        for path, mark in self.chain.seen.items():
            look, its_format = (covered_share, boxes[path]) if path in boxes else (is_visible, keypoints[path])
            by_record = functools.partial(look, form=its_format)
            by_frame = jax.vmap(by_record) if "T" in self.chain.axes else by_record
            seen[mark] = jax.vmap(by_frame)(fields[path], covered)
        return seen


def _draw(effect: Effect, key: jax.Array, shape: tuple[int, int, int], frames: tuple[int, ...]) -> Any:
    """What one record draws for images `(H, W, C)`; with frames apart, by frame."""

    def draw(key: jax.Array) -> Any:
        return same_each_time("draw", lambda: effect.draw(key, shape))

    if frames and not effect.same_on_frame:
        return jax.vmap(draw)(jax.random.split(key, frames[0]))

    # The axis of one keeps XLA's CPU fusion from hashing in its loops over channels, which are not vectorised.
    def along_an_axis_of_one(key: jax.Array) -> Any:
        return jax.tree.map(lambda rows: rows[0], jax.vmap(draw)(key[None]))

    return jax.lax.platform_dependent(key, cpu=along_an_axis_of_one, default=draw)


def _by_frame(effect: Effect, treat: Callable[..., jax.Array], field: jax.Array, drawn: Any) -> jax.Array:
    """Treats a field `(H, W, C)`, or each frame of `(T, H, W, C)`, with what was drawn for it."""
    if field.ndim == 3:
        return treat(field, drawn)
    by_frame: Callable[..., jax.Array] = jax.vmap(treat, in_axes=(0, None if effect.same_on_frame else 0))
    return by_frame(field, drawn)


def _image(effect: Effect, image: jax.Array, drawn: Any, *, scale: Any, in_place: bool) -> jax.Array:
    """One image `(H, W, C)`, treated; raises `TypeError` unless it keeps shape and dtype."""
    treat = effect.pixels_in_place if in_place else effect.pixels
    return _kept("image", effect, image, same_each_time("image", lambda: treat(image, drawn, scale)))


def _mask(effect: Effect, mask: jax.Array, drawn: Any, *, fill: float) -> jax.Array:
    """One mask `(H, W, C)`, treated; raises `TypeError` unless it keeps shape and dtype."""
    return _kept("mask", effect, mask, effect.mask(mask, drawn, fill))


def _kept(what: str, effect: Effect, before: jax.Array, after: Any) -> jax.Array:
    if not isinstance(after, jax.Array) or (after.shape, after.dtype) != (before.shape, before.dtype):
        given = f"{after.dtype}{list(after.shape)}" if isinstance(after, jax.Array) else type(after).__name__
        raise TypeError(
            f"`{type(effect).__name__}` must make an array of {before.dtype}{list(before.shape)} of its {what}: got"
            f" {given}. Return it in its shape and type."
        )
    return after
