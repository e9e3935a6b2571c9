"""What a chain does to the fields of each record: effects, one after the other. Pure."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.effects.composition import Composition, Sequential
from grain_datarax.effects.conversion import Conversion
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.mixing import Mixing, MixUp
from grain_datarax.frames import by_frame, drawn_by, moved_hidden, told_by, treated_image, treated_mask
from grain_datarax.geometry import clipped, moved_coordinates
from grain_datarax.images import chosen, from_hwc, to_hwc
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
      laws: The classes and functions that it names: in a notebook another one may have the same name by now.
      in_place: Whether results take the buffers of what they are made from.
      chain: The chain.
    """

    text: str
    laws: tuple[Any, ...]
    in_place: bool
    chain: Chain = dataclasses.field(compare=False)

    @classmethod
    def of(cls, chain: Chain, *, in_place: bool) -> Self:
        """That of a chain."""
        return cls(json.dumps(chain.to_dict()), tuple(link.law for link in chain.links), in_place, chain)

    def augment(self, fields: Fields, seeds: jax.Array) -> tuple[dict[str, Any], Tally | None]:
        """Applies the effects to each record of a batch. Pure, to be compiled.

        Args:
          fields: The images, masks, labels, boxes and keypoints, and those of partners, by path, with the batch as
            axis 0.
          seeds: `uint32 (B, 2)`, the records' seeds.

        Returns:
          The images, masks and labels, boxes and keypoints where they move, what can be seen of these, and what was
          drawn where the chain says so; and what is to be counted, if anything.
        """
        chain = self.chain
        arriving = {path: field for path, field in fields.items() if chain.geometric or path not in chain.seen}
        if chain.seen:
            first = to_hwc(fields[chain.images[0]], chain.axes)[..., 0]
            arriving[_COVERED] = (first != 0) & False  # not zeros_like, which has no sharding on Explicit meshes
        outside = self._outside(fields)
        if outside is not None and self.in_place:  # else XLA copies what is written to while it is being looked at
            outside, arriving = jax.lax.optimization_barrier((outside, arriving))
        keys = [{setting: _record_keys(words, seeds) for setting, words in link.items()} for link in chain.key_words()]
        batch = _Batch(arriving, seeds, outside, iter(enumerate(keys)))
        for effect in chain.effects:
            self._apply(effect, batch, None)
        only_read = {*chain.partners, *chain.sizes}
        result: dict[str, Any] = {path: field for path, field in batch.fields.items() if path not in only_read}
        counted = batch.counted
        if chain.draws:
            # Without dots, which reach into nested mappings.
            names = [name.replace(".", "_") for name in chain.names]
            result[chain.draws] = {names[index]: told for index, told in batch.told.items()}
        if chain.seen:
            result |= self._seen({**fields, **result}, result.pop(_COVERED), batch.cropped)
        if batch.cropped is not None:
            result |= clipped(chain, result, batch.cropped)
        tally = Tally(jnp.stack(list(counted.values()), axis=-1), tuple(counted)) if counted else None
        return result, tally

    def _apply(self, effect: Effect, batch: "_Batch", taken: jax.Array | None) -> None:
        """One effect, or the effects of a composition, on the records that take it, `bool (B,)`; None: all do."""
        index, keys = next(batch.links)
        if effect.p != 1:
            applies = jax.vmap(lambda key: uniform_levels(key, ()) < effect.p)(keys["p"])
            taken = applies if taken is None else taken & applies
        if taken is not None:
            batch.counted[index, "applied"] = taken.astype(jnp.int32)
        applied = batch.seeds[:, 0] >= 0 if taken is None else taken  # not ones_like, which has no sharding either
        if isinstance(effect, Composition):
            chosen = jax.vmap(functools.partial(effect.draw, shape=(0, 0, 0)))(keys[""])
            batch.told[index] = {"applied": applied, **effect.told(chosen)}
            for place, part in enumerate(effect.effects):
                always = isinstance(effect, Sequential)
                takes = taken if always else chosen[:, place] if taken is None else taken & chosen[:, place]
                self._apply(part, batch, takes)
            return
        treat = functools.partial(self._treat, effect)
        batch.fields, told = jax.vmap(treat, in_axes=(0, 0, None if taken is None else 0))(keys, batch.fields, taken)
        batch.told[index] = {"applied": applied, **told}
        if isinstance(effect, Geometric) and effect.crops:
            batch.cropped = applied if batch.cropped is None else batch.cropped | applied
        if isinstance(effect, MixUp):
            self._count_partners(batch, taken)
        elif isinstance(effect, Mixing) and batch.outside is not None:  # all that was clipped before lies inside by now
            batch.outside = self._outside(batch.fields)
        if batch.outside is not None and effect.clips:  # the first that clips finds them all, the next none
            batch.counted[index, "outside"] = batch.outside if taken is None else jnp.where(taken, batch.outside, 0)
            batch.outside = batch.outside - batch.counted[index, "outside"]

    def _outside(self, fields: Fields) -> jax.Array | None:
        """How many values of each record lie outside the range, `int32 (B,)`; None where nothing clips to it."""
        return self._count_outside(self.chain.images, fields) if any(link.clips for link in self.chain.links) else None

    def _count_partners(self, batch: "_Batch", taken: jax.Array | None) -> None:
        """Counts the values of partners that lie outside: they are mixed in, and then clipped."""
        outside = self._count_outside([self.chain.partner_of(path) for path in self.chain.images], batch.fields)
        if outside is not None:
            own = batch.outside if batch.outside is not None else 0
            batch.outside = own + (outside if taken is None else jnp.where(taken, outside, 0))

    def _count_outside(self, paths: Sequence[str], fields: Fields) -> jax.Array | None:
        chain, counts = self.chain, []
        for path in paths:
            scale = chain.scale(fields[path].dtype, path)
            if scale.limits(fields[path].dtype) is not None:
                treated = chosen(fields[path], chain.axes, chain.channels)
                if chain.size:  # of the image itself
                    treated = jax.vmap(self._without_padding, in_axes=(0, 0, None))(
                        treated, fields[chain.size], scale.low
                    )
                counts.append(jax.vmap(scale.count_outside)(treated))
        return functools.reduce(jnp.add, counts) if counts else None

    def _treat(
        self, effect: Effect, keys: Mapping[str, jax.Array], fields: Fields, taken: jax.Array | None
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """One effect on one record: its fields, as they were unless the record takes the effect; and what it drew."""
        chain = self.chain
        images = {path: to_hwc(fields[path], chain.axes) for path in chain.images}
        shapes = {path: self._treated_shape(image) for path, image in images.items()}
        size = fields[chain.size].astype(jnp.int32) if chain.size else None
        draws = {
            shapes[path]: drawn_by(effect, keys, shapes[path], image.shape[:-3], size) for path, image in images.items()
        }
        result = dict(fields)
        for path, image in images.items():
            scale, partner = chain.scale(image.dtype, path), self._partner(effect, fields, path, chain.axes)
            treat = functools.partial(treated_image, effect, scale=scale, in_place=self.in_place)
            result[path] = from_hwc(self._channels(effect, image, partner, draws[shapes[path]], treat), chain.axes)
        drawn = draws[shapes[chain.images[0]]]
        for path, fill in {**chain.fills, _COVERED: True}.items():
            if (fill is not None or isinstance(effect, Geometric)) and path in fields:
                axes = chain.axes if fields[path].ndim == len(chain.axes) else chain.axes.replace("C", "")
                partner = None if path == _COVERED else self._partner(effect, fields, path, axes)
                cover = functools.partial(treated_mask, effect, fill=fill)
                if path == _COVERED and isinstance(effect, Geometric):
                    cover = functools.partial(moved_hidden, effect)
                result[path] = from_hwc(by_frame(effect, cover, to_hwc(fields[path], axes), partner, drawn), axes)
        if isinstance(effect, Geometric):
            result |= moved_coordinates(chain, effect, fields, drawn[1], shapes[chain.images[0]][:2])
        if isinstance(effect, Mixing):
            mixing = effect.with_strengths(drawn[0])
            for path in chain.labels:
                result[path] = mixing.mixed_label(fields[path], fields[chain.partner_of(path)], drawn[1])
        told = told_by(effect, drawn, images[chain.images[0]].ndim == 4)
        if size is not None and not isinstance(effect, Conversion):
            for path in (*chain.images, *(path for path in (*chain.fills, _COVERED) if path in result)):
                result[path] = self._without_padding(result[path], size, fields[path])
        if taken is not None:
            result = {path: jnp.where(taken, field, fields[path]) for path, field in result.items()}
        return result, told

    def _without_padding(self, field: jax.Array, size: jax.Array, otherwise: Any) -> jax.Array:
        """An image or a mask of a record, with this in the place of its padding."""
        axes = {len(self.chain.axes): self.chain.axes}.get(field.ndim, self.chain.axes.replace("C", ""))
        places = [jax.lax.broadcasted_iota(jnp.int32, field.shape, axes.index(axis)) for axis in "HW"]
        inside = (places[0] < size[0]) & (places[1] < size[1])
        return jnp.where(inside, field, jnp.asarray(otherwise, field.dtype))

    def _partner(self, effect: Effect, fields: Fields, path: str, axes: str) -> jax.Array | None:
        """The partner of an image or a mask, `(H, W, C)` or with frames, for effects that mix."""
        return to_hwc(fields[self.chain.partner_of(path)], axes) if isinstance(effect, Mixing) else None

    def _treated_shape(self, image: jax.Array) -> tuple[int, int, int]:
        """The `(H, W, C)` that effects see of an image."""
        height, width, channels = image.shape[-3:]
        return height, width, channels if self.chain.channels is None else len(self.chain.channels)

    def _channels(
        self,
        effect: Effect,
        image: jax.Array,
        partner: jax.Array | None,
        drawn: Any,
        treat: Callable[..., jax.Array],
    ) -> jax.Array:
        """Treats the channels that the chain names, or moves all."""
        channels = None if isinstance(effect, Geometric) else self.chain.channels
        treats = functools.partial(chosen, axes="HWC", channels=channels)
        treated = by_frame(effect, treat, treats(image), None if partner is None else treats(partner), drawn)
        return treated if channels is None else image.at[..., np.array(channels)].set(treated)

    def _seen(self, fields: Fields, covered: jax.Array, cropped: jax.Array | None) -> dict[str, jax.Array]:
        """What can be seen of boxes and keypoints of a batch, where these pixels are covered and records cropped."""
        boxes, keypoints = self.chain.box_formats, self.chain.keypoint_formats
        seen = {}
        for path, mark in self.chain.seen.items():
            by_record = functools.partial(_seen_of, boxes.get(path), keypoints.get(path))
            sizes = [fields[size].astype(jnp.int32) for size in self.chain.sizes]
            of_record = {"size": sizes[0] if sizes else None, "cropped": cropped}
            by_frame = jax.vmap(by_record, in_axes=(0, 0, None)) if "T" in self.chain.axes else by_record
            seen[mark] = jax.vmap(by_frame)(fields[path], covered, of_record)
        return seen


@dataclasses.dataclass
class _Batch:
    """A batch on its way through the chain.

    Attributes:
      fields: Its fields by path.
      seeds: Its records' seeds, `uint32 (B, 2)`.
      outside: How many values of each record lie outside the range, and are not counted yet; `int32 (B,)` or None.
      links: The index and the records' keys of each link that is still to come.
      counted: What is counted, by link and kind, `int32 (B,)`.
      told: What is told of the draws, by link.
      cropped: Which records have been cropped, `bool (B,)`; None where nothing crops.
    """

    fields: dict[str, jax.Array]
    seeds: jax.Array
    outside: jax.Array | None
    links: Iterator[tuple[int, Mapping[str, jax.Array]]]
    counted: dict[tuple[int, str], jax.Array] = dataclasses.field(default_factory=dict)
    told: dict[int, dict[str, jax.Array]] = dataclasses.field(default_factory=dict)
    cropped: jax.Array | None = None


def _record_keys(words: np.ndarray, seeds: jax.Array) -> jax.Array:
    return record_keys(jax.random.wrap_key_data(jnp.asarray(words), impl=STREAM), seeds)


def _seen_of(
    boxes: str | None, keypoints: str | None, field: jax.Array, covered: jax.Array, record: Mapping[str, Any]
) -> jax.Array:
    """What can be seen of the boxes or the keypoints, of this format, of one record or frame."""
    if keypoints is not None:
        return is_visible(field, covered, keypoints, record["size"])
    assert boxes is not None
    cropped = record["cropped"]
    return covered_share(field, covered, boxes, record["size"], beyond=False if cropped is None else cropped)
