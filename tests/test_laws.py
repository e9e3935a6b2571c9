"""The law of each effect: moments, fractions and counts on constant images, against closed forms and SciPy.

Tolerances are five standard errors of the estimate; seeds are fixed, so a test that passes always passes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import noise, patch_dropout, seeds
from scipy import stats

import grain_datarax as gdx
from grain_datarax.effects import patches
from grain_datarax.effects.salt_pepper_noise import impulse_mask
from grain_datarax.random.bits import STREAM

pytestmark = pytest.mark.once

# Mean and standard deviation of the clipped result for a constant image x, ImageNet-C severities 1 to 5
# (Hendrycks & Dietterich, ICLR 2019; closed forms, rounded to five digits).
IMAGENET_C = {
    ("gaussian", 0.2): [(0.20016, 0.07955), (0.20238, 0.11502), (0.21208, 0.15975), (0.23291, 0.21180), (0.26970, 0.27822)],
    ("poisson", 0.2): [(0.20000, 0.05774), (0.20000, 0.08944), (0.20000, 0.12910), (0.19986, 0.19936), (0.19874, 0.25320)],
    ("salt_pepper", 0.2): [(0.20900, 0.10059), (0.21800, 0.14169), (0.22700, 0.17283), (0.25100, 0.23494), (0.28100, 0.29196)],
    ("gaussian", 0.5): [(0.50000, 0.08000), (0.50000, 0.12000), (0.50000, 0.17910), (0.50000, 0.24741), (0.50000, 0.31700)],
    ("poisson", 0.5): [(0.50000, 0.09129), (0.49996, 0.14127), (0.49878, 0.20055), (0.48761, 0.28770), (0.47007, 0.34488)],
    ("salt_pepper", 0.5): [(0.50000, 0.08660), (0.50000, 0.12247), (0.50000, 0.15000), (0.50000, 0.20616), (0.50000, 0.25981)],
}  # fmt: skip
STRENGTHS = {
    "gaussian": [{"noise_std": c} for c in (0.08, 0.12, 0.18, 0.26, 0.38)],
    "poisson": [{"lam_scale": c} for c in (60, 25, 12, 5, 3)],
    "salt_pepper": [{"salt_prob": c / 2, "pepper_prob": c / 2} for c in (0.03, 0.06, 0.09, 0.17, 0.27)],
}
ROUNDING = 0.5e-5


def augmented(operator, value, dtype="float32", count=32, shape=(64, 64, 3)):
    batch = {"image": np.full((count, *shape), value, dtype), "record_seed": seeds(count)}
    return np.asarray(gdx.AugmentBatch(operator).map(batch)["image"]).astype(np.float64)


def assert_moments(values, mean, std, rounding=0.0):
    centred = values - values.mean()
    fourth, variance = (centred**4).mean(), (centred**2).mean()
    mean_error = std / np.sqrt(values.size)
    std_error = np.sqrt(max(fourth - variance**2, 0) / values.size) / (2 * std)
    assert abs(values.mean() - mean) < 5 * mean_error + rounding
    assert abs(np.sqrt(variance) - std) < 5 * std_error + rounding


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize(("mode", "value"), IMAGENET_C)
def test_noise_has_the_moments_of_imagenet_c(mode, value, severity):
    mean, std = IMAGENET_C[mode, value][severity - 1]
    values = augmented(noise(mode, **STRENGTHS[mode][severity - 1]), value)
    assert_moments(values, mean, std, ROUNDING)


def test_gaussian_noise_is_normal():
    values = augmented(noise(noise_std=0.1, noise_mean=0.02, clip_range=None), 0.5).ravel()
    assert_moments(values, 0.52, 0.1)
    assert stats.kstest((values - 0.52) / 0.1, "norm").pvalue > 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gaussian_noise_keeps_its_moments_in_narrow_types(dtype):
    values = augmented(noise(noise_std=0.1, clip_range=None), 0.5, dtype)
    assert_moments(values, 0.5, 0.1, rounding=2.0 ** -{"float16": 11, "bfloat16": 8}[dtype])  # half a step at 1


def test_gaussian_noise_on_uint8_is_in_fractions_of_255():
    values = augmented(noise(noise_std=0.05), 128, "uint8")
    assert_moments(values, 128, np.sqrt(12.75**2 + 1 / 12))  # 1/12: the variance of rounding


@pytest.mark.parametrize(("salt", "pepper"), [(0.03, 0.2), (0.01, 0.005), (0.3, 0.7), (0.0, 1e-4), (0.5, 1 / 3)])
def test_salt_and_pepper_fall_with_their_probabilities_and_exclude_each_other(salt, pepper):
    values = augmented(noise("salt_pepper", salt_prob=salt, pepper_prob=pepper), 0.5, count=256)
    for value, probability in ((1.0, salt), (0.0, pepper), (0.5, 1 - salt - pepper)):
        fraction = (values == value).mean()
        error = np.sqrt(abs(probability * (1 - probability)) / values.size)
        assert abs(fraction - probability) <= 5 * error + 1e-9


@pytest.mark.parametrize(
    ("salt", "pepper", "width"),
    [
        (0.1, 0.1, 16),
        (0.03, 0.0, 16),
        (0.25, 0.75, 16),
        (0.01, 0.1, 32),
        (0.1, 0.01, 32),
        (1e-6, 0.0, 32),
        (1.0, 0.0, 16),
    ],
)
def test_impulses_are_decided_from_16_bits_where_these_hold_the_probabilities(salt, pepper, width):
    key, shape = jax.random.key(3, impl=STREAM), (64, 32, 3)
    bits = np.asarray(jax.random.bits(key, shape, f"uint{width}")).astype(np.float64)
    expected = 1 * (bits < round(salt * 2**width)) - 1 * (bits >= 2**width - round(pepper * 2**width))
    mask = impulse_mask(key, shape, salt_prob=salt, pepper_prob=pepper)
    np.testing.assert_array_equal(np.asarray(mask), expected)
    # What is decided from 16 bits has its probability to one part in 10,000.
    assert width == 32 or all(abs(round(p * 2**16) / 2**16 - p) <= 1e-4 * p for p in (salt, pepper))


@pytest.mark.parametrize(("salt_prob", "pepper_prob", "value"), [(1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.5)])
def test_salt_and_pepper_at_the_ends_of_probability_are_certain(salt_prob, pepper_prob, value):
    values = augmented(noise("salt_pepper", salt_prob=salt_prob, pepper_prob=pepper_prob), 0.5)
    assert (values == value).all()


def test_channels_are_replaced_independently():
    values = augmented(noise("salt_pepper", salt_prob=0.1, pepper_prob=0.0), 0.5) == 1
    first, second = values[..., 0].ravel(), values[..., 1].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)


# Both branches of the sampler, and either side of the switch between them at 10.
@pytest.mark.parametrize("mean", [0.05, 0.3, 1, 2, 3.5, 4.5, 6, 9.99, 10, 12, 30, 100, 255, 1000])
def test_poisson_counts_fit_the_law(mean):
    size = 128 * 64 * 64 * 3
    counts = augmented(noise("poisson", lam_scale=mean, clip_range=None), 1.0, count=128) * mean
    counts = np.round(counts).astype(int)
    assert_moments(counts, mean, np.sqrt(mean))
    lowest, highest = (int(bound) for bound in stats.poisson.ppf([1e-5, 1 - 1e-5], mean))
    observed = np.bincount(np.clip(counts.ravel(), lowest, highest) - lowest)
    below = stats.poisson.cdf(np.arange(lowest, highest), mean)
    expected = np.diff([0, *below, 1]) * size
    enough = np.flatnonzero(expected >= 5)  # the usual least count of a cell; those beyond join the outermost
    edges = np.arange(enough[0], enough[-1] + 1)
    edges[0] = 0
    assert stats.chisquare(np.add.reduceat(observed, edges), np.add.reduceat(expected, edges)).pvalue > 1e-4


def test_poisson_noise_falls_as_lam_scale_grows():
    stds = [augmented(noise("poisson", lam_scale=lam, clip_range=None), 0.5).std() for lam in (1, 3, 10, 30, 100, 1000)]
    assert stds == sorted(stds, reverse=True)


def test_poisson_counts_negative_light_as_none_and_keeps_nan():
    image = np.zeros((1, 2, 4), np.float32)
    image[0, 0] = [-1.0, 0.0, np.nan, 1.0]
    batch = {"image": image, "record_seed": seeds(1)}
    result = np.asarray(gdx.AugmentBatch(noise("poisson", clip_range=None, lam_scale=1e4)).map(batch)["image"])[0, 0]
    assert (result[:2] == 0).all()
    assert np.isnan(result[2])
    assert result[3] == pytest.approx(1, abs=5 / np.sqrt(1e4))


def test_poisson_on_uint8_counts_photons_at_255():
    values = augmented(noise("poisson", lam_scale=60), 51, "uint8")  # 0.2 of full scale: 12 photons
    assert_moments(values, 51, np.sqrt(51 * 255 / 60 + 1 / 16))  # steps of 4.25: rounding errors of 0, 1/4, 1/2, 1/4


def test_patch_corners_are_uniform_over_all_places_inside_the_image():
    operator = patch_dropout(num_patches=1, patch_size=(3, 4), drop_value=0.0)
    values = augmented(operator, 1.0, count=20_000, shape=(6, 8))
    dropped = values == 0
    assert (dropped.sum(axis=(1, 2)) == 12).all()
    corner = dropped.reshape(len(dropped), -1).argmax(axis=1)
    places, counts = np.unique(corner, return_counts=True)
    expected = [y * 8 + x for y in range(6 - 3 + 1) for x in range(8 - 4 + 1)]
    np.testing.assert_array_equal(places, expected)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_several_patches_fill_the_union_of_their_rectangles():
    operator = patch_dropout(num_patches=5, patch_size=(3, 4))
    params = operator.generate_random_params(jax.random.key(1), {"image": (4, 16, 12, 3)})
    for positions in np.asarray(params["patch_positions"]):
        image = np.ones((16, 12, 3), np.float32)
        expected = image.copy()
        for y, x in positions:
            assert 0 <= y <= 16 - 3
            assert 0 <= x <= 12 - 4
            expected[y : y + 3, x : x + 4] = 0
        result = operator.apply({"image": image}, {}, {}, {"patch_positions": jnp.asarray(positions)})[0]["image"]
        np.testing.assert_array_equal(np.asarray(result), expected)


@pytest.mark.parametrize("shape", [(12, 9), (12, 9, 3)], ids=str)
def test_scattered_and_masked_patches_are_the_same(shape, monkeypatch):
    # Some hang over an edge, on each side, and some lie outside.
    positions = jnp.array([[0, 0], [-2, 3], [4, -1], [10, 7], [11, 8], [5, 5], [-9, 0], [12, 0], [0, 40]])
    image = jnp.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    results = []
    for always in (True, False):
        monkeypatch.setattr(patches, "_is_cheaper_to_scatter", lambda *_, always=always: always)
        results.append(np.asarray(patches.drop_patches(image, positions, patch_size=(3, 2), value=0.0)))
    np.testing.assert_array_equal(*results)
    assert (results[0] == 0).any()
    assert (results[0] != 0).any()


@pytest.mark.parametrize(
    "effect",
    [
        functools.partial(gdx.patch_dropout, num_patches=2, patch_size=(3, 2)),
        functools.partial(gdx.gaussian_noise, std=0.1),
        functools.partial(gdx.salt_pepper_noise, salt_prob=0.1, pepper_prob=0.1),
        functools.partial(gdx.poisson_noise, lam_scale=30.0),
    ],
    ids=lambda effect: effect.func.__name__,
)
def test_pure_functions_draw_from_the_stream_whatever_the_key(effect):
    image = jnp.full((16, 12, 3), 0.5)
    assert effect.func is gdx.patch_dropout or effect(jax.random.key(3), image[:0]).shape == (0, 12, 3)
    expected = effect(jax.random.wrap_key_data(jnp.array([0, 3], jnp.uint32), impl=STREAM), image)
    assert (expected != image).any()
    for key in (jax.random.key(3), jax.random.key(3, impl="rbg"), jax.random.PRNGKey(3)):
        np.testing.assert_array_equal(np.asarray(effect(key, image)), np.asarray(expected))
