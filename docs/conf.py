"""How the site is built: `python -m sphinx -W --keep-going docs build/site`."""

import importlib.metadata
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_ext"))

project = "grain_datarax"
author = copyright = "the grain_datarax authors"
release = importlib.metadata.version("grain-datarax")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "gallery",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "grain_datarax"
# The search field is in the sidebar: without `navbar_persistent` the theme shows a second one, in a bar of its own.
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True, "navbar_persistent": []}
html_context = {"default_mode": "auto"}  # else the theme says in the console that it lacks
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_show_sourcelink = False
