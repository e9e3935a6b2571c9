"""Effect: what a record draws, and what becomes of its fields; a value that says all of it in its settings."""

import abc
import copy
import dataclasses
import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.effects.settings import Probability, Strength, rules
from grain_datarax.images import UNIT, Scale, is_float
from grain_datarax.random.ranges import in_range
from grain_datarax.random.sized import sized_key
from grain_datarax.wording import shown

# What decides what becomes of an image.
_LAWS = ("draw", "sample", "image", "pixels", "pixels_in_place", "covered", "mask")


class Settings:
    """A dataclass that is told which of its settings one that it has not is nearest to."""

    if not TYPE_CHECKING:  # which looks at `__init__`

        def __new__(cls, *_, **given):
            known = [field.name for field in dataclasses.fields(cls) if field.init]
            for name in given:
                if name not in known and name not in inspect.signature(cls).parameters:
                    if "__dataclass_fields__" not in vars(cls):
                        raise no_dataclass(cls)
                    raise TypeError(str(unknown_name(f"settings of {cls.__name__}", name, known)))
            return super().__new__(cls)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Effect(Settings, abc.ABC):
    """One law: settings, what a record draws, and what becomes of an image. `Chain` does everything else.

    A subclass is a frozen dataclass whose fields are its settings, of JSON's types. It says `image`, and `draw` if it
    draws. It never sees a batch, a layout or a type: an image is `(H, W, C)`, floating point, in fractions of its value
    range. A setting of the type `Fraction`, or of another with a `Strength`, may be a range `(low, high)`: `draw` and
    `image` find the number there that the record drew from it.

    Products that are added to or multiplied again belong into `grain_datarax.random.rounding.rounded`: then they have
    the same bits in every program. Sums and means over pixels have not: compilers add in another order for another
    batch size, and the last bit may follow it.

    Attributes:
      name: Tells its draws from those of other effects in the chain; None: its class and what it draws, and then its
        place among those that agree.
      p: The probability, for each record, that the effect applies. A record that it does not apply to keeps its bits.
      same_on_frame: Whether all frames of a record share one draw; otherwise each frame draws its own. Without frames
        it changes nothing.

    Raises:
      TypeError, ValueError: If a setting has the wrong type or breaks the rule of its annotation.

    Example:
      >>> import dataclasses, jax
      >>> @dataclasses.dataclass(frozen=True)
      ... class Dim(Effect):
      ...     most: float = 0.5
      ...     def draw(self, key, shape):
      ...         return self.most * jax.random.uniform(key)
      ...     def image(self, image, drawn):
      ...         return image * (1 - drawn)
      >>> Dim(most=0.25, p=0.1)
      Dim(p=0.1, most=0.25)
    """

    name: str | None = None
    p: Probability = 1.0
    same_on_frame: bool = False

    # Whether it sets some values and leaves all others exactly as they are, also those outside the value range.
    replaces: ClassVar[bool] = False
    # Whether it draws in the image's shape, or for the whole image, and treats each value for itself: then images may
    # be padded. A subclass that draws or treats them otherwise has to say it again.
    by_value: ClassVar[bool] = False

    @property
    def computes(self) -> bool:
        """Whether it computes with values, which must then be exact in `float32`."""
        return not self.replaces

    @property
    def clips(self) -> bool:
        """Whether results are clipped to the value range, where the chain says so."""
        return not self.replaces

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__repr__" not in vars(cls):  # else `dataclass` makes one of all settings
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]
        if not vars(cls).keys().isdisjoint(_LAWS):  # of which what was said above it no longer holds
            if "by_value" not in vars(cls):
                cls.by_value = False
            if "draw_padded" not in vars(cls):
                cls.draw_padded = Effect.draw_padded  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        if "__dataclass_fields__" not in vars(type(self)):
            raise no_dataclass(type(self))
        if type(self).__eq__ is not vars(type(self)).get("__eq__") or not all(
            field.compare for field in dataclasses.fields(self)
        ):
            raise TypeError(
                f"`{type(self).__name__}` must compare by all its settings, as an effect is a value: got eq=False or"
                " compare=False. Leave them out."
            )
        for name, rule in rules(type(self)).items():
            object.__setattr__(self, name, rule(name, getattr(self, name)))

    @property
    def drawn_settings(self) -> tuple[str, ...]:
        """The settings that each record draws, such as from a range."""
        return tuple(
            name
            for name, rule in rules(type(self)).items()
            if isinstance(rule, Strength) and rule.is_drawn(getattr(self, name))
        )

    def draw_setting(self, name: str, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        """What one record draws for a setting: a number of its range."""
        del shape
        rule: Any = rules(type(self))[name]
        return in_range(key, getattr(self, name), log=rule.log)

    def with_strengths(self, strengths: Mapping[str, jax.Array]) -> Self:
        """The effect with numbers in the place of its ranges, as one record drew them."""
        if not strengths:
            return self
        drawn = copy.copy(self)
        for name, value in strengths.items():
            object.__setattr__(drawn, name, value)
        return drawn

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> Any:
        """What one record draws: any pytree, nothing by default.

        Args:
          key: The record's key; it may be split, folded, and given to any function of `jax.random`.
          shape: The image's `(H, W, C)`. The draw may depend on nothing else.
        """
        del key, shape
        return ()

    def draw_padded(self, key: jax.Array, size: jax.Array, shape: tuple[int, int, int]) -> Any:
        """What one record draws whose image is padded: the same as without the padding.

        By default what `draw` draws with a key that knows the size, which is right for effects `by_value`. Others say
        it themselves, or are refused.

        Args:
          key: The record's key.
          size: The height and the width of the image itself, `int32 (2,)`.
          shape: The padded image's `(H, W, C)`.
        """
        return self.draw(sized_key(key, size, shape[:2]), shape)

    def sample(self, key: jax.Array, shape: tuple[int, int, int], size: jax.Array | None = None) -> Any:
        """What one record draws, by `draw` or, where its image is padded and has this size, by `draw_padded`."""
        return self.draw(key, shape) if size is None else self.draw_padded(key, size, shape)

    @property
    def may_be_padded(self) -> bool:
        """Whether images may be padded."""
        return self.by_value or type(self).draw_padded is not Effect.draw_padded

    def told(self, drawn: Any) -> dict[str, jax.Array]:
        """What is told of a draw beside the strengths, small arrays by name, such as positions; nothing by default.

        Args:
          drawn: What `draw` returned for this record.
        """
        del drawn
        return {}

    @abc.abstractmethod
    def image(self, image: jax.Array, drawn: Any) -> jax.Array:
        """What becomes of one image.

        Args:
          image: `(H, W, C)`, `float32` (`float64` under x64), in fractions of its value range: low is 0, high is 1.
          drawn: What `draw` returned for this record.

        Returns:
          An image of the same shape, in the same fractions.
        """

    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        """The same on an image in its own type and units; see `PixelEffect`."""
        treated = self.image(scale.to_fractions(image), drawn)
        if not isinstance(treated, jax.Array | np.ndarray):
            raise TypeError(
                f"`image` of {type(self).__name__} must return an array: got {type(treated).__name__}. Return what"
                " becomes of the image."
            )
        fractions = jnp.asarray(treated)
        if not is_float(fractions.dtype):
            raise TypeError(
                f"`image` of {type(self).__name__} must return fractions of the range, floating point: got"
                f" {fractions.dtype}. Return values from 0 to 1; the chain turns them into the image's type."
            )
        return scale.from_fractions(fractions, image.dtype)

    def pixels_in_place(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        """As `pixels`, with the same result, where the image's memory may be overwritten; by default `pixels`."""
        return self.pixels(image, drawn, scale)

    def mask(self, mask: jax.Array, drawn: Any, ignore: float | None) -> jax.Array:
        """What becomes of a mask `(H, W, C)` of raw values, which are never computed with; unchanged by default.

        Args:
          mask: The mask.
          drawn: What `draw` returned for this record.
          ignore: What fills the pixels that can't be seen any more, in the mask's own values; None leaves them.
        """
        del drawn, ignore
        return mask

    def spec(self, spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        """What comes out for an image `(H, W, C)` of this shape and type: the same, but for conversions and crops."""
        return spec

    def why_not(self, shape: tuple[int, int, int], scale: Scale, field: str) -> str | None:
        """Says why such images can't be treated, or returns None, as by default.

        Args:
          shape: The image's `(H, W, C)`.
          scale: What its values mean.
          field: Its name, for the error.
        """
        del shape, scale, field
        return None

    @property
    def law(self) -> Any:
        """What computes it: its class, and whatever else text tells by a name."""
        return type(self)

    @property
    def namespace(self) -> str:
        """What tells this effect's draws from others' in a chain: its name, or else its class."""
        return self.name or type(self).__name__

    def to_dict(self) -> dict[str, Any]:
        """The class and all settings, in JSON's types."""
        settings = {field.name: as_json(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"effect": self.text_name(), **settings}

    @classmethod
    def text_name(cls) -> str:
        """What the class is called in text: its name, behind its module if it is none of this package's."""
        own = cls.__module__.startswith(f"{__package__}.")
        return cls.__name__ if own else f"{cls.__module__}:{cls.__qualname__}"

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """The effect of this class that `to_dict` described.

        Raises:
          ValueError: If a setting is unknown, or missing; names the nearest that there is.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        given = {name: value for name, value in settings.items() if name != "effect"}
        for name in given:
            if name not in known:
                raise unknown_name(f"settings of {cls.__name__}", name, known)
        for field in dataclasses.fields(cls):
            needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if field.name not in given and needed:
                raise ValueError(f"`{field.name}` must be given to {cls.__name__}: got {sorted(given)}. Add it.")
        return cls(**given)

    def changed(self) -> list[str]:
        """The settings that are not as by default, as they are written in Python."""
        settings = [(field.name, getattr(self, field.name), field.default) for field in dataclasses.fields(self)]
        return [f"{name}={value!r}" for name, value, default in settings if value != default]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.changed())})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelEffect(Effect):
    """An effect that treats images in their own type and units, so that what it does not touch keeps its bits.

    A subclass says `pixels` instead of `image`.
    """

    def image(self, image: jax.Array, drawn: Any) -> jax.Array:
        return self.pixels(image, drawn, UNIT)

    @abc.abstractmethod
    def pixels(self, image: jax.Array, drawn: Any, scale: Scale) -> jax.Array:
        """What becomes of one image in its own type.

        Args:
          image: `(H, W, C)`, of any type that the chain takes.
          drawn: What `draw` returned for this record.
          scale: What its values mean: turns settings into values, and computed values into an image.

        Returns:
          An image of the same shape and type.
        """


def no_dataclass(cls: type) -> TypeError:
    """The error for a class that lacks its decorator."""
    return TypeError(
        f"`{cls.__name__}` must be a frozen dataclass, as its settings are its fields: got a plain class. Put"
        " @dataclasses.dataclass(frozen=True) above it."
    )


def unknown_name(what: str, name: Any, known: Sequence[str], remedy: str = "Correct it.") -> ValueError:
    """The error for a name that is none of these, with the nearest that is."""
    close = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else []
    instead = f"Did you mean {close[0]!r}? " if close else ""
    return ValueError(f"`{what}` must be among {list(known)}: got {shown(name)}. {instead}{remedy}")


def as_json(value: Any) -> Any:
    """A setting in JSON's types, which have lists for tuples."""
    if isinstance(value, Mapping):
        return {name: as_json(part) for name, part in value.items()}
    return [as_json(part) for part in value] if isinstance(value, tuple) else value
