"""What decides the pixels of an operator, in JSON's types: settings, and whatever else has a value to write down."""

import dataclasses
import enum
import functools
import hashlib
import json
import math
import os
import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from grain_datarax.pages.module import DataraxModule
from grain_datarax.random.keys import stream_words

# Settings that change how pixels are computed, not which; the statistics have a digest among the settings.
_WITHOUT_EFFECT = ("batch_strategy", "cacheable", "precomputed_stats")
# What every operator has: its settings once more, or no part of them.
_OF_ALL = ("config", "rngs", "name", "stochastic", "stream_name", "batch_stats_fn")
# Functions of theirs are told by their names: how they are written changes with each release.
_LIBRARIES = ("builtins", "datarax", "flax", "jax", "jaxlib", "math", "numpy")


def describe(operator: Any, name: str) -> dict[str, Any]:
    """Name, class, settings and root key of an operator, in JSON's types only.

    Attributes that a subclass adds are there too, as `attributes`. Arrays are there as a digest, dataclasses and
    modules by their fields, functions by their names with a digest of their code (which another version of Python
    compiles to another) and with their defaults and what they enclose, not with the global names that they look up.

    Left out are all `nnx.Variable`s, such as parameters that an operator learns: they belong to the model's checkpoint.
    So keep in a Variable what changes from run to run, such as a counter.

    What has no value to write down, such as an object of an arbitrary class, is there as "cannot be told: " with its
    class: two fingerprints that hold this may be equal where the pixels are not.
    """
    return _part(operator, name, ())


def _part(operator: DataraxModule, name: str, above: tuple[Any, ...]) -> dict[str, Any]:
    config = operator.config
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for without_effect in _WITHOUT_EFFECT:
        del settings[without_effect]
    root_key = None
    if operator.stochastic:
        root_key = stream_words(operator.root_key()).tolist()
    part = {"name": name, "class": type(operator).__qualname__, "root_key": root_key}
    described = {setting: in_json(value, (*above, operator)) for setting, value in settings.items()}
    return {**part, **described, **_attributes(operator, above, _OF_ALL)}


def _attributes(module: nnx.Module, above: tuple[Any, ...], known: Sequence[str] = ()) -> dict[str, Any]:
    """What a module holds beside its variables and what is `known`; empty if there is nothing."""
    own = {
        name: value
        for name, value in vars(module).items()
        if name not in known and not name.startswith(("_pytree__", "_object__")) and not _is_variable(value)
    }
    return {"attributes": in_json(own, (*above, module))} if own else {}


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable | nnx.Rngs | nnx.RngStream)


def in_json(value: Any, above: tuple[Any, ...] = ()) -> Any:
    """A value in JSON's types. Not by its repr: that of a function or of a module holds its address.

    Args:
      value: Anything.
      above: What holds it, from the outermost on.
    """
    for depth, other in enumerate(above):
        if value is other:
            return f"as {depth} above"
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, float) and type(value) is float:
        return value if not math.isnan(value) else "nan"  # which does not equal itself
    below = (*above, value)
    for kinds, form in _FORMS:
        if isinstance(value, kinds):
            return form(value, below)
    if dataclasses.is_dataclass(value):
        return _fields(value, below)
    if hasattr(value, "__qualname__") or (callable(value) and hasattr(value, "__name__")):
        return _callable(value, below)
    return f"cannot be told: {_path(type(value))}"


def _path(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"


def _scalar(value: np.generic, below: tuple[Any, ...]) -> Any:
    item = value.item()
    return in_json(item, below) if isinstance(item, bool | int | float | str) else [str(value.dtype), repr(item)]


def _array(value: Any, below: tuple[Any, ...]) -> Any:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return [str(value.dtype), _array(jax.random.key_data(value), below)]
    array = np.asarray(value)
    if array.dtype.hasobject:  # whose bytes are addresses
        return [str(array.dtype), list(array.shape), [in_json(each, below) for each in array.flat]]
    return [str(array.dtype), list(array.shape), _digest(array.tobytes())]


def _mapping(value: Mapping[Any, Any], below: tuple[Any, ...]) -> Any:
    if all(isinstance(name, str) for name in value):
        return {name: in_json(each, below) for name, each in value.items()}
    return _sorted([in_json(name, below), in_json(each, below)] for name, each in value.items())


def _sorted(parts: Any) -> list[Any]:
    return sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))


def _fields(value: Any, below: tuple[Any, ...]) -> Any:
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {"class": _path(type(value)), **_mapping(fields, below)}


def _module(value: nnx.Module, below: tuple[Any, ...]) -> Any:
    if isinstance(value, DataraxModule):
        return _part(value, value.namespace, below[:-1])
    attributes = _attributes(value, below[:-1])
    return {"class": _path(type(value)), **attributes} if attributes else _path(type(value))


def _function(value: types.FunctionType, below: tuple[Any, ...]) -> Any:
    code = value.__code__
    if _of_a_library(value.__module__ or ""):
        return _path(value)
    wrapped = getattr(value, "__wrapped__", None)
    if _of_a_library(value.__globals__["__name__"]) and wrapped is not None:  # by jax.vmap, for example
        return {"wrapper": f"cannot be told: {code.co_qualname}", "of": in_json(wrapped, below)}
    described: dict[str, Any] = {"function": _path(value), "code": _digest_of_code(code)}
    defaults = [*(value.__defaults__ or ()), *sorted((value.__kwdefaults__ or {}).items())]
    if defaults:
        described["defaults"] = in_json(defaults, below)
    if value.__closure__:
        cells = zip(code.co_freevars, value.__closure__, strict=True)
        described["encloses"] = {name: _cell(cell, below) for name, cell in cells}
    return described


def _callable(value: Any, below: tuple[Any, ...]) -> Any:
    """A callable that is no Python function: one of a library, or one around a function, such as `jax.jit` gives."""
    name = getattr(value, "__qualname__", None) or value.__name__
    owner = getattr(value, "__self__", None)
    if not isinstance(owner, types.ModuleType | type | None):
        return {"method": name, "of": in_json(owner, below)}
    if _of_a_library(value.__module__ or "builtins"):
        return f"{value.__module__}.{name}"
    if hasattr(value, "__wrapped__"):
        return in_json(value.__wrapped__, below)
    return f"cannot be told: {value.__module__}.{name}"


def _of_a_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES


def _cell(cell: types.CellType, below: tuple[Any, ...]) -> Any:
    try:
        return in_json(cell.cell_contents, below)
    except ValueError:  # nothing is in it yet
        return "nothing"


def _method(value: types.MethodType, below: tuple[Any, ...]) -> Any:
    return {"method": in_json(value.__func__, below), "of": in_json(value.__self__, below)}


def _partial(value: Any, below: tuple[Any, ...]) -> Any:
    parts = {"partial": value.func, "arguments": list(value.args), "keywords": value.keywords}
    return {name: in_json(part, below) for name, part in parts.items() if part or name == "partial"}


def _digest_of_code(code: types.CodeType) -> str:
    constants = [
        _digest_of_code(each) if isinstance(each, types.CodeType) else in_json(each) for each in code.co_consts
    ]
    told = json.dumps([code.co_names, constants, code.co_argcount, code.co_kwonlyargcount], sort_keys=True)
    return _digest(code.co_code + code.co_exceptiontable + told.encode())


def _digest(told: bytes) -> str:
    return hashlib.blake2b(told, digest_size=16).hexdigest()


# The first that fits.
_FORMS: tuple[tuple[Any, Any], ...] = (
    (enum.Enum, lambda value, _: f"{_path(type(value))}.{value.name}"),
    (np.generic, _scalar),
    ((np.ndarray, jax.Array), _array),
    ((nnx.Variable, nnx.Rngs, nnx.RngStream), lambda value, _: f"variable: {_path(type(value))}"),
    (nnx.Module, _module),
    (type, lambda value, _: _path(value)),
    (types.ModuleType, lambda value, _: value.__name__),
    (Mapping, _mapping),
    ((list, tuple), lambda value, below: [in_json(each, below) for each in value]),
    (AbstractSet, lambda value, below: _sorted(in_json(each, below) for each in value)),
    (float, lambda value, below: in_json(float(value), below)),
    (complex, lambda value, _: ["complex", in_json(value.real), in_json(value.imag)]),
    ((bytes, bytearray), lambda value, _: ["bytes", _digest(bytes(value))]),
    (np.dtype, lambda value, _: str(value)),
    (
        (slice, range),
        lambda value, _: [type(value).__name__, *map(in_json, (value.start, value.stop, value.step))],
    ),
    (type(...), lambda *_: "..."),
    (os.PathLike, lambda value, _: os.fspath(value)),
    (types.FunctionType, _function),
    (types.MethodType, _method),
    (functools.partial, _partial),
)
