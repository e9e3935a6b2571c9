"""A chain's text, in JSON's types -> its effects. Text is data: nothing is imported that the caller has not named."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from grain_datarax.effects import EFFECTS
from grain_datarax.effects.composition import Composition
from grain_datarax.effects.effect import Effect, unknown_name
from grain_datarax.effects.function import Function, paths_of
from grain_datarax.wording import shown


class Vocabulary:
    """What a text may name.

    Args:
      effects: Classes beside those of this package.
      functions: Functions, or their names.

    Raises:
      TypeError: If these are something else.
    """

    def __init__(self, effects: Iterable[type[Effect]], functions: Iterable[Callable[..., Any] | str]) -> None:
        classes: tuple[Any, ...] = tuple(effects) if isinstance(effects, Iterable) else (None,)
        if not all(map(_is_effect, classes)):
            raise TypeError(f"`effects` must be classes of effects: got {shown(effects)}. Pass a list of them.")
        self._functions = paths_of(functions)
        self._classes = EFFECTS | {cls.text_name(): cls for cls in classes}

    def effects_of(self, parts: Any, place: str = "effects") -> list[Effect]:
        """The effects of a text.

        Args:
          parts: The text.
          place: Where it stands, for errors.

        Raises:
          TypeError, ValueError: If it is no list of effects, or they have other names or settings than there are.
        """
        if not isinstance(parts, list | tuple):
            raise TypeError(f"`effects` must be a list: got {shown(parts)}. Write each as `- effect: GaussianNoise`.")
        return [self._effect_of(part, f"{place}[{number}]") for number, part in enumerate(parts)]

    def _effect_of(self, part: Any, place: str) -> Effect:
        with _saying(place):
            cls = self._class_of(part)
        if issubclass(cls, Composition) and "effects" in part:
            part = {**part, "effects": self.effects_of(part["effects"], f"{place}.effects")}
        with _saying(place):
            return cls.from_dict(part, self._functions) if issubclass(cls, Function) else cls.from_dict(part)

    def _class_of(self, part: Any) -> type[Effect]:
        if not isinstance(part, Mapping) or not isinstance(part.get("effect"), str):
            raise TypeError(
                f'`effects` must hold mappings with an "effect": got {shown(part)}. Write each as'
                " `- effect: GaussianNoise`, with its settings below."
            )
        cls: type[Effect] | None = self._classes.get(part["effect"])
        if cls is None:
            raise unknown_name(
                "effect", part["effect"], list(self._classes), "Pass effects=[...] for classes of your own."
            )
        return cls


@contextlib.contextmanager
def _saying(place: str) -> Generator[None]:
    """Adds to errors where in the text they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} In {place}.") from error


def _is_effect(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, Effect)
