"""Presets: the constants of papers, and the moments that their authors' programs have."""

import math

import numpy as np
import pytest
from effect_table import chain, run, seeds
from scipy import stats

import grain_datarax as gdx

pytestmark = pytest.mark.once

# Hendrycks & Dietterich's programs, severities 1 to 5.
STRENGTHS = {
    "imagenet": {
        "gaussian_noise": [0.08, 0.12, 0.18, 0.26, 0.38], "shot_noise": [60, 25, 12, 5, 3],
        "impulse_noise": [0.03, 0.06, 0.09, 0.17, 0.27], "speckle_noise": [0.15, 0.2, 0.35, 0.45, 0.6],
    },
    "cifar": {
        "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10], "shot_noise": [500, 250, 100, 75, 50],
        "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07], "speckle_noise": [0.06, 0.1, 0.12, 0.16, 0.2],
    },
    "tiny": {
        "gaussian_noise": [0.04, 0.08, 0.12, 0.15, 0.18], "shot_noise": [250, 100, 50, 30, 15],
        "impulse_noise": [0.01, 0.02, 0.05, 0.08, 0.14], "speckle_noise": [0.15, 0.2, 0.25, 0.3, 0.35],
    },
}  # fmt: skip
THOROUGH = (pytest.mark.long, pytest.mark.thorough)


def levels(name, strength, value):
    """The probability of each of the 256 results for a uint8 value: clipped to [0, 1], times 255, cut off."""
    share = value / 255
    if name == "shot_noise":
        counts = np.arange(int(strength) * 4 + 60)
        results = np.floor(np.clip(counts / strength, 0, 1) * 255 + 1e-9).astype(int)
        return np.bincount(results, stats.poisson(share * strength).pmf(counts), minlength=256)
    if name == "impulse_noise":
        return np.bincount([value, 255, 0], [1 - strength, strength / 2, strength / 2], minlength=256)
    law = stats.norm(share, strength if name == "gaussian_noise" else strength * share)
    ends = np.concatenate([[-np.inf], np.arange(1, 256) / 255, [np.inf]])
    ends[-2] = 1.0  # all that is clipped to 1, and nothing else, becomes 255
    return np.diff(law.cdf(ends))


@pytest.mark.parametrize(
    ("variant", "severity"),
    [
        pytest.param(variant, severity, marks=() if variant == "imagenet" or severity in (1, 5) else THOROUGH)
        for variant in STRENGTHS
        for severity in range(1, 6)
    ],
)
@pytest.mark.parametrize("name", list(STRENGTHS["imagenet"]))
def test_imagenet_c_has_its_moments(name, severity, variant):
    effect, strength = gdx.presets.imagenet_c(name, severity, variant), STRENGTHS[variant][name][severity - 1]
    for value in (51, 128):
        images = np.full((32, 64, 64, 3), value, np.uint8)
        result = run(chain(effect), {"image": images, "record_seed": seeds(32)}).astype(np.float64)
        expected = levels(name, strength, value)
        mean = (expected * np.arange(256)).sum()
        variance, fourth = ((expected * (np.arange(256) - mean) ** power).sum() for power in (2, 4))
        assert abs(result.mean() - mean) < 5 * math.sqrt(variance / result.size)
        assert abs(((result - mean) ** 2).mean() - variance) < 5 * math.sqrt((fourth - variance**2) / result.size)


def test_what_imagenet_c_has_not_is_refused():
    for wrong, name in (
        (("fog", 1), "name"),
        (("gaussian_noise", 0), "severity"),
        (("gaussian_noise", 6), "severity"),
        (("gaussian_noise", 1, "mnist"), "variant"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be one of"):
            gdx.presets.imagenet_c(*wrong)
    with pytest.raises(TypeError, match="`severity` must be an integer"):
        gdx.presets.imagenet_c("gaussian_noise", 1.0)


def test_patch_gaussian_has_the_papers_ranges():
    assert gdx.presets.patch_gaussian("cifar") == gdx.PatchGaussian(side=25, std=0.1)
    links = chain(gdx.presets.patch_gaussian("imagenet"))
    (drawn,) = gdx.draws(links, seeds(2000), (224, 224, 3)).values()
    assert stats.kstest(drawn["std"], stats.uniform(0, 1).cdf).pvalue > 1e-4
    assert stats.kstest(drawn["positions"][:, 0, 2], stats.randint(1, 251).cdf).pvalue > 1e-4
    with pytest.raises(ValueError, match="`dataset` must be one of"):
        gdx.presets.patch_gaussian("mnist")


@pytest.mark.parametrize(("name", "stds"), [("gaussian", [0.5]), ("gaussian_mult", [0.08, 0.12, 0.18, 0.26, 0.38])])
def test_noise_training_treats_half_of_the_records_with_one_of_its_noises(name, stds):
    images = np.full((2000, 16, 16, 1), 0.5, np.float32)
    result = run(chain(gdx.presets.noise_training(name), clip=False), {"image": images, "record_seed": seeds(2000)})
    spread = result.std(axis=(1, 2, 3))
    counts = [(spread == 0).sum()] + [(np.abs(spread / std - 1) < 0.18).sum() for std in stds]
    expected = np.array([0.5] + [0.5 / len(stds)] * len(stds)) * 2000
    assert sum(counts) == 2000
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_speckle_training_is_of_imagenet_cs_five():
    effect = gdx.presets.noise_training("speckle")
    assert [part.std for part in effect.effects] == STRENGTHS["imagenet"]["speckle_noise"]
    assert effect.p == 0.5
    with pytest.raises(ValueError, match="`name` must be one of"):
        gdx.presets.noise_training("shot")
