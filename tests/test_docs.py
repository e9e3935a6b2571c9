"""What the pages of docs/ show runs, and gives what they say."""

import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

import grain_datarax as gdx

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
# As pages mean them: python is one program, from the page's first block to its last; output is what the block before it
# prints; yaml is a chain, there as chain.yaml; sh is run behind the program. bash runs elsewhere, with other hardware or
# for hours, and text is none.
LANGUAGES = {"python", "output", "yaml", "sh", "bash", "text", "toml", "mermaid"}


def blocks(page):
    """The language and the text of each, in the page's order."""
    text = (ROOT / "docs" / page).read_text()
    return [(language, textwrap.dedent(code)) for _, language, code in FENCE.findall(text) if language[:1] != "{"]


@pytest.mark.parametrize("page", PAGES)
def test_all_code_of_a_page_is_of_a_kind_that_is_tried(page):
    assert {language for language, _ in blocks(page)} <= LANGUAGES


@pytest.mark.once
@pytest.mark.long
@pytest.mark.whole
@pytest.mark.parametrize(
    "page", [page for page in PAGES if {"python", "sh"} & {language for language, _ in blocks(page)}]
)
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program, outputs = [], {}
    for language, code in blocks(page):
        if language == "python":
            program.append(f"{code}\nprint({_end(len(program))!r}, flush=True)\n")
        elif language == "output":
            outputs[len(program) - 1] = code
        elif language == "yaml":
            (tmp_path / "chain.yaml").write_text(code)
            assert gdx.Chain.load(tmp_path / "chain.yaml").effects
    (tmp_path / "page.py").write_text("".join(program))
    printed = _run([sys.executable, "-W", "error::UserWarning", "page.py"], tmp_path)
    for place in range(len(program)):
        own, _, printed = printed.partition(f"{_end(place)}\n")
        if place in outputs:
            assert own == outputs[place]
    for language, code in blocks(page):
        if language == "sh":
            _run(["bash", "-euc", re.sub(r"^pip install .*", "", code, flags=re.MULTILINE)], tmp_path)
        if language == "bash":
            subprocess.run(["bash", "-n", "-c", code], check=True)


def _end(place):
    return f"-- end of block {place} --"


def _run(command, folder):
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
