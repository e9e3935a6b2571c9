"""The table of effects that every property is tested on. A newcomer joins here, and inherits them all."""

import numpy as np
import pytest
from sources import images
from speckle_noise import SpeckleNoise

import grain_datarax as gdx

EFFECTS = {
    "patch_dropout": lambda **settings: gdx.PatchDropout(**{"num_patches": 2, "patch_size": (3, 4), **settings}),
    "gaussian_noise": gdx.GaussianNoise,
    "salt_pepper_noise": lambda **settings: gdx.SaltPepperNoise(salt_prob=0.1, pepper_prob=0.1, **settings),
    "poisson_noise": lambda **settings: gdx.PoissonNoise(photons=30.0, **settings),
    "speckle_noise": SpeckleNoise,
}
every_effect = pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
every_dtype = pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])


def chain(*effects, seed=0, **settings):
    return gdx.Chain(effects, seed=seed, **settings)


def whole_table(**settings):
    """All of them in one chain."""
    return gdx.Chain([make(name=name) for name, make in EFFECTS.items()], seed=0, **settings)


def seeds(count, seed=1):
    return np.random.default_rng(seed).integers(0, 2**32, (count, 2), dtype=np.uint32)


def seeded_batch(count, **kwargs):
    return {"image": images(count, **kwargs), "record_seed": seeds(count)}


def run(chain, batch):
    return np.asarray(gdx.AugmentBatch(chain).map(batch)["image"])
