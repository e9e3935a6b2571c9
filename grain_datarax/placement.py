"""host batch -> device batch: a process's rows on its own devices, and the global arrays that they are part of."""

from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from grain_datarax.containers import Record
from grain_datarax.fields import has_field, set_field
from grain_datarax.leaves import record_count
from grain_datarax.shardings import Spread, row_sharding, rows_by_process

# The field that marks the rows that are records, beside padding.
VALID = "valid"


class RowSharding:
    """How the rows of global arrays are spread, and this process's part of them.

    Args:
      sharding: A sharding of axis 0 alone, over a mesh that other processes may share; None: over all devices.

    Attributes:
      sharding: The sharding of the global arrays, of any number of axes.
      local_mesh: This process's devices. Its axes are Auto whatever those of the mesh of `sharding` are.
      local: How this process's rows are spread over them.
      local_count: Over how many devices this process spreads its rows.
      group_count: How many processes, or groups of processes that hold the same rows, there are.

    Raises:
      TypeError, ValueError: If `sharding` is of another kind.
    """

    def __init__(self, sharding: Spread | None = None) -> None:
        self.sharding = row_sharding(sharding)
        self.group_count, devices = rows_by_process(self.sharding)
        self.local_mesh = Mesh(np.array([*devices.values()]), ("rows", "copies"))
        self.local = NamedSharding(self.local_mesh, PartitionSpec("rows"))
        self.local_count = len(devices)

    def place(self, batch: Record, pad_to: int | None = None) -> tuple[Record, int]:
        """A host batch on this process's devices; what has no rows of numbers stays on the host.

        Args:
          batch: A record of arrays that share axis 0, and of anything else, nested or not.
          pad_to: Fill up with rows of zeros, at least to this length, and mark the other rows in `valid`.

        Returns:
          The batch, and how many records it holds.

        Raises:
          ValueError: If the lengths of axis 0 differ or don't divide over the devices, an integer does not fit into
            JAX's 32 bits, or there is a field `valid` where one is to be added.
        """
        leaves, treedef = jax.tree_util.tree_flatten_with_path(jax.tree.map(_out_of_shared_memory, batch))
        names = [jax.tree_util.keystr(path) for path, _ in leaves]
        arrays = {name: _narrowed(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True) if has_rows(leaf)}
        count = record_count(arrays)
        if pad_to is not None:
            if has_field(batch, VALID):
                raise ValueError(f"`batch` must have no field `{VALID}` of its own: got one. Rename it.")
            length = -(-max(count, pad_to) // self.local_count) * self.local_count
            arrays = {name: _padded(array, length) for name, array in arrays.items()}
            arrays[VALID] = np.arange(length) < count
        elif count % self.local_count:
            less = count - count % self.local_count
            raise ValueError(
                f"`batch` must divide over the {self.local_count} devices of this process: got {count} records. Use"
                f" batches of {f'{less} or ' if less else ''}{less + self.local_count}, drop a smaller last one with"
                " drop_remainder=True, or pass pad_last_batch=True."
            )
        # A jax.Array is copied: the augmentation takes its buffer, and others may hold it.
        may_alias = {name: isinstance(array, np.ndarray) for name, array in arrays.items()}
        placed = jax.device_put(arrays, self.local, may_alias=may_alias)
        fields = [placed.get(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True)]
        result = jax.tree.unflatten(treedef, fields)
        return (result if pad_to is None else set_field(result, VALID, placed[VALID])), count

    def assemble(self, batch: Record) -> Record:
        """The global arrays that this process's rows are part of, without copies."""
        return jax.tree.map(lambda leaf: self._assemble(leaf) if isinstance(leaf, jax.Array) else leaf, batch)

    def spec_of(self, spec: Any) -> Any:
        """The spec of the global arrays, from that of a host batch; axis 0 is None where batches differ in length."""

        def of_leaf(leaf: Any) -> Any:
            if not (leaf.shape and _are_numbers(np.dtype(leaf.dtype))):
                return leaf
            rows = None if leaf.shape[0] is None else leaf.shape[0] * self.group_count
            return type(leaf)(shape=(rows, *leaf.shape[1:]), dtype=jax.dtypes.canonicalize_dtype(leaf.dtype))

        return jax.tree.map(of_leaf, spec)

    def _assemble(self, array: jax.Array) -> jax.Array:
        if array.sharding.device_set != self.local.device_set or array.ndim == 0:
            return array
        if not array.sharding.is_equivalent_to(self.local, array.ndim):  # a constant, which every device has
            array = jax.device_put(array, self.local)
        shape = (array.shape[0] * self.group_count, *array.shape[1:])
        pieces = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(shape, self.sharding, pieces)


def has_rows(leaf: Any) -> bool:
    """Whether a leaf of a host batch goes on the devices: an array of numbers or bools with a batch axis."""
    if not isinstance(leaf, np.ndarray | jax.Array) or leaf.ndim == 0:
        return False
    return _are_numbers(leaf.dtype)


def _are_numbers(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, np.number) or dtype == np.bool_


def _out_of_shared_memory(leaf: Any) -> Any:
    """The leaf, copied if it is in shared memory of Grain's workers, which must not live as long as the batch."""
    # Not left to JAX: it copies no NumPy array on the CPU, and elsewhere holds it until the transfer is done.
    return np.array(leaf) if isinstance(leaf, grain.multiprocessing.SharedMemoryArray) else leaf


def _narrowed(name: str, array: Any) -> Any:
    """The array in JAX's 32 bits, if it has 64 and JAX does not.

    Raises:
      ValueError: If an integer would become another number.
    """
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype == array.dtype:
        return array
    if jnp.issubdtype(dtype, np.integer) and array.size:
        low, high = array.min(), array.max()
        if not (jnp.iinfo(dtype).min <= low and high <= jnp.iinfo(dtype).max):
            raise ValueError(
                f"`batch{name}` must fit into {dtype}, as JAX has no {array.dtype} by default: got values from {low} to"
                f" {high}. Leave it out, split it into two fields, or enable 64 bits:"
                " jax.config.update('jax_enable_x64', True)."
            )
    return array.astype(dtype)


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """The array with rows of zeros behind its own, `length` in all."""
    rows = np.zeros((length, *array.shape[1:]), array.dtype)
    rows[: len(array)] = array
    return rows
