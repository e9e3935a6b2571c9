"""A chain on a batch: checked once, launched as one compiled function, and counted."""

import abc
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from grain_datarax.chain import Chain
from grain_datarax.containers import Record
from grain_datarax.counts import Counts
from grain_datarax.effects.conversion import Conversion
from grain_datarax.fields import field_names, get_field, has_field, set_field
from grain_datarax.geometry import with_size
from grain_datarax.guard import check_batch, check_seeds, check_values, require_array
from grain_datarax.launch import donatable, launch
from grain_datarax.random.keys import STREAM_VERSION, draw_mark
from grain_datarax.records import Augmentation, Tally

Fields = Mapping[str, Any]
# By link and kind, `int32 (B,)`.
RowCounts = dict[str, dict[str, jax.Array]]


class Launcher(abc.ABC):
    """What runs on batches in the end: a chain of effects, or operators.

    Attributes:
      names: What tells the draws of its links apart.
      reads: The paths of the fields that it reads.
      seeded: Whether records have to have seeds.
      needs_whole_batches: Whether a record's pixels depend on the batch that it is in.
    """

    names: tuple[str, ...]
    reads: tuple[str, ...]
    seeded: bool
    needs_whole_batches: bool = False

    @property
    def draws(self) -> bool:
        """Whether anything is drawn from these seeds."""
        return self.seeded

    def described(self) -> str:
        """The names of its links, the first three where there are more than four."""
        names = list(self.names) if len(self.names) <= 4 else [*self.names[:3], f"{len(self.names) - 3} more"]
        return f"[{', '.join(names)}]"

    def paths_in(self, data: Record) -> set[str]:
        """The paths of the fields in a record or batch that it reads."""
        return {path for path in self.reads if has_field(data, path)}

    @abc.abstractmethod
    def __call__(self, data: Record, seeds: Any, *, donate: bool = False, counted: int | None = None) -> dict[str, Any]:
        """Launches one compiled function on a batch; does not wait for the device.

        Args:
          data: The batch, NumPy or JAX arrays where it is touched.
          seeds: The records' seeds, `uint32 (B, 2)`; may be None if nothing is `seeded`.
          donate: Whether the buffers of JAX arrays in `data` may be overwritten. Those that are put on the device here,
            from NumPy arrays, always may.
          counted: How many rows, from the first on, are records and counted; None counts all.

        Returns:
          The fields that were written, by path; None for those that are no longer there.
        """

    @abc.abstractmethod
    def pure(self, data: Record, seeds: Any, *, counts: bool) -> tuple[dict[str, Any], RowCounts]:
        """As a call that counts nothing; returns what is to be counted, if that is asked for."""

    @abc.abstractmethod
    def check_values(self, data: Record) -> None:
        """Raises unless the values of a host batch or record can be treated; looks once at each field and dtype."""

    @abc.abstractmethod
    def output_spec(self, spec: Record) -> Record:
        """The spec of the batch that comes out, from that of what goes in: any objects with shape and dtype."""

    def record_spec(self, spec: Record) -> Record:
        """As `output_spec`, of a record."""
        return self.output_spec(spec)

    @abc.abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What decides the pixels, in JSON's types."""

    @abc.abstractmethod
    def counts(self) -> dict[str, dict[str, int]]:
        """By link: records `applied` and `skipped`, and values `outside` the range; waits for the device."""

    @functools.cached_property
    @abc.abstractmethod
    def draw_marks(self) -> tuple[str, ...]:
        """For each link that draws from the records' seeds, what tells its draws from all others'."""


class CompiledChain(Launcher):
    """A `Chain` on batches."""

    seeded = True

    def __init__(self, chain: Chain, counts: Counts | None = None) -> None:
        self.chain = chain
        self.names = chain.names
        self.reads = (*chain.images, *chain.fills, *chain.labels, *chain.partners, *chain.seen, *chain.sizes)
        left_alone = chain.fills.keys() - chain.filled.keys()
        self._needs = tuple(path for path in self.reads if path not in left_alone)
        self._moves = bool(chain.geometric)
        only_read = (*(() if self._moves else chain.seen), *chain.partners, *chain.sizes)
        self._written = frozenset(path for path in self._needs if path not in only_read)
        self._checked: set[tuple[Any, ...]] = set()
        self._values_seen: set[tuple[str, Any]] = set()
        self._augmentations = {in_place: Augmentation.of(chain, in_place=in_place) for in_place in (False, True)}
        self._counts = counts or Counts(self.names)

    def __getstate__(self) -> Chain:
        return self.chain

    def __setstate__(self, chain: Chain) -> None:
        self.__init__(chain)  # type: ignore[misc]

    def __repr__(self) -> str:
        return repr(self.chain)

    def __call__(self, data: Record, seeds: Any, *, donate: bool = False, counted: int | None = None) -> dict[str, Any]:
        written, tally = self._launch(data, seeds, donate)
        if not any(
            isinstance(field, Tracer) for field in jax.tree.leaves(written)
        ):  # inside jax.jit nothing happens yet
            self._counts.add(len(seeds) if counted is None else counted, tally)
        return written

    def sharing_counts(self, chain: Chain) -> "CompiledChain":
        """Another chain of the same effects, whose records are counted with those of this one."""
        return CompiledChain(chain, self._counts)

    @property
    def draws(self) -> bool:
        return not all(isinstance(link, Conversion) for link in self.chain.links)

    def pure(self, data: Record, seeds: Any, *, counts: bool) -> tuple[dict[str, Any], RowCounts]:
        written, tally = self._launch(data, seeds, donate=False)
        return written, self._by_name(tally if counts else None)

    def _by_name(self, tally: Tally | None) -> RowCounts:
        counts: RowCounts = {name: {} for name in self.names}
        if tally is not None:
            for column, (index, what) in enumerate(tally.columns):
                rows = jax.lax.index_in_dim(tally.rows, column, axis=1, keepdims=False)
                counts[self.names[index]][what] = rows
        return counts

    def _launch(self, data: Record, seeds: Any, donate: bool) -> tuple[dict[str, Any], Tally | None]:
        fields = self.require_treatable(data)
        check_seeds(seeds, fields[self.reads[0]].shape[0])
        needed = {path: fields[path] for path in self._needs}
        others = {path for path, field in needed.items() if self._output(path, field, 1) != (field.shape, field.dtype)}
        donated = donatable(needed, data, self._written - others, donate)
        # What moves pixels looks them up by index: by each device in its own rows, as there is no sharding to infer.
        result: tuple[dict[str, Any], Tally | None] = launch(
            self._augmentations[bool(donated)], needed, donated, seeds, by_device=self._moves
        )
        return result

    def _output(self, path: str, field: Any, leading: int) -> tuple[tuple[int, ...], Any]:
        """The shape and the type that a field comes out with, behind so many axes that are none of the chain's."""
        shape, is_image = tuple(field.shape), path in self.chain.images
        if self._moves and (is_image or path in self.chain.fills):
            shape = with_size(self.chain, shape, leading)
        if self._moves and path in self.chain.seen:
            return shape, jax.dtypes.canonicalize_dtype(field.dtype)  # without x64 JAX has none of 64 bits
        return shape, self.chain.output_type(field.dtype) if is_image else field.dtype

    def require_treatable(self, data: Record) -> dict[str, Any]:
        """The fields that it reads; raises if such batches can't be treated.

        It looks once at each combination of shapes and dtypes.
        """
        fields = {path: get_field(data, path) for path in self.reads}
        for path, field in fields.items():
            require_array(field, path)
        key = tuple([(field.shape, field.dtype) for field in fields.values()])
        if key not in self._checked:
            check_batch(self.chain, fields)
            self._checked.add(key)
        for mark in (*self.chain.seen.values(), *([self.chain.draws] if self.chain.draws else [])):
            if has_field(data, mark):
                raise ValueError(
                    f"`{mark}` must not be in the batch before it is written: got the fields {field_names(data)}."
                    " Rename it, or let one chain write it."
                )
        return fields

    def check_values(self, data: Record) -> None:
        check_values(self.chain, data, self._values_seen)

    def output_spec(self, spec: Record) -> Record:
        result = spec
        leading = len(get_field(spec, self.chain.images[0]).shape) - len(self.chain.axes)
        for path in (*self.chain.images, *self.chain.filled, *(self.chain.seen if self._moves else ())):
            given = get_field(spec, path)
            shape, dtype = self._output(path, given, leading)
            if (shape, dtype) != (tuple(given.shape), given.dtype):
                result = set_field(result, path, type(given)(shape=shape, dtype=np.dtype(dtype)))
        for path, mark in self.chain.seen.items():
            given, dtype = get_field(spec, path), np.float32 if path in self.chain.box_formats else np.bool_
            result = set_field(result, mark, type(given)(shape=tuple(given.shape)[:-1], dtype=np.dtype(dtype)))
        if self.chain.draws:
            result = set_field(result, self.chain.draws, self._spec_of_draws(spec))
        return result

    def _spec_of_draws(self, spec: Record) -> Any:
        first = get_field(spec, self.chain.images[0])
        is_record = len(first.shape) == len(self.chain.axes)
        given = {path: get_field(spec, path) for path in self._needs}
        fields = {
            path: jax.ShapeDtypeStruct(
                (1, *field.shape) if is_record else tuple(field.shape), jax.dtypes.canonicalize_dtype(field.dtype)
            )
            for path, field in given.items()
        }
        seeds = jax.ShapeDtypeStruct((fields[self.chain.images[0]].shape[0], 2), np.uint32)
        written, _ = jax.eval_shape(self._augmentations[False].augment, fields, seeds)
        drop = int(is_record)
        return jax.tree.map(
            lambda leaf: type(first)(shape=tuple(leaf.shape)[drop:], dtype=np.dtype(leaf.dtype)),
            written[self.chain.draws],
        )

    def fingerprint(self) -> dict[str, Any]:
        return {"stream_version": STREAM_VERSION, "chain": self.chain.to_dict()}

    def counts(self) -> dict[str, dict[str, int]]:
        return self._counts.read()

    @functools.cached_property
    def draw_marks(self) -> tuple[str, ...]:
        return tuple(draw_mark(name, keys[""]) for name, keys in zip(self.names, self.chain.key_words(), strict=True))
