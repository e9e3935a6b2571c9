"""What autodoc is told of this package: Markdown's backticks in docstrings, and types of settings that can be read."""

import dataclasses
import inspect
import re
import typing
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import object_description
from sphinx.util.typing import stringify_annotation

from grain_datarax.effects import settings
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.occlusion import Fill

# Annotations that stand for one thing in many effects, by the name under which docs/api/settings.md says what it is.
_ALIASES = {settings.Fraction: "Fraction", settings.Share: "Share", settings.Probability: "Probability"}
_RULES = {
    settings.Extent: "Extent",
    settings.Side: "Length",
    settings.CountOrShare: "CountOrShare",
    Fill: "Fill",
}


def _as_rst(*arguments: Any) -> None:
    """Single backticks become double ones, but in examples."""
    lines = arguments[-1]
    text = "\n".join(lines)
    parts = re.split(r"(^ *>>> .*?(?=\n\s*\n|\Z))", text, flags=re.DOTALL | re.MULTILINE)
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", _literal, parts[place])
    lines[:] = "".join(parts).split("\n")


def _literal(found: re.Match[str]) -> str:
    return f"``{found[1]}``" + ("\\ " if found[2] else "")


def _readable(*arguments: Any) -> tuple[str, None] | None:
    """The signature of an effect, whose annotations carry rules."""
    obj = arguments[3]
    if not (inspect.isclass(obj) and issubclass(obj, Effect)) or not dataclasses.is_dataclass(obj):
        return None
    hints = {field.name: field.type for field in dataclasses.fields(obj)}
    parameters = inspect.signature(obj).parameters.values()
    words, starred = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not starred:
            words, starred = [*words, "*"], True
        default = "" if each.default is each.empty else f" = {object_description(each.default)}"
        words.append(f"{each.name}: {type_name(hints[each.name])}{default}")
    return f"({', '.join(words)})", None


def type_name(hint: Any) -> str:
    """A type in words: one of those that docs/api/settings.md explains, or what is written in front of its rule."""
    if name := next((name for alias, name in _ALIASES.items() if hint == alias), None):
        return name
    for rule in getattr(hint, "__metadata__", ()):
        if name := _RULES.get(type(rule)):
            return name
    if typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return stringify_annotation(hint, "smart")


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_rst, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", _readable)
    return {"parallel_read_safe": True}
