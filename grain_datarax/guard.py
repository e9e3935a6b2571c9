"""What is asked of a batch before a chain is compiled for it: shapes, dtypes, and values of the first host batch."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.containers import RECORD_SEED, Record
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.fields import flatten, get_field
from grain_datarax.geometry import check_coordinates, check_sizes
from grain_datarax.images import (
    chosen,
    hwc_shape,
    integer_limits,
    is_computable,
    is_float,
    is_number,
    layout_hint,
    require_image_type,
    warn_of_layout,
)
from grain_datarax.leaves import record_count

# In what was seen: that the other fields were looked at.
_LEFT = ("", None)


def check_batch(chain: Chain, fields: Mapping[str, Any]) -> None:
    """Raises unless the chain treats batches of these shapes and dtypes.

    Args:
      chain: The chain.
      fields: Its images, masks, boxes and keypoints by path, with the batch as axis 0, or anything with their `shape`
        and `dtype`.

    Raises:
      TypeError: If a field is no array, or a dtype can't be treated.
      ValueError: If a shape or a range can't be.
    """
    for path, field in fields.items():
        require_array(field, path)
        if path in chain.images or path in chain.filled:
            require_image_type(field.dtype, path)
    sizes = {path: _check_image(chain, path, fields[path]) for path in chain.images}
    if len(set(sizes.values())) != 1:
        raise ValueError(
            "`image` must name fields of one height, width and number of frames, as they share draws: got"
            f" {sizes}. Resize them, or put them into chains of their own."
        )
    image_shape = fields[chain.images[0]].shape
    for path, fill in chain.fills.items():
        _check_mask(chain, path, fields[path], fill, image_shape)
    for path, length in {**dict.fromkeys(chain.box_formats, 4), **dict.fromkeys(chain.keypoint_formats, 2)}.items():
        _check_coordinates(chain, path, fields[path], length, image_shape)
    for path in chain.sizes:
        shape, dtype = tuple(fields[path].shape), fields[path].dtype
        if shape[1:] != (2,) or not jnp.issubdtype(dtype, np.integer) or not is_number(dtype):
            raise ValueError(
                f"`size` must hold the height and width of each record, integers (2,): got {dtype} of shape"
                f' {shape[1:]} for field "{path}". Write them before images are padded: np.array(image.shape[:2]), for'
                " example."
            )
    for path in chain.labels:
        if not is_float(fields[path].dtype):
            raise TypeError(
                f'`labels` must be floating point to be mixed: got {fields[path].dtype} for field "{path}". Turn class'
                " numbers into vectors first: jax.nn.one_hot(label, classes), for example."
            )
        require_image_type(fields[path].dtype, path)  # labels may have their types
    for path in (*chain.images, *chain.fills, *chain.labels):
        partner = fields.get(chain.partner_of(path))
        if partner is not None and (partner.shape, partner.dtype) != (fields[path].shape, fields[path].dtype):
            raise ValueError(
                f"`{chain.partner}` must hold fields of the record's shapes and types: got {partner.dtype} of shape"
                f' {tuple(partner.shape)} for field "{chain.partner_of(path)}", and {fields[path].dtype} of shape'
                f' {tuple(fields[path].shape)} for "{path}". Zip records of one form, and mix first.'
            )
    record_count(fields)


def _check_image(chain: Chain, path: str, image: Any) -> tuple[int, ...]:
    shape = tuple(image.shape[1:])
    if len(shape) != len(chain.axes) or 0 in shape:
        raise ValueError(
            f"`{path}` must hold a batch of images ({', '.join(chain.axes)}) with at least one pixel: got shape"
            f' {tuple(image.shape)} for field "{path}", whose first axis is the batch.'
            f" {_axes_advice(shape, chain.axes)}"
        )
    height, width, channels = hwc_shape(shape, chain.axes)
    for channel in chain.channels or ():
        if channel >= channels:
            raise ValueError(
                f'`channels` must be below {channels}, the number of channels: got {channel} for field "{path}" of'
                f" shape {shape}. Correct them, or the axes {chain.axes!r}."
            )
    scale = chain.scale(image.dtype, path)
    check_sizes(chain, (height, width), path)
    treated = height, width, len(chain.channels) if chain.channels else channels
    for effect in chain.links:
        by_default = chain.axes == "HWC"
        if problem := effect.why_not(treated, scale, path):
            raise ValueError(problem + (layout_hint(treated) if by_default else ""))
        if effect.computes and not is_computable(image.dtype, scale):
            raise TypeError(
                f"`{path}` must be floating point or integers up to 2**24 for {type(effect).__name__}: got"
                f' {image.dtype} for field "{path}". Convert it, for example to uint8 or float32, or pass a smaller'
                " value_range."
            )
        if isinstance(effect, Geometric):
            treated = *effect.size_of(*treated[:2]), treated[2]
    if chain.axes == "HWC" and any(isinstance(link, Occlusion | Geometric) for link in chain.links):
        warn_of_layout((height, width, len(chain.channels) if chain.channels else channels), path)
    return height, width, *(shape[:1] if chain.axes.startswith("T") else ())


def _axes_advice(shape: tuple[int, ...], axes: str) -> str:
    if len(shape) == len(axes):
        return "Leave out images without pixels, or name another field."
    fitting = {1: (), 2: ("HW",), 3: ("HWC", "CHW", "THW"), 4: ("THWC", "TCHW")}.get(len(shape), ())
    if 0 not in shape and len(shape) == len(axes) - 1:
        return (
            "If the batch's axis is missing, use AugmentRecord or put Batch in front; if this is a batch, pass"
            f" axes={' or '.join(map(repr, fitting)) or repr(axes)}."
        )
    if fitting:
        return f"Pass axes={' or '.join(map(repr, fitting))} to Chain, or another field."
    return "Name another field."


def _check_mask(chain: Chain, path: str, mask: Any, fill: float | None, image_shape: tuple[int, ...]) -> None:
    axes = "B" + chain.axes
    size = tuple(length for axis, length in zip(axes, image_shape, strict=True) if axis != "C")
    shape = tuple(mask.shape)
    if len(shape) == len(axes):
        shape = tuple(length for axis, length in zip(axes, shape, strict=True) if axis != "C")
    if shape != size:
        raise ValueError(
            f"`masks` must share the image's size, {size} without channels: got shape {tuple(mask.shape)} for field"
            f' "{path}". Resize it, or leave it out.'
        )
    dtype = jnp.dtype(mask.dtype)
    if fill is None:
        return
    if is_float(dtype):
        with np.errstate(over="ignore"):
            held = float(np.asarray(fill, dtype))
        if held != fill:
            raise ValueError(
                f"`masks` must be filled with a value of their type: got {fill:g}, which is {held:g} for field"
                f' "{path}" of {dtype}. Pass another, or convert the mask to float32.'
            )
        return
    low, high = integer_limits(dtype)
    if not low <= fill <= high or fill != int(fill):
        raise ValueError(
            f"`masks` must be filled with a value of their type, an integer from {low} to {high}: got {fill:g} for"
            f' field "{path}" of {dtype}. Pass another, or convert the mask to a type that holds it.'
        )


def _check_coordinates(chain: Chain, path: str, field: Any, length: int, image_shape: tuple[int, ...]) -> None:
    shape, leading = tuple(field.shape), image_shape[: 1 + chain.axes.startswith("T")]
    if (
        len(shape) <= len(leading)
        or shape[-1] != length
        or shape[: len(leading)] != leading
        or not is_number(field.dtype)
    ):
        raise ValueError(
            f"`{'boxes' if length == 4 else 'keypoints'}` must hold numbers of shape {(*leading, '...', length)}: got"
            f' {field.dtype} of shape {shape} for field "{path}". Put the coordinates last, and fill up to as many'
            " for each record."
        )
    height, width, _ = hwc_shape(image_shape[1:], chain.axes)
    check_coordinates(chain, path, field.dtype, (height, width))


def check_values(chain: Chain, data: Record, seen: set[tuple[str, Any]]) -> None:
    """Raises `ValueError` if NumPy images hold values outside the range that results are clipped to.

    Args:
      chain: The chain.
      data: A host batch or record; JAX arrays are not looked at, that would wait for the device.
      seen: The paths and dtypes that were looked at before, which need not be again; this one's are added.
    """
    first: tuple[int, ...] = getattr(get_field(data, chain.images[0]), "shape", ())
    if chain.geometric and _LEFT not in seen and _fits(chain, first) and 0 not in first:
        seen.add(_LEFT)
        _warn_of_what_is_left(chain, data, first)
    sizes = _own_sizes(chain, data)
    if sizes is not None:
        _check_sizes(chain, data, sizes)
    partners = [chain.partner_of(path) for path in chain.images] if chain.mixes else []
    for path in (*chain.images, *partners):
        image = get_field(data, path)
        if not isinstance(image, np.ndarray) or (path, image.dtype) in seen:
            continue
        require_image_type(image.dtype, path)
        limits = chain.scale(image.dtype, path).limits(image.dtype)
        leading = image.shape[: image.ndim - len(chain.axes)]
        if not _fits(chain, image.shape) or (chain.size and (sizes is None or sizes.shape[:-1] != leading)):
            continue  # which is told of where shapes are looked at
        if limits is not None and image.size:
            treated = chosen(image, chain.axes, chain.channels)
            if sizes is not None:
                treated = np.concatenate([each.ravel() for each in _without_padding(chain, treated, sizes)])
            require_within(treated, limits, path, "value_range", "pass value_range to Chain, or clip=False")
        if image.size:
            seen.add((path, image.dtype))


def _warn_of_what_is_left(chain: Chain, data: Record, image: tuple[int, ...]) -> None:
    """Warns of fields of the image's height and width that the chain does not know: it moves the image alone."""
    leading = len(image) - len(chain.axes) + chain.axes.startswith("T")
    height, width, _ = hwc_shape(image[-len(chain.axes) :], chain.axes)
    if min(height, width) < 2:
        return
    known = {*chain.images, *chain.fills, *chain.labels, *chain.box_formats, *chain.keypoint_formats, *chain.sizes}
    left = [
        path
        for path, field in flatten(data).items()
        if path not in known and not path.startswith(f"{chain.partner}.") and isinstance(field, np.ndarray | jax.Array)
        # As the image, or without channels.
        if (height, width) in (field.shape[leading:][:2], field.shape[leading:][-2:]) and field.ndim <= len(image)
    ]
    if left:
        warnings.warn(
            f"`masks` must name what goes with the image: got the fields {left} of its height and width, which"
            f" {', '.join(type(effect).__name__ for effect in chain.geometric)} would leave as they are. Name them,"
            f" masks={{{left[0]!r}: None}}, or image=[...] for images; leave what is to stay.",
            stacklevel=2,
        )


def _own_sizes(chain: Chain, data: Mapping[str, Any]) -> np.ndarray | None:
    """The sizes of a host batch or record, if images are padded there, and they are sizes."""
    sizes = get_field(data, chain.size) if chain.size else None
    if isinstance(sizes, np.ndarray) and np.issubdtype(sizes.dtype, np.integer) and sizes.shape[-1:] == (2,):
        return sizes if sizes.size else None
    return None


def _check_sizes(chain: Chain, data: Mapping[str, Any], sizes: np.ndarray) -> None:
    """Raises `ValueError` unless sizes lie within the images, and what effects cover within the sizes."""
    for path in chain.images:
        image = get_field(data, path)
        shape = tuple(getattr(image, "shape", ()))
        if not _fits(chain, shape):
            continue  # which is told of where shapes are looked at
        require_image_type(image.dtype, path)
        height, width, channels = hwc_shape(shape[-len(chain.axes) :], chain.axes)
        least, most = sizes.reshape(-1, 2).min(axis=0), sizes.reshape(-1, 2).max(axis=0)
        if not (least >= 1).all() or not (most <= (height, width)).all():
            raise ValueError(
                f"`size` must be the height and width of each record, from 1 to those of the padded image"
                f' {(height, width)}: got from {tuple(least.tolist())} to {tuple(most.tolist())} for field "{path}".'
                " Write them before images are padded: np.array(image.shape[:2]), for example."
            )
        smallest = int(least[0]), int(least[1]), len(chain.channels) if chain.channels else channels
        for effect in chain.links:
            if problem := effect.why_not(smallest, chain.scale(image.dtype, path), path):
                raise ValueError(problem)


def _without_padding(chain: Chain, image: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """The images of a batch, or of a record, each without its padding."""
    images, sizes = (image, sizes) if sizes.ndim == 2 else (image[None], sizes[None])
    parts = []
    for one, (height, width) in zip(images, sizes, strict=True):
        inside = {"H": slice(height), "W": slice(width)}
        parts.append(one[tuple(inside.get(axis, slice(None)) for axis in chain.axes)])
    return parts


def _fits(chain: Chain, shape: tuple[int, ...]) -> bool:
    """Whether a record or a batch of this shape has the chain's axes, and the channels that it names."""
    if len(shape) - len(chain.axes) not in (0, 1):
        return False
    return chain.channels is None or max(chain.channels) < shape[chain.axes.index("C") - len(chain.axes)]


def require_within(image: np.ndarray, limits: tuple[float, float], path: str, setting: str, remedy: str) -> None:
    """Raises `ValueError` unless all values lie within these limits, as they are in the image's own type."""
    low, high = (np.asarray(limit, image.dtype) for limit in limits)
    least, greatest = image.min(), image.max()
    if not (low <= least and greatest <= high):
        raise ValueError(
            f'`{setting}` must hold the values of the images: got {limits} for field "{path}" with values from'
            f" {least:g} to {greatest:g}. Scale the image to that range, or {remedy}."
        )


def check_seeds(seeds: Any, count: int) -> None:
    """Raises `ValueError` unless there is one seed for each record."""
    shape, dtype = getattr(seeds, "shape", None), getattr(seeds, "dtype", None)
    if shape == (2,) and dtype == np.uint32:
        raise ValueError(
            f"`{RECORD_SEED}` must be uint32 of shape ({count}, 2), a seed for each record, as axis 0 is the batch: got"
            " shape (2,), that of one record. Place SeedRecords() before Batch, once; use AugmentRecord for single"
            " records."
        )
    if shape != (count, 2) or dtype != np.uint32:
        raise ValueError(
            f"`{RECORD_SEED}` must be uint32 of shape ({count}, 2), a seed for each record: got"
            f" {type(seeds).__name__ if dtype is None else dtype} of shape {shape}. Place SeedRecords() before Batch,"
            " once."
        )


def check_seed(seed: Any) -> None:
    """Raises `ValueError` unless this is the seed of one record."""
    shape, dtype = getattr(seed, "shape", None), getattr(seed, "dtype", None)
    if shape != (2,) or dtype != np.uint32:
        raise ValueError(
            f"`{RECORD_SEED}` must be uint32 of shape (2,), that of one record: got"
            f" {type(seed).__name__ if dtype is None else dtype} of shape {shape}. Pass a row of the batch's, or what"
            " SeedRecords() gave."
        )


def require_array(field: Any, path: str) -> None:
    """Raises `TypeError` unless a field has a shape and a dtype."""
    if not hasattr(field, "shape") or not hasattr(field, "dtype"):
        raise TypeError(
            f'`{path}` must be an array: got {type(field).__name__} for field "{path}". Decode or stack it into a NumPy'
            " array first."
        )
