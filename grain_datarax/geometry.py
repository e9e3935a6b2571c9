"""What geometric effects do to what belongs to an image, beside its pixels, and what they ask of it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grain_datarax.chain import Chain, with_parts
from grain_datarax.coordinates import clipped_boxes, moved_boxes, moved_keypoints
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.mixing import Mixing
from grain_datarax.images import integer_limits, is_float

Fields = Mapping[str, jax.Array]


def moved_coordinates(
    chain: Chain, effect: Geometric, fields: Fields, drawn: Any, size: tuple[int, int]
) -> dict[str, jax.Array]:
    """The boxes and keypoints of one record, moved.

    Args:
      chain: The chain.
      effect: One of its effects, with its strengths.
      fields: The record's fields by path.
      drawn: What it drew, for all frames, or for each.
      size: The height and the width of the images before.
    """

    def move(field: jax.Array, drawn: Any, form: str, law: Any) -> jax.Array:
        moved: jax.Array = law(field, form, *effect.motion(drawn, *size))
        return moved

    laws = {**dict.fromkeys(chain.box_formats, moved_boxes), **dict.fromkeys(chain.keypoint_formats, moved_keypoints)}
    forms, result = {**chain.box_formats, **chain.keypoint_formats}, {}
    for path, law in laws.items():
        by_field = functools.partial(move, form=forms[path], law=law)
        apart = chain.axes.startswith("T") and not effect.same_on_frame
        result[path] = (jax.vmap(by_field) if apart else by_field)(fields[path], drawn)
    return result


def clipped(chain: Chain, fields: Fields, cropped: jax.Array) -> dict[str, jax.Array]:
    """The boxes of a batch, clipped to its images in the records that have been cropped, `bool (B,)`."""
    first = fields[chain.images[0]].shape
    size = first[1 + chain.axes.index("H")], first[1 + chain.axes.index("W")]

    def clip(boxes: jax.Array, cropped: jax.Array, form: str) -> jax.Array:
        return jnp.where(cropped, clipped_boxes(boxes, form, size), boxes)

    return {
        path: jax.vmap(functools.partial(clip, form=form))(fields[path], cropped)
        for path, form in chain.box_formats.items()
    }


def with_size(chain: Chain, shape: Sequence[int], leading: int) -> tuple[int, ...]:
    """The shape that images or masks of this shape come out with, behind so many axes that are none of the chain's."""
    result = list(shape)
    axes = chain.axes if len(result) == leading + len(chain.axes) else chain.axes.replace("C", "")
    down, across = (leading + axes.index(axis) for axis in "HW")
    result[down], result[across] = chain.output_size((result[down], result[across]))
    return tuple(result)


def check_sizes(chain: Chain, size: tuple[int, int], field: str) -> None:
    """Raises `ValueError` unless all records of images of this height and width come out with one size."""
    changed: Effect | None = None
    # By place, as one effect may be there twice: in a composition, and by itself.
    links = [(link, place > 0) for effect in chain.effects for place, link in enumerate(with_parts(effect))]
    for link, is_part in links:
        if isinstance(link, Mixing) and changed is not None:
            raise ValueError(
                f"`effects` must mix before {type(changed).__name__} changes the size, as partners have the size of the"
                f' record: got {type(link).__name__} behind it for field "{field}". Put it first.'
            )
        if not isinstance(link, Geometric) or link.size_of(*size) == size:
            continue
        if link.p != 1 or is_part:
            raise ValueError(
                f"`effects` must treat all records where they change the size, as a batch has one: got {link!r} for"
                f' field "{field}" of {size}. Let it keep the size, or make it an effect of the chain itself, with p=1.'
            )
        size, changed = link.size_of(*size), link


def check_coordinates(chain: Chain, path: str, dtype: Any, size: tuple[int, int]) -> None:
    """Raises `TypeError` unless boxes or keypoints of this type can be moved, of images of this height and width."""
    relative = {**chain.box_formats, **chain.keypoint_formats}[path].startswith("rel_")
    what = "boxes" if path in chain.box_formats else "keypoints"
    if not chain.geometric or is_float(dtype):
        return
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise TypeError(
            f'`{what}` must be integers of at most 32 bits to be moved: got {dtype} for field "{path}". Convert them,'
            " for example to int32, or enable 64 bits: jax.config.update('jax_enable_x64', True)."
        )
    for link in chain.geometric:
        if link.scales or (link.crops and relative):
            raise TypeError(
                f"`{what}` must be floating point for {type(link).__name__}: got {dtype} for field"
                f' "{path}". Convert them, for example to float32.'
            )
        if link.crops and jnp.issubdtype(dtype, jnp.unsignedinteger):
            raise TypeError(
                f"`{what}` must be signed for {type(link).__name__}, as they may come to lie outside: got {dtype} for"
                f' field "{path}". Convert them, for example to int32 or float32.'
            )
    least, most = _reach(chain, (1, 1) if relative else size, what == "keypoints" and not relative)
    limits = integer_limits(dtype)
    if not (limits[0] <= least and most <= limits[1]):
        raise TypeError(
            f"`{what}` must have a type that holds all places of the image, and where they go, from {least} to {most}:"
            f' got {dtype} for field "{path}". Convert them, for example to int32 or float32.'
        )


def _reach(chain: Chain, size: tuple[int, int], names_pixels: bool) -> tuple[int, int]:
    """The least and the greatest integer that any place in an image of this size may become on its way."""
    spans = [(0, length - names_pixels) for length in size]
    ends = list(spans)
    for link in chain.geometric:
        starts = link.starts(*size)
        for axis, (low, high) in enumerate(spans):
            last = size[axis] - names_pixels
            moved = (low - starts[axis][1], high - starts[axis][0]) if link.crops else (last - high, last - low)
            spans[axis] = min(low, moved[0]), max(high, moved[1])  # as it may not apply
        ends += spans
        size = link.size_of(*size)
    return min(low for low, _ in ends), max(high for _, high in ends)
