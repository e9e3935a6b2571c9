"""The notebooks of examples/ hold the code of its scripts, are small, and run."""

import importlib.util
import pathlib

import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("notebooks", ROOT / "tools" / "notebooks.py")
notebooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(notebooks)
every_notebook = pytest.mark.parametrize("name", notebooks.NAMES)


def kept(name):
    return nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=4)


@every_notebook
def test_a_notebook_has_the_code_of_its_script(name):
    script = (ROOT / "examples" / f"{name}.py").read_text()
    own = [(cell.cell_type, cell.source) for cell in kept(name).cells]
    assert own == [(cell.cell_type, cell.source) for cell in notebooks.cells_of(script)]
    code = "\n".join(source for kind, source in own if kind == "code")
    # All of the script but its command line, and what that imports.
    lines = [
        line.strip() for line in script.partition('\nif __name__ == "__main__":')[0].split('"""', 2)[2].splitlines()
    ]
    assert [
        line for line in lines if line and line not in code and not line.startswith(("def main(", "import ", "from "))
    ] == []


@every_notebook
def test_a_notebook_is_small_and_shows_something(name):
    assert (ROOT / "examples" / f"{name}.ipynb").stat().st_size < 800_000
    outputs = [output for cell in kept(name).cells for output in cell.get("outputs", [])]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)


@every_notebook
def test_a_notebook_runs_and_says_what_it_said(name):
    fresh = notebooks.notebook_of((ROOT / "examples" / f"{name}.py").read_text())
    notebooks.execute(fresh)
    texts = [
        ["".join(output.text) for output in cell.get("outputs", []) if output.output_type == "stream"]
        for cell in fresh.cells
    ]
    assert any(texts)
    if name == "quickstart":  # what a training has learned may differ in the last digits between machines
        assert texts == [
            ["".join(output.text) for output in cell.get("outputs", []) if output.output_type == "stream"]
            for cell in kept(name).cells
        ]
