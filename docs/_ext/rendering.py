"""Entries of the list -> states: pictures, what is said of them, and the chain of each as Python and as YAML."""

import ast
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
import json
import multiprocessing
import operator
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw
from shown import RECORD, Entry
from skimage import data
from sklearn.datasets import load_sample_images

import grain_datarax as gdx
from grain_datarax.drawing import outline
from grain_datarax.effects import EFFECTS

# Of the pictures, in pixels: a side of the chain's image, and how many times as large the outlined ones are.
SIDE = 176
ENLARGED = 2
WIDTH = 72  # of the code, in characters
_COVERED, _DRAWS = "covered", "draws"


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photograph: `uint8 (SIDE, SIDE, 3)`, and what it shows."""

    shows: str
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class State:
    """What is on the screen where the sliders stand so.

    Attributes:
      places: The place of each slider's value.
      texts: The value of each slider, as it is written.
      file, outlined: The names of the pictures; None: it has no outlined one.
      alt: The picture's alternative text.
      chain: The chain that makes it, of record `record`.
      python, yaml: The chain as code, and as `Chain.save` writes it.
      load: Code that reads the latter from a file.
    """

    places: tuple[int, ...]
    texts: tuple[str, ...]
    file: str
    outlined: str | None
    alt: str
    chain: gdx.Chain
    record: int
    python: str
    yaml: str
    load: str


@functools.cache
def photos() -> tuple[Photo, ...]:
    """Four photographs that packages carry, their middle square."""
    temple, flower = load_sample_images().images
    shown = {
        "A Chinese tower with tiers of tiled roofs above a lake": temple,
        "An orange dahlia before dark green leaves": flower,
        "The face of a tabby cat": data.chelsea(),
        "A cup of coffee on a red saucer": data.coffee(),
    }
    return tuple(Photo(shows, _square(pixels)) for shows, pixels in shown.items())


def _square(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def states(entry: Entry) -> list[State]:
    """All positions of an entry's sliders, the last one's moved first."""
    return [_state(entry, places) for places in itertools.product(*(range(len(each.values)) for each in entry.sliders))]


def _state(entry: Entry, places: tuple[int, ...]) -> State:
    moved = {each.setting: each.values[place] for each, place in zip(entry.sliders, places, strict=True)}
    record = moved.pop(RECORD, 0)
    texts = tuple(each.texts()[place] for each, place in zip(entry.sliders, places, strict=True))
    chain = gdx.Chain([entry.effect(**moved)], seed=0)
    name = "-".join([entry.slug, *map(str, places)])
    return State(
        places=places,
        texts=texts,
        file=f"{name}.webp",
        outlined=f"{name}-outlined.webp" if entry.outlines else None,
        alt=f"{photo_of(entry, record).shows}, {entry.seen}: {', '.join(texts)}.",
        chain=chain,
        record=record,
        python=python_of(entry, chain, moved),
        yaml=yaml_of(chain),
        load=load_of(chain),
    )


def photo_of(entry: Entry, record: int) -> Photo:
    """What record `record` of an entry is, before the chain."""
    return photos()[(entry.photo + record) % len(photos())]


def python_of(entry: Entry, chain: gdx.Chain, moved: Mapping[str, Any]) -> str:
    """Code that makes the chain; a preset by its function, all else as Python shows it."""
    if entry.maker in EFFECTS:
        made = re.sub(rf"\b({'|'.join(EFFECTS)})\(", r"gdx.\1(", repr(chain.effects[0]))
    else:
        arguments = ", ".join(f"{name}={value!r}" for name, value in {**entry.settings, **moved}.items())
        made = f"gdx.{entry.maker}({arguments})"
    code = laid_out(ast.parse(f"gdx.Chain([{made}], seed={chain.seed})", mode="eval").body, "chain = ")
    program = f"import grain_datarax as gdx\n\n{code}\n"
    if run(program) != chain:
        raise ValueError(f"`python` must make the chain: got {program} for {chain!r}.")
    return program


def run(program: str) -> Any:
    """The chain that a program makes."""
    names: dict[str, Any] = {}
    exec(program, names)
    return names["chain"]


def laid_out(node: ast.expr, before: str = "", indent: str = "", after: str = "") -> str:
    """An expression in lines of `WIDTH`: what does not fit into one has its parts in lines of their own."""
    flat = f"{indent}{before}{_text(node)}{after}"
    if len(flat) <= WIDTH or not isinstance(node, ast.Call | ast.List | ast.Tuple):
        return flat
    if isinstance(node, ast.Call):
        opening, closing = f"{_text(node.func)}(", ")"
        parts = [("", each) for each in node.args] + [(f"{each.arg}=", each.value) for each in node.keywords]
    else:
        opening, closing = ("[", "]") if isinstance(node, ast.List) else ("(", ")")
        parts = [("", each) for each in node.elts]
    deeper = f"{indent}    "
    one_line = deeper + ", ".join(f"{name}{_text(each)}" for name, each in parts)
    trailing = "," if isinstance(node, ast.Tuple) and len(parts) == 1 else ""
    lines = (
        [one_line + trailing] if len(one_line) <= WIDTH else [laid_out(each, name, deeper, ",") for name, each in parts]
    )
    return "\n".join([f"{indent}{before}{opening}", *lines, f"{indent}{closing}{after}"])


def _text(node: ast.expr) -> str:
    return ast.unparse(node).replace("'", '"')


@functools.cache
def yaml_of(chain: gdx.Chain) -> str:
    """What `Chain.save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "chain.yaml"
        chain.save(path)
        if gdx.Chain.load(path, functions=functions_of(chain)) != chain:
            raise ValueError(f"`yaml` must describe the chain: got another than {chain!r}.")
        return path.read_text(encoding="utf-8")


def load_of(chain: gdx.Chain) -> str:
    """Code that reads the chain from chain.yaml."""
    functions = functions_of(chain)
    named = f", functions={json.dumps(functions)}" if functions else ""
    return f'gdx.Chain.load("chain.yaml"{named})'


def functions_of(chain: gdx.Chain) -> list[str]:
    """What `Chain.load` has to be told that it may import."""
    return [link.function for link in chain.links if isinstance(link, gdx.Function)]


def made_pictures(
    all_states: Mapping[Entry, list[State]], folder: pathlib.Path, marks: pathlib.Path
) -> Iterator[Entry]:
    """Writes the pictures of entries into a folder, but for those that `marks` says are there; yields each entry."""
    folder.mkdir(parents=True, exist_ok=True)
    marks.mkdir(parents=True, exist_ok=True)
    todo = [entry for entry, own in all_states.items() if not _is_made(entry, own, folder, marks)]
    # Most of the time JAX traces, which is Python: one process on each core. New ones, as JAX has threads here.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(mp_context=spawn, initializer=_compile_in_a_hurry) as pool:
        made = pool.map(_make, todo, [all_states[entry] for entry in todo], itertools.repeat(folder))
        for entry, _ in zip(todo, made, strict=True):
            # Written last, so that it stands for pictures that are whole.
            _mark(entry, marks).write_text(_described(entry, all_states[entry]))
            yield entry
    wanted = {name for own in all_states.values() for state in own for name in (state.file, state.outlined)}
    for left in folder.glob("*.webp"):
        if left.name not in wanted:
            left.unlink()  # of an older list


def _compile_in_a_hurry() -> None:
    # In half the time, to the same bits; these processes compute nothing else.
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_traceback_in_locations_limit", 0)


def _is_made(entry: Entry, own: list[State], folder: pathlib.Path, marks: pathlib.Path) -> bool:
    mark = _mark(entry, marks)
    return (
        mark.exists()
        and mark.read_text() == _described(entry, own)
        and all((folder / each.file).exists() for each in own)
    )


def _mark(entry: Entry, marks: pathlib.Path) -> pathlib.Path:
    return marks / f"{entry.slug}.sha256"


def _described(entry: Entry, own: list[State]) -> str:
    """A digest of all that its pictures depend on."""
    sources = [pathlib.Path(__file__).read_text(), json.dumps([each.chain.to_dict() for each in own])]
    return hashlib.sha256("".join([*sources, repr(entry), str(gdx.STREAM_VERSION)]).encode()).hexdigest()


def _make(entry: Entry, own: list[State], folder: pathlib.Path) -> None:
    """Writes the pictures of an entry."""
    for chain, alike in itertools.groupby(own, operator.attrgetter("chain")):
        wanted = list(alike)
        pixels, covered = treated(entry, chain, [state.record for state in wanted])
        for state, image, mask in zip(wanted, pixels, covered, strict=True):
            Image.fromarray(image).save(folder / state.file, quality=80, method=4)
            if state.outlined:
                outlined(image, mask).save(folder / state.outlined, quality=65, method=4)
    jax.clear_caches()  # each chain is compiled for itself, and used once


def treated(entry: Entry, chain: gdx.Chain, records: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What a chain makes of these records: their pixels, `uint8 (B, H, W, 3)`, and which are covered, `bool (B, H, W)`.

    Record `i` draws from the seed that it has in `gdx.preview`.
    """
    images = np.stack([photo_of(entry, record).pixels for record in records])
    nothing = np.zeros(images.shape[:3], np.uint8)
    seeds = np.stack([gdx.child_seed(np.zeros(2, np.uint32), record) for record in records])
    batch: dict[str, Any] = {"image": images, "record_seed": seeds}
    if entry.outlines:
        batch[_COVERED] = nothing
    if chain.mixes:
        partners = np.stack([photo_of(entry, record + 1).pixels for record in records])
        batch["partner"] = {"image": partners, _COVERED: nothing + 1}
    result = jax.device_get(gdx.AugmentBatch(_telling(chain) if entry.outlines else chain).map(batch))
    covered = result.get(_COVERED, nothing).astype(bool)
    if _DRAWS in result:
        squares = result[_DRAWS][chain.names[0]]["positions"][:, 0]
        covered = np.stack([_inside(square, covered.shape[1:]) for square in squares])
    return shown_pixels(result["image"], entry.ends), covered


def _telling(chain: gdx.Chain) -> gdx.Chain:
    """The chain, with a mask of what it covers, or of noise in a square with what it draws."""
    if isinstance(chain.effects[0], gdx.PatchGaussian):
        return dataclasses.replace(chain, draws=_DRAWS)
    return dataclasses.replace(chain, masks={_COVERED: 1})


def _inside(square: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    y, x, height, width = square
    row, column = np.ogrid[: shape[0], : shape[1]]
    inside: np.ndarray = (y <= row) & (row < y + height) & (x <= column) & (column < x + width)
    return inside


def shown_pixels(image: np.ndarray, ends: tuple[float, float] | None) -> np.ndarray:
    """An image as `uint8`: as it is, or from the values that are black and white."""
    if ends is None:
        return image
    fractions = (image.astype(np.float64) - ends[0]) / (ends[1] - ends[0])
    return np.round(255 * np.clip(fractions, 0, 1)).astype(np.uint8)


def outlined(image: np.ndarray, covered: np.ndarray) -> Image.Image:
    """The picture, enlarged, with a line around what is covered, as `gdx.preview(outlines=True)` has it."""
    large = Image.fromarray(image).resize((SIDE * ENLARGED,) * 2, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(large)
    edges = [tuple(map(tuple, edge)) for edge in (outline(covered) + 0.5) * ENLARGED]
    for colour, line in (("black", 5), ("#ffc107", 3)):
        for edge in edges:
            draw.line(edge, colour, line)
    return large
