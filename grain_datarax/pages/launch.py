"""A list of operators on a batch: one compiled function of the fields that they touch."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.sharding import NamedSharding

from grain_datarax.compiled import Launcher, RowCounts
from grain_datarax.containers import Record
from grain_datarax.fields import flatten, get_field, has_field, literal_names, nested, set_fields
from grain_datarax.guard import check_seeds
from grain_datarax.launch import donatable, launch
from grain_datarax.leaves import record_count
from grain_datarax.pages.fingerprint import describe
from grain_datarax.pages.module import FixedPattern
from grain_datarax.random.keys import (
    STREAM_VERSION,
    distinct_names,
    draw_mark,
    effect_words,
    operator_key,
    record_keys,
    stream_words,
)


class Operator(Protocol):
    """What is asked of an operator here; `ModalityOperator` says what each of these is."""

    config: Any
    name: Any
    stochastic: Any
    batch_stats_fn: Any
    fixed_pattern: Any
    keeps_scale: bool

    @property
    def namespace(self) -> str: ...
    @property
    def reads(self) -> tuple[str, ...]: ...
    @property
    def writes(self) -> tuple[str, ...]: ...
    def root_key(self) -> jax.Array: ...
    def check(self, data: Mapping[str, Any], *, batched: bool = False) -> bool: ...
    def check_values(self, data: Mapping[str, Any], seen: set[tuple[str, Any]]) -> None: ...
    def draw_pattern(self, namespace: str, shape: tuple[int, ...]) -> dict[str, Any]: ...
    def kept_pattern(self, namespace: str, shape: tuple[int, ...]) -> dict[str, Any] | None: ...
    def use_pattern(self, pattern: Mapping[str, Any], shape: tuple[int, ...]) -> None: ...
    def generate_random_params(self, rng: jax.Array, data_shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]: ...
    def treats_values(self, data: Mapping[str, Any]) -> jax.Array | bool: ...
    def outside(self, data: Mapping[str, Any]) -> jax.Array | None: ...
    def apply(self, data: Any, state: Any, metadata: Any, random_params: Any = None, stats: Any = None) -> Any: ...
    def get_statistics(self) -> Any: ...
    def compute_statistics(self, data: Any) -> Any: ...
    def output_spec(self, input_spec: Any) -> Any: ...
    def count_records(self, record_count: int, treated: jax.Array | bool, outside: jax.Array | None = None) -> None: ...
    def counts(self) -> dict[str, int]: ...


def names_of(operators: Sequence[Operator]) -> tuple[str, ...]:
    """What tells the draws of each operator apart.

    Raises:
      ValueError: If an operator or a name is there twice.
    """
    namespaces = [(operator.namespace, operator.name is None) for operator in operators]
    if len({id(operator) for operator in operators}) != len(operators):
        raise ValueError(
            f"`operators` must be different objects: got {[namespace for namespace, _ in namespaces]}. Pass"
            " operator.copy() for another one."
        )
    return distinct_names(namespaces)


class CompiledOperators(Launcher):
    """Operators on batches.

    Args:
      operators: The operators.
      names: What tells their draws apart; None: as for operators among themselves.
    """

    def __init__(self, operators: tuple[Operator, ...], names: tuple[str, ...] | None = None) -> None:
        self._operators: tuple[Operator, ...] | _Packed = operators
        self.names = names_of(operators) if names is None else names
        self.seeded = any(operator.stochastic for operator in operators)
        self.reads = tuple(dict.fromkeys(path for operator in operators for path in operator.reads))
        self.needs_whole_batches = any(operator.batch_stats_fn is not None for operator in operators)
        self._values_seen: set[tuple[int, str, Any]] = set()

    def __repr__(self) -> str:
        return repr(list(self.names))

    def __getstate__(self) -> dict[str, Any]:
        # A JAX array would start the accelerator in the worker that unpickles it.
        packed = self._operators if isinstance(self._operators, _Packed) else _pack(self._operators)
        return {**vars(self), "_operators": packed}

    @property
    def operators(self) -> tuple[Operator, ...]:
        if isinstance(self._operators, _Packed):
            self._operators = _unpack(self._operators)
        return self._operators

    def __call__(self, data: Record, seeds: Any, *, donate: bool = False, counted: int | None = None) -> dict[str, Any]:
        return augment_batch(self.operators, self.names, data, seeds, donate=donate, counted=counted)[0]

    def pure(self, data: Record, seeds: Any, *, counts: bool) -> tuple[dict[str, Any], RowCounts]:
        copies = nnx.clone(self.operators)  # which count, and keep statistics, for nobody
        tally: RowCounts = {name: {} for name in self.names}
        written, _ = augment_batch(copies, self.names, data, seeds, tally=tally if counts else None)
        return written, tally

    def check_values(self, data: Record) -> None:
        """As `Launcher`; looks at no field that an earlier operator may bring to another scale."""
        written: set[str] = set()
        for index, operator in enumerate(self.operators):
            path = operator.config.field_key
            if path not in written and has_field(data, path):
                seen = {(path, dtype) for which, path, dtype in self._values_seen if which == index}
                operator.check_values(data, seen)
                self._values_seen |= {(index, path, dtype) for path, dtype in seen}
            if not operator.keeps_scale or operator.config.target_key is not None:
                written |= set(operator.writes)

    def output_spec(self, spec: Record) -> Record:
        for operator in self.operators:
            spec = operator.output_spec(spec)
        return spec

    def fingerprint(self) -> dict[str, Any]:
        parts = [describe(operator, name) for operator, name in zip(self.operators, self.names, strict=True)]
        return {"stream_version": STREAM_VERSION, "operators": parts}

    def counts(self) -> dict[str, dict[str, int]]:
        return {name: operator.counts() for name, operator in zip(self.names, self.operators, strict=True)}

    @functools.cached_property
    def draw_marks(self) -> tuple[str, ...]:
        marks = []
        for name, operator in zip(self.names, self.operators, strict=True):
            if operator.stochastic and not isinstance(root := operator.root_key(), Tracer):
                with jax.ensure_compile_time_eval():  # inside jax.jit too
                    words = stream_words(root)
                marks.append(draw_mark(name, effect_words(words, name)))
        return tuple(marks)


@dataclasses.dataclass(frozen=True)
class _Program:
    """The pure function of operators, told apart by their structure and settings; their arrays are arguments."""

    graphdef: Any
    names: tuple[str, ...]
    literal_names: tuple[tuple[str, tuple[str, ...]], ...]

    def augment(
        self,
        fields: dict[str, Any],
        by_record: tuple[Any, Any],
        module_state: Any,
        patterns: Any,
        stats: Any,
        root: Any,
    ) -> Any:
        """What was written, the state, and by operator's index what depends on its records' values.

        Args:
          fields: By path, with the batch as axis 0.
          by_record: The records' seeds, and what `apply` is given as its state.
          module_state: The operators' arrays.
          patterns: By operator's index the pattern that it has kept.
          stats: The statistics of the first operator; None takes its own.
          root: The root key of all operators; None takes each one's own.
        """
        operators = nnx.merge(self.graphdef, *module_state)
        (seeds, state), data = by_record, nested(fields, dict(self.literal_names))
        treated, outside = {}, {}
        for index, (operator, name) in enumerate(zip(operators, self.names, strict=True)):
            its_stats = operator.get_statistics() if index > 0 or stats is None else stats
            keys = None
            if operator.stochastic:
                key = operator_key(operator.root_key() if root is None else root, name)
                keys = record_keys(key, seeds)
            elif operator.check(jax.tree.map(lambda field: jax.ShapeDtypeStruct(field.shape[1:], field.dtype), data)):
                shape = tuple(get_field(data, operator.config.field_key).shape[1:])
                pattern = patterns[index] if index in patterns else operator.draw_pattern(name, shape)
                operator.use_pattern(pattern, shape)
            data, state, treated[index], outside[index] = _for_each_record(operator, its_stats, keys, data, state)
        writes = {path for operator in operators for path in operator.writes}
        written = {path: field for path, field in flatten(data).items() if path in writes or path not in fields}
        return written, state, treated, outside


def _for_each_record(operator: Operator, stats: Any, keys: jax.Array | None, data: Any, state: Any) -> Any:
    def treat(key: jax.Array | None, data: Any, state: Any) -> Any:
        params, field_key = None, operator.config.field_key
        if key is not None and operator.check(data):
            # The axis of one keeps XLA's CPU fusion from hashing in its loops over channels, which are not vectorised.
            drawn = operator.generate_random_params(key[None], {field_key: (1, *get_field(data, field_key).shape)})
            params = jax.tree.map(lambda batch: batch[0], drawn)
        in_domain, outside = operator.treats_values(data), operator.outside(data)
        if outside is not None:  # else XLA copies what is written to in place while it is being looked at
            outside, data = jax.lax.optimization_barrier((outside, data))
        result, state, _ = require_parts(operator.apply(data, state, {}, params, stats))
        return result, state, None if in_domain is True else in_domain, outside

    if operator.config.batch_strategy == "scan":
        return jax.lax.map(lambda record: treat(*record), (keys, data, state))
    return jax.vmap(treat)(keys, data, state)


def require_parts(result: Any) -> tuple[Any, Any, Any]:
    """What `apply` returned; raises `TypeError` unless that is data, state and metadata."""
    mappings = isinstance(result, tuple) and all(isinstance(part, Mapping | None) for part in result)
    if not mappings or len(result) != 3 or result[0] is None:
        got = tuple(type(part).__name__ for part in result) if isinstance(result, tuple) else type(result).__name__
        raise TypeError(
            f"`apply` must return three mappings, the data, the state and the metadata: got {got}. Return those that it"
            " was given, with the result in the data."
        )
    return result[0], result[1], result[2]


def augment_batch(
    operators: tuple[Operator, ...],
    names: Sequence[str],
    data: Record,
    seeds: Any,
    *,
    state: Any = None,
    stats: Any = None,
    root: jax.Array | None = None,
    donate: bool = False,
    counted: int | None = None,
    tally: dict[str, dict[str, jax.Array]] | None = None,
) -> tuple[dict[str, Any], Any]:
    """Applies the operators to a batch, compiled once for each shape; does not wait for the device.

    Args:
      operators: The operators; they count their records and keep the statistics that they compute.
      names: Their namespaces.
      data: The batch's fields, NumPy or JAX arrays where operators touch them.
      seeds: `uint32 (B, 2)`; None beside a root key numbers the records.
      state: What `apply` is given as its state, with the batch as axis 0.
      stats: The statistics of the first operator; None takes its own, or those of its `batch_stats_fn`.
      root: The root key of all operators; None takes each one's own.
      donate: Whether the buffers of JAX arrays in `data` may be overwritten. Those that are put on the device here,
        from NumPy arrays, always may.
      counted: How many rows, from the first on, are records and counted; None counts all.
      tally: Takes what was counted, by name and kind.

    Returns:
      The fields that were written, by path, and the state.
    """
    settings: dict[str, Any] = {"root": root, "donate": donate, "counted": counted, "tally": tally}
    for index in range(1, len(operators)):
        if operators[index].batch_stats_fn is not None:  # its statistics are those of the batch that reaches it
            first, rest = slice(None, index), slice(index, None)
            written, state = augment_batch(
                operators[first], names[first], data, seeds, state=state, stats=stats, **settings
            )
            data = set_fields(data, written)
            later, state = augment_batch(operators[rest], names[rest], data, seeds, state=state, **settings)
            return {**written, **later}, state
    treats, patterns, spec = [], {}, data
    for index, (operator, name) in enumerate(zip(operators, names, strict=True)):
        treats.append(operator.check(spec, batched=True))
        if treats[-1]:
            shape = tuple(get_field(spec, operator.config.field_key).shape[1:])
            if (pattern := operator.kept_pattern(name, shape)) is not None:
                patterns[index] = pattern
        spec = operator.output_spec(spec)
    fields, donated = _touched(operators, data, spec, donate)
    count = record_count(fields if state is None else {**fields, "state": state})
    if not any(operator.stochastic for operator in operators):
        seeds = None
    elif seeds is None and root is not None:
        seeds = np.arange(2 * count, dtype=np.uint32).reshape(count, 2)
    else:
        check_seeds(seeds, count)
    if stats is None:
        stats = operators[0].compute_statistics(data)
    graphdef, module_state = _split(operators)
    written, state, treated, outside = launch(
        _Program(graphdef, tuple(names), literal_names(data, fields)),
        fields,
        donated,
        (seeds, state),
        module_state,
        patterns,
        stats,
        root,
        by_device=any(operator.config.batch_strategy == "scan" for operator in operators),
    )
    for index, (operator, name) in enumerate(zip(operators, names, strict=True)):
        mask = treats[index] and (True if treated[index] is None else treated[index])
        operator.count_records(count if counted is None else counted, mask, outside[index])
        if tally is not None:
            found = {"applied": treated[index], "outside": outside[index]}
            tally[name] = {what: rows.astype(jnp.int32) for what, rows in found.items() if rows is not None}
    return written, state


def _touched(
    operators: Sequence[Operator], data: Record, spec: Record, donate: bool
) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields that the operators read, by path, and those among them whose buffers may hold the result."""
    reads = sorted({path for operator in operators for path in operator.reads if has_field(data, path)})
    writes = {path for operator in operators for path in operator.writes}
    fields = {path: get_field(data, path) for path in reads}
    after = {path: get_field(spec, path) for path in reads}
    fitting = frozenset(
        path
        for path, field in fields.items()
        if path in writes and (field.shape, field.dtype) == (after[path].shape, after[path].dtype)
    )
    return fields, donatable(fields, data, fitting, donate)


def _split(operators: tuple[Operator, ...]) -> tuple[Any, Any]:
    """Structure and arrays of the operators, without the patterns that they keep, whose shapes change."""
    if not any(operator.config.cacheable for operator in operators):
        graphdef, rest = nnx.split(operators)
        return graphdef, (jax.tree.map(off_mesh, rest),)
    split: tuple[Any, ...] = nnx.split(operators, FixedPattern, ...)
    graphdef, patterns, rest = split
    none = jax.tree.map(lambda kept: kept.replace({}), patterns, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    return graphdef, (none, jax.tree.map(off_mesh, rest))


def off_mesh(leaf: Any) -> Any:
    """Takes keys and the like off the mesh that was set where the operator was made: they go where the batch is."""
    if isinstance(leaf, Tracer) or not isinstance(leaf, jax.Array):
        return leaf
    if not isinstance(leaf.sharding, NamedSharding) or not leaf.is_fully_replicated:
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            jnp.asarray(np.asarray(jax.random.key_data(leaf))), impl=jax.random.key_impl(leaf)
        )
    return np.asarray(leaf)


@dataclasses.dataclass
class _Packed:
    """Operators without JAX arrays."""

    graphdef: Any
    state: Any


@dataclasses.dataclass
class _KeyWords:
    """A PRNG key without a JAX array."""

    impl: Any
    words: np.ndarray


def _pack(operators: tuple[Operator, ...]) -> _Packed:
    def to_numpy(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return _KeyWords(jax.random.key_impl(leaf), np.asarray(jax.random.key_data(leaf)))
        return np.asarray(leaf)

    graphdef, state = nnx.split(operators)
    return _Packed(graphdef, jax.tree.map(to_numpy, state))


def _unpack(packed: _Packed) -> tuple[Operator, ...]:
    def from_numpy(leaf: Any) -> Any:
        return (
            jax.random.wrap_key_data(jnp.asarray(leaf.words), impl=leaf.impl) if isinstance(leaf, _KeyWords) else leaf
        )

    return nnx.merge(packed.graphdef, jax.tree.map(from_numpy, packed.state))
