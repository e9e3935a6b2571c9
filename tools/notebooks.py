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
import tempfile
import textwrap

import nbclient
import nbformat
import PIL.Image

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
NAMES = ("quickstart", "train")


def cells_of(script: str) -> list[nbformat.NotebookNode]:
    """The cells of a script's text."""
    tree, lines = ast.parse(script), script.splitlines()
    head, *parts = tree.body
    title, _, rest = ast.literal_eval(head.value).partition("\n")
    told = "\n".join(line for line in rest.splitlines() if not line.startswith("Run:"))
    result = [nbformat.v4.new_markdown_cell(f"# {title}\n\n```text\n{told.strip()}\n```")]
    first, codes = head.end_lineno, []
    for part in parts:
        begin, kind = first, type(part)
        first = part.end_lineno
        text = "\n".join(lines[begin:first]).strip("\n")
        if isinstance(part, ast.If):  # the command line
            continue
        if isinstance(part, ast.FunctionDef) and part.name == "main":
            codes += [(ast.If, code) for code in _paragraphs(part, lines)]
        elif (
            codes
            and kind in (ast.Import, ast.ImportFrom, ast.Assign)
            and codes[-1][0] in (ast.Import, ast.ImportFrom, kind)
        ):
            codes[-1] = (kind, f"{codes[-1][1]}\n{text}")
        else:
            codes.append((kind, text))
    result += [nbformat.v4.new_code_cell(code.strip("\n")) for _, code in codes]
    for number, cell in enumerate(result):
        cell.id = f"cell{number}"
    return result


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
