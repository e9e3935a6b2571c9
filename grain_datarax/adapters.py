"""Operators of the package datarax on each record of a batch, drawing from that record's key alone. Pure.

Three families of its `OperatorModule`, told apart by the signature of the base class's `apply`:

| family | datarax | `apply` | what it draws from |
| --- | --- | --- | --- |
| `params` | 0.1.0 - 0.1.9 | `(data, state, metadata, random_params, stats)` | `generate_random_params` of a key |
| `key` | 0.1.10 - 0.1.17 | `(data, state, metadata, key, stats)` | the key; parts fold their place into it |
| `element` | not yet released | `(element, key, stats)` | the key; parts have keys of their own |

datarax is not imported here: whoever passes an operator of it has it.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import errors, nnx

from grain_datarax.containers import Record
from grain_datarax.fields import flatten, nested
from grain_datarax.purity import same_each_time

# Apart from fold_in(key, 0), fold_in(key, 1), ..., which datarax's wrappers give their parts.
_OWN_STREAMS = 0xD47A4A58
# An operator may be shared by two wrappers; before flax 0.12.9 modules were always graphs.
AS_GRAPH: dict[str, Any] = {"graph": True} if "graph" in inspect.signature(nnx.split).parameters else {}
_FAMILIES: dict[tuple[str, ...], str] = {
    ("data", "state", "metadata", "random_params", "stats"): "params",
    ("data", "state", "metadata", "key", "stats"): "key",
    ("element", "key", "stats"): "element",
}
_OF_BATCHES = ("apply_batch", "_apply_on_raw", "_vmap_apply")
# Whose compute_statistics only collects that of their parts.
_WRAPPERS = ("CompositeOperatorModule", "ProbabilisticOperator", "SelectorOperator")


def is_of_datarax(value: Any) -> bool:
    """Whether a class of the package datarax is among those of `value`."""
    return any(base.__module__.partition(".")[0] == "datarax" for base in type(value).__mro__)


@functools.cache
def version() -> str:
    """The version of datarax that is installed, or what there is instead."""
    try:
        return importlib.metadata.version("datarax")
    except importlib.metadata.PackageNotFoundError:
        return "that is not installed"


def family_of(cls: type) -> str:
    """The family of an operator's class; raises `TypeError` if it has none."""
    base = _base_of(cls)
    if base is None:
        raise TypeError(
            f"`operators` must be operators: got {cls.__name__} of datarax {version()}. Pass an OperatorModule;"
            " samplers, batchers, sources and nodes of a DAG have their counterparts in Grain."
        )
    classes: tuple[Any, Any] = base, cls
    expected, given = [list(inspect.signature(each.apply).parameters)[1:] for each in classes]
    family = _FAMILIES.get(tuple(expected))
    if family is None:
        raise TypeError(
            f"`apply` must be that of datarax 0.1.0 to 0.1.17, or take (element, key, stats): got"
            f" ({', '.join(expected)}) in datarax {version()}. Install one of these, or a newer grain_datarax."
        )
    if ("random_params" in given) != (family == "params") or ("state" in given) == (family == "element"):
        raise TypeError(
            f"`apply` must take the arguments of datarax {version()}, ({', '.join(expected)}): got"
            f" {cls.__name__}.apply({', '.join(given)}). It was written for another version: change it."
        )
    return family


def require_pure(operator: nnx.Module) -> None:
    """Raises unless an operator treats each record for itself, as far as its class and its parts tell.

    Raises:
      TypeError: If it is no operator, or of an unknown version.
      ValueError: If it, or a part of it, needs the whole batch.
    """
    family = family_of(type(operator))
    for path, node in nnx.iter_graph(operator, **AS_GRAPH):
        base = _base_of(type(node))
        if base is None:
            continue
        family_of(type(node))
        what = type(node).__name__ + (f" in {type(operator).__name__} ({_dotted(path)})" if path else "")
        for name in _OF_BATCHES:
            if getattr(type(node), name, None) is not getattr(base, name, None):
                raise ValueError(
                    f"`operators` must treat records one by one: got {what} of datarax {version()}, whose `{name}`"
                    " needs the whole batch. Apply it to batches in the training step, with a key of their own."
                )
        collects = type(node).__name__ in _WRAPPERS and type(node).__module__.startswith("datarax.")
        fits = family != "params" and type(node).compute_statistics is not base.compute_statistics and not collects
        if fits or getattr(getattr(node, "config", None), "batch_stats_fn", None) is not None:
            raise ValueError(
                f"`operators` must not fit statistics to the batch: got {what} of datarax {version()}. Fit them before,"
                " and keep them by set_statistics, or as precomputed_stats where there is that setting."
            )


def draws(operator: Any) -> bool:
    """Whether an operator draws, be it from streams of layers that it holds."""
    streams = (isinstance(node, nnx.RngState) for _, node in nnx.iter_graph(operator, **AS_GRAPH))
    return bool(operator.stochastic) or any(streams)


def root_key(operator: Any) -> jax.Array:
    """The key that all draws of an operator follow from: that of the `rngs` it was made with, as in datarax."""
    if not operator.stochastic:
        return jax.random.key(0)
    base: jax.Array
    if hasattr(operator, "_base_key"):
        base = operator._base_key.get_value()
    else:
        base = operator.rngs[operator.stream_name].key.get_value()
    return base


def apply_batch(
    graphdef: Any, state: Any, fields: Mapping[str, jax.Array], keys: jax.Array | None, *, one_by_one: bool
) -> dict[str, jax.Array | None]:
    """Applies an operator to each record of a batch.

    On the CPU records go one after the other, so that all batches run the same code: under vmap XLA adds up a mean
    over pixels in another order, or fuses a product with a sum, for another batch size. Elsewhere they go side by side.

    Args:
      graphdef: The operator's structure.
      state: Its arrays.
      fields: By path, with the batch as axis 0.
      keys: The records' keys `(B,)`; None if it draws nothing.
      one_by_one: Whether records go one after the other everywhere.

    Returns:
      The fields that it changed, by path; before them None for each that is no longer there.
    """

    def one(record: tuple[Mapping[str, jax.Array], jax.Array | None]) -> Any:
        # Behind barriers: fused with the loop around it, the body may take ten times as long.
        fields, key = jax.lax.optimization_barrier(record)
        data = nested(fields)
        return jax.lax.optimization_barrier(changes(data, _applied(graphdef, state, data, key)))

    def in_turn(records: Any) -> Any:
        count = len(jax.tree.leaves(records)[0])
        if count == 1:  # doubled, since XLA takes a loop of one away
            records = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), records)
        return jax.tree.map(lambda leaf: leaf[:count], jax.lax.map(one, records))

    records = (dict(fields), keys)
    if one_by_one:
        return dict(in_turn(records))
    return dict(jax.lax.platform_dependent(records, cpu=in_turn, default=jax.vmap(one)))


def changes(before: Record, after: Record) -> dict[str, Any]:
    """By path the fields of `after` that are other objects than in `before`; before them None for each that is gone."""
    old, new = flatten(before), flatten(after)
    gone = dict.fromkeys(path for path in old if path not in new)
    return gone | {path: field for path, field in new.items() if field is not old.get(path)}


def _applied(graphdef: Any, state: Any, data: dict[str, Any], key: jax.Array | None) -> dict[str, Any]:
    """What becomes of one record; raises if `apply` can't be compiled, or does more than that."""

    def attempt(key: jax.Array | None) -> dict[str, Any]:
        operator = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf, state))  # else it shares the state's variables
        result: dict[str, Any] = same_each_time("apply", lambda: _apply_once(operator, data, key))
        return result

    try:
        return attempt(key)
    except NotImplementedError as error:
        if key is None or "threefry2x32" not in str(error):
            raise
        # What jax.random.poisson raises, which takes no other keys.
        return attempt(jax.random.wrap_key_data(jax.random.key_data(key), impl="threefry2x32"))


def _apply_once(operator: Any, data: dict[str, Any], key: jax.Array | None) -> dict[str, Any]:
    what = f"{type(operator).__name__} of datarax {version()}"
    if key is not None:
        _reseed(operator, key)
    before = _variables(operator)
    try:
        result = _CALLS[family_of(type(operator))](operator, data, key)
    except errors.TraceContextError as error:
        raise ValueError(
            f"`apply` must not write into modules: got {what}, which does. Keep counts and running averages outside."
        ) from error
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise TypeError(
            f"`apply` must be made of JAX's functions: got {what}, which asks for values that only the device will"
            " have. Compute on the host in a Grain map, before Batch."
        ) from error
    after = _variables(operator)
    for path in sorted(before.keys() | after.keys(), key=str):
        was, now = (jax.tree.leaves(variables.get(path, ())) for variables in (before, after))
        if len(was) != len(now) or any(old is not new for old, new in zip(was, now, strict=True)):
            raise ValueError(
                f"`apply` must not write into modules: got {what}, which writes {_dotted(path)}. Put its layers into"
                " eval() mode, or keep counts and running averages outside."
            )
    if not isinstance(result, Mapping):
        raise TypeError(f"`apply` must return a mapping of fields: got {type(result).__name__} of {what}. Return data.")
    return dict(result)


def _apply_with_params(operator: Any, data: dict[str, Any], key: jax.Array | None) -> Any:
    base: Any = _base_of(type(operator))
    # Until 0.1.3 with one key for all records, and for a fixed pattern as well.
    by_record = "element_keys" in inspect.signature(base.generate_random_params).parameters
    params = None
    if operator.stochastic or not by_record:
        shapes = jax.tree.map(lambda leaf: (1, *leaf.shape), data)
        key = key if operator.stochastic and key is not None else jax.random.key(0)
        drawn = operator.generate_random_params(key[None] if by_record else key, shapes)
        params = jax.tree.map(lambda leaf: leaf[0], drawn)
    return operator.apply(data, {}, None, params, operator.get_statistics())[0]


def _apply_with_key(operator: Any, data: dict[str, Any], key: jax.Array | None) -> Any:
    stats = operator.compute_statistics(jax.tree.map(lambda leaf: leaf[None], data))  # those that are kept
    return operator.apply(data, {}, None, key if operator.stochastic else None, stats)[0]


def _apply_to_element(operator: Any, data: dict[str, Any], key: jax.Array | None) -> Any:
    element = importlib.import_module("datarax.core.element_batch").Element
    known = {field.name for field in dataclasses.fields(element)}
    # The same identity for all records: the parts' keys are each record's own already.
    identity = {"index": jnp.zeros(2, jnp.uint32), "epoch": jnp.int32(0), "draw": jnp.int32(0)}
    record = element(data, **{name: value for name, value in identity.items() if name in known})
    stats = operator.compute_statistics(jax.tree.map(lambda leaf: leaf[None], data))
    if operator.stochastic and getattr(operator, "deterministic", False):
        return operator.apply_deterministic(record, stats).data
    return operator.apply(record, key if operator.stochastic else None, stats).data


_CALLS = {"params": _apply_with_params, "key": _apply_with_key, "element": _apply_to_element}


def _base_of(cls: type) -> Any:
    """datarax's `OperatorModule` among the bases of a class; None if it is none."""
    bases = (each for each in cls.__mro__ if each.__module__ == "datarax.core.operator")
    return next((each for each in bases if each.__name__ == "OperatorModule"), None)


def _reseed(operator: Any, key: jax.Array) -> None:
    """Makes every stream in an operator follow from a record's key."""
    root = jax.random.fold_in(key, jnp.uint32(_OWN_STREAMS))
    for path, node in nnx.iter_graph(operator, **AS_GRAPH):
        if isinstance(node, nnx.RngKey) or (isinstance(node, nnx.Variable) and path[-1:] == ("_base_key",)):
            node.set_value(jax.random.fold_in(root, jnp.uint32(zlib.crc32(_dotted(path).encode()))))
        elif isinstance(node, nnx.RngCount):
            node.set_value(jnp.uint32(0))


def _variables(operator: Any) -> dict[Any, Any]:
    """The values of an operator's variables, but for its streams."""
    nodes = nnx.iter_graph(operator, **AS_GRAPH)
    return {
        path: node.get_value()
        for path, node in nodes
        if isinstance(node, nnx.Variable) and not isinstance(node, nnx.RngState)
    }


def _dotted(path: Any) -> str:
    return ".".join(map(str, path))
