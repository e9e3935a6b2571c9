"""The laws of noise: moments, tails and fits on constant images, against closed forms and SciPy.

Tolerances are five standard errors or p > 1e-4; seeds are fixed, so a test that passes always passes.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import EFFECTS, chain, run, seeded_batch, seeds
from scipy import stats

import grain_datarax as gdx
from grain_datarax.effects.noise import Noise

pytestmark = pytest.mark.once

SHAPE = (32, 32, 3)


def noisy(effect, value, dtype="float32", count=32, shape=SHAPE, **settings):
    batch = {"image": np.full((count, *shape), value, dtype), "record_seed": seeds(count)}
    return run(chain(effect, **{"clip": False, **settings}), batch)


def assert_fits(values, distribution):
    """The whole distribution, and its tails beyond 1 in 1000."""
    values = np.asarray(values, np.float64).ravel()
    assert stats.kstest(values, distribution.cdf).pvalue > 1e-4
    for tail in ((values < distribution.ppf(1e-3)).sum(), (values > distribution.ppf(1 - 1e-3)).sum()):
        assert abs(tail - 1e-3 * values.size) < 5 * np.sqrt(1e-3 * values.size)


@pytest.mark.parametrize(("value", "value_range"), [(0.4, (0, 1)), (1.5, (-1, 3)), (-20.0, (-1024, 3071))])
def test_noise_fits_its_law_in_any_units(value, value_range):
    low, high = value_range
    width, light = high - low, value - low
    share = light / width
    laws = {
        gdx.SpeckleNoise(std=0.2): stats.norm(value, 0.2 * light),
        gdx.UniformNoise(amplitude=0.1): stats.uniform(value - 0.1 * width, 0.2 * width),
        gdx.MultiplicativeNoise(multiplier=(0.8, 1.3)): stats.uniform(low + 0.8 * light, 0.5 * light),
        gdx.SensorNoise(shot=0.01, read=0.02): stats.norm(value, width * math.sqrt(0.01 * share + 0.02**2)),
        gdx.RicianNoise(std=0.1): stats.rice(share / 0.1, low, 0.1 * width),
        gdx.PatchGaussian(side=64, std=0.1): stats.norm(value, 0.1 * width),
    }
    for effect, law in laws.items():
        result = noisy(effect, value, value_range=value_range)
        if isinstance(effect, gdx.PatchGaussian):
            result = result[result != np.float32(value)]
            assert result.size > 32 * 32 * 32 * 3 / 2
        assert_fits(result, law)


def test_noise_on_uint8_is_in_fractions_of_255():
    for effect, std in (
        (gdx.SpeckleNoise(std=0.2), 0.2 * 100),
        (gdx.UniformNoise(amplitude=0.1), 25.5 / math.sqrt(3)),
        (gdx.MultiplicativeNoise(multiplier=(0.8, 1.2)), 0.4 * 100 / math.sqrt(12)),
        (gdx.SensorNoise(shot=0.01, read=0.02), 255 * math.sqrt(0.01 * 100 / 255 + 0.02**2)),
    ):
        result = noisy(effect, 100, "uint8").astype(np.float64)
        spread = math.sqrt(std**2 + 1 / 12)  # rounded to whole numbers
        assert abs(result.mean() - 100) < 5 * spread / math.sqrt(result.size)
        fourth = ((result - 100) ** 4).mean()
        assert abs(result.var() - spread**2) < 5 * math.sqrt((fourth - spread**4) / result.size)


@pytest.mark.parametrize("light", [0.0, 0.1, 0.9])
def test_the_variance_of_sensor_noise_grows_with_the_light(light):
    assert_fits(
        noisy(gdx.SensorNoise(shot=0.02, read=0.05), light), stats.norm(light, math.sqrt(0.02 * light + 0.05**2))
    )


def test_the_strengths_of_sensor_noise_are_log_uniform():
    (drawn,) = gdx.draws(chain(gdx.SensorNoise(shot=(1e-4, 1e-2), read=(1e-3, 0.1))), seeds(5000), SHAPE).values()
    for name, (low, high) in {"shot": (1e-4, 1e-2), "read": (1e-3, 0.1)}.items():
        assert low <= drawn[name].min() < drawn[name].max() <= high
        assert stats.kstest(np.log(drawn[name]), stats.uniform(math.log(low), math.log(high / low)).cdf).pvalue > 1e-4
    assert abs(stats.spearmanr(drawn["shot"], drawn["read"]).statistic) < 5 / math.sqrt(5000)


def test_rician_noise_of_the_dark_is_rayleigh():
    assert_fits(noisy(gdx.RicianNoise(std=0.1), 0.0), stats.rayleigh(scale=0.1))


def test_multipliers_are_drawn_for_each_value_channel_or_image():
    for elementwise, same, different in (
        (True, False, 32 * 32 * 3),
        (True, True, 32 * 32),
        (False, False, 3),
        (False, True, 1),
    ):
        effect = gdx.MultiplicativeNoise(elementwise=elementwise, same_on_channel=same)
        numbers = [len(np.unique(image)) for image in noisy(effect, 0.5, count=8)]
        assert all(0.9 * different <= number <= different for number in numbers)
        assert (np.ptp(noisy(effect, 0.5, count=8), axis=-1) == 0).all() == same


def test_patch_gaussian_leaves_all_else_as_it_is_and_lies_anywhere():
    effect = gdx.PatchGaussian(side=(5, 9), std=0.1)
    batch = seeded_batch(64, shape=(20, 14, 3))
    result = run(chain(effect), batch)
    (drawn,) = gdx.draws(chain(effect), batch["record_seed"], (20, 14, 3)).values()
    for before, after, (y, x, height, width) in zip(batch["image"], result, drawn["positions"][:, 0], strict=True):
        inside = np.zeros((20, 14), bool)
        inside[max(y, 0) : y + height, max(x, 0) : x + width] = True
        assert height == width
        np.testing.assert_array_equal(after[~inside], before[~inside])
        assert (after[inside] != before[inside]).mean() > 0.9
    (many,) = gdx.draws(chain(effect), seeds(8000), (20, 14, 3)).values()
    y, x, side, _ = many["positions"][:, 0].T
    for values, outcomes in ((side - 5, 5), (y + side // 2, 20), (x + side // 2, 14)):
        assert stats.chisquare(np.bincount(values, minlength=outcomes)).pvalue > 1e-4
    shares = gdx.draws(chain(gdx.PatchGaussian(side=(0.5, 1.0))), seeds(500), (20, 14, 3))["PatchGaussian"]
    assert set(np.unique(shares["positions"][:, 0, 2])) == set(range(7, 15))


IMPULSES = ["salt_pepper_noise", "salt and pepper of ranges"]
NOISE = {name: make for name, make in EFFECTS.items() if isinstance(make(), Noise)}


@pytest.mark.parametrize("name", NOISE)
def test_channels_share_a_draw_on_request(name):
    effect = NOISE[name](same_on_channel=True)
    grey = seeded_batch(4, shape=(16, 12, 1), dtype="uint8")
    three = {**grey, "image": np.repeat(grey["image"], 3, axis=-1)}
    result = run(chain(effect), three)
    np.testing.assert_array_equal(result, np.repeat(run(chain(effect), grey), 3, axis=-1))
    assert (np.ptp(run(chain(NOISE[name]()), three), axis=-1) > 0).any()


@pytest.mark.parametrize("name", [name for name in NOISE if name not in IMPULSES])
def test_integers_are_cut_off_on_request(name):
    batch = seeded_batch(4, dtype="uint8")
    rounded, cut = (run(chain(NOISE[name](truncate=truncate)), batch).astype(int) for truncate in (False, True))
    assert set(np.unique(rounded - cut)) <= {0, 1}
    assert 0 < (rounded - cut).mean() < 0.7
    floats = {**batch, "image": batch["image"].astype(np.float32)}
    same = [run(chain(NOISE[name](truncate=truncate), value_range=(0, 255)), floats) for truncate in (False, True)]
    np.testing.assert_array_equal(*same)
    np.testing.assert_array_equal(cut, np.floor(same[0] + 2**-12))


@pytest.mark.parametrize("value", [0.29, (0.29, 0.29)])
def test_impulses_are_cut_off_on_request_whether_they_are_drawn_or_not(value):
    batch = seeded_batch(4, dtype="uint8")
    batch["image"] = np.minimum(batch["image"], 100)
    for value_range, rounded, cut in (((0, 255), 74, 73), ((0, 100), 29, 29)):
        for truncate, expected in ((False, rounded), (True, cut)):
            effect = gdx.SaltPepperNoise(salt_prob=1.0, pepper_prob=0.0, salt_value=value, truncate=truncate)
            assert set(run(chain(effect, value_range=value_range), batch).ravel().tolist()) == {expected}


def test_noise_of_nothing_changes_no_bit():
    batch = seeded_batch(4)
    for effect in (
        gdx.SpeckleNoise(std=0.0), gdx.UniformNoise(amplitude=0.0), gdx.MultiplicativeNoise(multiplier=1.0),
        gdx.SensorNoise(shot=0.0, read=0.0), gdx.PatchGaussian(std=0.0),
    ):  # fmt: skip
        np.testing.assert_array_equal(run(chain(effect), batch), batch["image"])


def test_what_is_darker_than_the_range_has_the_noise_of_the_dark():
    batch = {"image": jnp.full((32, *SHAPE), -0.5), "record_seed": seeds(32)}
    assert_fits(run(chain(gdx.SensorNoise(shot=0.5, read=0.02), clip=False), batch), stats.norm(-0.5, 0.02))


@pytest.mark.filterwarnings("ignore:`value_range` must hold the values of all images")
def test_patch_gaussian_clips_all_of_an_image():
    batch = {"image": jnp.full((2, 8, 8, 1), 2.0), "record_seed": seeds(2)}
    augment = gdx.AugmentBatch(chain(gdx.PatchGaussian(side=3)))
    result = np.asarray(augment.map(batch)["image"])
    assert result.max() <= 1
    assert augment.counts()["PatchGaussian"]["outside"] == result.size


def test_float64_images_get_their_pixels_at_any_batch_size():
    with jax.enable_x64(True):
        batch = seeded_batch(8, dtype="float64")
        for effect in (gdx.RicianNoise(), gdx.SensorNoise(), gdx.SpeckleNoise(), gdx.MultiplicativeNoise()):
            whole = run(chain(effect), batch)
            for count in (1, 3):
                part = run(chain(effect), {name: field[:count] for name, field in batch.items()})
                np.testing.assert_array_equal(part, whole[:count])


def test_a_range_that_is_drawn_log_uniformly_begins_above_zero():
    with pytest.raises(ValueError, match="`read` must be a range of positive numbers: got .0, 0.5.. Begin it at 1e-30"):
        gdx.SensorNoise(read=(0, 0.5))
    assert dataclasses.replace(gdx.SensorNoise(), read=0.0).read == 0
