"""What autodoc is told of this package: Markdown's backticks in docstrings, and types of settings that can be read."""

import dataclasses
import inspect
import re
import typing
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.inspect import object_description
from sphinx.util.typing import stringify_annotation

from grain_datarax.effects import settings
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.occlusion import Fill
from grain_datarax.iterators import DeviceDatasetIterator, DeviceIterator

# Annotations that stand for one thing in many effects, by the name under which docs/api/settings.md says what it is.
_ALIASES = {settings.Fraction: "Fraction", settings.Share: "Share", settings.Probability: "Probability"}
_RULES = {
    settings.Extent: "Extent",
    settings.Side: "Length",
    settings.CountOrShare: "CountOrShare",
    Fill: "Fill",
}
# Which users don't make themselves.
_MADE_BY_OTHERS = (DeviceDatasetIterator, DeviceIterator)
_PROPERTIES = ("attribute", "data", "property")
_kept: dict[str, list[str]] = {}


def _as_rst(*arguments: Any) -> None:
    """Single backticks become double ones, but in examples; settings get their types; "Raises" without any is prose."""
    _, _, _, obj, _, lines = arguments
    text = re.sub(r"^Raises:\n +(?=As |Whatever )", "Raises: ", "\n".join(lines), flags=re.MULTILINE)
    text = re.sub(r"^(Example, .*):$", r"\1::", text, flags=re.MULTILINE)
    if _is_effect(obj):
        hints = {field.name: type_name(field.type) for field in dataclasses.fields(obj)}
        text = re.sub(r"^  (\w+):(?= )", lambda found: _typed(found, hints), text, flags=re.MULTILINE)
    parts = re.split(r"(^ *>>> .*?(?=\n\s*\n|\Z))", text, flags=re.DOTALL | re.MULTILINE)
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))", _literal, parts[place])
    lines[:] = "".join(parts).split("\n")


def _keep(*arguments: Any) -> None:
    """What is said of a property stays away from napoleon, to which words in front of a colon are a type."""
    _, what, name, _, _, lines = arguments
    if what in _PROPERTIES:
        _kept[name], lines[:] = list(lines), []


def _give_back(*arguments: Any) -> None:
    _, _, name, _, _, lines = arguments
    lines[:] = _kept.pop(name, lines)


def _typed(found: re.Match[str], hints: dict[str, str]) -> str:
    return f"  {found[1]} ({hints[found[1]]}):" if found[1] in hints else found[0]


def _is_effect(obj: Any) -> bool:
    return inspect.isclass(obj) and issubclass(obj, Effect) and dataclasses.is_dataclass(obj)


def _literal(found: re.Match[str]) -> str:
    return f"``{found[1]}``" + ("\\ " if found[2] else "")


def _readable(*arguments: Any) -> tuple[str, None] | None:
    """The signature of an effect, whose annotations carry rules."""
    obj = arguments[3]
    if obj in _MADE_BY_OTHERS:
        return "", None
    if not _is_effect(obj):
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


def _without_overloads(analyze: Any) -> Any:
    """One signature for each function; that type checkers are told of several is theirs."""

    def analyzed(self: ModuleAnalyzer) -> None:
        analyze(self)
        self.overloads = {}

    return analyzed


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _as_rst, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", _keep, priority=200)
    app.connect("autodoc-process-docstring", _give_back, priority=900)  # behind it
    app.connect("autodoc-process-signature", _readable)
    ModuleAnalyzer.analyze = _without_overloads(ModuleAnalyzer.analyze)
    return {"parallel_read_safe": True}
