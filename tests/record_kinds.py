"""Kinds of records, each made of the same fields. Apart from the tests, so that worker processes can unpickle them."""

import collections
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from flax.core import FrozenDict
from sources import images


class Named(NamedTuple):
    image: Any
    mask: Any
    label: Any
    record_seed: Any = None
    record_draws: Any = None


@struct.dataclass
class Flax:
    image: Any
    mask: Any
    label: Any
    record_seed: Any = None
    record_draws: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Registered:
    image: Any
    mask: Any
    label: Any
    record_seed: Any = None
    record_draws: Any = None


@dataclasses.dataclass
class Plain:
    image: Any
    mask: Any = None
    label: Any = None
    record_seed: Any = None


class Seeded(NamedTuple):
    image: Any
    mask: Any
    record_seed: Any = None


class Padded(NamedTuple):
    image: Any
    record_seed: Any = None
    valid: Any = None


class Unseeded(NamedTuple):
    image: Any
    mask: Any
    label: Any


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a record is made of an image, a mask and a label, how these are got out again, and their paths."""

    make: Any
    read: Any
    image: Any = "image"
    mask: Any = "mask"
    label: str = "label"


def _by_attribute(record):
    return record.image, record.mask, record.label


def _mapping(make, image="image", mask="mask"):
    return Kind(
        lambda i, m, n: make({image: i, mask: m, "label": n}), lambda r: (r[image], r[mask], r["label"]), image, mask
    )


KINDS = {
    "dict": _mapping(dict),
    "OrderedDict": _mapping(collections.OrderedDict),
    "FrozenDict": _mapping(FrozenDict),
    "defaultdict": _mapping(lambda fields: collections.defaultdict(list, fields)),
    "dotted": _mapping(dict, "observation.images.top", "observation.mask"),
    "dotted in nested": Kind(
        lambda i, m, n: {"observation": {"images.top": i, "masks": {"top.0": m}}, "label": n},
        lambda r: (r["observation"]["images.top"], r["observation"]["masks"]["top.0"], r["label"]),
        "observation.images.top",
        "observation.masks.top.0",
    ),
    "nested in dotted": Kind(
        lambda i, m, n: {"observation.images": {"top": i, "mask": m}, "observation": {"label": n}},
        lambda r: (r["observation.images"]["top"], r["observation.images"]["mask"], r["observation"]["label"]),
        "observation.images.top",
        "observation.images.mask",
        "observation.label",
    ),
    "int keys": Kind(
        lambda i, m, n: {"views": {0: i, 1: m}, "label": n},
        lambda r: (r["views"][0], r["views"][1], r["label"]),
        "views.0",
        "views.1",
    ),
    "tuple": Kind(lambda *fields: fields, tuple, 0, 1, "2"),
    "list": Kind(lambda *fields: list(fields), tuple, "0", "1", "2"),
    "tuple of tuples": Kind(lambda i, m, n: ((i, m), n), lambda r: (*r[0], r[1]), "0.0", "0.1", "1"),
    "tuple of dicts": Kind(
        lambda i, m, n: ({"image": i, "a.mask": m}, n),
        lambda r: (r[0]["image"], r[0]["a.mask"], r[1]),
        "0.image",
        "0.a.mask",
        "1",
    ),
    "dict of lists": Kind(
        lambda i, m, n: {"views": [i, m], "label": n}, lambda r: (*r["views"], r["label"]), "views.0", "views.1"
    ),
    "NamedTuple": Kind(Named, _by_attribute),
    "flax.struct": Kind(Flax, _by_attribute),
    "register_dataclass": Kind(Registered, _by_attribute),
    "dict of dataclasses": Kind(
        lambda i, m, n: {"inputs": Flax(i, m, 0), "label": n},
        lambda r: (r["inputs"].image, r["inputs"].mask, r["label"]),
        "inputs.image",
        "inputs.mask",
    ),
}


class Source:
    """Records of one kind."""

    def __init__(self, kind, count=8, dtype="uint8"):
        self.kind, self.count, self.dtype = kind, count, dtype

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image = images(1, seed=index, dtype=self.dtype)[0]
        return KINDS[self.kind].make(image, np.full(image.shape[:2], index, np.int32), index)

    def __repr__(self):
        return f"Source({self.kind!r}, {self.count}, {self.dtype!r})"
