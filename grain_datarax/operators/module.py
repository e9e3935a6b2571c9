"""What every operator is made of: settings, rng streams, statistics, counters, a cache, and a state to checkpoint."""

import collections
import contextlib
import dataclasses
import hashlib
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors, nnx


class OperationCount(nnx.Variable):
    """How many records a module has treated or passed through."""


class Statistics(nnx.Variable):
    """The statistics of a module: a mapping of arrays, or None."""


class FixedPattern(nnx.Cache):
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
        self._require_bool("cacheable", "stochastic")
        self._require_name("stream_name")
        function, stats = self.batch_stats_fn, self.precomputed_stats
        if function is not None and not callable(function):
            raise TypeError(
                f"`batch_stats_fn` must be callable: got {function!r}. Pass a function of the batch's data."
            )
        if stats is not None and not isinstance(stats, Mapping):
            raise TypeError(f"`precomputed_stats` must be a mapping: got {stats!r}. Pass a dict of arrays, or None.")
        if function is not None and stats is not None:
            raise ValueError(f"`batch_stats_fn` must be None beside `precomputed_stats`: got {function!r}. Set one.")
        object.__setattr__(self, "_stats_digest", _digest(stats))

    def __getstate__(self) -> dict[str, Any]:
        # A JAX array would start a backend where it is unpickled; a statistics module travels in its operator's state.
        stats = None if self.precomputed_stats is None else jax.tree.map(np.asarray, self.precomputed_stats)
        function = None if isinstance(self.batch_stats_fn, nnx.Module) else self.batch_stats_fn
        return {**vars(self), "precomputed_stats": stats, "batch_stats_fn": function}

    def _require_bool(self, *names: str) -> None:
        for name in names:
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"`{name}` must be a bool: got {value!r}. Pass True or False.")

    def _require_name(self, *names: str) -> None:
        for name in names:
            if not isinstance(value := getattr(self, name), str | None):
                raise TypeError(f"`{name}` must be a str: got {value!r}. Pass a name.")
            if value == "":
                raise ValueError(f"`{name}` must not be empty: got {value!r}. Pass a name.")


def _digest(stats: Mapping[str, Any] | None) -> str:
    digest = hashlib.blake2b()
    for path, leaf in jax.tree_util.tree_flatten_with_path(stats)[0]:
        array = np.asarray(leaf)
        digest.update(f"{path}{array.dtype}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


# Masks of treated records that the device may still be computing. They stay out of the module's state: their number
# changes, and each would compile the batch function anew.
_unread_masks: weakref.WeakKeyDictionary["DataraxModule", collections.deque[tuple[int, jax.Array]]] = (
    weakref.WeakKeyDictionary()
)
_counting = threading.Lock()  # Grain may run a transform from several threads


class DataraxModule(nnx.Module):
    """A module with settings, rng streams, statistics, counters and a state to checkpoint.

    Args:
      config: The settings.
      rngs: The rng streams; needed if `config.stochastic`.
      name: Tells this module's draws from those of others with the same root key.

    Raises:
      TypeError: If an argument has the wrong type.
      ValueError: If a stochastic module is given no stream to draw from.
    """

    def __init__(self, config: DataraxModuleConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None) -> None:
        if not isinstance(config, DataraxModuleConfig):
            raise TypeError(f"`config` must be a DataraxModuleConfig: got {config!r}. Pass the operator's own config.")
        if not isinstance(rngs, nnx.Rngs | None):
            raise TypeError(f"`rngs` must be an nnx.Rngs: got {rngs!r}. Pass flax.nnx.Rngs(0).")
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
        self.ensure_rng_streams([] if rngs is None else list(rngs))

    def requires_rng_streams(self) -> list[str] | None:
        """The names of the rng streams that this module draws from, or None if it draws nothing."""
        return [self.stream_name or "default"] if self.stochastic else None

    def ensure_rng_streams(self, stream_names: list[str]) -> None:
        """Raises `ValueError` unless the streams that this module needs are among `stream_names`.

        As in nnx, the stream `default` stands in for any other.
        """
        for required in self.requires_rng_streams() or ():
            if required not in stream_names and "default" not in stream_names:
                raise ValueError(
                    f'`rngs` must have the stream "{required}": got {stream_names}. Pass rngs=nnx.Rngs({required}=0),'
                    " or set stream_name to one that is there."
                )

    def root_key(self) -> jax.Array:
        """The key that this module's rng stream was made from; reading it does not advance the stream."""
        return self._stream().key[...]

    def fresh_key(self) -> jax.Array:
        """The next key of this module's rng stream.

        Raises:
          ValueError: Inside `jax.jit`, where a stream can't advance.
        """
        try:
            return self._stream()()
        except errors.TraceContextError as error:
            raise ValueError(
                f"`record_seed` must be in a batch inside jax.jit: got none, and the stream"
                f' "{self.stream_name or "default"}" can\'t advance there. Add the seeds, or use nnx.jit.'
            ) from error

    def _stream(self) -> Any:
        assert self.rngs is not None  # a stochastic module has its streams, see ensure_rng_streams
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
        return self.statistics.get_value()

    def set_statistics(self, stats: dict[str, Any]) -> None:
        """Replaces the statistics by `stats`, a mapping of arrays."""
        if not isinstance(stats, Mapping):
            raise TypeError(f"`stats` must be a mapping: got {stats!r}. Pass a dict of arrays.")
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
        self._read_masks(wait=True)
        return {name: int(getattr(self, name).get_value()) for name in ("applied_count", "skipped_count")}

    def reset_operation_stats(self) -> None:
        """Sets both counts to zero."""
        _unread_masks.pop(self, None)
        self.applied_count.set_value(np.int64(0))
        self.skipped_count.set_value(np.int64(0))

    def count_records(self, record_count: int, treated: jax.Array | bool) -> None:
        """Counts the records of one batch, without waiting for the device.

        Args:
          record_count: The number of records.
          treated: Whether they were treated: one answer for all of them, or `bool (B,)`, of which the first
            `record_count` are read.
        """
        if isinstance(treated, bool):
            self._add(record_count if treated else 0, 0 if treated else record_count)
        elif isinstance(treated, jax.core.Tracer):
            self._add(treated[:record_count].sum(), (~treated[:record_count]).sum())
        else:
            with _counting:
                _unread_masks.setdefault(self, collections.deque()).append((record_count, treated))
            self._read_masks(wait=False)

    def _read_masks(self, *, wait: bool) -> None:
        with _counting:
            masks = _unread_masks.get(self, collections.deque())
            ready = []
            while masks and (wait or masks[0][1].is_ready()):  # type: ignore[attr-defined]
                ready.append(masks.popleft())
        for count, mask in ready:
            # Each process counts the rows of a global array that it holds, and of their copies the first.
            shards = [shard for shard in mask.addressable_shards if shard.replica_id == 0]
            rows = [np.asarray(shard.data)[: max(count - (shard.index[0].start or 0), 0)] for shard in shards]
            self._add(sum(int(row.sum()) for row in rows), sum(int((~row).sum()) for row in rows))

    def _add(self, applied: Any, skipped: Any) -> None:
        with _counting, contextlib.suppress(errors.TraceContextError):  # inside jax.jit the module is a constant
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
        self._read_masks(wait=True)
        return nnx.clone(self)

    def get_state(self) -> dict[str, Any]:
        """The module's state, to checkpoint: nested dicts of NumPy arrays, PRNG keys as their words.

        It holds rng streams, counters, statistics, and all variables that a subclass adds; not the cache.
        """
        self._read_masks(wait=True)
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

        Raises:
          TypeError: If `state` is no mapping.
          ValueError: If its structure, a shape or a kind of number differs, naming the path; nothing is changed then.
            Statistics alone may be there or not.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"`state` must be a mapping: got {type(state).__name__}. Pass what get_state returned.")
        stats = state.get("statistics")
        if not isinstance(stats, Mapping | None):
            raise TypeError(f"`state` must hold a mapping at statistics: got {stats!r}. Pass what get_state returned.")
        given, expected = _structure(state), _structure(self.get_state())
        for path in sorted(expected.keys() | given.keys()):
            got, wanted = given.get(path, "nothing"), expected.get(path, "nothing")
            if got != wanted:
                raise ValueError(
                    f"`state` must have the structure of the module: got {got} for {wanted} at {path}. Restore it into"
                    " a module of the class and settings that it came from."
                )
        for names, variable in self._checkpointed().items():
            value: Any = state
            for name in names:
                value = value[name]
            variable.set_value(jax.tree.map(_like, variable.get_value(), value))
        _unread_masks.pop(self, None)
        self.statistics.set_value(stats)

    def _checkpointed(self) -> dict[tuple[str, ...], nnx.Variable]:
        return {
            tuple(map(str, path)): node
            for path, node in nnx.iter_graph(self)
            if isinstance(node, nnx.Variable) and not isinstance(node, Statistics | FixedPattern)
        }


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf: Any, array: Any) -> Any:
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return np.asarray(array).astype(leaf.dtype)


def _structure(state: Mapping[str, Any]) -> dict[str, str]:
    """Shape and kind of each array by its path; widths may differ, as x64 comes and goes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path({name: state[name] for name in state if name != "statistics"})
    arrays = {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in leaves}
    return {path: f"{array.dtype.kind}{list(array.shape)}" for path, array in arrays.items()}
