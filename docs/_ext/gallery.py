"""The directives `gallery` and `explorer`: pictures of each effect, and a page of sliders; both from shown.py.

A build of HTML writes their pictures into `gallery/` beside the pages, and keeps them for the next build.
"""

import functools
import itertools
import json
import pathlib
from collections.abc import Iterable
from html import escape
from typing import Any

import rendering
from docutils import nodes
from rendering import SIDE, State
from shown import ENTRIES, GROUPS, RECORD, Entry, missing
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.display import status_iterator
from sphinx.util.docutils import SphinxDirective

FOLDER = "gallery"
# A slider of so few values gives a row of pictures for each.
_FEW = 3


@functools.cache
def states_of(entry: Entry) -> list[State]:
    """All states of an entry, made once."""
    return rendering.states(entry)


class Gallery(SphinxDirective):
    """A section for each group, and in it one for each entry: what it does, and its pictures in rows."""

    def run(self) -> list[nodes.Node]:
        return [self._group(title, entries) for title, entries in GROUPS.items()]

    def _group(self, title: str, entries: tuple[Entry, ...]) -> nodes.section:
        section = self._section(title)
        if any(entry.outlines for entry in entries):
            section += _raw(
                '<p class="gallery-switch"><label><input type="checkbox" autocomplete="off">'
                " Outline what is covered</label></p>"
            )
        section += [self._entry(entry) for entry in entries]
        return section

    def _entry(self, entry: Entry) -> nodes.section:
        section = self._section(entry.title)
        link = nodes.reference("", f"{entry.title} in the explorer", refuri=f"explorer.html?effect={entry.slug}")
        section += nodes.paragraph("", "", *self.parse_inline(f"{entry.says} ")[0], link, nodes.Text("."))
        section += [_raw(_row(entry, row)) for row in rows(entry)]
        return section

    def _section(self, title: str) -> nodes.section:
        section = nodes.section("", nodes.title(title, title), names=[nodes.fully_normalize_name(title)])
        self.state.document.note_implicit_target(section, section)
        return section


def rows(entry: Entry) -> list[list[State]]:
    """The rows of the gallery, in each of which one slider is moved and the other stands still."""
    every = states_of(entry)
    if len(entry.sliders) == 1:
        return [every]
    first, second = (len(each.values) for each in entry.sliders)
    if first <= _FEW:
        return [_where(every, 0, place) for place in range(first)]
    if entry.sliders[1].setting == RECORD:
        return [_where(every, 1, 0)]
    if second <= _FEW:
        return [_where(every, 1, place) for place in range(second)]
    return [_where(every, 1, second // 2), _where(every, 0, first // 2)]


def _where(every: list[State], slider: int, place: int) -> list[State]:
    return [state for state in every if state.places[slider] == place]


def _row(entry: Entry, row: list[State]) -> str:
    moves = [each.setting != RECORD or len({state.record for state in row}) > 1 for each in entry.sliders]
    cells = "\n".join(_cell(state, itertools.compress(state.texts, moves)) for state in row)
    return f'<div class="gallery-row" role="group" aria-label="{escape(entry.title)}">\n{cells}\n</div>'


def _cell(state: State, texts: Iterable[str]) -> str:
    pictures = _picture(state.file, state.alt, "gallery-plain" if state.outlined else "")
    if state.outlined:
        pictures += _picture(state.outlined, f"{state.alt} What is covered is outlined.", "gallery-outlined")
    caption = "".join(f"<span>{escape(text)}</span>" for text in texts)
    return f'<figure class="gallery-cell">{pictures}<figcaption>{caption}</figcaption></figure>'


def _picture(file: str, alt: str, kind: str = "", attributes: str = 'loading="lazy"') -> str:
    # "dark-light": the theme dims other pictures where it is dark.
    return (
        f'<img class="dark-light {kind}" src="{FOLDER}/{file}" alt="{escape(alt)}"'
        f' width="{SIDE}" height="{SIDE}" {attributes}>'
    )


class Explorer(SphinxDirective):
    """A form of the first entry as it is at first; explorer.js fills in what its reader chooses."""

    def run(self) -> list[nodes.Node]:
        first = ENTRIES[0]
        state = states_of(first)[0]
        options = "".join(
            f'<optgroup label="{escape(title)}">'
            + "".join(f'<option value="{entry.slug}">{escape(entry.title)}</option>' for entry in entries)
            + "</optgroup>"
            for title, entries in GROUPS.items()
        )
        sliders = "".join(
            f'<div class="explorer-slider"><label for="explorer-slider-{place}"></label>'
            f' <output for="explorer-slider-{place}"></output>'
            f'<input type="range" id="explorer-slider-{place}" min="0" max="1" value="0" step="1"></div>'
            for place in range(2)
        )
        picture = _picture(state.file, state.alt, attributes='id="explorer-picture"')
        return [
            _raw(f"""
<form class="explorer" id="explorer" autocomplete="off" onsubmit="return false">
<figure>{picture}</figure>
<div class="explorer-controls">
<p><label for="explorer-effect">Effect</label>
<select id="explorer-effect">{options}</select></p>
<p id="explorer-says"></p>
{sliders}
<p id="explorer-outlines"><label><input type="checkbox" id="explorer-outlined">
Outline what is covered</label></p>
<noscript><p>Sliders need JavaScript. The <a href="gallery.html">gallery</a> shows such pictures without.</p></noscript>
</div>
</form>
<p class="rubric" role="heading" aria-level="2" id="explorer-python-heading">Python</p>
{_code("python", state.python, 'aria-live="polite"')}
<p class="rubric" role="heading" aria-level="2" id="explorer-yaml-heading">YAML, read by
<code id="explorer-load">{escape(state.load, quote=False)}</code></p>
{_code("yaml", state.yaml)}
<script src="{FOLDER}/states.js"></script>
<script src="_static/explorer.js"></script>
""")
        ]


def _code(name: str, text: str, attributes: str = "") -> str:
    # As Sphinx writes code, so that it looks alike and has a button to copy it, which takes the id of `pre`.
    return (
        f'<div class="highlight-{name} notranslate"><div class="highlight">'
        f'<pre tabindex="0" role="region" aria-labelledby="explorer-{name}-heading">'
        f'<code id="explorer-{name}" {attributes}>{escape(text, quote=False)}</code></pre></div></div>'
    )


def _raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def explorer_data() -> list[dict[str, Any]]:
    """What explorer.js shows: each entry's sliders, its chains, and its states, the last slider moved first."""
    return [_explored(entry) for entry in ENTRIES]


def _explored(entry: Entry) -> dict[str, Any]:
    every = states_of(entry)
    chains = list(dict.fromkeys((state.python, state.yaml) for state in every))
    return {
        "name": entry.slug,
        "says": entry.says,
        "load": every[0].load,
        "sliders": [{"setting": each.setting, "values": each.texts()} for each in entry.sliders],
        "chains": [{"python": python, "yaml": yaml} for python, yaml in chains],
        "states": [
            {
                "file": state.file,
                "outlined": state.outlined,
                "alt": state.alt,
                "chain": chains.index((state.python, state.yaml)),
            }
            for state in every
        ],
    }


def make_pictures(app: Sphinx) -> None:
    """Fails where the list lacks an effect; in a build of HTML, writes the pictures and the explorer's data."""
    if lacking := missing():
        raise ExtensionError(f"docs/_ext/shown.py must show all effects and presets: it lacks {lacking}. Add them.")
    if app.builder.format != "html":
        return
    folder = pathlib.Path(app.outdir) / FOLDER
    marks = pathlib.Path(app.doctreedir) / FOLDER
    made = rendering.made_pictures({entry: states_of(entry) for entry in ENTRIES}, folder, marks)
    for _ in status_iterator(
        made, "making pictures... ", "purple", len(ENTRIES), stringify_func=lambda each: each.title
    ):
        pass
    data = json.dumps(explorer_data(), separators=(",", ":"))
    (folder / "states.js").write_text(f"window.explorerEntries = {data};\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives, and what their pages need."""
    app.add_directive("gallery", Gallery)
    app.add_directive("explorer", Explorer)
    app.add_css_file("gallery.css")
    app.connect("builder-inited", make_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
