"""docs/messages.yaml has every message that the package can raise, warn with or find, and none that it can't."""

import ast
import builtins
import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "grain_datarax"
SECTIONS = yaml.safe_load((ROOT / "docs" / "messages.yaml").read_text())
ENTRIES = [entry for section in SECTIONS for entry in section["entries"]]
# What control flow is made of: users see none of these.
INNER = {"Interrupted", "StopIteration"}
# Which raise a rule that they are given: its words are listed, not this frame of them.
FRAMES = {"`…` must …"}
# What varies by its look alone.
NAMES = {"RECORD_SEED": "record_seed", "STATE_KEY": "grain_datarax", "VALID": "valid"}


def beginning(text):
    """What is the same each time, and stands first: all before the value that was got, or the first sentence."""
    before, got, _ = text.partition(": got")
    return re.sub("…+", "…", before if got else re.split(r"\. |: |, …|\.$", text)[0])


def template(node):
    """The text of a string, an f-string or a sum of them, with `…` for what varies; None of anything else."""
    if isinstance(node, ast.Constant):
        return node.value.replace("{}", "…") if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else _varying(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = template(node.left), template(node.right)
        return None if parts == (None, None) else "".join(part or "…" for part in parts)
    return None


def _varying(part):
    return NAMES.get(ast.unparse(part.value), "…")


def messages():
    """Each message of the source: its beginning, and the exception that it is of, where that is seen beside it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        known = dict(_told(tree))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        yield from _rules(tree)
        pending = [tree]
        while pending:
            node = pending.pop()
            text = template(node)
            if text is None:
                pending += ast.iter_child_nodes(node)
            elif id(node) not in docstrings and (id(node) in known or ": got" in text) and not _is_a_part(text):
                yield beginning(text), known.get(id(node))


def _is_a_part(text):
    """Whether a text is what goes on behind another, or is put around one."""
    return beginning(text) in FRAMES or re.match("… [A-Z]|…: …|…, …$|…+$", text) is not None


def _told(tree):
    """The texts that are raised or warned with on the spot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            kind = ast.unparse(node.exc.func)
            if _is_exception(kind) and kind != "AttributeError":
                yield from ((id(argument), kind) for argument in node.exc.args)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
            yield id(node.args[0]), "UserWarning"


def _is_exception(name):
    return name not in INNER and (hasattr(builtins, name) or name in ("WorkerEnded", "NotTried"))


def _rules(tree):
    """Rules that are given as an argument, in words: of numbers, and of the parts of a state."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple) and len(node.elts) == 2 and (template(node.elts[1]) or "").startswith("be "):
            yield f"`…` must {template(node.elts[1])}", "ValueError"
        if not isinstance(node, ast.Call):
            continue
        function, arguments = ast.unparse(node.func), [*node.args, *(each.value for each in node.keywords)]
        if function == "Number":
            words = [text for each in arguments[:3] if (text := template(each)) is not None]
            yield from ((f"`…` must {text}", "ValueError") for text in words[:1])
        elif function == "form.require":
            name = template(node.args[1]) or NAMES.get(ast.unparse(node.args[1]), "…")
            rule = template(node.args[2])
            if rule is not None:
                yield f"`{name}` must {rule}", "ValueError"


def traps():
    """What findings are called in the source."""
    for path in sorted((PACKAGE / "traps").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
                yield node.args[0].value
            if isinstance(node, ast.keyword) and node.arg == "trap":
                yield node.value.value


def listed(name):
    """What the list has under this name, each text with its entry."""
    for entry in ENTRIES:
        texts = entry.get(name, [])
        yield from ((text, entry) for text in ([texts] if isinstance(texts, str) else texts))


def test_every_message_of_the_source_is_listed():
    assert sorted({text for text, _ in messages()} - {text for text, _ in listed("says")}) == []


def test_every_listed_message_is_in_the_source():
    assert sorted({text for text, _ in listed("says")} - {text for text, _ in messages()}) == []


def test_every_trap_is_listed_and_every_listed_one_is_in_the_source():
    assert sorted(text for text, _ in listed("finds")) == sorted(set(traps()))


def test_no_message_is_listed_twice():
    texts = [text for name in ("says", "finds") for text, _ in listed(name)]
    assert sorted({text for text in texts if texts.count(text) > 1}) == []


def test_messages_are_listed_with_the_exceptions_that_they_are_raised_as():
    kinds = {}
    for text, kind in messages():
        if kind is not None:
            kinds.setdefault(text, set()).add(kind)
    wrong = {
        text: (entry["raises"], sorted(kinds[text]))
        for text, entry in listed("says")
        if not kinds.get(text, set()) <= set(entry["raises"].split(", "))
    }
    assert wrong == {}


@pytest.mark.parametrize("section", SECTIONS, ids=[section["title"] for section in SECTIONS])
def test_every_entry_says_its_cause_and_its_cure(section):
    assert set(section) <= {"title", "about", "entries"}
    for entry in section["entries"]:
        assert set(entry) <= {"says", "finds", "raises", "cause", "cure"}, entry
        assert ("says" in entry) != ("finds" in entry), entry
        assert ("raises" in entry) == ("says" in entry), entry
        for name in ("cause", "cure"):
            assert entry[name].strip().endswith((".", "`")), entry


def test_the_page_has_every_section_under_its_title_in_the_order_of_the_list():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    shown = re.findall(r"^## (.+)\n\n:::\{messages\} (.+)\n:::$", page, re.MULTILINE)
    assert shown == [(section["title"], section["title"]) for section in SECTIONS]
