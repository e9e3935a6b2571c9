"""A pure function of a batch: compiled once, its buffers donated, its rows spread as the batch's are."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from grain_datarax.containers import Record
from grain_datarax.fields import flatten

Fields = Mapping[str, Any]


class Program(Protocol):
    """A pure function of a batch that is a value: equal ones are compiled once."""

    @property
    def augment(self) -> Callable[..., Any]:
        """`(fields, by_record, *whole)` -> what becomes of the fields.

        All leaves of `by_record` have the batch as axis 0, those of `whole` none.
        """
        ...

    def __hash__(self) -> int: ...


@functools.partial(jax.jit, static_argnames=("program", "rows"), donate_argnames="donated")
def _launch(program: Program, rows: NamedSharding | None, donated: Any, kept: Any, by_record: Any, whole: Any) -> Any:
    def run(fields: Any, by_record: Any, *whole: Any) -> Any:
        return program.augment(fields, by_record, *whole)

    if rows is not None:
        batch, everywhere = rows.spec, [PartitionSpec()] * len(whole)
        run = jax.shard_map(run, mesh=rows.mesh, in_specs=(batch, batch, *everywhere), out_specs=batch)
    return run({**donated, **kept}, by_record, *whole)


def launch(
    program: Program,
    fields: Fields,
    donated: frozenset[str] | set[str],
    by_record: Any,
    *whole: Any,
    by_device: bool = False,
) -> Any:
    """Runs a program on a batch, compiled once for each shape.

    Args:
      program: The program.
      fields: The batch's fields by path, NumPy or JAX arrays.
      donated: The paths of those whose buffers the result may take.
      by_record: Whatever else has the batch as axis 0; it follows the fields onto their mesh.
      whole: Whatever has not.
      by_device: Whether each device runs the program on its own rows, instead of all on the whole batch.
    """
    rows = _batch_sharding(fields) or (_whole_on_mesh(fields) if by_device else None)
    if rows is not None:
        follow = functools.partial(_follow, rows=rows, alone=by_device)
        fields, by_record = jax.tree.map(follow, (dict(fields), by_record))
    gives = {path: field for path, field in fields.items() if path in donated}
    keeps = {path: field for path, field in fields.items() if path not in donated}
    # Arrays of NumPy are meant to go to the device, also where jax_transfer_guard disallows what is implicit: jax.jit
    # puts them there in a tenth of the time that jax.device_put takes.
    with _explicit_mesh(rows), jax.transfer_guard_host_to_device("allow"):
        return _launch(program, rows if by_device else None, gives, keeps, by_record, whole)


def compiled_count() -> int:
    """How many functions have been compiled in this process: one for each program, shape and dtype."""
    return int(_launch._cache_size())  # type: ignore[attr-defined]


def donatable(fields: Fields, data: Record, fitting: frozenset[str], donate: bool) -> frozenset[str]:
    """The fields whose buffers may hold their results.

    Args:
      fields: Those that are written.
      data: The whole batch: an array that is there twice is not to be donated.
      fitting: The paths of results with the shape and dtype of what went in.
      donate: Whether JAX arrays of the caller may be given away.
    """
    everything = list(flatten(data).values()) if donate else []
    result = []
    for path, field in fields.items():
        alone = donate and sum(field is other for other in everything) == 1
        if path in fitting and (alone or not isinstance(field, jax.Array)):
            result.append(path)
    return frozenset(result)


def _batch_sharding(fields: Fields) -> NamedSharding | None:
    """How the batch is spread over a mesh, if it is; of tracers only Explicit axes are known."""
    for field in fields.values():
        sharding = _sharding(field)
        if isinstance(sharding, NamedSharding) and tuple(sharding.spec)[:1] not in ((), (None,)):
            return NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[0]))
    return None


def _whole_on_mesh(fields: Fields) -> NamedSharding | None:
    """All rows on each device of the Explicit mesh whose axes other axes of the batch are spread over, if there is."""
    for field in fields.values():
        sharding = _sharding(field)
        if isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types:
            return NamedSharding(sharding.mesh, PartitionSpec())
    return None


def _sharding(leaf: Any) -> Any:
    return jax.typeof(leaf).sharding if isinstance(leaf, Tracer) else getattr(leaf, "sharding", None)


def _explicit_mesh(rows: NamedSharding | None) -> contextlib.AbstractContextManager[Any]:
    """Sets the mesh of a batch on Explicit axes: a function that is mapped twice, as over frames, does not find it."""
    if rows is None or AxisType.Explicit not in rows.mesh.axis_types:
        return contextlib.nullcontext()
    mesh = rows.mesh.abstract_mesh if isinstance(rows.mesh, Mesh) else rows.mesh
    return jax.sharding.use_abstract_mesh(mesh)


def _follow(leaf: Any, rows: NamedSharding, alone: bool) -> Any:
    """Spreads a leaf over the batch's mesh as the batch is, unless it is already; Explicit meshes ask for that.

    With `alone` no axis but the first is spread, as each device has to hold its own rows whole.
    """
    sharding = _sharding(leaf)
    if isinstance(sharding, NamedSharding) and sharding.mesh == rows.mesh:
        first, *others = (*sharding.spec, None)
        if (first,) == (*rows.spec, None)[:1] and not (alone and any(others)):
            return leaf
    if not isinstance(leaf, Tracer):
        return jax.device_put(leaf, rows)
    spec = rows.spec if alone else PartitionSpec(*rows.spec, *tuple(sharding.spec)[1:])
    return jax.sharding.reshard(leaf, NamedSharding(rows.mesh, spec))
