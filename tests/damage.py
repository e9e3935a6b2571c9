"""Strategies for data that is nearly right: one to three parts of it, or of its text, are damaged."""

import json

import numpy as np
from hypothesis import strategies as st

# Of JSON's types, and further ones that a caller may pass.
_JSON = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.0, -0.0, 0.5, 1.0, -1.5, 1e308,
    float("nan"), float("inf"), "", "0", "-1", "name", "\u00e9", "\ud800", "x" * 300, [], {}, [[]], [None], [0, 0], {"0": 0}, {"": {}},
]  # fmt: skip
_OTHERS = [
    b"", (), (0, 0), 10**5000, 1j, {1: 2}, {1: 2, "a": 3}, {None: {}}, frozenset(), object, len, range(3), np.int64(1),
    np.float32(0.5), np.bool_(True), np.array(1), np.array([1, 2]), np.array(["0"]), np.zeros((2, 0)), np.str_("0"),
]  # fmt: skip
_BYTES = [
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b'"', b"{", b"}", b"[", b"]", b",", b":", b"-", b"1", b"0x1", b"null", b"NaN",
    b"1e999", b"[" * 3000, b'{"":' * 3000, b"9" * 5000, b"&a ", b"*a", b"!!python/name:os.system ", b"!!int ''", b"!!bool x ",
    b"\n", b"  ", b"- ", b"? ", b"\xe2\x80\xa8", b"<<: ", b"2001-13-45 ", b"0x" + b"f" * 5000, b"%",
]  # fmt: skip


@st.composite
def damaged(draw, tree, others=False):
    """A tree of dicts and lists, not quite as it was."""
    for _ in range(draw(st.integers(1, 3))):
        tree = _damaged_once(draw, tree, _JSON + _OTHERS * others)
    return tree


@st.composite
def damaged_text(draw, tree, text):
    """Bytes of a tree that was damaged, or of its text, which was."""
    if draw(st.booleans()):
        return text(draw(damaged(tree)))
    data = bytearray(text(tree))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.sampled_from([start, start + 1, start + 9, len(data)]))
        part = bytes(data[start:end])
        flipped = bytes(byte ^ 1 << start % 8 for byte in part)
        data[start:end] = draw(st.sampled_from([flipped, part * 2, *_BYTES]))
    return bytes(data)


def as_json(tree):
    return json.dumps(tree).encode(errors="surrogatepass")


def _damaged_once(draw, tree, values):
    paths = list(_paths(tree))
    path = paths[draw(st.integers(0, len(paths) - 1))]
    part = _at(tree, path)
    change = draw(st.sampled_from([*_OF_ALL, *_OF_TYPE.get(type(part), ())]))
    if change == "value":
        new = draw(st.sampled_from(values))
    elif change == "another":
        new = _at(tree, draw(st.sampled_from(paths)))
    elif change == "step":
        new = part + draw(st.integers(-3, 3))
    elif change in ("rename", "drop"):
        names = list(part)
        gone = draw(st.sampled_from(names)) if names else None
        other = draw(st.sampled_from(["", "other", "name", "0", "\ud800", *names])) if change == "rename" else None
        new = {
            other if name == gone else name: each for name, each in part.items() if other is not None or name != gone
        }
    else:
        new = change(part)
    return _with(tree, path, new)


def _nested(part, levels=400):
    for _ in range(levels):
        part = [part]
    return part


_OF_ALL = ["value", "value", "value", "another", lambda part: [part], lambda part: {"a": part}, _nested]
_OF_NUMBERS = [
    "step",
    "step",
    lambda part: -part,
    lambda part: f"{part}" if abs(part) < 1e30 else "1",
    lambda part: part * 1.0 if abs(part) < 1e30 else 0.5,
]
_OF_TYPE = {
    int: _OF_NUMBERS,
    float: _OF_NUMBERS,
    str: [lambda part: part + "x", lambda part: part[1:], lambda part: part * 2],
    list: [lambda part: part[1:], lambda part: part * 2, lambda part: part[::-1], lambda part: [*part, None], tuple],
    dict: ["rename", "drop", "drop", list, lambda part: list(part.values()), lambda part: {**part, "other": None}],
}


def _paths(tree, path=()):
    yield path
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, part in parts:
        if len(path) < 12:
            yield from _paths(part, (*path, name))


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def _with(tree, path, part):
    if not path:
        return part
    name, *rest = path
    changed = list(tree) if isinstance(tree, list) else dict(tree)
    changed[name] = _with(tree[name], rest, part)
    return changed
