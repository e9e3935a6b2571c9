"""Boxes and keypoints of an image whose pixels move: where they go, and what of boxes stays inside."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.images import compute_type, is_float
from grain_datarax.random.rounding import rounded


class Motion(NamedTuple):
    """Where an image's pixels go along one axis: a place goes to `(place - origin) * scale`, in pixels.

    Attributes:
      origin: What comes to lie at 0; an int, or `int32 ()`.
      scale: The int 1, or -1, which turns the axis round, both exact; or else `float32 ()`, positive.
      before: The image's length.
      after: Its length then.
    """

    origin: Any
    scale: Any
    before: int
    after: int


def moved_boxes(boxes: jax.Array, form: str, down: Motion, across: Motion) -> jax.Array:
    """Where boxes go, in their format and type; those without an extent, which fill up a batch, stay.

    Args:
      boxes: `(..., 4)`, integer or floating point.
      form: One of `visibility.BOX_FORMATS`.
      down: The motion of rows.
      across: That of columns.

    Example:
      >>> turned = Motion(8, -1, 8, 8)
      >>> moved_boxes(jnp.array([[1, 2, 4, 8], [0, 0, 0, 0]]), "xyxy", Motion(0, 1, 8, 8), turned).tolist()
      [[4, 2, 7, 8], [0, 0, 0, 0]]
    """
    wide, relative = boxes.astype(_wide(boxes.dtype)), form.startswith("rel_")
    parts = []
    for axis, motion in enumerate((across, down)):
        first, second, origin, factor = wide[..., axis], wide[..., axis + 2], *_in_units(motion, relative)
        turned = isinstance(factor, int) and factor == -1
        if form.endswith("xyxy"):
            start, end = (second, first) if turned else (first, second)
            parts.append((_moved(start, origin, factor), _moved(end, origin, factor)))
        else:
            start = first + second if turned and not form.endswith("cxcywh") else first
            extent = second if isinstance(factor, int) else rounded(second * factor)
            parts.append((_moved(start, origin, factor), extent))
    moved = jnp.stack([parts[0][0], parts[1][0], parts[0][1], parts[1][1]], axis=-1).astype(boxes.dtype)
    return jnp.where(_has_extent(boxes, form)[..., None], moved, boxes)


def moved_keypoints(keypoints: jax.Array, form: str, down: Motion, across: Motion) -> jax.Array:
    """Where keypoints go, in their format and type.

    Args:
      keypoints: `(..., 2)`, as (x, y). Floating point is continuous, and a pixel goes from its index to the next;
        integers name pixels.
      form: One of `visibility.KEYPOINT_FORMATS`.
      down: The motion of rows.
      across: That of columns.

    Example:
      >>> turned, still = Motion(8, -1, 8, 8), Motion(0, 1, 8, 8)
      >>> [moved_keypoints(jnp.array(point), "xy", still, turned).tolist() for point in ([1, 2], [1.0, 2.0])]
      [[6, 2], [7.0, 2.0]]
    """
    wide, relative = keypoints.astype(_wide(keypoints.dtype)), form.startswith("rel_")
    names_pixels = not relative and not is_float(keypoints.dtype)
    parts = []
    for axis, motion in enumerate((across, down)):
        origin, factor = _in_units(motion, relative)
        turned = isinstance(factor, int) and factor == -1
        parts.append(_moved(wide[..., axis], origin - 1 if turned and names_pixels else origin, factor))
    return jnp.stack(parts, axis=-1).astype(keypoints.dtype)


def clipped_boxes(boxes: jax.Array, form: str, size: tuple[int, int]) -> jax.Array:
    """The part of each box that lies inside an image; of those that lie outside, of a width or a height of 0.

    Boxes inside keep their bits, and so do those without an extent.

    Args:
      boxes: `(..., 4)`, integer or floating point.
      form: One of `visibility.BOX_FORMATS`.
      size: The image's height and width.

    Example:
      >>> clipped_boxes(jnp.array([[-2, 1, 4, 3], [9, 1, 4, 3]]), "xywh", (8, 8)).tolist()
      [[0, 1, 2, 3], [8, 1, 0, 3]]
    """
    wide, parts = boxes.astype(_wide(boxes.dtype)), []
    for axis, length in enumerate((1, 1) if form.startswith("rel_") else size[::-1]):
        first, second = wide[..., axis], wide[..., axis + 2]
        if form.endswith("xyxy"):
            parts.append((jnp.clip(first, 0, length), jnp.clip(second, 0, length)))
            continue
        centred = form.endswith("cxcywh")
        start, end = (first - second / 2, first + second / 2) if centred else (first, first + second)
        inside = (start >= 0) & (end <= length)
        start, end = jnp.clip(start, 0, length), jnp.clip(end, 0, length)
        place = (start + end) / 2 if centred else start
        parts.append((jnp.where(inside, first, place), jnp.where(inside, second, end - start)))
    clipped = jnp.stack([parts[0][0], parts[1][0], parts[0][1], parts[1][1]], axis=-1)
    if not is_float(boxes.dtype):  # which centres of a half are not
        clipped = jnp.round(clipped)
    return jnp.where(_has_extent(boxes, form)[..., None], clipped.astype(boxes.dtype), boxes)


def _wide(dtype: Any) -> jnp.dtype:
    """The type that coordinates are computed in."""
    if is_float(dtype):
        return compute_type(dtype)
    wide: jnp.dtype = jnp.dtype(dtype if dtype in (jnp.int32, jnp.int64) else jnp.int32)
    return wide


def _in_units(motion: Motion, relative: bool) -> tuple[Any, Any]:
    """The origin and the scale of a motion, for pixels or for fractions of the image's length."""
    if not relative:
        return motion.origin, motion.scale
    if isinstance(motion.origin, int):
        origin: Any = motion.origin // motion.before if motion.origin in (0, motion.before) else None
        assert origin is not None  # of a motion that is the same for all records: none, or a turn
    else:
        origin = rounded(motion.origin.astype(jnp.float32) * np.float32(1 / motion.before))
    if isinstance(motion.scale, int) and motion.before == motion.after:
        return origin, motion.scale
    return origin, rounded(jnp.asarray(motion.scale * np.float32(motion.before / motion.after)))


def _moved(places: jax.Array, origin: Any, factor: Any) -> jax.Array:
    if isinstance(factor, int):
        moved: jax.Array = places - origin if factor == 1 else origin - places
        return moved
    return rounded((places - origin) * factor)


def _has_extent(boxes: jax.Array, form: str) -> jax.Array:
    far = boxes[..., 2:]
    extent: jax.Array = (far > (boxes[..., :2] if form.endswith("xyxy") else 0)).all(axis=-1)
    return extent
