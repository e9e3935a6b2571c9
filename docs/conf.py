"""How the site is built: `python -m sphinx -W --keep-going docs build/site`."""

import importlib.metadata

project = "grain_datarax"
author = copyright = "the grain_datarax authors"
release = importlib.metadata.version("grain-datarax")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "grain_datarax"
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": True}
html_show_sourcelink = False
html_css_files = ["site.css"]  # in _static
