"""What can still be seen of the things in an image: the covered share of boxes, and whether keypoints are visible."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.rounding import rounded

# Boxes as corners, as a corner and a size, or as a centre and a size; keypoints. In pixels, or behind `rel_` in
# fractions of the image's width and height.
BOX_FORMATS = ("xyxy", "xywh", "cxcywh", "rel_xyxy", "rel_xywh", "rel_cxcywh")
KEYPOINT_FORMATS = ("xy", "rel_xy")


def covered_share(
    boxes: jax.Array, hidden: jax.Array, form: str, size: Any = None, *, beyond: bool | jax.Array = False
) -> jax.Array:
    """The share of each box's pixels that are hidden.

    A pixel belongs to a box if its centre does; what lies outside the image counts for nothing, unless `beyond` says
    that it was cut away: then by its area, as a small box may hold no pixel's centre.

    Args:
      boxes: `(..., 4)`, integer or floating point.
      hidden: Which pixels are hidden, `bool (H, W)`.
      form: One of `BOX_FORMATS`.
      size: The height and the width of the image itself, where it is padded.
      beyond: Whether what lies outside the image counts as hidden, `bool ()`.

    Returns:
      `float32 (...)`, from 0 to 1; 0 for boxes without an extent, and for what holds no pixel's centre.

    Example:
      >>> hidden = jnp.zeros((4, 4), bool).at[:2, :2].set(True)
      >>> covered_share(jnp.array([[0, 0, 4, 4], [0, 0, 2, 1], [3, 3, 3, 3]]), hidden, "xyxy").tolist()
      [0.25, 1.0, 0.0]
    """
    first, second, third, fourth = jnp.moveaxis(boxes.astype(jnp.float32), -1, 0)
    if form.endswith("xyxy"):
        left, top, right, bottom = first, second, third, fourth
    elif form.endswith("cxcywh"):
        left, top, right, bottom = first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2
    else:
        left, top, right, bottom = first, second, first + third, second + fourth
    rows, columns = (
        _between(start, end, length, own if form.startswith("rel_") else 1) & (np.arange(length) < own)
        for start, end, length, own in zip(
            (top, left), (bottom, right), hidden.shape, hidden.shape if size is None else size, strict=True
        )
    )
    area = rows.sum(axis=-1) * columns.sum(axis=-1)
    share = jnp.where(area > 0, _count(rows, columns, hidden) / jnp.maximum(area, 1), 0).astype(jnp.float32)
    if beyond is not False:
        down, across = (
            _inside(start, end, 1 if form.startswith("rel_") else length)
            for start, end, length in zip((top, left), (bottom, right), hidden.shape, strict=True)
        )
        cut = jnp.where((bottom > top) & (right > left), 1 - rounded(down * across), 0)
        share = jnp.where(beyond, share + rounded(cut * (1 - share)), share)
    return share


def is_visible(keypoints: jax.Array, hidden: jax.Array, form: str, size: Any = None) -> jax.Array:
    """Whether each keypoint lies inside the image, on a pixel that is not hidden.

    Args:
      keypoints: `(..., 2)`, as (x, y), integer or floating point; a pixel goes from its index to the next.
      hidden: Which pixels are hidden, `bool (H, W)`.
      form: One of `KEYPOINT_FORMATS`.
      size: The height and the width of the image itself, where it is padded.

    Returns:
      `bool (...)`.

    Example:
      >>> hidden = jnp.zeros((4, 4), bool).at[:2, :2].set(True)
      >>> is_visible(jnp.array([[1.5, 1.9], [2.0, 1.0], [-1.0, 0.0]]), hidden, "xy").tolist()
      [False, True, False]
    """
    x, y = jnp.moveaxis(keypoints.astype(jnp.float32), -1, 0)
    rows, columns = (
        _at(position, length, own if form.startswith("rel_") else 1) & (np.arange(length) < own)
        for position, length, own in zip((y, x), hidden.shape, hidden.shape if size is None else size, strict=True)
    )
    visible: jax.Array = rows.any(axis=-1) & columns.any(axis=-1) & (_count(rows, columns, hidden) == 0)
    return visible


def _between(start: jax.Array, end: jax.Array, length: int, unit: Any) -> jax.Array:
    """Which rows or columns have their centre between these edges, in such units: `bool (..., length)`."""
    centre = _in_units(np.arange(length) + 0.5, unit)
    return (start[..., None] <= centre) & (centre < end[..., None])


def _inside(start: jax.Array, end: jax.Array, length: int) -> jax.Array:
    """Which share of what lies between these edges lies in the image, from 0 to 1: `float32 (...)`."""
    kept = jnp.maximum(jnp.minimum(end, length) - jnp.maximum(start, 0), 0)
    whole = end - start
    return rounded(kept / jnp.where(whole > 0, whole, 1))


def _at(position: jax.Array, length: int, unit: Any) -> jax.Array:
    """In which row or column each position lies, in such units: `bool (..., length)`."""
    edges = _in_units(np.arange(length + 1.0), unit)
    return (edges[:-1] <= position[..., None]) & (position[..., None] < edges[1:])


def _in_units(edges: np.ndarray, unit: Any) -> jax.Array:
    # By NumPy where it can be: XLA divides by one number by multiplying, and may round a whole number to less. Behind a
    # barrier it does not know that all are one.
    if not isinstance(unit, jax.Array):
        return jnp.asarray(edges / unit, jnp.float32)
    whole = jnp.asarray(edges, jnp.float32)
    quotient: jax.Array = whole / jax.lax.optimization_barrier(jnp.broadcast_to(unit.astype(jnp.float32), whole.shape))
    return quotient


def _count(rows: jax.Array, columns: jax.Array, hidden: jax.Array) -> jax.Array:
    """How many hidden pixels lie in both; exact, as all sums are of integers."""
    # Not by index: a gather has no sharding to infer from on Explicit meshes, and loops on TPU.
    in_rows = jnp.matmul(rows.astype(jnp.float32), hidden.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return (in_rows * columns).sum(axis=-1)


def marks(boxes: Iterable[str], keypoints: Iterable[str]) -> dict[str, str]:
    """Where it is written what can be seen, by the path of the boxes or keypoints."""
    return {**{path: f"{path}_covered" for path in boxes}, **{path: f"{path}_visible" for path in keypoints}}
