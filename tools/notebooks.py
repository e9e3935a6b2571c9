"""Writes the notebooks of `examples/` from its scripts, which stay the one source of their code.

    python tools/notebooks.py [--execute]

A script becomes: its docstring; its imports; a cell for each class, function and table; and what its `main` does, a
cell for each paragraph, with the defaults of its arguments in front. `--execute` runs them, too, so that they hold what
they print and draw. Needs `pip install -e '.[docs]'`.
"""

import argparse
import ast
import base64
import io
import pathlib
import re
import tempfile
import textwrap

import nbclient
import nbformat
import PIL.Image

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
NAMES = ("quickstart", "train")
_TOGETHER = (ast.Import, ast.ImportFrom, ast.Assign)


def cells_of(script: str) -> list[nbformat.NotebookNode]:
    """The cells of a script's text."""
    tree, lines = ast.parse(script), script.splitlines()
    head, *parts = tree.body
    title, _, rest = ast.literal_eval(head.value).partition("\n")
    told = "\n".join(line for line in rest.splitlines() if not line.startswith("Run:"))
    result = [nbformat.v4.new_markdown_cell(f"# {title}\n\n```text\n{told.strip()}\n```")]
    first, codes = head.end_lineno, []
    for part in parts:
        text, first, kind = "\n".join(lines[first : part.end_lineno]), part.end_lineno, type(part)
        if isinstance(part, ast.If):  # the command line
            continue
        if isinstance(part, ast.FunctionDef) and part.name == "main":
            codes += [(ast.If, code) for code in _paragraphs(part, lines)]
        elif codes and codes[-1][0] in _TOGETHER and kind in (*_TOGETHER, ast.Assign):
            codes[-1] = (kind, f"{codes[-1][1]}\n{text}")
        else:
            codes.append((kind, text))
    codes[0] = (codes[0][0], _without_unused(codes[0][1], "\n".join(code for _, code in codes[1:])))
    result += [nbformat.v4.new_code_cell(code.strip("\n")) for _, code in codes]
    for number, cell in enumerate(result):
        cell.id = f"cell{number}"
    return result


def _without_unused(head: str, rest: str) -> str:
    """The first cell without what only the command line imports."""
    unused = []
    for part in ast.parse(head).body:
        if isinstance(part, ast.Import | ast.ImportFrom):
            names = [(each.asname or each.name).partition(".")[0] for each in part.names]
            body = "\n".join(line for line in head.splitlines() if "import " not in line)
            if not any(re.search(rf"\b{name}\b", f"{body}\n{rest}") for name in names):
                unused.append(part.lineno - 1)
    return "\n".join(line for number, line in enumerate(head.splitlines()) if number not in unused)


def _paragraphs(main: ast.FunctionDef, lines: list[str]) -> list[str]:
    """What `main` does, in pieces; the first sets its arguments."""
    names = [argument.arg for argument in main.args.args]
    settings = [f"{name} = {ast.unparse(value)}" for name, value in zip(names, main.args.defaults, strict=True)]
    body = textwrap.dedent("\n".join(lines[main.lineno : main.end_lineno]))
    return ["\n".join(settings), *_split(body)]


def _split(body: str) -> list[str]:
    """A text of code at the blank lines between its statements."""
    lines, result, first = body.splitlines(), [], 0
    ends = [statement.end_lineno for statement in ast.parse(body).body]
    for end in ends:
        if end == len(lines) or not lines[end]:
            result.append("\n".join(lines[first:end]).strip("\n"))
            first = end
    return result


def notebook_of(script: str) -> nbformat.NotebookNode:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells_of(script), metadata={"kernelspec": kernel})


def execute(notebook: nbformat.NotebookNode) -> None:
    """Runs it in a folder of its own; keeps what is printed and drawn, but no progress and no times."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"timeout": 1200, "kernel_name": "python3", "resources": {"metadata": {"path": folder}}}
        nbclient.NotebookClient(notebook, record_timing=False, **settings).execute()
    for cell in notebook.cells:
        kept = [each for each in cell.get("outputs", []) if each.get("name") != "stderr"]
        if "outputs" in cell:
            cell.outputs = kept
        for data in (each["data"] for each in kept if "data" in each):
            if "image/png" in data:  # a tenth as large
                data["image/jpeg"] = _as_jpeg(data.pop("image/png"))


def _as_jpeg(png: str) -> str:
    picture, jpeg = PIL.Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    picture.convert("RGB").save(jpeg, "JPEG", quality=75)
    return base64.b64encode(jpeg.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--execute", action="store_true", help="run them, and keep what they print and draw")
    given = parser.parse_args()
    for name in NAMES:
        notebook = notebook_of((EXAMPLES / f"{name}.py").read_text())
        if given.execute:
            execute(notebook)
        nbformat.write(notebook, EXAMPLES / f"{name}.ipynb")


if __name__ == "__main__":
    main()
