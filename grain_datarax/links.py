"""Operators of the package datarax on batches, and sequences of whatever runs on batches."""

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle
import jax
import numpy as np
from flax import nnx
from jax.core import Tracer

from grain_datarax.adapters import AS_GRAPH, apply_batch, changes, draws, require_pure, root_key, version
from grain_datarax.compiled import Launcher, RowCounts
from grain_datarax.containers import RECORD_DRAWS, RECORD_SEED, Record
from grain_datarax.counts import Counts
from grain_datarax.fields import field_names, flatten, get_field, has_field, replace_fields
from grain_datarax.fingerprint import by_link
from grain_datarax.guard import check_seeds
from grain_datarax.launch import launch
from grain_datarax.leaves import record_count
from grain_datarax.pages.fingerprint import in_json
from grain_datarax.pages.launch import off_mesh
from grain_datarax.purity import kind_of
from grain_datarax.random.keys import (
    STREAM_VERSION,
    distinct_names,
    draw_mark,
    effect_words,
    operator_key,
    record_keys,
    stream_words,
)


def names_of(operators: Sequence[Any]) -> tuple[str, ...]:
    """What tells the draws of operators of datarax apart: their names, or else their classes, numbered."""
    names = [getattr(operator, "name", None) for operator in operators]
    given = zip(names, operators, strict=True)
    return distinct_names([(name or type(operator).__name__, not name) for name, operator in given])


class CompiledDatarax(Launcher):
    """An operator of datarax on batches.

    It is given all fields of numbers, but for the records' seeds and the items of lists in them, as any of its parts
    may look at any of them: in nested dicts, as datarax splits all paths at their dots.

    Args:
      operator: The operator.
      name: What tells its draws from those of others made with the same `rngs`.

    Raises:
      TypeError, ValueError: If it is none, or can't treat each record for itself.
    """

    reads = ()

    def __init__(self, operator: Any, name: str) -> None:
        require_pure(operator)
        self.names = (name,)
        self.seeded = draws(operator)
        self._operator: Any = operator
        self._counts = Counts(self.names)
        self._types_seen: set[Any] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Bytes: a JAX array, also one of an operator in a config, would start the accelerator in a worker.
        kept = self._operator
        packed = kept if isinstance(kept, _Packed) else _Packed.of(kept)
        return {"names": self.names, "seeded": self.seeded, "_operator": packed, "_types_seen": set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _counts=Counts(state["names"]))

    def __repr__(self) -> str:
        return repr(list(self.names))

    @property
    def operator(self) -> Any:
        """The operator; the first time in a worker process this may start a backend."""
        if isinstance(self._operator, _Packed):
            self._operator = cloudpickle.loads(self._operator.pickled)
        return self._operator

    def paths_in(self, data: Record) -> set[str]:
        return {path for path, field in flatten(data, lists=False).items() if _is_numbers(field) and not _is_seed(path)}

    def __call__(self, data: Record, seeds: Any, *, donate: bool = False, counted: int | None = None) -> dict[str, Any]:
        del donate  # a loop over records writes no buffer that it reads
        written, count = self._launch(data, seeds)
        if not any(isinstance(field, Tracer) for field in written.values()):  # inside jax.jit nothing happens yet
            self._counts.add(count if counted is None else counted, None)
        return written

    def pure(self, data: Record, seeds: Any, *, counts: bool) -> tuple[dict[str, Any], RowCounts]:
        del counts  # all records are treated
        return self._launch(data, seeds)[0], {name: {} for name in self.names}

    def _launch(self, data: Record, seeds: Any) -> tuple[dict[str, Any], int]:
        fields = self._fields(data)
        count = record_count(fields)
        if self.seeded:
            check_seeds(seeds, count)
        graphdef, state = nnx.split(self.operator, **AS_GRAPH)
        state = jax.tree.map(off_mesh, state)
        program = _Program(self.operator, graphdef, self.names[0])
        by_record = seeds if self.seeded else None
        return dict(launch(program, fields, frozenset(), by_record, state, by_device=True)), count

    def _fields(self, data: Record) -> dict[str, Any]:
        """The fields that the operator is given: those of numbers that have rows."""
        fields = {path: get_field(data, path) for path in sorted(self.paths_in(data))}
        fields = {path: field for path, field in fields.items() if len(field.shape) > 0}
        if not fields:
            raise ValueError(f"`element` must have a field of numbers: got the fields {field_names(data)}. Add one.")
        return fields

    def check_values(self, data: Record) -> None:
        """Raises where an operator that clips to a range would clip all but the darkest of an integer image."""
        config: Any = self.operator.config
        path, clips = getattr(config, "field_key", ""), getattr(config, "clip_range", None)
        image: Any = get_field(data, path) if clips is not None and has_field(data, path) else None
        if not isinstance(image, np.ndarray) or image.dtype.kind not in "iu" or image.dtype in self._types_seen:
            return
        self._types_seen.add(image.dtype)
        if image.size and image.max() > config.clip_range[1]:
            raise ValueError(
                f'`clip_range` must hold the values of field "{path}": got {image.dtype} up to {image.max()} for'
                f" {config.clip_range} in {self.names[0]}. Bring it to floats in that range before."
            )

    def output_spec(self, spec: Record) -> Record:
        given = self._fields(spec)
        count = next(iter(given.values())).shape[0]
        fields = {
            path: jax.ShapeDtypeStruct((1, *field.shape[1:]), jax.dtypes.canonicalize_dtype(field.dtype))
            for path, field in given.items()
        }
        graphdef, state = nnx.split(self.operator, **AS_GRAPH)
        seeds = jax.ShapeDtypeStruct((1, 2), np.uint32) if self.seeded else None
        written = jax.eval_shape(_Program(self.operator, graphdef, self.names[0]).augment, fields, seeds, state)
        kind = type(next(iter(given.values())))
        specs = {
            path: None if field is None else kind(shape=(count, *field.shape[1:]), dtype=np.dtype(field.dtype))
            for path, field in written.items()
        }
        return replace_fields(spec, specs)

    def record_spec(self, spec: Record) -> Record:
        given = {path: get_field(spec, path) for path in self.paths_in(spec)}
        batch = {path: type(field)(shape=(1, *field.shape), dtype=field.dtype) for path, field in given.items()}
        before = replace_fields(spec, batch)
        written = changes(before, self.output_spec(before))
        specs = {
            path: None if field is None else type(field)(shape=tuple(field.shape)[1:], dtype=field.dtype)
            for path, field in written.items()
        }
        return replace_fields(spec, specs)

    def fingerprint(self) -> dict[str, Any]:
        nodes = nnx.iter_graph(self.operator, **AS_GRAPH)
        kept = {".".join(map(str, path)): node.get_value() for path, node in nodes if path[-1:] == ("_statistics",)}
        part = {
            "name": self.names[0],
            "datarax": version(),
            "root_key": stream_words(root_key(self.operator)).tolist(),
            "operator": in_json(self.operator),
            "statistics": in_json({path: stats for path, stats in kept.items() if stats is not None}),
        }
        return {"stream_version": STREAM_VERSION, "operators": [part]}

    def counts(self) -> dict[str, dict[str, int]]:
        return self._counts.read()

    @functools.cached_property
    def draw_marks(self) -> tuple[str, ...]:
        if not self.seeded or isinstance(root := root_key(self.operator), Tracer):
            return ()
        with jax.ensure_compile_time_eval():  # inside jax.jit too
            words = stream_words(root)
        return (draw_mark(self.names[0], effect_words(words, self.names[0])),)


@dataclasses.dataclass(frozen=True)
class _Packed:
    """An operator that is not to be unpickled yet."""

    pickled: bytes

    @classmethod
    def of(cls, operator: Any) -> "_Packed":
        file = io.BytesIO()
        _Pickler(file).dump(operator)
        return cls(file.getvalue())


class _Pickler(cloudpickle.Pickler):
    """Pickles keys by their words: else their implementation is a copy, which jax.random.poisson takes for another."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, jax.Array) and kind_of(obj.dtype) is jax.dtypes.prng_key:
            wrap = functools.partial(jax.random.wrap_key_data, impl=jax.random.key_impl(obj))
            return wrap, (np.asarray(jax.random.key_data(obj)),)
        return super().reducer_override(obj)


@dataclasses.dataclass(frozen=True, eq=False)
class _Program:
    """The pure function of an operator, told apart by the object and its structure; its arrays are arguments."""

    operator: Any
    graphdef: Any
    name: str

    def __hash__(self) -> int:  # structures hold lists of operators
        return hash((id(self.operator), self.name))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Program) or self.operator is not other.operator or self.name != other.name:
            return False
        return bool(self.graphdef == other.graphdef)

    def augment(self, fields: dict[str, Any], seeds: Any, state: Any) -> dict[str, Any]:
        """What was written."""
        keys, one_by_one = None, getattr(self.operator.config, "batch_strategy", "vmap") == "scan"
        if seeds is not None:
            keys = record_keys(operator_key(root_key(nnx.merge(self.graphdef, state)), self.name), seeds)
        return apply_batch(self.graphdef, state, fields, keys, one_by_one=one_by_one)


class LaunchedInTurn(Launcher):
    """Several launchers, one after the other on each batch, each of them a compiled function.

    Args:
      launchers: The launchers.

    Raises:
      ValueError: If two links would draw the same.
    """

    def __init__(self, launchers: Sequence[Launcher]) -> None:
        self._launchers = tuple(launchers)
        self.names = distinct_names([(name, True) for launcher in launchers for name in launcher.names])
        self.reads = tuple(dict.fromkeys(path for launcher in launchers for path in launcher.reads))
        self.seeded = any(launcher.seeded for launcher in launchers)
        self.needs_whole_batches = any(launcher.needs_whole_batches for launcher in launchers)
        marks = self.draw_marks
        if len(set(marks)) != len(marks):
            again = sorted({mark.rpartition("@")[0] for mark in marks if marks.count(mark) > 1})
            raise ValueError(
                f"`name` must be unique among links of one seed: got {again} in two chains. They would draw the same:"
                " name the effects of each, or give the chains different seeds."
            )

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self._launchers))}]"

    @property
    def draws(self) -> bool:
        return any(launcher.draws for launcher in self._launchers)

    def paths_in(self, data: Record) -> set[str]:
        return {path for launcher in self._launchers for path in launcher.paths_in(data)}

    def __call__(self, data: Record, seeds: Any, *, donate: bool = False, counted: int | None = None) -> dict[str, Any]:
        result = data
        for launcher in self._launchers:
            result = replace_fields(result, launcher(result, seeds, donate=donate, counted=counted))
        return changes(data, result)

    def pure(self, data: Record, seeds: Any, *, counts: bool) -> tuple[dict[str, Any], RowCounts]:
        result, tallies = data, []
        for launcher in self._launchers:
            written, tally = launcher.pure(result, seeds, counts=counts)
            result = replace_fields(result, written)
            tallies.append(tally)
        return changes(data, result), self._named(tallies)

    def _named(self, by_launcher: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return dict(zip(self.names, [each for part in by_launcher for each in part.values()], strict=True))

    def check_values(self, data: Record) -> None:
        """As `Launcher`; of the first one alone, since it may bring the others' fields to another scale."""
        self._launchers[0].check_values(data)

    def output_spec(self, spec: Record) -> Record:
        return functools.reduce(lambda spec, launcher: launcher.output_spec(spec), self._launchers, spec)

    def record_spec(self, spec: Record) -> Record:
        return functools.reduce(lambda spec, launcher: launcher.record_spec(spec), self._launchers, spec)

    def fingerprint(self) -> dict[str, Any]:
        parts = [part for launcher in self._launchers for part in by_link(launcher.fingerprint())]
        return {"stream_version": STREAM_VERSION, "operators": parts}

    def counts(self) -> dict[str, dict[str, int]]:
        return self._named([launcher.counts() for launcher in self._launchers])

    @functools.cached_property
    def draw_marks(self) -> tuple[str, ...]:
        return tuple(mark for launcher in self._launchers for mark in launcher.draw_marks)


def _is_numbers(field: Any) -> bool:
    if isinstance(field, bool | int | float):
        return True
    return hasattr(field, "shape") and hasattr(field, "dtype") and kind_of(field.dtype) is not None


def _is_seed(path: str) -> bool:
    return path.partition(".")[0] in (RECORD_SEED, RECORD_DRAWS)
