"""images or records -> rows of a preview: each image with its masks, what it is mixed with, and its seed."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.containers import RECORD_SEED, Record, carried, container_of
from grain_datarax.fields import get_field, has_field
from grain_datarax.images import require_image_type
from grain_datarax.seeding import child_seed

# A picture of more is too high to be drawn, or a batch that was meant for one image.
_MOST_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Row:
    """One image, in the chain's axes, its masks by path, and those of its partner by theirs."""

    path: str
    image: np.ndarray
    masks: dict[str, np.ndarray]
    partner: dict[str, np.ndarray]
    seed: np.ndarray


def rows_of(chain: Chain, images: Any, seed: int) -> list[Row]:
    """A row for each image of each record, as `gdx.preview` says.

    Raises:
      TypeError, ValueError, KeyError: If `images` are none, or more than 64.
    """
    records = _records(chain, images)
    parent = np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)
    seeds = [fields.get(RECORD_SEED, child_seed(parent, place)) for place, fields in enumerate(records)]
    rows = [
        _row(chain, records, place, path, seeds[place])
        for place, fields in enumerate(records)
        for path in chain.images
        if path in fields
    ]
    if not 0 < len(rows) <= _MOST_ROWS:
        raise ValueError(
            f"`images` must be 1 to {_MOST_ROWS}, of axes {chain.axes!r} each: got {len(rows)}. Pass a few of them,"
            " such as images[:4]."
        )
    return rows


def _row(chain: Chain, records: Sequence[dict[str, np.ndarray]], place: int, path: str, seed: np.ndarray) -> Row:
    fields, partner = records[place], _partner(chain, records, place, path)
    # They belong to the first, and to be mixed they need those of the partner.
    masks = [mask for mask in chain.fills if path == chain.images[0] and mask in fields]
    if chain.mixes:
        masks = [mask for mask in masks if mask in partner]
    own = {mask: fields[mask] for mask in masks}
    return Row(path, fields[path], own, {name: partner[name] for name in (path, *masks) if name in partner}, seed)


def _partner(chain: Chain, records: Sequence[dict[str, np.ndarray]], place: int, path: str) -> dict[str, np.ndarray]:
    """The fields of what the image is mixed with: its own partner's, or those of the next that is like it."""
    fields = records[place]
    if chain.partner_of(path) in fields:
        own = {name: chain.partner_of(name) for name in (*chain.images, *chain.fills)}
        return {name: fields[theirs] for name, theirs in own.items() if theirs in fields}
    image, following = fields[path], (*records[place + 1 :], *records[:place])
    kind = image.shape, image.dtype
    return next((each for each in following if path in each and (each[path].shape, each[path].dtype) == kind), fields)


def _records(chain: Chain, images: Any) -> list[dict[str, np.ndarray]]:
    """The fields of each record that are looked at, by path, without a batch axis."""
    is_record = isinstance(images, tuple) and has_field(images, chain.images[0])
    if isinstance(images, list | tuple) and not is_record:
        records = [_fields(chain, each, f"images[{place}]") for place, each in enumerate(images)]
    else:
        fields = _fields(chain, images, "images")
        first = fields[chain.images[0]]
        is_batch = first.ndim == len(chain.axes) + 1
        records = (
            [{path: field[i] for path, field in fields.items()} for i in range(len(first))] if is_batch else [fields]
        )
    for fields in records[:_MOST_ROWS]:
        for path in chain.images:
            _require_image(chain, path, fields.get(path))
        for path in fields.keys() & chain.fills:
            require_image_type(fields[path].dtype, path)
    return [_without_padding(chain, fields) for fields in records]


def _fields(chain: Chain, record: Record, name: str) -> dict[str, np.ndarray]:
    """The fields that are looked at, of an image, a record, or a batch."""
    if hasattr(record, "__array__") or hasattr(record, "__array_interface__"):  # the latter are Pillow's
        return {chain.images[0]: np.asarray(record)}
    if container_of(record) is None or isinstance(record, list):
        raise TypeError(
            f"`{name}` must be an image, an array of axes {chain.axes!r}, or a record that holds one: got"
            f" {type(record).__name__}. Pass np.asarray(image), a dict, or a list of them."
        )
    optional = [*chain.fills, *map(chain.partner_of, (*chain.images, *chain.fills)), *chain.sizes]
    paths = [*chain.images, *(path for path in optional if has_field(record, path))]
    fields = {path: np.asarray(get_field(record, path)) for path in paths}
    seed = carried(record, RECORD_SEED)
    return fields if seed is None else {**fields, RECORD_SEED: np.asarray(seed)}


def _require_image(chain: Chain, path: str, image: np.ndarray | None) -> None:
    if image is None:  # of bare images there is the first alone
        return
    if image.ndim != len(chain.axes) or 0 in image.shape:
        raise ValueError(
            f"`images` must be of axes {chain.axes!r} each, with at least one pixel: got shape {image.shape}. Pass"
            " others, or Chain(axes=...) that says theirs."
        )
    require_image_type(image.dtype, path)


def _without_padding(chain: Chain, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not chain.size or chain.size not in fields:
        return fields
    own = dict(zip("HW", fields[chain.size].tolist(), strict=True))

    def cut(field: np.ndarray) -> np.ndarray:
        axes = chain.axes if field.ndim == len(chain.axes) else chain.axes.replace("C", "")
        return field[tuple(slice(own.get(axis)) for axis in axes)]

    return {**fields, **{path: cut(fields[path]) for path in (*chain.images, *chain.fills) if path in fields}}
