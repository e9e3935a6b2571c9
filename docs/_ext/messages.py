"""`{messages} TITLE` in a page: the entries of one section of docs/messages.yaml, each with an anchor."""

import pathlib

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

LIST = pathlib.Path(__file__).parent.parent / "messages.yaml"
# What is typed or pasted leaves the entries that have all its words, or whose fixed words it has in their order.
FILTER = """
<p class="messages-filter"><label for="messages-words">Words of a message, or all of it:</label>
<input id="messages-words" type="search" autocomplete="off" style="width: 100%"></p>
<p id="messages-count" role="status"></p>
<script>
addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("messages-words"), count = document.getElementById("messages-count");
  const escaped = text => text.replace(/[.*+?^${}()|[\\]\\\\]/g, "\\\\$&").replace(/…/g, "[^]*");
  const entries = [...document.querySelectorAll("dl.messages > dd")].map(last => {
    const parts = [last];
    for (let each = last.previousElementSibling; each?.matches("dt"); each = each.previousElementSibling)
      parts.unshift(each);
    const terms = parts.slice(0, -1).map(each => (each.querySelector("code, strong") ?? each).textContent.trim());
    return {parts, text: parts.map(each => each.textContent).join(" ").toLowerCase(),
            fixed: terms.filter(term => /[a-z]{3}/.test(term)).map(term => new RegExp(escaped(term)))};
  });
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\\s+/).filter(word => word);
    const whole = entries.filter(entry => entry.fixed.some(each => each.test(box.value)));
    const shown = whole.length ? whole : entries.filter(entry => words.every(word => entry.text.includes(word)));
    for (const entry of entries)
      for (const part of entry.parts) part.style.display = shown.includes(entry) ? "" : "none";
    for (const list of document.querySelectorAll("dl.messages"))
      list.closest("section").style.display = [...list.children].some(part => !part.style.display) ? "" : "none";
    count.textContent = words.length ? `${shown.length} of ${entries.length}` : "";
  });
});
</script>
"""


class Messages(SphinxDirective):
    """The entries of a section, as a list of definitions."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(LIST))
        sections = {section["title"]: section for section in yaml.safe_load(LIST.read_text(encoding="utf-8"))}
        section = sections[self.arguments[0]]
        items = nodes.definition_list(classes=["messages"])
        for entry in section["entries"]:
            items += self._item(entry)
        return [*self._parsed(section.get("about", "")), addnodes.glossary("", items, sorted=False)]

    def _item(self, entry: dict) -> nodes.definition_list_item:
        texts = entry.get("says", entry.get("finds"))
        item = nodes.definition_list_item()
        for text in [texts] if isinstance(texts, str) else texts:
            look = nodes.literal if "says" in entry else nodes.strong
            term = nodes.term("", "", look(text, text))
            anchor = nodes.make_id(f"{'message' if 'says' in entry else 'trap'}-{text}")
            while anchor in self.state.document.ids:
                anchor += "-2"
            term["ids"].append(anchor)
            self.state.document.note_explicit_target(term)
            item += term
        raised = "".join(f"`{name}`, " for name in entry.get("raises", "").split(", ") if name)
        kind = f"{raised[:-2].replace('`, `', '` or `')}. " if raised else ""
        item += nodes.definition("", *self._parsed(f"{kind}{entry['cause']}\n\n**Cure:** {entry['cure']}"))
        return item

    def _parsed(self, text: str) -> list[nodes.Node]:
        body = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), str(LIST)), 0, body)
        return body.children


class Filter(SphinxDirective):
    """A field that leaves the entries that have what is typed into it."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", FILTER, format="html")]


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.add_directive("messages", Messages)
    app.add_directive("messages-filter", Filter)
    return {"parallel_read_safe": True}
