"""How the site is built: `python -m sphinx -W --keep-going docs build/site`."""

import importlib.metadata
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent / "_ext"))

project = "grain_datarax"
author = copyright = "the grain_datarax authors"
release = importlib.metadata.version("grain-datarax")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "messages",
    "reference",
    "gallery",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # What is of others: nothing is looked up in the network.
    (r"py:.*", r"(collections|flax|grain|jax|matplotlib|nnx|np|numpy|orbax|os|typing)\..*|Figure"),
    # Several exceptions, or a sentence, under "Raises"; and what a type checker alone has a name for.
    (r"py:exc", r".*[ ,].*"),
    (r"py:class", r".*\.(SameRecord|Tree|_\w+)"),
    # Rules of settings, in the signatures of those that hold them.
    (r"py:class", r"grain_datarax\.effects\.settings\.\w+"),
]

add_module_names = False
autodoc_member_order = "bysource"
autodoc_mock_imports = ["datarax"]
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Returns"]  # sentences, not a type in front of a colon

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

copybutton_prompt_text = r">>> |\.\.\. "  # of examples in docstrings
copybutton_prompt_is_regexp = True

html_theme = "sphinx_book_theme"
html_title = "grain_datarax"
# The search field is in the sidebar: without `navbar_persistent` the theme shows a second one, in a bar of its own.
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "navbar_persistent": []}
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_show_sourcelink = False
html_css_files = ["site.css"]  # in _static
html_context = {"default_mode": "auto"}  # else the theme says in the console that it lacks
