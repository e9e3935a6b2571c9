"""What the gallery and the explorer show: each effect and each preset, its settings, and how strong they are.

This list is the only one: pictures, alternative texts, code and YAML of both pages are made from it. The build fails
where a public effect or preset is missing here.
"""

import dataclasses
import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import grain_datarax as gdx
from grain_datarax.effects import EFFECTS
from grain_datarax.effects.effect import Effect

# The setting of a slider that is none of the effect's: it moves through records of one chain.
RECORD = "record"


@dataclasses.dataclass(frozen=True)
class Slider:
    """A setting, and the values that it is shown with."""

    setting: str
    values: Sequence[Any]

    def texts(self) -> list[str]:
        """The values as they stand below pictures."""
        return [_text(self.setting, value) for value in self.values]


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One effect or preset.

    Attributes:
      title: What it is called on the pages, unlike all others.
      says: What it does, one sentence.
      seen: What is seen, behind what the photograph shows: of the alternative texts.
      sliders: One or two.
      of: What makes the effect, by its name in `grain_datarax`; None: `title`.
      settings: Those that no slider moves.
      photo: The number of the photograph that record 0 is.
      outlines: Whether it covers pixels, so that a line can be drawn around these.
      ends: The values that are shown as black and as white; None: the ends of the value range.
    """

    title: str
    says: str
    seen: str
    sliders: tuple[Slider, ...]
    of: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    photo: int = 0
    outlines: bool = False
    ends: tuple[float, float] | None = None

    @property
    def maker(self) -> str:
        """What makes the effect, by its name in `grain_datarax`."""
        return self.of or self.title

    @property
    def slug(self) -> str:
        """Its name in addresses and in the names of files."""
        return "-".join("".join(each if each.isalnum() else " " for each in self.title).split())

    def effect(self, **moved: Any) -> Effect:
        """The effect, with what the sliders say."""
        made: Effect = operator.attrgetter(self.maker)(gdx)(**self.settings, **moved)
        return made


def _text(setting: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each!r}" for name, each in value.items())
    return f"record {value}" if setting == RECORD else f"{setting}={value!r}".replace("'", '"')


THREE_RECORDS = Slider(RECORD, range(3))
FIVE_RECORDS = Slider(RECORD, range(5))
NOISES = [gdx.GaussianNoise(std=0.2), gdx.PoissonNoise(photons=8), gdx.SaltPepperNoise(salt_prob=0.1, pepper_prob=0.1)]

GROUPS = {
    "Patches and dropout": (
        Entry(
            "PatchDropout",
            "Fills rectangles at random places.",
            "squares in it filled with black",
            (
                Slider("num_patches", (1, 2, 4, 8, 16)),
                Slider("patch_size", ((16, 16), (24, 24), (32, 32), (48, 48), (64, 64))),
            ),
            photo=2,
            outlines=True,
        ),
        Entry(
            "What fills",
            "Each effect of this section fills with black, a colour, the record's mean, a random colour for each"
            " patch, or noise; with `inverse=True` the patches stay and all else is filled.",
            "squares in it filled",
            (
                Slider("fill", (0.0, (1.0, 0.76, 0.03), "mean", "random", "noise")),
                Slider("inverse", (False, True)),
            ),
            of="PatchDropout",
            settings={"num_patches": 3, "patch_size": (56, 56)},
            photo=1,
        ),
        Entry(
            "RandomErasing",
            "Fills one rectangle of random area, aspect and place.",
            "one rectangle in it filled with black",
            (Slider("scale", (0.02, 0.05, 0.1, 0.2, 0.4)), THREE_RECORDS),
            settings={"p": 1.0},
            photo=3,
            outlines=True,
        ),
        Entry(
            "Cutout",
            "Fills a square whose centre lies anywhere, so that it may hang over the edge.",
            "a square in it filled with black",
            (Slider("patch_size", ((16, 16), (32, 32), (48, 48), (64, 64), (96, 96))), THREE_RECORDS),
            photo=1,
            outlines=True,
        ),
        Entry(
            "GridMask",
            "Fills one square in each unit of a grid.",
            "a grid of black squares over it",
            (Slider("unit", (16, 24, 32, 48, 96)), Slider("keep_ratio", (0.4, 0.6, 0.8))),
            photo=0,
            outlines=True,
        ),
        Entry(
            "GridDropout",
            "Fills so many cells of a grid, a number or a share.",
            "cells of a grid in it filled with black",
            (Slider("num_patches", (0.1, 0.25, 0.5, 0.75, 0.9)), THREE_RECORDS),
            settings={"patch_size": (22, 22)},
            photo=2,
            outlines=True,
        ),
        Entry(
            "CoverageDropout",
            "Fills a given share of the pixels by patches that do not overlap.",
            "patches in it filled with black",
            (Slider("coverage", (0.05, 0.1, 0.2, 0.4, 0.7)), THREE_RECORDS),
            photo=3,
            outlines=True,
        ),
        Entry(
            "PixelDropout",
            "Fills each pixel with a probability.",
            "single pixels all over it black",
            (Slider("drop_prob", (0.01, 0.05, 0.1, 0.25, 0.5)), THREE_RECORDS),
            photo=1,
        ),
        Entry(
            "ChannelDropout",
            "Fills so many of the channels.",
            "red, green or blue missing, so that its colours are others",
            (Slider("num_channels", (1, 2)), FIVE_RECORDS),
            photo=0,
        ),
        Entry(
            "PatchGaussian",
            "Adds normal noise in one square, which may hang over the edge.",
            "coloured grain in one square of it",
            (Slider("std", (0.05, 0.1, 0.2, 0.4, 0.8)), Slider("side", (0.25, 0.5, 1.0))),
            photo=2,
            outlines=True,
        ),
    ),
    "Noise": (
        Entry(
            "GaussianNoise",
            "Adds normal noise to each value; with `same_on_channel=True` it is grey.",
            "grain all over it",
            (Slider("std", (0.02, 0.05, 0.1, 0.2, 0.4)), Slider("same_on_channel", (False, True))),
            photo=3,
        ),
        Entry(
            "SaltPepperNoise",
            "Replaces values by the upper end of the range, the lower end, or neither.",
            "bright and dark dots all over it",
            (
                Slider("salt_prob", (0.0, 0.01, 0.05, 0.1, 0.25)),
                Slider("pepper_prob", (0.0, 0.02, 0.1)),
            ),
            photo=1,
        ),
        Entry(
            "PoissonNoise",
            "Counts photons: fewer photons, more noise.",
            "grain all over it, more where it is bright",
            (Slider("photons", (500, 60, 25, 12, 5)), THREE_RECORDS),
            photo=2,
        ),
        Entry(
            "SpeckleNoise",
            "Adds normal noise in proportion to the value.",
            "grain on what is bright in it",
            (Slider("std", (0.05, 0.1, 0.2, 0.4, 0.6)), THREE_RECORDS),
            photo=1,
        ),
        Entry(
            "UniformNoise",
            "Moves each value by as much as `amplitude`, all amounts equally likely.",
            "even grain all over it",
            (Slider("amplitude", (0.02, 0.05, 0.1, 0.2, 0.5)), THREE_RECORDS),
            photo=0,
        ),
        Entry(
            "MultiplicativeNoise",
            "Multiplies each value by a factor of its own, or with `elementwise=False` each channel.",
            "its values multiplied by random factors",
            (
                Slider("multiplier", ((0.9, 1.1), (0.7, 1.3), (0.5, 1.5), (0.2, 1.8), (0.0, 2.0))),
                Slider("elementwise", (True, False)),
            ),
            photo=3,
        ),
        Entry(
            "SensorNoise",
            "Reads a sensor: `shot` is the variance that light adds, `read` the noise in the dark.",
            "grain as a camera's sensor has it in dim light",
            (Slider("shot", (0.0001, 0.001, 0.004, 0.012, 0.05)), Slider("read", (0.001, 0.03, 0.1))),
            photo=1,
        ),
        Entry(
            "RicianNoise",
            "The noise of magnitude images, such as those of magnetic resonance: what is dark becomes brighter.",
            "grain all over it, and what was dark has become grey",
            (Slider("std", (0.02, 0.05, 0.1, 0.2, 0.4)), THREE_RECORDS),
            photo=1,
        ),
    ),
    "Flips and crops": (
        Entry(
            "HorizontalFlip",
            "Mirrors a record left to right, with probability `p`.",
            "some records mirrored left to right",
            (FIVE_RECORDS,),
        ),
        Entry(
            "VerticalFlip",
            "Mirrors a record top to bottom, with probability `p`.",
            "some records upside down",
            (FIVE_RECORDS,),
        ),
        Entry(
            "PadCrop",
            "Pads all sides and crops at a random place, so that the picture is shifted.",
            "shifted, with a border where it was padded",
            (Slider("padding", (4, 8, 16, 32, 64)), Slider("mode", ("constant", "reflect", "edge"))),
            photo=2,
            outlines=True,
        ),
        Entry(
            "RandomResizedCrop",
            "Resizes a rectangle of random area, aspect and place to the size of the image.",
            "a part of it enlarged to the whole",
            (Slider("scale", (0.9, 0.6, 0.4, 0.2, 0.08)), THREE_RECORDS),
            photo=0,
        ),
    ),
    "Colour": (
        Entry(
            "BrightnessContrast",
            "Shifts and scales each value.",
            "brighter or darker, with more or less contrast",
            (Slider("brightness", (-0.4, -0.2, 0.0, 0.2, 0.4)), Slider("contrast", (-0.5, -0.25, 0.0, 0.5, 1.0))),
            photo=2,
        ),
        Entry(
            "ColorJitter",
            "Changes brightness, contrast, saturation and hue by drawn amounts, in a drawn order.",
            "its colours changed",
            (Slider("hue", (0.0, 0.1, 0.5)), FIVE_RECORDS),
            settings={"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
            photo=3,
        ),
        Entry(
            "Function",
            "Any function of JAX, here `dm_pix.random_gamma`.",
            "darker, its bright parts less so",
            (
                Slider("settings", tuple({"min_gamma": 1.0, "max_gamma": most} for most in (1.5, 2.0, 3.0, 5.0, 8.0))),
                THREE_RECORDS,
            ),
            settings={"function": "dm_pix:random_gamma"},
            photo=0,
        ),
    ),
    "Two records mixed": (
        Entry(
            "MixUp",
            "Mixes a record with its partner; the shares follow from Beta(alpha, alpha).",
            "another photograph shining through",
            (Slider("alpha", (0.1, 0.2, 0.4, 1.0, 32.0)), THREE_RECORDS),
            photo=2,
        ),
        Entry(
            "CutMix",
            "A rectangle is the partner's; the shares follow from Beta(alpha, alpha).",
            "another photograph in a rectangle of it",
            (Slider("alpha", (0.1, 0.2, 0.4, 1.0, 32.0)), THREE_RECORDS),
            photo=2,
            outlines=True,
        ),
    ),
    "Several effects as one": (
        Entry(
            "OneOf",
            "Each record takes one of the effects.",
            "with normal noise, photon noise, or salt and pepper",
            (FIVE_RECORDS,),
            settings={"effects": NOISES},
        ),
        Entry(
            "SomeOf",
            "Each record takes `count` of the effects, in their order.",
            "with so many of a mirroring, grey patches and grain",
            (Slider("count", (1, 2, 3)), FIVE_RECORDS),
            settings={
                "effects": [
                    gdx.VerticalFlip(p=1.0),
                    gdx.PatchDropout(num_patches=3, patch_size=(48, 48), fill=0.5),
                    gdx.GaussianNoise(std=0.2),
                ]
            },
        ),
        Entry(
            "Sequential",
            "Several effects under one probability `p`: a record takes all of them or none.",
            "some records with both black patches and grain",
            (FIVE_RECORDS,),
            settings={
                "effects": [gdx.PatchDropout(num_patches=3, patch_size=(48, 48)), gdx.GaussianNoise(std=0.2)],
                "p": 0.5,
            },
        ),
    ),
    "What models take": (
        Entry(
            "Normalize",
            "Subtracts a mean and divides by a standard deviation; shown from -2.5, black, to 2.5, white.",
            "as a model takes it, grey where it had the mean",
            (Slider("std", (0.15, 0.2, 0.25, 0.35, 0.5)), THREE_RECORDS),
            settings={"mean": 0.5},
            photo=3,
            ends=(-2.5, 2.5),
        ),
        Entry(
            "Cast",
            "Converts the type alone; with `scale=True` to values from 0 to 1, shown as black and white.",
            "which looks as it did",
            (Slider("dtype", ("float32", "bfloat16", "float16")),),
            settings={"scale": True},
            photo=0,
            ends=(0.0, 1.0),
        ),
    ),
    "Presets": (
        *(
            Entry(
                f"imagenet_c: {name}",
                f"The {name.replace('_', ' ')} of ImageNet-C, severities 1 to 5.",
                seen,
                (Slider("severity", (1, 2, 3, 4, 5)), THREE_RECORDS),
                of="presets.imagenet_c",
                settings={"name": name},
                photo=place,
            )
            for place, (name, seen) in enumerate(
                {
                    "gaussian_noise": "coloured grain all over it",
                    "shot_noise": "grain all over it, more where it is bright",
                    "impulse_noise": "bright and dark dots all over it",
                    "speckle_noise": "grain on what is bright in it",
                }.items()
            )
        ),
        Entry(
            "patch_gaussian",
            "Noise in one square, as Lopes et al. 2019 train with; made for images of 32 and of 224 pixels.",
            "coloured grain in one square of it",
            (Slider("dataset", ("cifar", "imagenet")), FIVE_RECORDS),
            of="presets.patch_gaussian",
            photo=1,
            outlines=True,
        ),
        Entry(
            "noise_training",
            "Noise on half of the records, as Rusak et al. 2020 train with.",
            "some records with grain all over",
            (Slider("name", ("gaussian", "gaussian_mult", "speckle")), FIVE_RECORDS),
            of="presets.noise_training",
            photo=0,
        ),
    ),
}

ENTRIES = tuple(entry for group in GROUPS.values() for entry in group)


def missing() -> list[str]:
    """The public effects and presets that are not shown, by their names in `grain_datarax`."""
    presets = [f"presets.{name}" for name, _ in inspect.getmembers(gdx.presets, _is_preset)]
    shown = {entry.maker for entry in ENTRIES}
    return [name for name in (*EFFECTS, *presets) if name not in shown]


def _is_preset(member: Any) -> bool:
    return inspect.isfunction(member) and member.__module__ == gdx.presets.__name__ and member.__name__[0] != "_"
