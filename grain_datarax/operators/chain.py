"""A chain of operators on a batch: one compiled function of the fields that they touch."""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from grain_datarax.operators.batch import record_count
from grain_datarax.operators.fields import flatten, get_field, set_fields
from grain_datarax.random.keys import operator_key, record_keys
from grain_datarax.seeding import RECORD_SEED

if TYPE_CHECKING:
    from grain_datarax.operators.modality import ModalityOperator


def namespaces(operators: Sequence[ModalityOperator]) -> list[str]:
    """The namespace of each operator; unnamed ones that would share theirs are numbered in the order of the chain.

    Raises:
      ValueError: If an operator or a name is there twice.
    """
    seen: collections.Counter[str] = collections.Counter()
    result = []
    for operator in operators:
        namespace = operator.namespace
        seen[namespace] += 1
        if operator.name is None and seen[namespace] > 1:
            namespace = f"{namespace}#{seen[namespace]}"
        result.append(namespace)
    if len({id(operator) for operator in operators}) != len(operators):
        raise ValueError(f"`operators` must be different objects: got {result}. Pass operator.copy() for another one.")
    if len(set(result)) != len(result):
        raise ValueError(f"`name` must be unique in a chain: got {result}. The same name would draw the same twice.")
    return result


def augment(
    operators: Sequence[ModalityOperator],
    data: dict[str, Any],
    seeds: jax.Array | None,
    *,
    state: Any = None,
    stats: Any = None,
    root: jax.Array | None = None,
) -> tuple[dict[str, Any], Any, dict[int, jax.Array]]:
    """Applies the operators one after the other to each record of a batch. Pure, to be compiled.

    Args:
      operators: The operators, with different namespaces.
      data: The fields that they read, with the batch as axis 0.
      seeds: `uint32 (B, 2)`, the records' seeds; may be None if no operator is stochastic.
      state: What `apply` is given as its state, with the batch as axis 0.
      stats: The statistics of the first operator; None takes its own.
      root: The root key of all operators; None takes each one's own.

    Returns:
      The fields, the state, and by operator's index whether its records were in its domain, `bool (B,)`, where that
      depends on their values.
    """
    treated = {}
    for index, operator in enumerate(operators):
        its_stats = operator.get_statistics() if index > 0 or stats is None else stats
        keys = None
        if operator.stochastic:
            assert seeds is not None
            key = operator_key(operator.root_key() if root is None else root, operator.namespace)
            keys = record_keys(key, seeds)
        data, state, in_domain = _for_each_record(operator, its_stats, keys, data, state)
        if in_domain is not None:
            treated[index] = in_domain
    return data, state, treated


def _for_each_record(operator: ModalityOperator, stats: Any, keys: jax.Array | None, data: Any, state: Any) -> Any:
    def treat(key: jax.Array | None, data: Any, state: Any) -> Any:
        params, field_key = None, operator.config.field_key
        if key is not None and operator.check(data):
            # The axis of one keeps XLA's CPU fusion from hashing in its loops over channels, which are not vectorised.
            drawn = operator.generate_random_params(key[None], {field_key: (1, *get_field(data, field_key).shape)})
            params = jax.tree.map(lambda batch: batch[0], drawn)
        in_domain = operator.treats_values(data)
        result, state, _ = operator.apply(data, state, {}, params, stats)
        return result, state, None if in_domain is True else in_domain

    if operator.config.batch_strategy == "scan":
        return jax.lax.map(lambda record: treat(*record), (keys, data, state))
    return jax.vmap(treat)(keys, data, state)


@functools.partial(jax.jit, static_argnames=("graphdef", "names", "rows"), donate_argnames="donated")
def _augment(
    graphdef: Any,
    names: tuple[str, ...],
    rows: NamedSharding | None,
    module_state: Any,
    donated: Any,
    kept: Any,
    seeds: Any,
    state: Any,
    stats: Any,
    root: Any,
) -> Any:
    def run(module_state: Any, given: Any, seeds: Any, state: Any, stats: Any, root: Any) -> Any:
        operators = nnx.merge(graphdef, module_state)
        for operator, name in zip(operators, names, strict=True):
            operator.name = nnx.static(name)
        data, state, treated = augment(operators, set_fields({}, given), seeds, state=state, stats=stats, root=root)
        writes = {path for operator in operators for path in operator.writes}
        written = {path: field for path, field in flatten(data).items() if path in writes or path not in given}
        return written, state, treated

    if rows is not None:  # each device scans its own rows
        whole, batch = PartitionSpec(), rows.spec
        in_specs = (whole, batch, batch, batch, whole, whole)
        run = jax.shard_map(run, mesh=rows.mesh, in_specs=in_specs, out_specs=batch)
    return run(module_state, {**donated, **kept}, seeds, state, stats, root)


def augment_batch(
    operators: tuple[ModalityOperator, ...],
    names: Sequence[str],
    data: Mapping[str, Any],
    seeds: Any,
    *,
    state: Any = None,
    stats: Any = None,
    root: jax.Array | None = None,
    donate: bool = False,
    counted: int | None = None,
) -> tuple[dict[str, Any], Any]:
    """Applies the operators to a batch by `augment`, compiled once for each shape; does not wait for the device.

    Args:
      operators: The operators; they count their records and keep the statistics that they compute.
      names: Their namespaces.
      data: The batch's fields, NumPy or JAX arrays where operators touch them.
      seeds: See `augment`; None beside a root key numbers the records.
      state: See `augment`.
      stats: See `augment`.
      root: See `augment`.
      donate: Whether the buffers of JAX arrays in `data` may be overwritten. Those that are put on the device here,
        from NumPy arrays, always may.
      counted: How many rows, from the first on, are records and counted; None counts all.

    Returns:
      The fields that were written, by path, and the state.
    """
    for index in range(1, len(operators)):
        if operators[index].batch_stats_fn is not None:  # its statistics are those of the batch that reaches it
            settings: dict[str, Any] = {"root": root, "donate": donate, "counted": counted}
            written, state = augment_batch(
                operators[:index], names[:index], data, seeds, state=state, stats=stats, **settings
            )
            data = set_fields(data, written)
            rest, state = augment_batch(operators[index:], names[index:], data, seeds, state=state, **settings)
            return {**written, **rest}, state
    spec, treats = dict(data), []
    for operator, name in zip(operators, names, strict=True):
        treats.append(operator.check(spec, batched=True))
        if treats[-1]:
            operator.keep_pattern(name, tuple(get_field(spec, operator.config.field_key).shape[1:]))
        spec = operator.output_spec(spec)
    donated, kept = _partition(operators, data, spec, donate)
    fields = {**donated, **kept}
    count = record_count(fields if state is None else {**fields, "state": state})
    if not any(operator.stochastic for operator in operators):
        seeds = None
    elif seeds is None and root is not None:
        seeds = np.arange(2 * count, dtype=np.uint32).reshape(count, 2)
    else:
        _check_seeds(seeds, count)
    if stats is None:
        stats = operators[0].compute_statistics(data)
    rows = _batch_sharding(fields)
    donated, kept, seeds, state = jax.tree.map(lambda leaf: _beside(leaf, rows), (donated, kept, seeds, state))
    if not any(operator.config.batch_strategy == "scan" for operator in operators):
        rows = None
    graphdef, module_state = nnx.split(operators)
    module_state = jax.tree.map(_off_mesh, module_state)
    written, state, treated = _augment(
        graphdef, tuple(names), rows, module_state, donated, kept, seeds, state, stats, root
    )
    for index, operator in enumerate(operators):
        operator.count_records(count if counted is None else counted, treats[index] and treated.get(index, True))
    return written, state


def _partition(
    operators: Sequence[ModalityOperator], data: Mapping[str, Any], spec: Mapping[str, Any], donate: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that the operators read, by path: those whose buffer may hold the result, and the others."""
    before, after = flatten(data), flatten(spec)
    reads = {path for operator in operators for path in operator.reads if path in before}
    writes = {path for operator in operators for path in operator.writes}
    donated: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for path in sorted(reads):
        field, result = before[path], after[path]
        alone = sum(field is other for other in before.values()) == 1  # a donated array must not be read elsewhere
        owned = not isinstance(field, jax.Array) or (donate and alone)
        fits = (field.shape, field.dtype) == (result.shape, result.dtype)
        (donated if path in writes and owned and fits else kept)[path] = field
    return donated, kept


def _batch_sharding(fields: Mapping[str, Any]) -> NamedSharding | None:
    """How the batch is spread over a mesh, if it is; tracers are not asked."""
    for field in fields.values():
        if isinstance(field, jax.Array) and not isinstance(field, jax.core.Tracer):
            sharding = field.sharding
            if isinstance(sharding, NamedSharding) and sharding.spec[:1] not in ((), (None,)):
                return NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[0]))
    return None


def _beside(leaf: Any, rows: NamedSharding | None) -> Any:
    """Spreads what is not on the batch's mesh as the batch is; on Explicit meshes JAX asks for that."""
    if rows is None or isinstance(leaf, jax.core.Tracer):
        return leaf
    on_mesh = isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding)
    return leaf if on_mesh else jax.device_put(leaf, rows)


def _off_mesh(leaf: Any) -> Any:
    """Takes keys and the like off the mesh that was set where the operator was made: they go where the batch is."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return leaf
    if not isinstance(leaf.sharding, NamedSharding) or not leaf.is_fully_replicated:
        return leaf
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            jnp.asarray(np.asarray(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf)
        )
    return np.asarray(leaf)


def _check_seeds(seeds: Any, count: int) -> None:
    """Raises `ValueError` unless there is one seed for each record."""
    shape, dtype = np.shape(seeds), getattr(seeds, "dtype", None)
    if shape != (count, 2) or dtype != np.uint32:
        raise ValueError(
            f"`{RECORD_SEED}` must be uint32 of shape ({count}, 2), a seed for each record: got {dtype} of shape"
            f" {shape}. Place SeedRecords() before Batch, once."
        )
