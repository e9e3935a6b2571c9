"""What every operator is made of: settings, rng streams, statistics, counters, a cache, and a state to checkpoint."""

import collections
import contextlib
import dataclasses
import hashlib
import inspect
import reprlib
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors, nnx
from jax.core import Tracer

from grain_datarax.counts import is_ready, own_rows, warn_of_values_outside
from grain_datarax.effects.settings import Flag, Name, Optional, Rule
from grain_datarax.wording import shown


class OperationCount(nnx.Variable[Any]):
    """How many records a module has treated or passed through."""


class Statistics(nnx.Variable[Any]):
    """The statistics of a module: a mapping of arrays, or None."""


class FixedPattern(nnx.Cache[Any]):
    """The deterministic patterns of a cacheable operator, by image shape."""


@dataclasses.dataclass(frozen=True)
class DataraxModuleConfig:
    """Settings that all modules share.

    Attributes:
      cacheable: Keep the fixed pattern of deterministic mode for each image shape, until `reset_cache()`. One pattern
        serves all dtypes.
      batch_stats_fn: Called on the data of each batch by `apply_batch` when it is given no statistics; returns a
        mapping of arrays. What depends on a batch breaks the promise that a record's pixels do not.
      precomputed_stats: The statistics to start from: a mapping of arrays. Excludes `batch_stats_fn`.
      stochastic: False: one fixed pattern, the same for every record. True: every record draws its own.
      stream_name: The `nnx.Rngs` stream that the root key comes from; None is nnx's `default`.

    Raises:
      TypeError, ValueError: If a setting has the wrong type or value.
    """

    cacheable: bool = False
    batch_stats_fn: Callable[[Any], dict[str, Any]] | nnx.Module | None = None
    precomputed_stats: dict[str, Any] | None = dataclasses.field(default=None, compare=False)
    stochastic: bool = False
    stream_name: str | None = None
    # Arrays have no equality of their own; compiled functions are told apart by their operators' configs.
    _stats_digest: str = dataclasses.field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        self._require(cacheable=Flag(), stochastic=Flag(), stream_name=Optional(Name()))
        function, stats = self.batch_stats_fn, self.precomputed_stats
        if function is not None and not callable(function):
            raise TypeError(
                f"`batch_stats_fn` must be callable: got {shown(function)}. Pass a function of the batch's data."
            )
        if stats is not None and not isinstance(stats, Mapping):
            raise TypeError(
                f"`precomputed_stats` must be a mapping: got {shown(stats)}. Pass a dict of arrays, or None."
            )
        if function is not None and stats is not None:
            raise ValueError(
                f"`batch_stats_fn` must be None beside `precomputed_stats`: got {shown(function)}. Set one."
            )
        _require_arrays("precomputed_stats", stats)
        object.__setattr__(self, "_stats_digest", _digest(stats))

    def __getstate__(self) -> dict[str, Any]:
        # A JAX array would start a backend where it is unpickled; a statistics module travels in its operator's state.
        stats = None if self.precomputed_stats is None else jax.tree.map(np.asarray, self.precomputed_stats)
        function = None if isinstance(self.batch_stats_fn, nnx.Module) else self.batch_stats_fn
        return {**vars(self), "precomputed_stats": stats, "batch_stats_fn": function}

    def _require(self, **rules: Rule) -> None:
        """Makes settings plain values, or raises for those that break their rules."""
        for name, rule in rules.items():
            object.__setattr__(self, name, rule(name, getattr(self, name)))


def _require_arrays(name: str, stats: Mapping[str, Any] | None) -> None:
    """Raises `TypeError` unless all leaves are arrays or numbers."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(stats)[0]:
        if not is_array(leaf):
            raise TypeError(
                f"`{name}` must hold arrays: got {type(leaf).__name__} at {keystr(path)}. Leave it out, or make it a"
                " number."
            )


def is_array(leaf: Any) -> bool:
    """Whether JAX can compute with a leaf: an array of numbers or bools, one of them, or PRNG keys."""
    if isinstance(leaf, np.ndarray | np.generic):
        return any(jnp.issubdtype(leaf.dtype, kind) for kind in (np.number, np.bool_))
    return isinstance(leaf, jax.Array | bool | int | float | complex)


def _digest(stats: Mapping[str, Any] | None) -> str:
    digest = hashlib.blake2b()
    for path, leaf in jax.tree_util.tree_flatten_with_path(stats)[0]:
        array = np.asarray(leaf)
        digest.update(f"{path}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


@dataclasses.dataclass
class _Books:
    """What is kept about a module beside its state: each change of that would compile the batch function anew."""

    values_seen: set[tuple[str, Any]] = dataclasses.field(default_factory=set)
    # What the device may still be computing: of so many records, which were treated, and their values out of range.
    unread: collections.deque[tuple[int, jax.Array | None, jax.Array | None]] = dataclasses.field(
        default_factory=collections.deque
    )
    outside: int = 0
    lock: Any = dataclasses.field(default_factory=threading.Lock)  # Grain may run a transform from several threads


_books: weakref.WeakKeyDictionary["DataraxModule", _Books] = weakref.WeakKeyDictionary()


class _Signature:
    """The arguments of a class, those of its `__init__`: NNX's metaclass shows them as (*args, **kwargs)."""

    def __get__(self, module: "DataraxModule | None", cls: type["DataraxModule"]) -> inspect.Signature:
        if module is not None:  # whose arguments are those of its `__call__`
            raise AttributeError("__signature__")
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        configs = [hints["config"] for base in cls.__mro__ if "config" in (hints := inspect.get_annotations(base))]
        if configs and cls.__init__ is DataraxModule.__init__:
            parameters[0] = parameters[0].replace(annotation=configs[0])
        return inspect.Signature(parameters)


class DataraxModule(nnx.Module):
    """A module with settings, rng streams, statistics, counters and a state to checkpoint.

    Args:
      config: The settings.
      rngs: The rng streams; needed if `config.stochastic`.
      name: Tells this module's draws from those of others with the same root key.

    A subclass whose `requires_rng_streams` needs attributes of its own sets them before `super().__init__`: then the
    streams are looked for here, else only when the module first draws.

    Raises:
      TypeError: If an argument has the wrong type.
      ValueError: If `rngs` lacks a stream that `requires_rng_streams` names.
    """

    __signature__ = _Signature()

    def __init__(self, config: DataraxModuleConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None) -> None:
        if not isinstance(config, DataraxModuleConfig):
            raise TypeError(
                f"`config` must be a DataraxModuleConfig: got {shown(config)}. Pass the operator's own config."
            )
        if not isinstance(rngs, nnx.Rngs | None):
            raise TypeError(f"`rngs` must be an nnx.Rngs: got {shown(rngs)}. Pass flax.nnx.Rngs(0).")
        if not isinstance(name, str | None):
            raise TypeError(f"`name` must be a str: got {name!r}. Pass a name, or None.")
        self.config = config
        self.rngs = rngs
        self.name = nnx.static(name)
        self.stochastic = nnx.static(config.stochastic)
        self.stream_name = nnx.static(config.stream_name)
        self.batch_stats_fn = config.batch_stats_fn
        self.statistics = Statistics(config.precomputed_stats)
        self.fixed_pattern = FixedPattern({})
        # NumPy's 64 bits: x64 is off in JAX by default, and runs longer than 2**31 records exist.
        self.applied_count = OperationCount(np.int64(0))
        self.skipped_count = OperationCount(np.int64(0))
        with contextlib.suppress(AttributeError):  # of a subclass that is not set up yet: asked again by _stream
            self.ensure_rng_streams(self._stream_names())

    def __repr__(self) -> str:
        shown = {"name": self.name} if self.name else {"namespace": self.namespace}
        for field in dataclasses.fields(self.config):
            value = getattr(self.config, field.name)
            if field.repr and value != field.default:
                shown[field.name] = value
        settings = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in shown.items())
        return f"{type(self).__name__}({settings})"

    @property
    def namespace(self) -> str:
        """What tells this module's draws from others' with the same root key: its name, or else its class."""
        return self.name or type(self).__name__

    def requires_rng_streams(self) -> list[str] | None:
        """The names of the rng streams that this module draws from, or None if it draws nothing."""
        return [self.stream_name or "default"] if self.stochastic else None

    def ensure_rng_streams(self, stream_names: list[str]) -> None:
        """Raises `ValueError` unless the streams that this module needs are among `stream_names`.

        As in nnx, the stream `default` stands in for any other. `TypeError` if either is no list of names.
        """
        given = _names("stream_names", stream_names)
        for required in _names("requires_rng_streams", self.requires_rng_streams() or []):
            self._require_stream(required, given)

    def _require_stream(self, required: str, given: list[str]) -> None:
        if required not in given and "default" not in given:
            raise ValueError(
                f'`rngs` must have the stream "{required}": got {given}. Pass rngs=nnx.Rngs({required}=0), or set'
                " stream_name to one that is there."
            )

    def _stream_names(self) -> list[str]:
        return [] if self.rngs is None else list(self.rngs)

    def root_key(self) -> jax.Array:
        """The key that this module's rng stream was made from; reading it does not advance the stream."""
        key: jax.Array = self._stream().key[...]
        return key

    def fresh_key(self) -> jax.Array:
        """The next key of this module's rng stream.

        Raises:
          ValueError: Inside `jax.jit`, where a stream can't advance.
        """
        try:
            with jax.transfer_guard("allow"):  # nnx counts by operations whose constants are transferred implicitly
                key: jax.Array = self._stream()()
            return key
        except errors.TraceContextError as error:
            raise ValueError(
                f"`record_seed` must be in a batch inside jax.jit: got none, and the stream"
                f' "{self.stream_name or "default"}" can\'t advance there. Add the seeds, or use nnx.jit.'
            ) from error

    def _stream(self) -> Any:
        self.ensure_rng_streams(self._stream_names())
        self._require_stream(self.stream_name or "default", self._stream_names())
        assert self.rngs is not None
        return self.rngs[self.stream_name or "default"]

    def compute_statistics(self, data: Any) -> dict[str, Any] | None:
        """Calls `batch_stats_fn` on `data` and keeps the result; returns None if there is no such function."""
        if self.batch_stats_fn is None:
            return None
        stats = self.batch_stats_fn(data)
        with contextlib.suppress(errors.TraceContextError):  # inside jax.jit the module is a constant
            self.set_statistics(stats)
        return stats

    def get_statistics(self) -> dict[str, Any] | None:
        """The statistics last set or computed, at first `precomputed_stats`; None if there are none."""
        stats: dict[str, Any] | None = self.statistics.get_value()
        return stats

    def set_statistics(self, stats: dict[str, Any]) -> None:
        """Replaces the statistics by `stats`, a mapping of arrays."""
        if not isinstance(stats, Mapping):
            raise TypeError(f"`stats` must be a mapping: got {shown(stats)}. Pass a dict of arrays.")
        _require_arrays("stats", stats)
        self.statistics.set_value(dict(stats))

    def reset_statistics(self) -> None:
        """Drops the statistics, `precomputed_stats` too, until others are set or computed."""
        self.statistics.set_value(None)

    def reset_cache(self) -> None:
        """Drops the patterns kept because of `config.cacheable`."""
        self.fixed_pattern.set_value({})

    def get_operation_stats(self) -> dict[str, int]:
        """How many records were treated and how many passed through; waits for the device where it must.

        Returns:
          `{"applied_count": ..., "skipped_count": ...}`. Records are counted in the process that treats them, by
          `apply_batch` and the Grain transforms. Inside `jax.jit`, where a module is a constant, nothing is counted;
          `nnx.jit` counts, in JAX's 32 bits unless x64 is enabled.
        """
        self._read_counts(wait=True)
        return {name: int(getattr(self, name).get_value()) for name in ("applied_count", "skipped_count")}

    def reset_operation_stats(self) -> None:
        """Sets the counts to zero."""
        _books.pop(self, None)
        self.applied_count.set_value(np.int64(0))
        self.skipped_count.set_value(np.int64(0))

    def counts(self) -> dict[str, int]:
        """Records `applied` and `skipped`, and values `outside` the range; waits for the device where it must."""
        stats = self.get_operation_stats()
        return {
            "applied": stats["applied_count"],
            "skipped": stats["skipped_count"],
            "outside": self.books.outside,
        }

    @property
    def books(self) -> _Books:
        """What is kept about this module beside its state."""
        return _books.setdefault(self, _Books())

    def count_records(self, record_count: int, treated: jax.Array | bool, outside: jax.Array | None = None) -> None:
        """Counts the records of one batch, without waiting for the device.

        Args:
          record_count: The number of records.
          treated: Whether they were treated: one answer for all of them, or `bool (B,)`, of which the first
            `record_count` are read.
          outside: How many values of each lay outside the range, `int32 (B,)`, if that was looked at.
        """
        if isinstance(treated, bool):
            self._add(record_count if treated else 0, 0 if treated else record_count)
        elif isinstance(treated, Tracer):
            self._add(treated[:record_count].sum(), (~treated[:record_count]).sum())
        later = [None if isinstance(rows, bool | Tracer) else rows for rows in (treated, outside)]
        if later != [None, None]:
            with self.books.lock:
                self.books.unread.append((record_count, later[0], later[1]))
            self._read_counts(wait=False)

    def _read_counts(self, *, wait: bool) -> None:
        if self not in _books:
            return
        books, ready = self.books, []
        with books.lock:
            while books.unread and (wait or all(is_ready(rows) for rows in books.unread[0][1:])):
                ready.append(books.unread.popleft())
        for count, treated, outside in ready:
            if treated is not None:
                rows = own_rows(treated, count)
                self._add(int(rows.sum()), int((~rows).sum()))
            if outside is not None and (found := int(own_rows(outside, count).sum())):
                say, books.outside = not books.outside, books.outside + found
                if say:
                    warn_of_values_outside("clip_range", {self.namespace: found})

    def _add(self, applied: Any, skipped: Any) -> None:
        with self.books.lock, contextlib.suppress(errors.TraceContextError):  # inside jax.jit the module is a constant
            self.applied_count.set_value(self.applied_count.get_value() + applied)
            self.skipped_count.set_value(self.skipped_count.get_value() + skipped)

    def copy(
        self, *, config: DataraxModuleConfig | None = None, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> Self:
        """A new module of the same class, with what is given replaced.

        Counters start at zero; statistics come along unless `config` is replaced.
        """
        new = type(self)(
            self.config if config is None else config,
            rngs=self.rngs if rngs is None else rngs,
            name=self.name if name is None else name,
        )
        if config is None:
            new.statistics.set_value(self.get_statistics())
        return new

    def clone(self) -> Self:
        """A new module with the same settings and its own copy of the state."""
        self._read_counts(wait=True)
        return nnx.clone(self)

    def get_state(self) -> dict[str, Any]:
        """The module's state, to checkpoint: nested dicts of NumPy arrays, PRNG keys as their words.

        It holds rng streams, counters, statistics, and all variables that a subclass adds; not the cache.
        """
        self._read_counts(wait=True)
        state: dict[str, Any] = {}
        for path, variable in self._checkpointed().items():
            *parents, last = path
            node = state
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = jax.tree.map(_to_numpy, variable.get_value())
        stats = self.get_statistics()
        return state if stats is None else {**state, "statistics": jax.tree.map(_to_numpy, stats)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, from a module of the same class and settings.

        Python's numbers will do for arrays without axes, and lists for tuples, as JSON and Orbax return them.

        Raises:
          TypeError: If `state` is no mapping, or its statistics hold something other than arrays.
          ValueError: If its structure, a shape or a kind of number differs, or a number is too large for its type,
            naming the path. Statistics alone may be there or not.
          Whatever is raised, nothing is changed then.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"`state` must be a mapping: got {type(state).__name__}. Pass what get_state returned.")
        stats = state.get("statistics")
        if not isinstance(stats, Mapping | None):
            raise TypeError(
                f"`state` must hold a mapping at statistics: got {shown(stats)}. Pass what get_state returned."
            )
        _require_arrays("statistics", stats)
        given, expected = _leaves(state), _leaves(self.get_state())
        for path in sorted(expected.keys() | given.keys()):
            got, wanted = (_form(leaves[path]) if path in leaves else "nothing" for leaves in (given, expected))
            if got != wanted and not _stands_for(given.get(path), got, wanted):
                raise ValueError(
                    f"`state` must have the structure of the module: got {got} for {wanted} at {path}. Restore it into"
                    " a module of the class and settings that it came from."
                )
        values = []
        for names, variable in self._checkpointed().items():
            own, structure = jax.tree_util.tree_flatten_with_path(variable.get_value())
            paths = [".".join((*names, keystr(path))) if path else ".".join(names) for path, _ in own]
            leaves = [_like(leaf, given[path], path) for path, (_, leaf) in zip(paths, own, strict=True)]
            values.append((variable, jax.tree.unflatten(structure, leaves)))
        stats = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.array(leaf), stats)
        for variable, value in values:
            variable.set_value(value)
        _books.pop(self, None)
        self.statistics.set_value(stats)

    def _checkpointed(self) -> dict[tuple[str, ...], nnx.Variable[Any]]:
        return {
            tuple(map(str, path)): node
            for path, node in nnx.iter_graph(self)
            if isinstance(node, nnx.Variable) and not isinstance(node, Statistics | FixedPattern)
        }


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf: Any, given: Any, path: str) -> Any:
    """A leaf of a state as a variable holds it."""
    array = _to_numpy(given)
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return type(leaf)(array.item()) if isinstance(leaf, int | float | complex | str | bytes) else array.item()
    with np.errstate(invalid="ignore", over="ignore"):
        result = array.astype(leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.integer) and not np.array_equal(result, array):
        raise ValueError(
            f"`state` must hold numbers that fit: got {shown(array)} for {leaf.dtype} at {path}. Restore it where it"
            " was saved, with x64 as it was there."
        )
    return result


def keystr(path: Any) -> str:
    """A path of JAX's in a tree, with dots."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_hollow(node: Any) -> bool:
    return node is None or (isinstance(node, Mapping | list | tuple) and not node)


def _leaves(state: Mapping[str, Any]) -> dict[str, Any]:
    """All leaves by path but those of the statistics; None and what is empty is a leaf too."""
    if odd := [name for name in state if not isinstance(name, str)]:
        raise ValueError(f"`state` must have the structure of the module: got {odd[0]!r} for a name. Leave it out.")
    state = {name: state[name] for name in state if name != "statistics"}
    return {keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(state, is_leaf=_is_hollow)[0]}


def _form(leaf: Any) -> str:
    """The kind and the shape of an array; widths may differ, as x64 comes and goes."""
    if _is_hollow(leaf):
        return "None" if leaf is None else f"an empty {type(leaf).__name__}"
    array = _to_numpy(leaf)
    return f"{'f' if jnp.issubdtype(array.dtype, jnp.floating) else array.dtype.kind}{list(array.shape)}"


def _stands_for(given: Any, got: str, wanted: str) -> bool:
    """Whether what is given may be restored all the same: JSON knows no widths, nor 2.0, and Orbax keeps no None."""
    if isinstance(given, int) and not isinstance(given, bool):
        return wanted == "f[]" or (wanted == "u[]" and given >= 0)
    return all(form in ("nothing", "None") or form.startswith("an empty") for form in (got, wanted))


def _names(name: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"`{name}` must be a list of names: got {shown(names)}. Put them into a list.")
    return list(names)
