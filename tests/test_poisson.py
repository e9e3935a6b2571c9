"""The Poisson sampler against SciPy's law. Seeds are fixed, so a test that passes always passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from grain_datarax.random.normal import normal_quantile
from grain_datarax.random.poisson import poisson, poisson_quantile

pytestmark = pytest.mark.once

MEANS = [0.05, 0.3, 1, 2, 3.5, 3.99, 4.01, 4.5, 6, 10, 30, 100, 255, 1000, 1e4]
DRAWS = 2**23


def draw(mean, seed=0, size=DRAWS):
    return np.asarray(jax.jit(poisson)(jax.random.key(seed), np.full(size, mean, np.float32)))


def chi_square(counts, mean):
    """The p-value of these counts under the law; cells expected less than 5 times join the outermost."""
    lowest, highest = (int(bound) for bound in stats.poisson.ppf([1e-7, 1 - 1e-7], mean))
    observed = np.bincount((np.clip(counts, lowest, highest) - lowest).astype(int), minlength=highest - lowest + 1)
    expected = np.diff([0, *stats.poisson.cdf(np.arange(lowest, highest), mean), 1]) * counts.size
    enough = np.flatnonzero(expected >= 5)
    edges = np.arange(enough[0], enough[-1] + 1)
    edges[0] = 0
    return stats.chisquare(np.add.reduceat(observed, edges), np.add.reduceat(expected, edges)).pvalue


def test_counts_fit_the_law_without_a_trend():
    p_values = [chi_square(draw(mean, seed), mean) for seed, mean in enumerate(MEANS)]
    assert min(p_values) > 1e-4, dict(zip(MEANS, p_values, strict=True))
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3  # neither too bad nor too good on the whole
    assert stats.spearmanr(MEANS, p_values).pvalue > 1e-3


def test_the_test_of_the_law_finds_a_slight_misfit():
    counts = draw(10.0).copy()
    assert chi_square(counts, 10.01) < 1e-4
    counts[::100] += 1
    assert chi_square(counts, 10.0) < 1e-4


@pytest.mark.parametrize("mean", [1e5, 1e6])
def test_large_means_keep_mean_and_variance(mean):
    counts = draw(mean).astype(np.float64)
    assert abs(counts.mean() - mean) < 5 * np.sqrt(mean / DRAWS) + 0.5**11 * mean / 1e5  # half a step of float32
    assert abs(counts.var() / mean - 1) < 5 * np.sqrt(2 / DRAWS)
    assert (counts == np.floor(counts)).all()


def levels():
    """Levels all over (0, 1), and every one of the outermost 2**13 on each side."""
    odd = np.unique(np.concatenate([np.arange(2**13), np.arange(0, 2**23, 61), 2**23 - 1 - np.arange(2**13)]))
    return ((2 * odd + 1) * 2.0**-24).astype(np.float32)


@pytest.mark.parametrize(
    ("mean", "share"),
    [(mean, 1e-4) for mean in (1e-6, 1e-3, 0.05, 0.5, 1, 2, 4, 5, 7.5, 9.9, 10, 12, 20, 36, 60, 100, 300, 1000)]
    + [(1e4, 5e-3), (1e5, 5e-3)],
)
def test_counts_are_the_quantiles_of_the_law(mean, share):
    level = levels()
    counts = np.asarray(jax.jit(poisson_quantile)(level, np.full_like(level, mean)))
    expected = stats.poisson.ppf(level.astype(np.float64), np.float64(np.float32(mean)))
    middle = (level > 1e-3) & (level < 1 - 1e-3)
    assert (counts != expected)[middle].mean() <= share
    assert np.abs(counts - expected).max() <= 1


def test_the_last_levels_stay_near_the_law_at_small_means():
    # There the summed probabilities end at 1 but for rounding, and what is left may fall to the expansion.
    means = np.geomspace(1e-9, 12, 4000).astype(np.float32)
    level, mean = np.meshgrid(levels()[-64:], means)
    counts = np.asarray(jax.jit(poisson_quantile)(level, mean))
    difference = np.abs(counts - stats.poisson.ppf(level.astype(np.float64), mean.astype(np.float64)))
    assert difference.max() <= 3
    assert (difference > 1).mean() < 1e-4


def test_quantiles_are_monotone_in_the_level():
    level = levels()
    for mean in (0.0, 0.05, 1.0, 9.99, 10.0, 300.0, 1e5):
        counts = np.asarray(jax.jit(poisson_quantile)(level, np.full_like(level, mean)))
        assert (np.diff(counts) >= 0).all(), mean


def test_the_ends_are_graceful():
    ends = jnp.float32([2.0**-24, 0.5, 1 - 2.0**-24])

    def counts(mean):
        return np.asarray(poisson_quantile(ends, jnp.full_like(ends, mean)))

    assert (counts(0.0) == 0).all()
    assert np.isnan(counts(np.nan)).all()
    assert np.isnan(counts(-1.0)).all()
    assert np.isinf(counts(np.inf)).all()
    np.testing.assert_allclose(counts(1e30), 1e30, rtol=1e-6)
    np.testing.assert_allclose(counts(1e9), 1e9, rtol=1e-3)


def test_counts_take_the_shape_of_the_mean_and_any_key():
    for key in (jax.random.key(3), jax.random.key(3, impl="rbg"), jax.random.PRNGKey(3)):
        np.testing.assert_array_equal(
            poisson(key, np.full((4, 3), 7.0)), poisson(jax.random.key(3), np.full((4, 3), 7.0))
        )
    assert poisson(jax.random.key(3), 7).shape == ()
    assert poisson(jax.random.key(3), [1, 2]).dtype == jnp.float32


def test_normal_quantiles_are_those_of_the_law():
    level = levels()
    numbers = np.asarray(jax.jit(normal_quantile)(level))
    np.testing.assert_allclose(numbers, stats.norm.ppf(level.astype(np.float64)), rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(numbers, -np.asarray(jax.jit(normal_quantile)(1 - level)))
    assert (np.diff(numbers) >= 0).mean() > 0.99
