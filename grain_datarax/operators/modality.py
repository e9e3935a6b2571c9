"""Operators on one field of a record: field access, draw -> apply, and the same for batches."""

import abc
import contextlib
import dataclasses
import functools
import pickle
import random
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import errors

from grain_datarax.operators import chain
from grain_datarax.operators.batch import Batch
from grain_datarax.operators.fields import field_names, flatten, get_field, pick_fields, set_field, set_fields
from grain_datarax.operators.module import DataraxModule, DataraxModuleConfig, is_array, keystr
from grain_datarax.operators.units import ClipRange, integer_bounds, integer_full_scale, is_float, require_fraction
from grain_datarax.random.bits import STREAM
from grain_datarax.random.keys import as_stream_key, operator_key
from grain_datarax.seeding import RECORD_SEED


@dataclasses.dataclass(frozen=True)
class ModalityOperatorConfig(DataraxModuleConfig):
    """Settings of an operator on one field of a record.

    Attributes:
      batch_strategy: `"vmap"`, or `"scan"`: one record at a time, the same pixels, the memory of one record.
      field_key: The field to treat. Dots reach into nested mappings: `"inputs.image"`.
      target_key: Where the result goes; None replaces the field. Otherwise the field stays as it was.
      auxiliary_fields: Fields that belong to the image, such as a mask or a depth map. They must share its height and
        width.
      clip_range: Bounds of the result, and the range that floating-point input must be in. In image units for
        floating-point images, a fraction of full scale for integer ones. None does not clip.
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
    clip_range: ClipRange = None
    preserve_auxiliary: bool = True
    validate_domain_constraints: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_bool("preserve_auxiliary", "validate_domain_constraints")
        if self.field_key is None:
            raise TypeError("`field_key` must be a str: got None. Pass the name of the image's field.")
        self._require_name("field_key", "target_key")
        if self.batch_strategy not in ("vmap", "scan"):
            raise ValueError(
                f'`batch_strategy` must be "vmap" or "scan": got {self.batch_strategy!r}. Pass one of them.'
            )
        names = self.auxiliary_fields
        if names is not None and not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise TypeError(f"`auxiliary_fields` must be a list of field names: got {names!r}. Pass a list, or None.")
        if self.clip_range is not None:
            bounds: tuple[Any, ...] = tuple(self.clip_range) if isinstance(self.clip_range, list | tuple) else (None,)
            problem = f"`clip_range` must be two numbers: got {self.clip_range!r}. Pass (low, high), or None."
            if not all(map(is_number, bounds)):
                raise TypeError(problem)
            if len(bounds) != 2:
                raise ValueError(problem)
            if not bounds[0] < bounds[1]:
                raise ValueError(
                    f"`clip_range` must have low < high: got {self.clip_range!r}. Pass (low, high), or None."
                )
            object.__setattr__(self, "clip_range", tuple(map(_plain, bounds)))
        paths = [self.field_key, *({self.target_key} - {None, self.field_key}), *(names or ())]
        if len(set(paths)) != len(paths):
            raise ValueError(
                f"`auxiliary_fields` must not repeat `field_key`, `target_key` or each other: got {names!r}. Name every"
                " field once."
            )
        if self.target_key == RECORD_SEED:
            raise ValueError(
                f"`target_key` must not be the field of the seeds: got {RECORD_SEED!r}. Pass another name."
            )

    def _require_number(self, name: str, low: float, high: float, rule: str, *, optional: bool = False) -> None:
        if (value := getattr(self, name)) is None and optional:
            return
        if not is_number(value):
            raise TypeError(f"`{name}` must be a number: got {value!r}. Pass an int or a float.")
        if not low <= value <= high:
            raise ValueError(f"`{name}` must {rule}: got {value!r}. Pass a number in that range.")
        object.__setattr__(self, name, _plain(value))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _plain(value: Any) -> float:
    """A setting as a Python float: NumPy's promotes the image's type, and equal settings must compile to equal bits."""
    return float(value) + 0.0  # -0.0 equals 0.0


# Operators whose first host batch has been looked at by apply_batch. Kept outside: it is no part of what they compute.
_values_checked: weakref.WeakSet["ModalityOperator"] = weakref.WeakSet()


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

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "apply" in vars(cls):
            cls.apply = _checked(cls.apply)  # type: ignore[method-assign]

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
    def namespace(self) -> str:
        """What tells this operator's draws from others' with the same root key: its name, or else its class."""
        return self.name or type(self).__name__

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
            raise KeyError(
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
        """As `draw`, and raises unless that is a mapping of arrays that come from the key."""
        drawn = _same_each_time("draw", lambda: self.draw(key, shape))
        if not isinstance(drawn, Mapping):
            raise TypeError(
                f"`draw` must return a mapping of arrays: got {_type_name(drawn)}. Give what it draws a name:"
                ' {"name": array}.'
            )
        for path, leaf in jax.tree_util.tree_flatten_with_path(dict(drawn))[0]:
            if not is_array(leaf):
                raise TypeError(
                    f"`draw` must return a mapping of arrays: got {type(leaf).__name__} at {keystr(path)}. Leave it"
                    " out: settings are there in `self.config`."
                )
        return dict(drawn)

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
            result = _same_each_time("effect", lambda field=field: self.effect(field, params))  # type: ignore[misc]
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
            return self._draw_pattern(self.namespace, shape) if kept is None else kept
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
            return {**random_params, **self._as_drawn(random_params, shape)}
        return dict(random_params)

    def _as_drawn(self, random_params: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """These in the structure and the types of what a record draws; raises unless they could be that."""
        remedy = "Pass a row of what generate_random_params returns."
        given = {keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(dict(random_params))[0]}
        ranges = self.param_ranges(shape)
        drawn = jax.eval_shape(lambda: self._draw_pattern(self.namespace, shape))
        values = []
        for path, expected in jax.tree_util.tree_flatten_with_path(drawn)[0]:
            name = keystr(path)
            if name not in given or np.shape(given[name]) != expected.shape:
                shapes = {name: np.shape(value) for name, value in given.items()}
                raise ValueError(
                    f"`random_params` must hold `{name}` of shape {expected.shape}: got {shapes}. {remedy}"
                )
            value = given[name]
            dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
            if _kind(dtype) is not _kind(expected.dtype):
                raise TypeError(
                    f"`random_params` must hold `{name}` of a type like {expected.dtype}: got {dtype}. {remedy}"
                )
            if name in ranges and not isinstance(value, jax.Array):  # those on a device would be waited for
                _require_range(name, value, *ranges[name], expected.dtype)
            values.append(value if dtype == expected.dtype else jnp.asarray(value, expected.dtype))
        return jax.tree.unflatten(jax.tree.structure(drawn), values)

    def _draw_pattern(self, namespace: str, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        return self._draw(operator_key(jax.random.key(0, impl=STREAM), namespace), shape)

    def keep_pattern(self, namespace: str, shape: tuple[int, ...]) -> None:
        """Fills the cache for images of this shape, if this operator is deterministic and cacheable."""
        patterns, name = self.fixed_pattern.get_value(), f"{namespace} {shape}"
        if self.stochastic or not self.config.cacheable or name in patterns:
            return
        with jax.ensure_compile_time_eval():
            pattern = jax.jit(lambda: self._draw_pattern(namespace, shape))()
        with contextlib.suppress(errors.TraceContextError):  # inside jax.jit the module is a constant
            self.fixed_pattern.set_value({**patterns, name: pattern})

    def check(self, data: Mapping[str, Any], *, batched: bool = False) -> bool:
        """Whether records of these shapes and dtypes are treated; if not, they pass through.

        Args:
          data: The fields, or anything with their `shape` and `dtype`.
          batched: Whether axis 0 is the batch.

        Raises:
          As `apply`.
        """
        config = self.config
        if not isinstance(data, Mapping):
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
            if not hasattr(field, "shape") or not hasattr(field, "dtype"):
                raise TypeError(
                    f'`{path}` must be an array: got {type(field).__name__} for field "{path}". Decode or stack it into'
                    " a NumPy array first."
                )
        for path, _ in self._treated_fields():
            self.check_dtype(fields[path].dtype, path)
        for path, field in fields.items():
            if _kind(field.dtype) is None:
                raise TypeError(
                    f'`{path}` must hold numbers or bools in native byte order: got {field.dtype!r} for field "{path}".'
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
        dtype = np.dtype(dtype)
        wide = jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits >= 8
        if not (dtype == jnp.bool_ or wide or (is_float(dtype) and jnp.finfo(dtype).bits >= 16)) or not dtype.isnative:
            raise TypeError(
                f"`{path}` must be an image of bools, integers or floats of 8 bits or more, 16 for floats, in native"
                f' byte order: got {dtype!r} for field "{path}". Convert it, for example to uint8 or float32.'
            )
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise TypeError(
                f'`{path}` must have a dtype of at most 32 bits: got {dtype} for field "{path}". Convert it, to float32'
                " for example, or enable 64 bits: jax.config.update('jax_enable_x64', True)."
            )
        if self.config.clip_range is not None and not is_float(dtype):
            for bound in self.config.clip_range:
                require_fraction("clip_range", bound, dtype)
            low, high = integer_bounds(dtype, self.config.clip_range)
            if not low <= high:
                raise ValueError(
                    f"`clip_range` must hold a value of {dtype}: got {self.config.clip_range!r} of"
                    f" {integer_full_scale(dtype)}. Widen it."
                )

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
        config = self.config
        treated: jax.Array | bool = True
        if config.validate_domain_constraints or config.clip_range is None:
            return True
        low, high = config.clip_range
        for path, _ in self._treated_fields():
            image = get_field(data, path)
            if is_float(image.dtype):
                bounds = jnp.asarray(low, image.dtype), jnp.asarray(high, image.dtype)
                treated = jnp.all((image >= bounds[0]) & (image <= bounds[1])) & treated
        return treated

    def check_values(self, data: Mapping[str, Any]) -> bool:
        """Raises unless this operator treats NumPy images of this dtype, and, in floating point, of these values.

        Returns:
          Whether all that there is to look at was looked at; JAX arrays are not, it would wait for the device.
        """
        config, seen = self.config, True
        for path, _ in self._treated_fields():
            if isinstance(image := get_field(data, path), np.ndarray):
                self.check_dtype(image.dtype, path)
        if not config.validate_domain_constraints or config.clip_range is None:
            return seen
        low, high = config.clip_range
        for path, _ in self._treated_fields():
            image = get_field(data, path)
            if not isinstance(image, np.ndarray):
                seen = False
            elif image.size and is_float(image.dtype):
                least, greatest = image.min(), image.max()
                if not (np.asarray(low, image.dtype) <= least and greatest <= np.asarray(high, image.dtype)):
                    raise ValueError(
                        f"`clip_range` must hold the values of floating-point images: got {config.clip_range} for field"
                        f' "{path}" with values from {least:g} to {greatest:g}. Scale the image to that range, set'
                        " clip_range to the image's, or pass validate_domain_constraints=False to leave such records"
                        " as they are."
                    )
        return seen

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
        if self not in _values_checked and self.check_values(data):
            _values_checked.add(self)
        seeds = data.get(RECORD_SEED)
        root = self.fresh_key() if self.stochastic and seeds is None else None
        return chain.augment_batch((self,), [self.namespace], data, seeds, state=state, stats=stats, root=root)

    def get_output_structure(self, sample_data: Any, sample_state: Any) -> tuple[Any, Any]:
        """The structure of one treated record, from one untreated record: the same keys, with None for leaves."""

        def treat(data: Any, state: Any) -> Any:
            shapes = {self.config.field_key: (1, *get_field(data, self.config.field_key).shape)}
            treats = self.stochastic and self.check(data)
            drawn = self.generate_random_params(jax.random.key(0, impl=STREAM), shapes) if treats else None
            return self.apply(data, state, {}, jax.tree.map(lambda row: row[0], drawn), self.get_statistics())[:2]

        data, state = jax.eval_shape(treat, pick_fields(sample_data, self.reads), sample_state)
        return jax.tree.map(lambda _: None, (set_fields(sample_data, flatten(data)), state))

    def output_spec(self, input_spec: Any) -> Any:
        """The specs of a treated record or batch, from those of an untreated one: any objects with shape and dtype."""
        config = self.config
        if config.target_key is None:
            return input_spec
        return set_field(input_spec, config.target_key, get_field(input_spec, config.field_key))


def looks_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether a record's shape is rather (C, H, W), or (T, H, W) of grey video, than (H, W, C)."""
    return len(shape) == 3 and min(shape[1:]) > 4 and (shape[0] in (1, 3, 4) or shape[0] < min(shape[1:]))


def _remedy(shapes: Mapping[str, tuple[int, ...]], batched: bool) -> str:
    """What to do about records that can't be treated, where their shapes tell; the image's comes first."""
    image, shape = next(iter(shapes.items()))
    if batched and (len(shape) == 1 or (len(shape) == 2 and shape[1] in (1, 3, 4))):
        return (
            f" Axis 0 is the batch, and may be missing here: for single records use AugmentRecord, put"
            f" grain.transforms.Batch before, or add the axis: {image}[None]."
        )
    for path, each in shapes.items():
        if looks_channels_first(each):
            return (
                f' Field "{path}" of shape {each} looks like channels first (CHW) or grey video (THW): move that axis'
                ' behind, jnp.moveaxis(image, -3, -1), or say so: grain_datarax.Chain(..., axes="CHW").'
            )
    return ""


def _require_batch_axis(path: str, data: Mapping[str, Any], batched: bool) -> None:
    """Raises `ValueError` where a batch is one record: its seed tells. AugmentRecord has a batch of one beside it."""
    if not batched or RECORD_SEED not in data:
        return
    shape, seeds = np.shape(get_field(data, path)), np.shape(data[RECORD_SEED])
    if seeds == (2,) and len(shape) in (2, 3) and shape[0] != 1:
        raise ValueError(
            f'`{RECORD_SEED}` must be a seed for each record: got shape {seeds} beside {shape} for field "{path}"'
            f" where axis 0 is the batch, which may be missing. Use AugmentRecord for single records, add the axis,"
            f" {path}[None], or place SeedRecords() before Batch, once."
        )


def _type_name(value: Any) -> str:
    return "an array" if isinstance(value, jax.Array) else type(value).__name__


def _require_range(name: str, value: Any, low: Any, high: Any, dtype: np.dtype) -> None:
    """Raises `ValueError` unless a param of a user's is in its range, floats in the type that they are taken as."""
    if whole := _kind(dtype) is np.integer:
        inside = (low <= value) & (value <= high)
    else:
        with np.errstate(over="ignore"):
            taken = np.asarray(value, dtype)
        inside = (low < taken) & (taken < high)
    if not np.all(inside):
        raise ValueError(
            f"`random_params` must hold `{name}` from {low} to {high}{'' if whole else ', both excluded'}: got values"
            f" from {np.min(value)} to {np.max(value)}. Pass a row of what generate_random_params returns."
        )


@functools.cache
def _kind(dtype: Any) -> Any:
    """The kind of numbers that a type of array holds; None if JAX has no such numbers."""
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating, jax.dtypes.prng_key)
    kind = next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), None)
    return kind if getattr(dtype, "isnative", True) else None


def _checked(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A subclass's `apply` that raises `TypeError` unless it returns data, state and metadata."""

    @functools.wraps(apply)
    def checked(self: ModalityOperator, *args: Any, **kwargs: Any) -> Any:
        result = apply(self, *args, **kwargs)
        mappings = isinstance(result, tuple) and all(isinstance(part, Mapping | None) for part in result)
        if not mappings or len(result) != 3 or result[0] is None:
            got = tuple(type(part).__name__ for part in result) if isinstance(result, tuple) else type(result).__name__
            raise TypeError(
                f"`apply` must return three mappings, the data, the state and the metadata: got {got}. Return those"
                " that it was given, with the result in the data."
            )
        return result

    return checked


def _same_each_time(name: str, compute: Callable[[], Any]) -> Any:
    """Calls a function that is to be pure, and raises `ValueError` if NumPy's or Python's generator decides the result.

    Those are asked when JAX traces it: all records would get the same. Where they have moved, it is traced again, since
    another thread may have moved them.
    """
    before = _global_generators()
    result = compute()
    if _global_generators() != before and len({_constants(compute) for _ in range(8)}) > 1:
        raise ValueError(
            f"`{name}` must draw from its key alone: got numbers of NumPy's or Python's global generator, the same for"
            " all records. Use jax.random with the key that `draw` is given."
        )
    return result


def _global_generators() -> tuple[Any, ...]:
    return pickle.dumps(np.random.get_state(legacy=False)), random.getstate()


def _constants(compute: Callable[[], Any]) -> tuple[Any, ...]:
    """What a traced function says, and the arrays in it, but for the addresses of the functions that it names."""
    traced = jax.make_jaxpr(lambda: compute())()  # a new function: JAX keeps what it has traced
    arrays = [leaf for leaf in traced.consts if not isinstance(leaf, jax.core.Tracer)]
    held = [np.asarray(leaf).tobytes() for leaf in arrays if _kind(leaf.dtype) is not jax.dtypes.prng_key]
    return re.sub("0x[0-9a-f]+", "", str(traced)), *held
