"""What the settings of an effect may be: each field's annotation carries its rule, with its sentence of error.

std: Annotated[float, Number(0, 1, "be a fraction of the value range")] = 0.05
"""

import abc
import dataclasses
import functools
import inspect
import math
import re
import sys
import types
import typing
from typing import Any

import numpy as np

from grain_datarax.wording import shown


class Rule(abc.ABC):
    """What one setting may be."""

    @abc.abstractmethod
    def __call__(self, name: str, value: Any) -> Any:
        """The value as plain Python, so that equal settings are equal values.

        Raises:
          TypeError, ValueError: If it is of the wrong type, or breaks the rule; says what to do instead.
        """


@dataclasses.dataclass(frozen=True)
class Number(Rule):
    """A float between two bounds, both included; NaN is in none."""

    low: float = -sys.float_info.max
    high: float = sys.float_info.max
    rule: str = dataclasses.field(default="be finite", repr=False)
    remedy: str = dataclasses.field(default="Pass a number in that range.", repr=False)

    def __call__(self, name: str, value: Any) -> float:
        if not is_number(value):
            is_exponent = isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value, re.IGNORECASE)
            in_yaml = " YAML reads 1e-3 as text: write 1.0e-3." if is_exponent else ""
            in_range = " For a range annotate it Fraction, of grain_datarax.extend." if isinstance(value, tuple) else ""
            raise TypeError(
                f"`{name}` must be a number: got {shown(value)}. Pass an int or a float.{in_yaml}{in_range}"
            )
        # NumPy would cast the bounds to its own type, in which they may overflow.
        if not self.low <= (float(value) if isinstance(value, np.floating) else value) <= self.high:
            raise ValueError(f"`{name}` must {self.rule}: got {shown(value)}. {self.remedy}")
        return plain(value)


@dataclasses.dataclass(frozen=True)
class Integer(Rule):
    """An int that is not too small, nor too large."""

    least: int | None = None
    most: int = 2**64

    def __call__(self, name: str, value: Any) -> int:
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"`{name}` must be an integer: got {shown(value)}. Pass an int.")
        if self.least is not None and value < self.least:
            raise ValueError(f"`{name}` must be at least {self.least}: got {shown(value)}. Pass a larger number.")
        if value > self.most:
            raise ValueError(f"`{name}` must be at most {self.most}: got {shown(value)}. Pass a smaller number.")
        return int(value)


# Lengths: within them all that is computed is exact in int32.
_PIXELS = Integer(least=1, most=2**24)


@dataclasses.dataclass(frozen=True)
class OrRange(Rule):
    """What a rule of numbers allows, or a range `(low, high)` of it, both ends included; a law draws from it itself."""

    rule: Number | Integer

    def __call__(self, name: str, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return self.rule(name, value)
        if len(value) != 2:
            raise ValueError(f"`{name}` must be a number or two: got {shown(value)}. Pass one, or (low, high).")
        low, high = (self.rule(name, end) for end in value)
        if not low <= high:
            raise ValueError(f"`{name}` must be a range (low, high), low first: got {shown(value)}. Turn it round.")
        return low, high


@dataclasses.dataclass(frozen=True)
class Strength(OrRange):
    """A number, or a range `(low, high)` of which each record draws its own: the effect finds that in its place.

    Attributes:
      log: Whether its logarithm is uniform in a range, of positive numbers, instead of the number.
    """

    log: bool = False

    def __call__(self, name: str, value: Any) -> Any:
        checked = super().__call__(name, value)
        if self.log and isinstance(checked, tuple) and not checked[0] >= 1e-30:
            raise ValueError(
                f"`{name}` must be a range of positive numbers: got {shown(value)}. Begin it at 1e-30 or above."
            )
        return checked

    def is_drawn(self, value: Any) -> bool:
        """Whether each record draws its own of this setting."""
        return isinstance(value, tuple)


def ends(value: Any) -> tuple[Any, Any]:
    """The least and the greatest of a number or a range."""
    return value if isinstance(value, tuple) else (value, value)


@dataclasses.dataclass(frozen=True)
class Size(Rule):
    """A height and a width in pixels."""

    def __call__(self, name: str, value: Any) -> tuple[int, int]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"`{name}` must be two integers: got {shown(value)}. Pass (height, width).")
        if len(value) != 2:
            raise ValueError(f"`{name}` must be two integers: got {shown(value)}. Pass (height, width).")
        height, width = (_PIXELS(name, side) for side in value)
        return height, width


@dataclasses.dataclass(frozen=True)
class Extent(Rule):
    """A height and a width: each in pixels (an int), as a share of the image's (a float), or a range of either."""

    def __call__(self, name: str, value: Any) -> tuple[Any, Any]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            wrong = ValueError if isinstance(value, list | tuple) else TypeError
            raise wrong(f"`{name}` must be a height and a width: got {shown(value)}. Pass (height, width).")
        height, width = (Side()(name, side) for side in value)
        return height, width


@dataclasses.dataclass(frozen=True)
class Side(Rule):
    """A length: in pixels (an int), as a share of the image's (a float), or a range of either."""

    def __call__(self, name: str, value: Any) -> Any:
        return _unlike_a_pixel(OrRange(_side(value))(name, value))


@dataclasses.dataclass(frozen=True)
class CountOrShare(Rule):
    """How many: a number (an int), a share of all (a float), or a range of either."""

    def __call__(self, name: str, value: Any) -> Any:
        share = Number(0, 1, "be a share of all, from 0 to 1", "Pass an int for a number.")
        return _unlike_a_pixel(OrRange(share if _has_floats(value) else Integer(least=0))(name, value))


def _unlike_a_pixel(side: Any) -> Any:
    """Shares that are equal to numbers of pixels, as 1.0 is to 1, would be no value of their own: 1.0 becomes the float
    before it.
    """
    whole = math.nextafter(1.0, 0.0)
    if isinstance(side, tuple):
        equal = isinstance(side[0], float) and set(side) <= {0.0, 1.0}
        return tuple(whole if end == 1 else end for end in side) if equal else side
    return whole if side == 1 and isinstance(side, float) else side


def _has_floats(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(part, float | np.floating) for part in parts)


def _side(side: Any) -> Number | Integer:
    if _has_floats(side):
        return Number(sys.float_info.min, 1, "be a share of the image, above 0 and at most 1", "Pass ints for pixels.")
    return _PIXELS


@dataclasses.dataclass(frozen=True)
class Flag(Rule):
    """A bool."""

    def __call__(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"`{name}` must be a bool: got {shown(value)}. Pass True or False.")
        return bool(value)


@dataclasses.dataclass(frozen=True)
class Optional(Rule):
    """None, or what another rule allows."""

    rule: Rule

    def __call__(self, name: str, value: Any) -> Any:
        return None if value is None else self.rule(name, value)


@dataclasses.dataclass(frozen=True)
class Choice(Rule):
    """One of several values."""

    values: tuple[Any, ...]

    def __call__(self, name: str, value: Any) -> Any:
        for each in self.values:
            if isinstance(value, type(each)) and value == each:
                return each
        raise ValueError(f"`{name}` must be one of {self.values}: got {shown(value)}. Pass one of them.")


@dataclasses.dataclass(frozen=True)
class Name(Rule):
    """A string that is not empty."""

    def __call__(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"`{name}` must be a str: got {shown(value)}. Pass a name.")
        if value == "":
            raise ValueError(f"`{name}` must not be empty: got {shown(value)}. Pass a name.")
        if not value.isprintable():
            raise ValueError(
                f"`{name}` must be of characters that can be printed: got {shown(value)}. Pass another name."
            )
        return str(value)  # of NumPy's


@dataclasses.dataclass(frozen=True)
class Plain(Rule):
    """Anything of JSON's types: numbers, strings, bools, None, and tuples of these."""

    def __call__(self, name: str, value: Any, *, levels: int = 50) -> Any:
        if isinstance(value, list | tuple):
            if not levels:
                raise ValueError(f"`{name}` must be nested less deeply: got {shown(value)} too deep. Flatten it.")
            return tuple(self(name, part, levels=levels - 1) for part in value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, np.bool_ | str):
            return value.item() if isinstance(value, np.bool_ | np.str_) else value
        if isinstance(value, int | np.integer):
            return Integer(-(2**128), 2**128)(name, value)  # none of thousands of digits, which Python does not read
        if is_number(value):
            return Number()(name, value)
        raise TypeError(
            f"`{name}` must be of JSON's types: got {type(value).__name__}. Pass numbers, strings, bools, None or"
            " tuples of them."
        )


_PROBABILITY = Number(0, 1, "be a probability from 0 to 1")

Fraction = typing.Annotated[
    float | tuple[float, float],
    Strength(
        Number(0, 1, "be a fraction of the value range, from 0 to 1", "Divide it by the range's width, 255 for uint8.")
    ),
]
Share = typing.Annotated[float | tuple[float, float], Strength(_PROBABILITY)]
Probability = typing.Annotated[float, _PROBABILITY]

_BY_TYPE: dict[Any, Rule] = {float: Number(), int: Integer(-(2**64)), bool: Flag(), str: Name()}


@functools.cache
def rules(cls: type) -> dict[str, Rule]:
    """The rule of each field of a dataclass: from its annotation, or else what its type allows."""
    hints = {name: hint for base in reversed(cls.__mro__) for name, hint in _hints(base).items()}
    return {field.name: _rule_of(hints[field.name]) for field in dataclasses.fields(cls)}


def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a class itself, with those that are strings evaluated one by one."""
    scope = {**vars(sys.modules[cls.__module__]), **vars(cls)}
    hints = {}
    for name, hint in inspect.get_annotations(cls).items():
        if name not in getattr(cls, "__dataclass_fields__", ()):
            continue
        try:
            hints[name] = eval(hint, scope) if isinstance(hint, str) else hint
        except Exception as error:
            raise TypeError(
                f"`{name}` of {cls.__name__} must have an annotation that can be read: got {hint!r}, {error}. Use names"
                " of its module, or leave out `from __future__ import annotations`."
            ) from error
    return hints


def _rule_of(hint: Any) -> Rule:
    """The rule of an annotation; where that says nothing, any value of JSON's types will do."""
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, Rule):
            return extra
    if typing.get_origin(hint) is typing.Literal:
        return Choice(typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [_rule_of(part) for part in typing.get_args(hint) if part is not type(None)]
        if len(parts) == 1:
            return Optional(parts[0])
    return _BY_TYPE.get(hint, Plain())


def is_number(value: Any) -> bool:
    """Whether a setting is a real number, of Python or NumPy; a bool is none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def plain(value: Any) -> float:
    """A setting as a Python float: NumPy's promotes the image's type, and equal settings must compile to equal bits."""
    return float(value) + 0.0  # -0.0 equals 0.0
