"""Chain: effects, one after the other, on the fields of each record; a value, in the order in which they apply."""

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np

from grain_datarax import text
from grain_datarax.containers import as_path
from grain_datarax.declarations import (
    checked_channels,
    checked_formats,
    checked_images,
    checked_labels,
    checked_masks,
    checked_range,
    checked_seed,
    require_fields,
)
from grain_datarax.descriptions import Vocabulary
from grain_datarax.effects.composition import Composition
from grain_datarax.effects.conversion import Conversion
from grain_datarax.effects.effect import Effect, Settings, as_json, unknown_name
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.mixing import Mixing
from grain_datarax.effects.settings import Choice, Flag, Name, Optional
from grain_datarax.images import AXES, Scale, scale_of
from grain_datarax.nesting import require_shallow
from grain_datarax.random.keys import distinct_names, effect_words
from grain_datarax.visibility import BOX_FORMATS, KEYPOINT_FORMATS, marks
from grain_datarax.wording import shown

# Of the text form; others are refused.
_VERSION = 1


@dataclasses.dataclass(frozen=True, repr=False)
class Chain(Settings):
    """Effects, the seed that they draw from, and what the fields of a record are.

    It is a value: chains with equal settings are equal, hash alike, draw the same, and turn into JSON's types and back.
    An effect draws from the chain's seed, its own name and the record's seed, and from nothing else. Unnamed effects
    are told apart by their class and by what they draw; those that agree there too by their order, so name effects
    that you repeat.

    Args:
      effects: One or more effects, applied in that order.
      seed: From 0 to 2**64 - 1. Effects of equal names draw the same under equal seeds, here and in the operators of
        `nnx.Rngs(seed)`.
      image: The field to treat, or several that share the draws, such as a stereo pair; they have one height and width.
        Those with other channels lose the same patches, and get noise of their own. Dots reach into what
        is nested: `"inputs.image"`; an index names an item of a tuple or a list, `0` or `"views.0"`. A name that has
        dots itself is found first.
      axes: The order of the image's axes: `"HW"`, `"HWC"` or `"CHW"`, or one of these behind `"T"` for frames.
      value_range: The least and the greatest value, as the image holds them: strengths are fractions of that range.
        None: the type's range for unsigned integers, (0, 1) for floats; signed integers have none of their own.
      clip: Whether results are clipped to the range. False: integers saturate at their type, floats are left as they
        are.
      channels: The channels to treat, by index; the others stay as they are, but that geometric effects move all. None
        treats all.
      masks: Fields of masks that belong to the image, and for each what an occluding effect fills it with, in the
        mask's own values, such as 255 or -1; None leaves it alone. Geometric effects move them all. Their axes are the
        image's, with or without `"C"`.
      boxes: Fields of boxes `(N, 4)`, behind the frames if there are any, and the format of each, one of `"xyxy"`,
        `"xywh"`, `"cxcywh"` in pixels, or behind `"rel_"` in fractions of width and height. Geometric effects move
        them, and clip them to the image where they crop: one outside has a width or a height of 0 then. The share of
        each that effects have covered or cut away comes out as a field, `float32 (N,)`, `"..._covered"`. Boxes that
        are moved keep their type, but `float64` becomes `float32` without x64.
      labels: Fields of labels that `MixUp` and `CutMix` mix, floating point, such as one-hot.
      partner: The field that holds a record's partner, for these: a mapping with the same images, masks and labels.
      draws: A field to write what each record drew, by the names of the effects (`_` for each dot): whether each was
        `applied`, its strengths, its positions; see `grain_datarax.draws`. None writes none.
      keypoints: Fields of keypoints `(..., 2)` and their format, `"xy"` or `"rel_xy"`; integers name pixels. Floats are
        continuous, and a pixel spans [i, i + 1): add 0.5 to indices of pixels that are held as floats. Geometric
        effects move them, types as for boxes; whether each lies inside the image and is not covered comes out as
        `bool (...)`, `"..._visible"`.
      size: The field with the height and width, integers `(2,)`, of each record's images before they were padded at the
        bottom and the right, as for a batch of many sizes. Records draw and are treated as they are without padding,
        which keeps its values, but for conversions. Sizes in NumPy are checked. None: images are not padded.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or value.

    Example:
      >>> import grain_datarax as gdx
      >>> chain = Chain([gdx.PatchDropout(num_patches=2), gdx.GaussianNoise(std=0.1)], seed=0, masks={"mask": 255})
      >>> chain
      Chain([PatchDropout(num_patches=2), GaussianNoise(std=0.1)], seed=0, masks={'mask': 255})
      >>> Chain.from_dict(chain.to_dict()) == chain
      True
    """

    effects: Sequence[Effect]
    _: dataclasses.KW_ONLY
    seed: int
    image: str | int | Sequence[str | int] = "image"
    axes: str = "HWC"
    value_range: tuple[float, float] | None = None
    clip: bool = True
    channels: Sequence[int] | None = None
    masks: Mapping[Any, float | None] | Sequence[tuple[str, float | None]] = ()
    boxes: Mapping[Any, str] | Sequence[tuple[str, str]] = ()
    keypoints: Mapping[Any, str] | Sequence[tuple[str, str]] = ()
    labels: str | Sequence[Any] = ()
    partner: str = "partner"
    draws: str | None = None
    size: str | None = None

    def __post_init__(self) -> None:
        effects = (self.effects,) if isinstance(self.effects, Effect) else self.effects
        if not isinstance(effects, Sequence) or not all(isinstance(effect, Effect) for effect in effects):
            raise TypeError(f"`effects` must be effects: got {shown(effects)}. Pass a list, such as [GaussianNoise()].")
        if not effects:
            raise ValueError(
                "`effects` must hold at least one effect: got none. Pass a list, such as [GaussianNoise()]."
            )
        axes = Choice(AXES)("axes", self.axes)
        checked = {
            "effects": tuple(effects),
            "seed": checked_seed(self.seed),
            "image": checked_images(self.image),
            "axes": axes,
            "value_range": checked_range(self.value_range),
            "clip": Flag()("clip", self.clip),
            "channels": checked_channels(self.channels, axes),
            "masks": checked_masks(self.masks),
            "boxes": checked_formats("boxes", self.boxes, BOX_FORMATS),
            "keypoints": checked_formats("keypoints", self.keypoints, KEYPOINT_FORMATS),
            "labels": checked_labels(self.labels),
            "partner": Name()("partner", self.partner),
            "draws": Optional(Name())("draws", self.draws),
            "size": Optional(Name())("size", as_path(self.size)),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        read = {"image": self.images, "masks": self.fills, "labels": self.labels}
        draws = [self.draws] if self.draws else []
        require_fields(
            **read,
            boxes=self.box_formats,
            keypoints=self.keypoint_formats,
            partner=[self.partner],
            size=self.sizes,
            draws=draws,
        )
        require_fields(**read, boxes=self.seen.values(), draws=draws)
        # Which raises for effects of one name, or of one among the draws.
        distinct_names([(name.replace(".", "_"), False) for name in self.names])
        self._require_parts()

    def _require_parts(self) -> None:
        """Raises `ValueError` if effects do not go together, or with the fields."""
        *before, last = self.links
        early = [link for link in before if isinstance(link, Conversion)]
        if early or (isinstance(last, Conversion) and last is not self.effects[-1]):
            raise ValueError(
                "`effects` must convert types at their end, behind all others, and in no composition: got"
                f" {early[0] if early else last!r} among {list(self.effects)!r:.80}. Put it last, as an effect of the"
                " chain itself."
            )
        if isinstance(last, Conversion) and self.channels is not None:
            raise ValueError(
                f"`channels` must be None where {type(last).__name__} converts the image's type: got {self.channels}."
                " Convert it behind the chain."
            )
        for path, fill in self.fills.items():
            if fill is None and (pads := [link for link in self.geometric if link.pads]):
                raise ValueError(
                    f"`masks` must say what is behind the edge of the image, where {type(pads[0]).__name__} pads with a"
                    f' constant: got None for "{path}". Pass a value of the mask, such as 255 or 0, or mode="edge".'
                )
        for link in self.links if self.size else ():
            if not link.may_be_padded:
                raise ValueError(
                    f"`size` must be None for {type(link).__name__}, which may look beyond the edge of a padded image:"
                    f" got {shown(self.size)}. Resize images to one size, or apply it to single records, before Batch."
                )
        paths = (
            *(*self.images, *self.fills, *self.labels, *self.box_formats, *self.keypoint_formats, *self.sizes),
            self.partner,
        )
        if self.draws and any(f"{self.draws}.".startswith(f"{path}.") for path in paths):
            raise ValueError(
                f"`draws` must name a field of its own, not one in another: got {shown(self.draws)} beside {paths}."
                " Rename it."
            )
        if self.labels and not self.mixes:
            raise ValueError(
                f"`labels` must be left out where no effect mixes them: got {shown(self.labels)}. Add MixUp or CutMix."
            )

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of the images."""
        image: Any = self.image  # an index is its name by now
        return (image,) if isinstance(image, str) else tuple(image)

    @property
    def fills(self) -> dict[str, float | None]:
        """What masks are filled with, by path."""
        return dict(self.masks)

    @property
    def box_formats(self) -> dict[str, str]:
        """The formats of boxes, by path."""
        return dict(self.boxes)

    @property
    def keypoint_formats(self) -> dict[str, str]:
        """The formats of keypoints, by path."""
        return dict(self.keypoints)

    @property
    def mixes(self) -> bool:
        """Whether an effect mixes records with their partners."""
        return any(isinstance(link, Mixing) for link in self.links)

    def partner_of(self, path: str) -> str:
        """Where the partner's field lies."""
        return f"{self.partner}.{path}"

    @property
    def sizes(self) -> tuple[str, ...]:
        """The path of the images' own sizes, if they are padded."""
        return (self.size,) if self.size else ()

    @property
    def partners(self) -> tuple[str, ...]:
        """The paths of the partners' fields that are read."""
        masks = [path for path, fill in self.fills.items() if fill is not None]
        return tuple(self.partner_of(path) for path in (*self.images, *masks, *self.labels)) if self.mixes else ()

    @property
    def seen(self) -> dict[str, str]:
        """Where it is written what can be seen of boxes and keypoints, by their path."""
        return marks(self.box_formats, self.keypoint_formats)

    @property
    def links(self) -> tuple[Effect, ...]:
        """All effects, each composition before those that it holds."""
        return tuple(link for effect in self.effects for link in with_parts(effect))

    @property
    def geometric(self) -> tuple[Geometric, ...]:
        """The effects that move pixels, and all that belongs to an image with them."""
        return tuple(link for link in self.links if isinstance(link, Geometric))

    @property
    def crops(self) -> bool:
        """Whether an effect may cut pixels away."""
        return any(link.crops for link in self.geometric)

    @property
    def filled(self) -> dict[str, float | None]:
        """The masks that effects write, and what they are filled with, by path."""
        return {path: fill for path, fill in self.fills.items() if fill is not None or self.geometric}

    @property
    def names(self) -> tuple[str, ...]:
        """What tells the draws of each link from those of the others."""
        return distinct_names([(link.namespace, link.name is None) for link in self.links])

    def key_words(self) -> list[dict[str, np.ndarray]]:
        """The keys of each link, `uint32 (2,)`: `""` for what it draws, and one for each setting that is drawn."""
        root = np.array([self.seed >> 32, self.seed & 0xFFFFFFFF], np.uint32)
        return [
            {"": effect_words(root, name)}
            | {setting: effect_words(root, f"{name}\0{setting}") for setting in _drawn_settings(link)}
            for name, link in zip(self.names, self.links, strict=True)
        ]

    def scale(self, dtype: Any, path: str) -> Scale:
        """What the values of an image of this type mean."""
        return scale_of(dtype, self.value_range, clip=self.clip, field=path)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The height and the width that images of this size come out with."""
        for link in self.geometric:
            size = link.size_of(*size)
        return size

    def output_type(self, dtype: Any) -> Any:
        """The type that images of this type come out in."""
        return self.effects[-1].spec(jax.ShapeDtypeStruct((1, 1, 1), dtype)).dtype

    def to_dict(self) -> dict[str, Any]:
        """The chain in JSON's types: its effects with all their settings, its seed, and what the fields are."""
        settings = {field.name: as_json(getattr(self, field.name)) for field in dataclasses.fields(self)}
        effects = [effect.to_dict() for effect in self.effects]
        pairs = {name: dict(settings[name]) for name in ("masks", "boxes", "keypoints")}
        return {"version": _VERSION, **settings, "effects": effects, **pairs}

    @classmethod
    def from_dict(
        cls,
        description: Mapping[str, Any],
        effects: Iterable[type[Effect]] = (),
        functions: Iterable[Callable[..., Any] | str] = (),
    ) -> Self:
        """The chain that `to_dict` described.

        Args:
          description: A mapping of JSON's types.
          effects: Classes of one's own that the chain may hold.
          functions: What its `Function`s may name, functions or their names, `"module:name"`. These are imported, and
            called where the chain runs; no other is.

        Raises:
          TypeError, ValueError: If it is of another version, or names an effect, a setting or a function that there is
            not.
        """
        if not isinstance(description, Mapping):
            raise TypeError(
                f"`description` must be a mapping: got {type(description).__name__}. Write what chain.save"
                " writes: `version: 1`, `seed: 0`, and `effects:`, each as `- effect: GaussianNoise`."
            )
        require_shallow("description", description, "Pass what to_dict gave.")
        version = description.get("version")
        if type(version) is not int or version != _VERSION:
            raise ValueError(
                f"`version` must be {_VERSION}: got {shown(version)}. Read it with the release that wrote it; a text of"
                f" your own has {_VERSION}."
            )
        settings = {name: value for name, value in description.items() if name != "version"}
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise unknown_name("settings of Chain", name, known)
        for name in ("effects", "seed"):
            if name not in settings:
                raise ValueError(f"`{name}` must be given to Chain: got {sorted(settings)}. Add it.")
        settings["effects"] = Vocabulary(effects, functions).effects_of(settings["effects"])
        return cls(**settings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the chain to a file, of JSON or YAML (`pip install 'grain-datarax[yaml]'`) as its name says.

        Raises:
          ValueError: If the name ends in none of `.json`, `.yaml` and `.yml`.
          ImportError: If it is YAML, and PyYAML is not installed.
        """
        text.write(self.to_dict(), path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        effects: Iterable[type[Effect]] = (),
        functions: Iterable[Callable[..., Any] | str] = (),
    ) -> Self:
        """The chain that a file describes; see `save` and `from_dict`."""
        description = text.read(path)
        try:
            return cls.from_dict(description, effects, functions)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error} In {path}.") from error

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)[2:]  # behind `effects` and `seed`
        changed = {each.name: getattr(self, each.name) for each in fields if getattr(self, each.name) != each.default}
        told = {
            name: dict(value) if name in ("masks", "boxes", "keypoints") else value for name, value in changed.items()
        }
        settings = "".join(f", {name}={value!r}" for name, value in told.items())
        return f"Chain({list(self.effects)!r}, seed={self.seed}{settings})"

    def _repr_png_(self) -> bytes | None:
        """The chain at work, for notebooks; None where it can't be drawn."""
        # By its name, as it stands above the chain, which a notebook asks; nothing is drawn anywhere else.
        picture: bytes | None = importlib.import_module("grain_datarax.sample").chain_png(self)
        return picture


def with_parts(effect: Effect) -> list[Effect]:
    """An effect, and behind it those that it holds, each before its own."""
    parts = effect.effects if isinstance(effect, Composition) else ()
    return [effect, *(link for part in parts for link in with_parts(part))]


def _drawn_settings(effect: Effect) -> tuple[str, ...]:
    return effect.drawn_settings if effect.p == 1 else ("p", *effect.drawn_settings)
