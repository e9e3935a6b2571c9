"""How rows are spread, as people write it -> a NamedSharding of axis 0 alone; and which process holds which rows."""

import collections
import math
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from grain_datarax.wording import shown

Spread: TypeAlias = NamedSharding | PartitionSpec | SingleDeviceSharding


def row_sharding(sharding: Spread | None) -> NamedSharding:
    """The sharding that arrays of any number of axes can have, equivalent to that which was asked for.

    Raises:
      TypeError: If `sharding` is of another kind.
      ValueError: If it spreads more than axis 0, names no mesh, or asks for memory that is not the devices' own.
    """
    if sharding is None:
        return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    if isinstance(sharding, SingleDeviceSharding):
        _require_device_memory(sharding)
        # On a mesh, so that a model can be put there too.
        return NamedSharding(Mesh(np.array([*sharding.device_set]), ("data",)), PartitionSpec())
    if isinstance(sharding, PartitionSpec):
        sharding = NamedSharding(_mesh_that_is_set(sharding), sharding)
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        raise TypeError(
            f"`sharding` must be a NamedSharding on a mesh of devices: got {shown(sharding)}. Pass"
            ' jax.NamedSharding(mesh, jax.P("data")), jax.sharding.SingleDeviceSharding(device), or None for all'
            " devices."
        )
    _require_device_memory(sharding)
    spec = sharding.spec
    axis, *others = spec.partitions or (None,)
    spreads_rows = axis is None or isinstance(axis, str | tuple)
    if not spreads_rows or any(axis not in (None, ()) for axis in others) or spec.unreduced:
        raise ValueError(
            f"`sharding` must spread axis 0, the records, and no other: got {spec}. Pass jax.NamedSharding(mesh,"
            ' jax.P("data")) with the name of a mesh axis, and spread other axes in the training step.'
        )
    return NamedSharding(sharding.mesh, PartitionSpec(axis) if axis else PartitionSpec())


def rows_by_process(sharding: NamedSharding) -> tuple[int, dict[int, list[Any]]]:
    """How many processes, or groups of processes that hold the same rows, there are; and this one's devices, by row.

    Raises:
      ValueError: If processes hold unequal parts, the same in all of them, or this one none.
    """
    axis = sharding.spec[0] if sharding.spec else ()
    names = (axis,) if isinstance(axis, str) else axis
    count = math.prod(sharding.mesh.shape[name] for name in names)
    held: dict[int, dict[int, list[Any]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    device: Any
    for device, index in sharding.devices_indices_map((count,)).items():
        held[device.process_index][(index or (slice(0),))[0].start or 0].append(device)
    mine = held.get(jax.process_index())
    if mine is None:
        raise ValueError(
            f"`sharding` must have devices of this process, number {jax.process_index()}: got those of"
            f" {sorted(held)}. Use a mesh over jax.devices(), or over jax.local_devices() in each process."
        )
    parts = {frozenset(rows) for rows in held.values()}
    copies = {len(devices) for rows in held.values() for devices in rows.values()}
    # Parts of one size that hold each row once.
    if len(copies) != 1 or len({len(part) for part in parts}) != 1 or sum(map(len, parts)) != count:
        raise ValueError(
            "`sharding` must give every process as many rows, on as many devices each, all of them or none of"
            f" another's: got rows { ({process: sorted(rows) for process, rows in held.items()}) } of {sharding}. Order"
            " the mesh by process: jax.make_mesh, or jax.devices() in their order, does."
        )
    return len(parts), {row: mine[row] for row in sorted(mine)}


def _mesh_that_is_set(spec: PartitionSpec) -> Mesh:
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        raise ValueError(
            f"`sharding` must say its mesh where none is set: got {spec}. Pass jax.NamedSharding(mesh, {spec}), or"
            " make the DeviceLoader within `with jax.set_mesh(mesh):`."
        )
    return mesh


def _require_device_memory(sharding: NamedSharding | SingleDeviceSharding) -> None:
    addressable: set[Any] = sharding.addressable_devices
    own = {device.default_memory().kind for device in addressable}
    if sharding.memory_kind is not None and own and sharding.memory_kind not in own:
        raise ValueError(
            f"`sharding` must be in the devices' own memory: got memory_kind={sharding.memory_kind!r}. Leave it out,"
            " and move batches with jax.device_put."
        )
