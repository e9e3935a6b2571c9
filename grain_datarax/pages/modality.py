"""Operators on one field of a record: field access, draw -> apply, and the same for batches."""

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors

from grain_datarax.containers import RECORD_SEED, Record, carried, container_of
from grain_datarax.effects.settings import Flag, Name, Optional, is_number, plain
from grain_datarax.fields import field_names, flatten, get_field, pick_fields, set_field, set_fields
from grain_datarax.guard import require_array, require_within
from grain_datarax.images import (
    Range,
    Scale,
    integer_limits,
    is_float,
    layout_hint,
    require_fraction,
    require_image_type,
    scale_of,
)
from grain_datarax.pages.batch import Batch
from grain_datarax.pages.launch import augment_batch
from grain_datarax.pages.module import DataraxModule, DataraxModuleConfig
from grain_datarax.pages.params import as_drawn, require_drawn
from grain_datarax.pages.units import level_bounds
from grain_datarax.purity import kind_of, same_each_time
from grain_datarax.random.bits import STREAM
from grain_datarax.random.keys import as_stream_key, operator_key
from grain_datarax.wording import MissingField, shown


@dataclasses.dataclass(frozen=True)
class ModalityOperatorConfig(DataraxModuleConfig):
    """Settings of an operator on one field of a record.

    Attributes:
      batch_strategy: `"vmap"`, or `"scan"`: one record at a time, the same pixels, the memory of one record.
      field_key: The field to treat. Dots reach into what is nested: `"inputs.image"`, `"views.0"`; a name that has dots
        itself is found first.
      target_key: Where the result goes; None replaces the field. Otherwise the field stays as it was.
      auxiliary_fields: Fields that belong to the image, such as a mask or a depth map. They must share its height and
        width.
      clip_range: Bounds of the result, and the range that the input must be in. In image units for floating-point
        images and for signed integers, which have no other scale, a fraction of full scale for unsigned ones. None does
        not clip.
      preserve_auxiliary: True: the auxiliary fields stay untouched. False: they get the same draw as the image.
      validate_domain_constraints: True: a record that the operator can't treat (wrong rank, a patch larger than the
        image, floating-point values outside `clip_range` in the first host batch) is an error. False: each such record
        passes through unchanged.

    Raises:
      TypeError, ValueError: If a setting has the wrong type or value.
    """

    batch_strategy: str = "vmap"
    _: dataclasses.KW_ONLY
    field_key: str
    target_key: str | None = None
    auxiliary_fields: list[str] | None = dataclasses.field(default=None, hash=False)
    clip_range: Range = None
    preserve_auxiliary: bool = True
    validate_domain_constraints: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(preserve_auxiliary=Flag(), validate_domain_constraints=Flag())
        if self.field_key is None:
            raise TypeError("`field_key` must be a str: got None. Pass the name of the image's field.")
        self._require(field_key=Name(), target_key=Optional(Name()))
        if self.batch_strategy not in ("vmap", "scan"):
            raise ValueError(
                f'`batch_strategy` must be "vmap" or "scan": got {shown(self.batch_strategy)}. Pass one of them.'
            )
        names = self.auxiliary_fields
        if names is not None and not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise TypeError(
                f"`auxiliary_fields` must be a list of field names: got {shown(names)}. Pass a list, or None."
            )
        if self.clip_range is not None:
            bounds: tuple[Any, ...] = tuple(self.clip_range) if isinstance(self.clip_range, list | tuple) else (None,)
            problem = f"`clip_range` must be two numbers: got {shown(self.clip_range)}. Pass (low, high), or None."
            if not all(map(is_number, bounds)):
                raise TypeError(problem)
            if len(bounds) != 2:
                raise ValueError(problem)
            if not bounds[0] < bounds[1]:
                raise ValueError(
                    f"`clip_range` must have low < high: got {shown(self.clip_range)}. Pass (low, high), or None."
                )
            object.__setattr__(self, "clip_range", tuple(map(plain, bounds)))
        paths = [self.field_key, *({self.target_key} - {None, self.field_key}), *(names or ())]
        if len(set(paths)) != len(paths):
            raise ValueError(
                f"`auxiliary_fields` must not repeat `field_key`, `target_key` or each other: got {shown(names)}. Name"
                " every field once."
            )
        if self.target_key == RECORD_SEED:
            raise ValueError(
                f"`target_key` must not be the field of the seeds: got {RECORD_SEED!r}. Pass another name."
            )


class ModalityOperator(DataraxModule):
    """An operator on one field of a record, and on the auxiliary fields that belong to it.

    A subclass says what a record draws (`draw`, nothing by default) and what becomes of an image (`effect`). It may
    override `generate_random_params` and `apply` as well; then `reads` and `writes` must name the fields that it
    touches: in a batch `apply` sees these, and no metadata. All of these are pure: they run when JAX traces them, once
    for all records.
    """

    config: ModalityOperatorConfig
    # Whether values stay in their unit: if so, the range of a later operator is checked on the host batch too.
    keeps_scale = False

    def draw(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, Any]:
        """What one record draws: a mapping of arrays, nested or not.

        They depend on the key, the settings and the image's shape alone, and not on NumPy's or Python's generators,
        which are asked once for all records.
        """
        del key, shape
        return {}

    def param_ranges(self, shape: tuple[int, ...]) -> Mapping[str, tuple[Any, Any]]:
        """Between which numbers the arrays lie that `draw` returns, by name; those that are left out are not looked at.

        Integers may be either end, floats neither. `apply` compares `random_params` that are NumPy arrays with it.
        """
        del shape
        return {}

    @abc.abstractmethod
    def effect(self, image: jax.Array, params: dict[str, jax.Array]) -> jax.Array:
        """What becomes of one image, given what its record drew; the dtype and the shape stay."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields that `apply` reads."""
        return (self.config.field_key, *(self.config.auxiliary_fields or ()))

    @property
    def writes(self) -> tuple[str, ...]:
        """The fields that `apply` writes."""
        return tuple(target for _, target in self._treated_fields())

    def _treated_fields(self) -> list[tuple[str, str]]:
        config = self.config
        auxiliary = () if config.preserve_auxiliary else config.auxiliary_fields or ()
        return [(config.field_key, config.target_key or config.field_key), *((name, name) for name in auxiliary)]

    def generate_random_params(self, rng: jax.Array, data_shapes: dict[str, tuple[int, ...]]) -> dict[str, jax.Array]:
        """Draws for a batch of records.

        Args:
          rng: One PRNG key, which is split, or one key for each record.
          data_shapes: The shapes of the batched fields, `(B, H, W)` or `(B, H, W, C)`, by field key.

        Returns:
          What each record draws, with the batch as axis 0.

        Raises:
          KeyError: If the operator's field is not in `data_shapes`.
          TypeError: If `draw` returns no mapping of arrays.
          ValueError: If there are neither one nor B keys, images of this shape can't be treated, or `draw` asks
            NumPy's or Python's generator.
        """
        if self.config.field_key not in data_shapes:
            raise MissingField(
                f"`data_shapes` must hold `{self.config.field_key}`: got the fields {field_names(data_shapes)}. Add its"
                " batched shape."
            )
        batch_shape = tuple(data_shapes[self.config.field_key])
        record_count, *shape = batch_shape or (0,)
        problem = self.untreatable(tuple(shape))
        if problem and self.config.validate_domain_constraints:
            raise ValueError(problem + _remedy({self.config.field_key: tuple(shape)}, batched=True))
        keys = as_stream_key(rng)
        if keys.ndim == 0:
            keys = jax.random.split(keys, record_count)
        if keys.shape != (record_count,):
            raise ValueError(
                f"`rng` must be one key or one for each record: got {keys.shape} for {record_count} records. Pass"
                " jax.random.key(seed), or an array of that many keys."
            )
        return jax.vmap(lambda key: self._draw(key, tuple(shape)))(keys)

    def _draw(self, key: jax.Array, shape: tuple[int, ...]) -> dict[str, Any]:
        return require_drawn(same_each_time("draw", lambda: self.draw(key, shape)))

    def apply(
        self,
        data: dict[str, Any],
        state: dict[str, Any],
        metadata: dict[str, Any],
        random_params: dict[str, jax.Array] | None = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Treats one record. Pure; compile it (`jax.jit`) for the bits that `apply_batch` gives.

        Args:
          data: The record's fields; images are `(H, W)` or `(H, W, C)`.
          state: Passed through.
          metadata: Passed through.
          random_params: What the record drew: one row of what `generate_random_params` returned. Needed by a
            stochastic operator; a deterministic one has its fixed pattern and does not look at it.
          stats: For subclasses that use statistics; not looked at here.

        Returns:
          The record with the result in its field, `state` and `metadata`.

        Raises:
          KeyError: If a field is missing.
          TypeError: If a field's dtype can't be treated, or `random_params` have other types than what is drawn.
          ValueError: If `random_params` are missing, of another shape or, in NumPy arrays, out of their range, a
            setting is no fraction of an integer image's full scale, or `validate_domain_constraints` is set and the
            image can't be treated.
        """
        del stats
        treats = self.check(data)
        image = get_field(data, self.config.field_key)
        if not treats:
            return set_field(data, self._treated_fields()[0][1], image), state, metadata
        params = self._params(np.shape(image), random_params)
        treated = self.treats_values(data)
        for source, target in self._treated_fields():
            field = jnp.asarray(get_field(data, source))
            result = same_each_time("effect", lambda field=field: self.effect(field, params))  # type: ignore[misc]
            if not isinstance(result, jax.Array | np.ndarray):
                raise TypeError(
                    f'`effect` must return an array: got {type(result).__name__} for field "{source}". Return what'
                    " becomes of the image."
                )
            if (result.shape, result.dtype) != (field.shape, field.dtype):
                raise TypeError(
                    f"`effect` must keep shape and dtype: got {result.dtype}{list(result.shape)} for"
                    f" {field.dtype}{list(field.shape)}. Convert the result, or override `apply` and `output_spec`."
                )
            data = set_field(data, target, result if treated is True else jnp.where(treated, result, field))
        return data, state, metadata

    def _params(self, shape: tuple[int, ...], random_params: dict[str, jax.Array] | None) -> dict[str, jax.Array]:
        if not self.stochastic:
            kept = self.fixed_pattern.get_value().get(f"{self.namespace} {shape}")
            return self.draw_pattern(self.namespace, shape) if kept is None else kept
        if random_params is None:
            raise ValueError(
                "`random_params` must be given to a stochastic operator: got None. Pass a row of what"
                " generate_random_params returns, or use apply_batch."
            )
        if not isinstance(random_params, Mapping):
            raise TypeError(
                f"`random_params` must be a mapping: got {type(random_params).__name__}. Pass a row of what"
                " generate_random_params returns."
            )
        if type(self).generate_random_params is ModalityOperator.generate_random_params:
            drawn = jax.eval_shape(lambda: self.draw_pattern(self.namespace, shape))
            return {**random_params, **as_drawn(random_params, drawn, self.param_ranges(shape))}
        return dict(random_params)

    def draw_pattern(self, namespace: str, shape: tuple[int, ...]) -> dict[str, Any]:
        """The fixed pattern of deterministic mode, for images of this shape."""
        return self._draw(operator_key(jax.random.key(0, impl=STREAM), namespace), shape)

    def kept_pattern(self, namespace: str, shape: tuple[int, ...]) -> dict[str, Any] | None:
        """The fixed pattern from the cache, where it is put if need be; None for operators that have none to keep."""
        if self.stochastic or not self.config.cacheable:
            return None
        patterns, name = self.fixed_pattern.get_value(), f"{namespace} {shape}"
        if name not in patterns:
            # Compiled ahead of time: jax.jit inside another trace would be part of that, or run operation by operation.
            pattern = jax.jit(lambda: self.draw_pattern(namespace, shape)).lower().compile()()
            patterns = {**patterns, name: pattern}
            with contextlib.suppress(errors.TraceContextError):  # inside jax.jit the module is a constant
                self.fixed_pattern.set_value(patterns)
        kept: dict[str, Any] = patterns[name]
        return kept

    def use_pattern(self, pattern: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        """Takes this pattern for images of this shape."""
        self.fixed_pattern.set_value({f"{self.namespace} {shape}": pattern})

    def check(self, data: Mapping[str, Any], *, batched: bool = False) -> bool:
        """Whether records of these shapes and dtypes are treated; if not, they pass through.

        Args:
          data: The fields, or anything with their `shape` and `dtype`.
          batched: Whether axis 0 is the batch.

        Raises:
          As `apply`.
        """
        config = self.config
        if container_of(data) is None:
            raise TypeError(
                f"`data` must be a mapping from field names: got {type(data).__name__}. Pass a dict such as"
                f' {{"{config.field_key}": image}}.'
            )
        belonging = (config.field_key, *(config.auxiliary_fields or ()))
        # Of a record in a compiled batch there is what `reads` names; a subclass may leave auxiliary fields out.
        fields = {
            path: get_field(data, path) for path in dict.fromkeys((*belonging, *self.reads) if batched else self.reads)
        }
        for path, field in fields.items():
            require_array(field, path)
        for path, _ in self._treated_fields():
            self.check_dtype(fields[path].dtype, path)
        for path, field in fields.items():
            if kind_of(field.dtype) is None:
                raise TypeError(
                    f'`{path}` must hold numbers or bools in native byte order: got {field.dtype} for field "{path}".'
                    " Convert it, or leave it out."
                )
        _require_batch_axis(config.field_key, data, batched)
        shapes = {path: tuple(fields[path].shape)[batched:] for path in belonging if path in fields}
        problem = self.untreatable(shapes[config.field_key]) or self.misfit(shapes)
        if problem and config.validate_domain_constraints:
            raise ValueError(problem + _remedy(shapes, batched))
        return not problem

    def check_dtype(self, dtype: np.dtype, path: str) -> None:
        """Raises unless this operator treats images of this type with its settings."""
        require_image_type(dtype, path)
        self.scale(dtype)

    def scale(self, dtype: Any) -> Scale:
        """What settings mean for images of this type, and between which values results are clipped.

        Floating-point images are in their own units, unsigned integers in fractions of full scale. Signed integers have
        no full scale: `clip_range` says it, in their own values, of which settings are fractions.

        Raises:
          ValueError: If `clip_range` is none for images of this type.
        """
        dtype, clip_range = jnp.dtype(dtype), self.config.clip_range
        if is_float(dtype):
            return Scale(0.0, 1.0, clip_range)
        limits = integer_limits(dtype)
        if limits[0] < 0:
            if clip_range is None or clip_range == (0, 1):  # noise's default, which means floats and fractions
                raise ValueError(
                    f"`clip_range` must say what the values of signed integers mean: got {clip_range} for {dtype}. Pass"
                    " the least and the greatest value, such as (-1024, 3071) for computed tomography; for masks of"
                    " classes use grain_datarax.Chain(..., masks=...), or preserve_auxiliary=True."
                )
            return scale_of(dtype, clip_range, clip=True, field=self.config.field_key, setting="clip_range")
        if clip_range is None:
            return Scale(0, limits[1], limits)
        for bound in clip_range:
            require_fraction("clip_range", bound, dtype)
        low, high = level_bounds(clip_range, dtype)
        if not low <= high:
            raise ValueError(
                f"`clip_range` must hold a value of {dtype}: got {shown(clip_range)} of {limits[1]}. Widen it."
            )
        return Scale(0, limits[1], (low, high))

    def untreatable(self, shape: tuple[int, ...]) -> str | None:
        """Says why images of this shape can't be treated, or returns None."""
        if len(shape) in (2, 3) and 0 not in shape:
            return None
        return (
            f"`{self.config.field_key}` must be an image (H, W) or (H, W, C): got shape {shape}. Pass another"
            " field_key, or validate_domain_constraints=False to pass such records through."
        )

    def misfit(self, shapes: dict[str, tuple[int, ...]]) -> str | None:
        """Says why auxiliary fields of these shapes do not go with the image, or returns None."""
        size = shapes[self.config.field_key][:2]
        for path, shape in shapes.items():
            if shape[:2] != size or len(shape) not in (2, 3):
                return (
                    f"`auxiliary_fields` must share the image's height and width {size}: got shape {shape} for field"
                    f' "{path}". Resize it, or leave it out.'
                )
        return None

    def treats_values(self, data: Mapping[str, Any]) -> jax.Array | bool:
        """Whether one record's values are in the operator's domain; True where that need not be looked at."""
        if self.config.validate_domain_constraints:
            return True
        beyond = [jnp.any(scale.outside(image)) for image, scale in self._limited(data)]
        return functools.reduce(jnp.logical_and, [~each for each in beyond]) if beyond else True

    def outside(self, data: Mapping[str, Any]) -> jax.Array | None:
        """How many of one record's values lie outside `clip_range`, to be clipped to it; None where none can."""
        if not self.config.validate_domain_constraints:
            return None
        beyond = [scale.count_outside(image) for image, scale in self._limited(data)]
        return functools.reduce(jnp.add, beyond) if beyond else None

    def _limited(self, data: Mapping[str, Any]) -> list[tuple[Any, Scale]]:
        """The images whose values may lie outside what they are clipped to."""
        images = [get_field(data, path) for path, _ in self._treated_fields()]
        return [(image, self.scale(image.dtype)) for image in images if self._limits(image.dtype) is not None]

    def _limits(self, dtype: Any) -> Range:
        """Between which values images of this type are to be; unsigned integers are in their range by nature."""
        unsigned = not is_float(dtype) and integer_limits(dtype)[0] == 0
        return None if unsigned or self.config.clip_range is None else self.scale(dtype).limits(dtype)

    def check_values(self, data: Mapping[str, Any], seen: set[tuple[str, Any]] | None = None) -> None:
        """Raises unless this operator treats NumPy images of this dtype, and, where it matters, of these values.

        Args:
          data: The fields; JAX arrays are not looked at, that would wait for the device.
          seen: The paths and dtypes whose values need not be looked at again; this operator's own if None.
        """
        seen = self.books.values_seen if seen is None else seen
        for path, _ in self._treated_fields():
            image = get_field(data, path)
            if not isinstance(image, np.ndarray) or (path, image.dtype) in seen:
                continue
            self.check_dtype(image.dtype, path)
            limits = self._limits(image.dtype)
            if self.config.validate_domain_constraints and limits is not None and image.size:
                require_within(
                    image,
                    limits,
                    path,
                    "clip_range",
                    "set clip_range to the image's, or pass validate_domain_constraints=False to leave such records as"
                    " they are",
                )
            if image.size:
                seen.add((path, image.dtype))

    @overload
    def __call__(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch: ...
    @overload
    def __call__(self, batch: Mapping[str, Any], stats: Any, metadata: Any) -> tuple[dict[str, Any], Any, Any]: ...
    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """As `apply_batch`."""
        return self.apply_batch(batch, *args, **kwargs)

    @overload
    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch: ...
    @overload
    def apply_batch(self, batch: Mapping[str, Any], stats: Any, metadata: Any) -> tuple[dict[str, Any], Any, Any]: ...
    def apply_batch(self, batch: Any, stats: Any = None, metadata: Any = None) -> Any:
        """Treats a batch, by one compiled function for each shape.

        Args:
          batch: A `Batch`. Records draw from `batch.data["record_seed"]`, `uint32 (B, 2)`, if it is there (see
            `SeedRecords`), else from a fresh key of the operator's rng stream.
          stats: The statistics to pass to `apply`; None takes those of `batch_stats_fn` for this batch, or
            `get_statistics()`.

        Returns:
          A `Batch`. Fields that the operator does not write are the same objects as before.

        Called with three arguments, `apply_batch(data, state, metadata)`, it takes a batch's parts and returns them.

        Raises:
          As `apply`; besides, ValueError if leaves don't share the batch as axis 0.
        """
        if isinstance(batch, Batch) and metadata is None:
            written, state = self._apply_batch(batch.data, batch.state, stats)
            return Batch(set_fields(batch.data, written), state, batch.metadata)
        if isinstance(batch, Mapping) and metadata is not None:
            written, state = self._apply_batch(batch, stats or {}, None)
            return set_fields(batch, written), state, metadata
        raise TypeError(
            f"`batch` must be a Batch, or three mappings must be given: got {type(batch).__name__}. Pass"
            " Batch(data=...), or data, state, metadata."
        )

    def _apply_batch(self, data: Mapping[str, Any], state: Any, stats: Any) -> tuple[dict[str, Any], Any]:
        self.check(data, batched=True)
        self.check_values(data)
        seeds = carried(data, RECORD_SEED)
        root = self.fresh_key() if self.stochastic and seeds is None else None
        return augment_batch((self,), [self.namespace], data, seeds, state=state, stats=stats, root=root)

    def get_output_structure(self, sample_data: Any, sample_state: Any) -> tuple[Any, Any]:
        """The structure of one treated record, from one untreated record: the same keys, with None for leaves."""

        def treat(data: Any, state: Any) -> Any:
            shapes = {self.config.field_key: (1, *get_field(data, self.config.field_key).shape)}
            treats = self.stochastic and self.check(data)
            drawn = self.generate_random_params(jax.random.key(0, impl=STREAM), shapes) if treats else None
            return self.apply(data, state, {}, jax.tree.map(lambda row: row[0], drawn), self.get_statistics())[:2]

        data, state = jax.eval_shape(treat, pick_fields(sample_data, self.reads), sample_state)
        structure: tuple[Any, Any] = jax.tree.map(lambda _: None, (set_fields(sample_data, flatten(data)), state))
        return structure

    def output_spec(self, input_spec: Any) -> Any:
        """The specs of a treated record or batch, from those of an untreated one: any objects with shape and dtype."""
        config = self.config
        if config.target_key is None:
            return input_spec
        return set_field(input_spec, config.target_key, get_field(input_spec, config.field_key))


def _remedy(shapes: Mapping[str, tuple[int, ...]], batched: bool) -> str:
    """What to do about records that can't be treated, where their shapes tell; the image's comes first."""
    image, shape = next(iter(shapes.items()))
    if batched and (len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, 3, 4))):
        return (
            f" Axis 0 is the batch, and may be missing here: for single records use AugmentRecord, put"
            f" grain.transforms.Batch before, or add the axis: {image}[None]."
        )
    return next((hint for each in shapes.values() if (hint := layout_hint(each))), "")


def _require_batch_axis(path: str, data: Record, batched: bool) -> None:
    """Raises `ValueError` where a batch is one record: its seed tells. AugmentRecord has a batch of one beside it."""
    seed = carried(data, RECORD_SEED)
    if not batched or seed is None:
        return
    shape, seeds = np.shape(get_field(data, path)), np.shape(seed)
    if seeds == (2,) and len(shape) in (2, 3) and shape[0] != 1:
        raise ValueError(
            f'`{RECORD_SEED}` must be a seed for each record: got shape {seeds} beside {shape} for field "{path}"'
            f" where axis 0 is the batch, which may be missing. Use AugmentRecord for single records, add the axis,"
            f" {path}[None], or place SeedRecords() before Batch, once."
        )
