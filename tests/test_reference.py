"""docs/api/ has every public name, once, and each says what it is."""

import collections
import importlib
import inspect
import pathlib
import re

import pytest

import grain_datarax as gdx

API = pathlib.Path(__file__).parent.parent / "docs" / "api"
# Beside those of the package itself: modules that users import from.
MODULES = ["checkpoint", "iterators", "presets", "testing"]
DESCRIBED = re.compile(r"^\.\. (?:auto)?(?:class|data|exception|function):: grain_datarax\.(\S+)", re.MULTILINE)
OURS = collections.Counter(name for page in sorted(API.glob("*.md")) for name in DESCRIBED.findall(page.read_text()))
# An extra, and what Python itself gives every package.
NOT_HERE = {"datarax.ChainOperator", "__version__"}


def public(module):
    """The names that a module shows its users."""
    names = vars(importlib.import_module(f"grain_datarax.{module}"))
    own = [name for name, each in names.items() if not name.startswith("_") and _is_shown(each, module)]
    return [f"{module}.{name}" for name in own]


def _is_shown(each, module):
    defined = inspect.isclass(each) or inspect.isfunction(each)
    return defined and each.__module__.startswith(f"grain_datarax.{module}")


def found(name):
    """What is behind a name that may be a submodule's."""
    module, _, last = name.rpartition(".")
    home = importlib.import_module(f"grain_datarax.{module}") if module else gdx
    return getattr(home, last)


def test_every_public_name_is_on_one_page_of_the_reference():
    names = [name for name in gdx.__all__ if not inspect.ismodule(getattr(gdx, name))]
    names += [name for module in MODULES for name in public(module)]
    assert {name: OURS[name] for name in names if OURS[name] != 1} == {}


def test_what_own_effects_are_made_of_is_on_their_page():
    text = (API / "own_effects.md").read_text()
    assert [name for name in gdx.extend.__all__ if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", sorted(OURS.keys() - NOT_HERE))
def test_what_is_in_the_reference_is_there_and_has_a_docstring(name):
    each = found(name)
    if inspect.isclass(each) or inspect.isroutine(each):
        assert vars(each).get("__doc__") if inspect.isclass(each) else each.__doc__


def test_the_index_of_the_reference_has_every_page():
    pages = {page.stem for page in API.glob("*.md")} - {"index"}
    text = (API / "index.md").read_text()
    assert {page for page in pages if f"]({page}.md)" in text and f"\n{page}\n" in text} == pages
