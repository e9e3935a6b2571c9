"""Any function of JAX as an effect."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Self

import jax

from grain_datarax.effects.effect import Effect, as_json
from grain_datarax.effects.settings import Plain, Rule
from grain_datarax.wording import shown


class Importable(Rule):
    """A function that can be imported, kept by its name: `"module:name"`."""

    def __call__(self, name: str, value: Any) -> str:
        if not isinstance(value, str) and not callable(value):
            raise TypeError(f"`{name}` must be a function: got {shown(value)}. Pass one of (key, image).")
        try:
            path = str(value) if isinstance(value, str) else _path_of(value)
            found = imported(path)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"`{name}` must be a function that can be imported by its name: got {shown(value)}, {error!s:.200}."
                " Define it with def in a module, so that other processes, checkpoints and texts can name it."
            ) from error
        if not callable(found) or not (isinstance(value, str) or found is value):
            raise ValueError(
                f"`{name}` must be the function of its name: got {shown(value)}, and {path} is {shown(found)}. Pass"
                " that, or rename it."
            )
        return path


def _path_of(function: Callable[..., Any]) -> str:
    """Where a function is found: in the outermost package that has it under its name, as that is what stays."""
    parts, name = function.__module__.split("."), getattr(function, "__qualname__", "")
    for depth in range(1, len(parts)):
        outer = ".".join(parts[:depth])
        if getattr(importlib.import_module(outer), name, None) is function:
            return f"{outer}:{name}"
    return f"{function.__module__}:{name}"


def paths_of(functions: Iterable[Callable[..., Any] | str]) -> frozenset[str]:
    """The names of functions, of which some may be given by these; a TypeError if they are something else."""
    given = tuple(functions) if isinstance(functions, Iterable) and not isinstance(functions, str) else (None,)
    if not all(isinstance(each, str) or callable(each) for each in given):
        raise TypeError(f"`functions` must be functions, or their names: got {shown(functions)}. Pass a list of them.")
    return frozenset(each if isinstance(each, str) else Importable()("functions", each) for each in given)


def imported(path: str) -> Any:
    """What `"module:name"` names; this runs the module's code, if it has not run before."""
    module, _, name = path.partition(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


class Keywords(Rule):
    """Arguments by their names, of JSON's types; kept in pairs."""

    def __call__(self, name: str, value: Any) -> tuple[tuple[str, Any], ...]:
        pairs = tuple(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(pairs, list | tuple) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
        ):
            raise TypeError(f"`{name}` must be a mapping from names to values: got {shown(value)}. Pass a dict.")
        return tuple(sorted((argument, Plain()(name, held)) for argument, held in pairs))


@dataclasses.dataclass(frozen=True, repr=False)
class Function(Effect):
    """A function `(key, image, **settings) -> image` of one record, such as those of dm_pix.

    It is given the record's key and an image `(H, W, C)`, `float32`, in fractions of its value range, and returns one
    of the same shape. It has to be pure, of JAX, and drawing from its key alone. Its results do not depend on the batch
    but for the last bits of what it adds up over pixels; see `Effect`.

    Attributes:
      function: The function, or its name, `"module:name"`, which this imports. A text's is imported only where its
        reader names it: see `Chain.from_dict`. Of a library pass the name that is public, such as `"jax.nn:relu"`. A
        `functools.partial` is taken apart.
      settings: Further arguments, of JSON's types.

    Raises:
      ValueError: If the function can't be imported by its name, as a lambda can't.

    Example:
      >>> Function("jax.numpy:where", {"x": 0.0})  # only to be seen: its arguments are others
      Function('jax.numpy:where', {'x': 0.0})
    """

    function: Annotated[Callable[..., jax.Array] | str, Importable()]
    settings: Annotated[Mapping[str, Any], Keywords()] = ()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        function: Any = self.function
        settings = dict(Keywords()("settings", self.settings))
        while isinstance(function, functools.partial):
            if function.args:
                raise ValueError(
                    f"`function` must be given its settings by name: got {shown(function)}. Pass them as keywords."
                )
            function, settings = function.func, {**function.keywords, **settings}
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "settings", settings)
        super().__post_init__()

    @property
    def namespace(self) -> str:
        """The effect's name, or else its class and its function."""
        return self.name or f"{type(self).__name__}/{self.function}"

    @property
    def law(self) -> Any:
        return type(self), imported(str(self.function))

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        del shape
        return key

    def image(self, image: jax.Array, drawn: jax.Array) -> jax.Array:
        treated: jax.Array = imported(str(self.function))(drawn, image, **dict(self.settings))
        return treated

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], functions: Iterable[Callable[..., Any] | str] = ()) -> Self:
        """As `Effect.from_dict`, of a function that is among these, or whose name is: no other is imported."""
        named = settings.get("function")
        if isinstance(named, str) and named not in paths_of(functions):
            raise ValueError(
                f"`functions` must have what a text names, since it is imported and called: got {shown(named)}. If you"
                f" trust it, pass functions=[{named!r}]."
            )
        return super().from_dict(settings)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "settings": as_json(dict(self.settings))}

    def __repr__(self) -> str:
        others = [text for text in self.changed() if not text.startswith(("function=", "settings="))]
        settings = [repr(dict(self.settings))] if self.settings else []
        return f"{type(self).__name__}({', '.join([repr(self.function), *settings, *others])})"
