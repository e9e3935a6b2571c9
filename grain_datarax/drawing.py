"""Panels -> figure: a grid of pictures with titles, laid out in inches. Needs matplotlib, and nothing else of ours."""

import dataclasses
import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

# In inches.
_WIDTH, _GAP, _NAME, _LINE, _LABEL = 2.0, 0.05, 0.2, 0.12, 0.2
# In characters that fit above a picture, and lines.
_NAME_LENGTH, _CAPTION_LENGTH, _CAPTION_LINES = 25, 36, 3
# Of its width, a panel's height: what is higher gets narrower, and what is flatter has room above and below.
_FLATTEST, _HIGHEST = 0.25, 2.0


@dataclasses.dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
      pixels: Fractions from 0 to 1, `float32 (H, W, 3)`, or grey `(H, W)`.
      outlined: Pixels around which a line is drawn, `bool (H, W)`; None: none.
      note: A few words, written into it.
    """

    pixels: np.ndarray
    outlined: np.ndarray | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Heading:
    """What stands above a column: a name, and in small letters what else there is to say."""

    name: str
    caption: str = ""


class Picture(Figure):
    """A figure that a notebook shows as it is, also where nobody has imported pyplot."""

    def _repr_png_(self) -> bytes:
        return as_png(self)


def as_png(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def file_endings() -> list[str]:
    """What the names of files may end in that a figure can be written to, without the dot."""
    return sorted(FigureCanvasAgg.get_supported_filetypes())


def draw(headings: Sequence[Heading], rows: Sequence[Sequence[Panel]], labels: Sequence[str]) -> Picture:
    """A figure of these panels, as large as they need.

    Args:
      headings: One for each column.
      rows: Rows of panels, one for each column, whose pictures may differ in size.
      labels: What stands beside each row; all empty: no room is left for them.
    """
    captions = [_wrapped(heading.caption) for heading in headings]
    under_names = _LINE * max(caption.count("\n") + bool(caption) for caption in captions)
    head = _NAME + under_names
    left = _LABEL if any(labels) else _GAP
    heights = [max(map(_height, row)) for row in rows]
    width = left + len(headings) * (_WIDTH + _GAP)
    height = head + sum(heights) + len(rows) * _GAP
    figure = Picture(figsize=(width, height))
    FigureCanvasAgg(figure)
    top = height - head
    for row, label, own in zip(rows, labels, heights, strict=True):
        for column, panel in enumerate(row):
            place = (left + column * (_WIDTH + _GAP), top - own, _WIDTH, own)
            inches = np.array([width, height, width, height])
            axes = figure.add_axes(tuple(np.divide(place, inches)), label=f"{top} {column}")
            _show(axes, panel)
        figure.text(_GAP / width, (top - own / 2) / height, label, rotation=90, va="center", fontsize=8)
        top -= own + _GAP
    for heading, caption, axes in zip(headings, captions, figure.axes, strict=False):
        axes.set_title(_cut(heading.name), fontsize=9, pad=72 * (under_names + _GAP))
        above = (0.5, 1), (0, 72 * (under_names + _GAP / 2))
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 6.5, "color": "0.35"}
        axes.annotate(caption, *above, "axes fraction", "offset points", **style)
    return figure


def _show(axes: Axes, panel: Panel) -> None:
    # Pixels that are enlarged stay squares: noise is one of each.
    enlarged = panel.pixels.shape[1] < _WIDTH * 100
    how: dict[str, Any] = {"interpolation": "nearest"} if enlarged else {}
    axes.imshow(panel.pixels, cmap="gray", vmin=0, vmax=1, **how)
    axes.set_axis_off()
    if panel.note:
        behind: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axes.text(0.02, 0.02, panel.note, transform=axes.transAxes, va="bottom", fontsize=6.5, bbox=behind)
    if panel.outlined is not None and panel.outlined.any():
        for colour, line in (("black", 2.5), ("#ffc107", 1.2)):  # seen on dark and on bright
            edges = LineCollection(
                list(outline(panel.outlined)), colors=colour, linewidths=line, capstyle="projecting", clip_on=False
            )
            axes.add_collection(edges, autolim=False)


def outline(pixels: np.ndarray) -> np.ndarray:
    """The edges between these pixels and others: `(edges, 2, 2)`, two ends (x, y) of each, pixels' centres whole.

    Example:
      >>> outline(np.array([[True]])).tolist()[:2]
      [[[-0.5, -0.5], [0.5, -0.5]], [[-0.5, 0.5], [0.5, 0.5]]]
    """
    padded = np.pad(pixels, 1)
    above = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])[:, ::-1] - 0.5
    beside = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])[:, ::-1] - 0.5
    horizontal = np.stack([above, above + np.array([1, 0])], axis=1)
    return np.concatenate([horizontal, np.stack([beside, beside + np.array([0, 1])], axis=1)])


def _height(panel: Panel) -> float:
    height, width, *_ = panel.pixels.shape
    return _WIDTH * min(max(float(height / width), _FLATTEST), _HIGHEST)


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


def _wrapped(caption: str) -> str:
    return textwrap.fill(caption, _CAPTION_LENGTH, max_lines=_CAPTION_LINES, placeholder=" …")
