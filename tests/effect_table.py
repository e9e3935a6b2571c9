"""The table of effects that every property is tested on. A newcomer joins here, and inherits them all."""

import dataclasses

import jax
import numpy as np
import pytest
from sources import images
from speckle_noise import SpeckleNoise

import grain_datarax as gdx
from grain_datarax.random.rounding import rounded

EFFECTS = {
    "patch_dropout": lambda **settings: gdx.PatchDropout(**{"num_patches": 2, "patch_size": (3, 4), **settings}),
    "gaussian_noise": gdx.GaussianNoise,
    "salt_pepper_noise": lambda **settings: gdx.SaltPepperNoise(salt_prob=0.1, pepper_prob=0.1, **settings),
    "poisson_noise": lambda **settings: gdx.PoissonNoise(photons=30.0, **settings),
    "speckle_noise": SpeckleNoise,
    "patches of ranges": lambda **settings: gdx.PatchDropout(
        **{"num_patches": (1, 4), "patch_size": ((2, 5), (0.2, 0.5)), "fill": (0.0, 1.0), **settings}
    ),
    "gaussian of ranges": lambda **settings: gdx.GaussianNoise(std=(0.05, 0.2), mean=(-0.1, 0.1), **settings),
    "salt and pepper of ranges": lambda **settings: gdx.SaltPepperNoise(
        salt_prob=(0.05, 0.3), pepper_prob=(0.0, 0.2), salt_value=(0.9, 1.0), pepper_value=(0.0, 0.1), **settings
    ),
    "poisson of ranges": lambda **settings: gdx.PoissonNoise(photons=(5.0, 60.0), **settings),
    "one of": lambda **settings: composed(gdx.OneOf, **{"weights": [1, 2, 1], **settings}),
    "some of": lambda **settings: composed(gdx.SomeOf, **{"count": (1, 2), **settings}),
    "sequential": lambda **settings: composed(gdx.Sequential, **settings),
    "function": lambda **settings: gdx.Function(dimmed, {"most": 0.5}, **settings),
    "brightness_contrast": gdx.BrightnessContrast,
    "color_jitter": lambda **settings: gdx.ColorJitter(
        **{"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, **settings}
    ),
    "speckle": gdx.SpeckleNoise,
    "uniform": gdx.UniformNoise,
    "multiplicative": gdx.MultiplicativeNoise,
    "sensor": lambda **settings: gdx.SensorNoise(**{"shot": (1e-3, 1e-2), "read": (1e-3, 0.1), **settings}),
    "rician": gdx.RicianNoise,
    "patch gaussian": lambda **settings: gdx.PatchGaussian(**{"side": (6, 9), **settings}),
    "random erasing": lambda **settings: gdx.RandomErasing(**{"p": 1.0, "scale": (0.1, 0.33), **settings}),
    "cutout": lambda **settings: gdx.Cutout(**{"patch_size": (7, 6), "fill": "random", **settings}),
    "grid mask": lambda **settings: gdx.GridMask(**{"unit": (3, 8), **settings}),
    "grid dropout": lambda **settings: gdx.GridDropout(**{"patch_size": (3, 4), "fill": "mean", **settings}),
    "coverage dropout": lambda **settings: gdx.CoverageDropout(
        **{"patch_size": (3, 4), "fill": (0.2, 0.9), **settings}
    ),
    "pixel dropout": lambda **settings: gdx.PixelDropout(**{"drop_prob": 0.3, "fill": "noise", **settings}),
    "channel dropout": gdx.ChannelDropout,
    "horizontal_flip": lambda **settings: gdx.HorizontalFlip(**{"p": 1.0, **settings}),
    "vertical_flip": lambda **settings: gdx.VerticalFlip(**{"p": 1.0, **settings}),
    "pad_crop": lambda **settings: gdx.PadCrop(**{"padding": (7, 5), "fill": (0.0, 1.0), **settings}),
    "random_resized_crop": gdx.RandomResizedCrop,
}


def dimmed(key, image, most):
    return rounded(image * (1 - most * jax.random.uniform(key)))


def composed(kind, *, same_on_frame=False, **settings):
    """A composition whose parts draw by frame or not."""
    parts = [gdx.GaussianNoise(std=(0.05, 0.2)), gdx.SaltPepperNoise(salt_prob=0.2), SpeckleNoise()]
    return kind([dataclasses.replace(part, same_on_frame=same_on_frame) for part in parts], **settings)


PLAIN = list(EFFECTS)[:5]
COMPOSED = ["one of", "some of", "sequential"]
FIRST = list(EFFECTS)[:13]
LATER = list(EFFECTS)[13:]

# Those that have but a few draws, so that records may share theirs by chance.
FEW_DRAWS = (gdx.ChannelDropout,)
# Those that treat no grey image.
COLOURED = (gdx.ChannelDropout,)
FLIPS = ["horizontal_flip", "vertical_flip"]  # which draw nothing


def thorough(*values):
    """Values of a parameter that are tried by the most thorough alone."""
    return [pytest.param(value, marks=(pytest.mark.long, pytest.mark.thorough)) for value in values]


def _each(names, also_long=()):
    # What has ranges, or others in it, runs the laws of the plain ones, and takes long to compile.
    rows = [pytest.param(EFFECTS[name], id=name) for name in names]
    marks = (pytest.mark.long, pytest.mark.thorough)
    return rows + [pytest.param(EFFECTS[name], id=name, marks=marks) for name in also_long]


def _each_type(later=()):
    """All rows in `uint8`, and laws in floats; those of later laws, but in these types, for the most thorough."""
    for name, make in EFFECTS.items():
        for dtype in ["uint8", "float16", "bfloat16", "float32"] if name in [*PLAIN, *LATER] else ["uint8"]:
            if name in LATER:
                marks = [pytest.mark.once] if dtype in later else [pytest.mark.long, pytest.mark.thorough]
            else:
                marks = {"float16": [pytest.mark.long, pytest.mark.thorough], "bfloat16": [pytest.mark.once]}.get(
                    dtype, []
                )
            yield pytest.param(make, dtype, id=f"{name}-{dtype}", marks=marks)


every_effect = pytest.mark.parametrize(
    "effect", [*_each(FIRST), *(pytest.param(EFFECTS[name], id=name, marks=pytest.mark.once) for name in LATER)]
)
every_effect_later_long = pytest.mark.parametrize("effect", _each(FIRST, LATER))
every_effect_some_long = pytest.mark.parametrize(
    "effect", _each(PLAIN, [name for name in EFFECTS if name not in PLAIN])
)
# A composition draws by its parts, whose names are their own.
every_effect_with_a_draw = pytest.mark.parametrize(
    "effect", _each(PLAIN, [name for name in EFFECTS if name not in [*PLAIN, *COMPOSED, *FLIPS]])
)
every_effect_and_dtype = pytest.mark.parametrize(("effect", "dtype"), list(_each_type()))
every_effect_and_dtype_later_too = pytest.mark.parametrize(("effect", "dtype"), list(_each_type(["uint8"])))


def chain(*effects, seed=0, **settings):
    return gdx.Chain(effects, seed=seed, **settings)


def whole_table(**settings):
    """Those that are no others with ranges, and none of others, in one chain."""
    return gdx.Chain([EFFECTS[name](name=name) for name in PLAIN], seed=0, **settings)


def seeds(count, seed=1):
    return np.random.default_rng(seed).integers(0, 2**32, (count, 2), dtype=np.uint32)


def seeded_batch(count, **kwargs):
    return {"image": images(count, **kwargs), "record_seed": seeds(count)}


def run(chain, batch):
    return np.asarray(gdx.AugmentBatch(chain).map(batch)["image"])
