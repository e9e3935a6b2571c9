"""What JAX sees of a batch: its leaves, which share the batch as axis 0."""

from typing import Any

import jax
import numpy as np

from grain_datarax.containers import Record, as_pytree


def record_count(data: Any) -> int:
    """The length of axis 0 that all leaves share.

    Raises:
      ValueError: If there is no leaf, a leaf has no axis, or the lengths differ.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(data)
    lengths = {jax.tree_util.keystr(path, simple=True, separator="."): np.shape(leaf)[:1] for path, leaf in leaves}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ValueError(
            f"`data` must share the batch as axis 0: got lengths {lengths}. Stack the records' fields, as"
            " grain.transforms.Batch does behind SeedRecords."
        )
    return int(next(iter(lengths.values()))[0])


def require_pytree(data: Record) -> None:
    """Raises `TypeError` unless JAX looks into a record or batch."""
    if jax.tree_util.all_leaves([data]):
        name = type(data).__name__
        raise TypeError(f"`element` must have fields that JAX looks into: got {name}. {as_pytree(name)}")
