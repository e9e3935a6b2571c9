"""chain, images -> a picture of what it does to them: a row for each image and mask, a column for each effect."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.declarations import checked_seed
from grain_datarax.effects.composition import Composition
from grain_datarax.effects.conversion import Conversion
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.geometric import Geometric
from grain_datarax.guard import check_batch
from grain_datarax.images import Scale, hwc_shape, to_hwc
from grain_datarax.inspection import draws
from grain_datarax.pictured import Row, rows_of
from grain_datarax.transforms import AugmentRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grain_datarax import drawing

# No field of anybody's.
_COVERED = "what effects cover"


@dataclasses.dataclass(frozen=True)
class _Column:
    """What stands above a column, its effects, none in that of the originals, and what its draws are told under."""

    name: str
    caption: str = ""
    effects: tuple[Effect, ...] = ()
    told: str = ""


def preview(chain: Chain, images: Any, *, seed: int = 0, outlines: bool = False) -> "Figure":
    """A picture of a chain at work: for each image the original, every effect alone, and the whole chain.

    An effect alone is applied to every image, whatever its `p`, and draws exactly what it draws in the chain: its name
    there, the chain's seed and the record's seed say what. Where the whole chain skips it, a note in the picture says
    so. As draws depend on the image's size, it stands behind those before it that change that, such as
    `RandomResizedCrop(size=...)`, and its caption names them; pictures of a row may differ in size then. A composition
    is one column. The last column is what `AugmentRecord`, `replay` and batches make of the record, bit for bit. A
    conversion (`Normalize`, `Cast`) has no column of its own; the last is shown as the image that its values stand for.

    Pixels are shown as fractions of the value range, clipped to it: of three channels or more the first three as red,
    green and blue, of fewer the first in grey; of frames the first. Masks that a record holds, and where they are
    mixed its partner, stand below its first image: integers in the colours of PASCAL VOC, by their low 8 bits, floats
    in grey from the original's least to its greatest.

    `MixUp` and `CutMix` mix a record with its partner where it has one, and else with the next image of its shape and
    type, behind the last with the first: a single one with itself.

    Args:
      chain: The chain.
      images: What `chain.axes` and its value range say: an image, a list of images of any sizes, or an array with a
        batch in front; or records that hold the chain's images, one, a list, or a batch of them. A tuple is a record
        where the chain's image is one of its items, and else like a list. With several images to a record each has a
        row. Images that are padded (`Chain(size=...)`) are cut to their own size first.
      seed: Record number `i`, from 0, draws from `child_seed(np.uint32([seed >> 32, seed % 2**32]), i)`, unless it
        carries a `record_seed`. From 0 to 2**64 - 1.
      outlines: Draw a line around all that effects cover: of a mask that the same draws fill. What `PadCrop` pads with
        a constant is enclosed, too.

    Returns:
      A `matplotlib.figure.Figure`, two inches to a column, which notebooks show; `.savefig(path)` writes it.

    Raises:
      ImportError: If matplotlib is not installed.
      TypeError, ValueError: If `images` are none, or more than 64, or the chain can't treat them.
      KeyError: If a record lacks an image.

    Example:
      >>> import grain_datarax as gdx
      >>> chain = gdx.Chain([gdx.PatchDropout(), gdx.GaussianNoise(p=0.5)], seed=0)
      >>> figure = preview(chain, np.zeros((3, 32, 32, 3), np.uint8), outlines=True)
      >>> len(figure.axes), [axes.get_title() for axes in figure.axes[:4]]
      (12, ['original', 'PatchDropout', 'GaussianNoise', 'whole chain'])
    """
    plot = drawing_module()
    if not isinstance(chain, Chain):
        raise TypeError(f"`chain` must be a Chain: got {type(chain).__name__}. Pass Chain([...], seed=0).")
    rows = rows_of(chain, images, checked_seed(seed))
    for row in rows:
        fields = {path: field[None] for path, field in _record(chain, row, outlines=False).items()}
        check_batch(_of(chain, tuple(chain.effects), row, outlines=False), fields)
    columns = _columns(chain, rows)
    told = [_told(chain, row) for row in rows]
    panels = [_panels(plot, chain, column, rows, told, outlines) for column in columns]
    labels = [path for row in rows for path in (row.path, *row.masks)]
    labels = labels if len({*labels}) > 1 else [""] * len(labels)
    headings = [plot.Heading(column.name, column.caption) for column in columns]
    figure: Figure = plot.draw(headings, [*zip(*panels, strict=True)], labels)
    return figure


def drawing_module() -> Any:
    """`grain_datarax.drawing`; raises `ImportError` where there is no matplotlib."""
    try:
        from grain_datarax import drawing
    except ImportError as error:
        raise ImportError(
            "`preview` must have matplotlib to draw with: got none. Run pip install 'grain-datarax[plot]'."
        ) from error
    return drawing


def _columns(chain: Chain, rows: Sequence[Row]) -> list[_Column]:
    names = iter(chain.names)
    sizes = [hwc_shape(row.image.shape, chain.axes)[:2] for row in rows]
    before: tuple[Effect, ...] = ()  # those that change sizes
    behind: tuple[str, ...] = ()
    alone = []
    for effect in chain.effects:
        own = _named(effect, names)
        if isinstance(effect, Conversion):
            continue
        name = _shown_name(effect, own)
        caption = ", ".join([*_caption(effect), *behind])
        alone.append(
            _Column(name, caption, (*before, dataclasses.replace(own, p=1.0)), own.namespace.replace(".", "_"))
        )
        after = [effect.size_of(*size) if isinstance(effect, Geometric) else size for size in sizes]
        if after != sizes:
            sizes, before, behind = after, (*before, own), (*behind, f"behind {name}")
    return [_Column("original"), *alone, _Column("whole chain", f"seed={chain.seed}", tuple(chain.effects))]


def _named(effect: Effect, names: Iterator[str]) -> Effect:
    """The effect, and those that it holds, under the names that they have in the chain, so that they draw the same."""
    named = dataclasses.replace(effect, name=next(names))
    if not isinstance(named, Composition):
        return named
    return dataclasses.replace(named, effects=[_named(part, names) for part in named.effects])


def _shown_name(effect: Effect, named: Effect) -> str:
    # An unnamed one's name in the chain says what it draws, too, which stands below; its number is behind "#".
    number = named.namespace.partition("#")[1:]
    return effect.name or "".join((type(effect).__name__, *number))


def _caption(effect: Effect) -> list[str]:
    """What else there is to say of it: its class beside a name of its own, what it holds, its settings."""
    own = [type(effect).__name__] if effect.name else []
    held = [part.name or type(part).__name__ for part in effect.effects] if isinstance(effect, Composition) else []
    settings = [each for each in effect.changed() if not each.startswith(("name=", "effects="))]
    return [*own, *held, *settings]


def _told(chain: Chain, row: Row) -> dict[str, Any]:
    """What the row draws in the whole chain, by the names of the effects; nothing where all apply to all."""
    if all(effect.p == 1 for effect in chain.effects):
        return {}
    return draws(dataclasses.replace(chain, image=row.path, size=None), row.seed, row.image.shape)


def _panels(
    plot: Any, chain: Chain, column: _Column, rows: Sequence[Row], told: Sequence[dict[str, Any]], outlines: bool
) -> "list[drawing.Panel]":
    """What a column shows of each row: its image, and its masks."""
    panels = []
    for row, drawn in zip(rows, told, strict=True):
        scale, record = chain.scale(row.image.dtype, row.path), _record(chain, row, outlines)
        low, high = _range_behind(column, scale)
        covered, note = None, ""
        if column.effects:
            record = AugmentRecord(_of(chain, column.effects, row, outlines)).augmented(record, row.seed)
            covered = _first_frame(record[_COVERED], chain).astype(bool) if outlines else None
            note = "" if drawn.get(column.told, {}).get("applied", True) else "skipped in the whole chain"
        panels.append(plot.Panel(_shown(record[row.path], chain, low, high), covered, note))
        panels += [plot.Panel(_shown_mask(record[path], mask, chain), covered) for path, mask in row.masks.items()]
    return panels


def _of(chain: Chain, effects: tuple[Effect, ...], row: Row, outlines: bool) -> Chain:
    """A chain of these effects alone, for a row's fields."""
    masks = {path: chain.fills[path] for path in row.masks} | ({_COVERED: 1} if outlines else {})
    return dataclasses.replace(
        chain, effects=effects, image=row.path, masks=masks, boxes=(), keypoints=(), labels=(), draws=None, size=None
    )


def _record(chain: Chain, row: Row, outlines: bool) -> dict[str, np.ndarray]:
    """What the chain is given: image and masks, those of the partner, and for outlines a mask of nothing, or of all."""
    record = {row.path: row.image, **row.masks} | {chain.partner_of(path): each for path, each in row.partner.items()}
    if not outlines:
        return record
    of_channels = chain.axes.find("C")
    mask = np.zeros([size for axis, size in enumerate(row.image.shape) if axis != of_channels], np.uint8)
    return record | {_COVERED: mask, chain.partner_of(_COVERED): mask + 1}


def _range_behind(column: _Column, scale: Scale) -> Sequence[Any]:
    """What the ends of the value range have become: two numbers, or two for each channel."""
    last = column.effects[-1] if column.effects else None
    return list(last.ends(scale).reshape(2, -1)) if isinstance(last, Conversion) else [scale.low, scale.high]


def _shown(image: np.ndarray, chain: Chain, low: Any, high: Any) -> np.ndarray:
    """An image in the chain's axes as it is shown: fractions, `float32 (H, W, 3)` or `(H, W)`."""
    frame = jnp.asarray(_first_frame(image, chain))
    values = np.asarray(to_hwc(frame, chain.axes.removeprefix("T"))).astype(np.float64)
    fractions: np.ndarray = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return fractions[..., :3] if fractions.shape[-1] >= 3 else fractions[..., 0]


def _shown_mask(mask: Any, original: np.ndarray, chain: Chain) -> np.ndarray:
    """A mask, in the chain's axes with or without channels, as it is shown: classes in colours, floats in grey."""
    frame = np.asarray(_first_frame(mask, chain))
    if mask.ndim == len(chain.axes) and "C" in chain.axes:
        frame = np.take(frame, 0, axis=chain.axes.removeprefix("T").index("C"))
    if jnp.issubdtype(frame.dtype, np.floating):
        low, high = original.astype(np.float64).min(), original.astype(np.float64).max()
        fractions = (frame.astype(np.float64) - low) / max(high - low, 1e-9)
        return np.asarray(np.clip(fractions, 0, 1), np.float32)
    # Of a class each third bit is one of red, of green or of blue, and the lowest are the brightest.
    ids = frame.astype(np.int64)[..., None] & 255
    colours = sum(((ids >> (3 * bit + np.arange(3))) & 1) << (7 - bit) for bit in range(3))
    return np.asarray(colours / 255, np.float32)


def _first_frame(image: Any, chain: Chain) -> Any:
    return image[0] if chain.axes.startswith("T") else image
