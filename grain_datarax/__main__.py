"""Commands of `python -m grain_datarax`: draw what a chain does, check a pipeline for traps, look at this machine."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.check import pipelines_of, report_of
from grain_datarax.doctor import diagnose
from grain_datarax.pictures import drawing_module, preview
from grain_datarax.sample import as_taken
from grain_datarax.traps.program import Program


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; where that can't be done, says so in a line and ends with status 2."""
    parser = argparse.ArgumentParser(prog="python -m grain_datarax")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_preview(commands)
    _add_check(commands)
    _add_doctor(commands)
    given = parser.parse_args(arguments)
    try:
        status = given.run(given)
    # What users get wrong is said by these: files, settings, images that the chain can't treat, extras.
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"{given.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    if status:
        sys.exit(status)


def _add_preview(commands: Any) -> None:
    command = commands.add_parser(
        "preview",
        help="draw what a chain does to images",
        description="Draws a row for each image: the image, every effect of the chain alone, and the whole chain.",
    )
    command.add_argument("images", nargs="+", type=pathlib.Path, metavar="IMAGE", help="a file that Pillow reads")
    command.add_argument(
        "--chain",
        required=True,
        type=pathlib.Path,
        help="what chain.save wrote, YAML or JSON: data, of which nothing is imported that --function does not name",
    )
    command.add_argument(
        "--function",
        action="append",
        default=[],
        dest="functions",
        metavar="MODULE:NAME",
        help="a function that the chain may name, which is imported and called; once for each",
    )
    command.add_argument("-o", "--output", required=True, type=pathlib.Path, help="the file to write, such as out.png")
    command.add_argument("--seed", type=int, default=0, help="another one makes other draws (default: %(default)s)")
    command.add_argument("--outlines", action="store_true", help="outline what effects cover")
    command.set_defaults(run=_preview, prog=command.prog)


def _preview(given: argparse.Namespace) -> int:
    write_preview(given.images, given.chain, given.output, given.functions, seed=given.seed, outlines=given.outlines)
    print(f"Wrote {given.output}.")
    return 0


def _add_check(commands: Any) -> None:
    command = commands.add_parser(
        "check",
        help="name the traps that a pipeline is in",
        description="Imports a module, calls a function of it, and reads the pipelines that it returns. Ends with"
        " status 0, or 1 where there are traps, or 2 where it can't read.",
    )
    command.add_argument(
        "function",
        metavar="MODULE:FUNCTION",
        help="what returns a loader, a dataset, or several: a list, a tuple, a dict; called without arguments",
    )
    command.add_argument(
        "--accelerator", action="store_true", default=None, help="check for a machine that has one (default: this one)"
    )
    command.set_defaults(run=_check, prog=command.prog)


def _check(given: argparse.Namespace) -> int:
    pipelines, path = pipelines_of(given.function)
    report = report_of(pipelines, Program.of_file(path), accelerator=given.accelerator)
    print(report)
    return 1 if report.findings else 0


def _add_doctor(commands: Any) -> None:
    command = commands.add_parser(
        "doctor",
        help="say what is installed here, and what needs care",
        description="Prints versions and devices, makes two records with and without a worker process, and says what"
        " needs care in this environment. Ends with status 1 where something is wrong.",
    )
    command.set_defaults(run=lambda _: diagnose(), prog=command.prog)


def write_preview(
    images: Sequence[pathlib.Path],
    chain: pathlib.Path,
    output: pathlib.Path,
    functions: Sequence[str] = (),
    *,
    seed: int,
    outlines: bool,
) -> None:
    """Draws these files' images, and writes the picture; the chain may name these functions.

    Raises:
      ImportError: If matplotlib is not installed, or PyYAML for a chain in YAML.
      OSError: If the picture can't be written.
      TypeError, ValueError: If a file is missing, or is none of what it should be, or the chain can't treat an image.
    """
    endings = drawing_module().file_endings()
    if output.suffix.lower().lstrip(".") not in endings:
        raise ValueError(f"`--output` must end in one of {endings}: got {str(output)!r}. Rename it.")
    loaded = load_chain(chain, functions)
    pictures = [as_taken(read_image(path), loaded) for path in images]
    preview(loaded, pictures, seed=seed, outlines=outlines).savefig(output)


def load_chain(path: pathlib.Path, functions: Sequence[str]) -> Chain:
    """The chain of a file, which may name these functions; raises `ValueError` if it can't be read, or is none."""
    try:
        return Chain.load(path, functions=functions)
    except OSError as error:
        raise ValueError(
            f"`--chain` must be a file that can be read: got {str(path)!r}, {error.strerror}. Write it by"
            " chain.save(path)."
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{error}{_to_this_command(error)}") from error


def _to_this_command(error: Exception) -> str:
    """What instead of an argument of `Chain.load` is to be said to this command."""
    if "effects=[...] for classes of your own" in str(error):
        return (
            " Classes of your own can't be named to this command: draw such a chain in Python,"
            " grain_datarax.preview(Chain.load(path, effects=[...]), images)."
        )
    return " To this command pass --function MODULE:NAME." if "pass functions=" in str(error) else ""


def read_image(path: pathlib.Path) -> np.ndarray:
    """The image of a file, as cameras held it: `uint8 (H, W, 3)`, or grey `(H, W)`, `uint8` or `uint16`.

    Alpha is left out.

    Raises:
      ValueError: If it is missing, or Pillow can't read it, or it is grey with other values than 16 bits hold.
    """
    from PIL import Image, ImageOps  # comes with matplotlib

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            grey, deep = image.mode in ("1", "L", "LA"), image.mode[0] in "IF"
            values = np.array(image if deep else image.convert("L" if grey else "RGB"))
    # Pillow's readers raise errors of any kind on damaged files, and one of its own on huge ones.
    except Exception as error:
        raise ValueError(
            f"`IMAGE` must be a picture that Pillow reads: got {str(path)!r}, {error}. Pass undamaged files, such as"
            " PNG or JPEG, of the size that it takes."
        ) from error
    return _as_16_bits(values, path) if deep else values


def _as_16_bits(values: np.ndarray, path: pathlib.Path) -> np.ndarray:
    """Grey values of more than 8 bits; Pillow holds them in 16, 32, or as floats, whatever the file has."""
    if values.dtype.kind == "f" or not 0 <= values.min() <= values.max() <= np.iinfo(np.uint16).max:
        raise ValueError(
            "`IMAGE` must be of whole values from 0 to 65535 where it is grey with more than 8 bits: got"
            f" {values.dtype}, from {values.min():g} to {values.max():g}, in {str(path)!r}. Draw it in Python, where a"
            " chain's value_range says what values mean: grain_datarax.preview(chain, images)."
        )
    return values.astype(np.uint16)


if __name__ == "__main__":
    main()
