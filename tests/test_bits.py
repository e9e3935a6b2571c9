"""The quality of the bits: tests over 2**26 words, and of independence between keys, operators and widths.

Each statistic is compared with its law under true randomness: five standard errors, or a p-value above 1e-4. Seeds are
fixed, so a test that passes always passes.
"""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import loader, seeds
from scipy import stats

import grain_datarax as gdx
from grain_datarax.random.bits import STREAM
from grain_datarax.random.keys import operator_key, record_keys

WORDS = 2**26
PRACTRAND = pathlib.Path(__file__).parent.parent / "benchmarks" / "randomness.py"


def bits_of(keys, count):
    return np.asarray(jax.jit(jax.vmap(lambda key: jax.random.bits(key, (count,), jnp.uint32)))(keys))


def one_key():
    return bits_of(jax.random.key(11, impl=STREAM)[None], WORDS)[0]


def neighbouring_keys():
    """Key data (7, 0), (7, 1), ...: the words of one key after the other."""
    words = np.stack([np.full(2**13, 7), np.arange(2**13)], axis=1).astype(np.uint32)
    return bits_of(jax.random.wrap_key_data(jnp.asarray(words), impl=STREAM), WORDS // 2**13).ravel()


def across_neighbouring_keys():
    """The same, but neighbours in the result have the same counter under neighbouring keys."""
    return neighbouring_keys().reshape(2**13, -1).T.ravel()


def across_counters():
    """Neighbours are the two words of one hash, then those of the next counter."""
    return one_key().reshape(2, -1).T.ravel()


def of_records():
    """The records of one operator, whose seeds count."""
    counting = np.stack([np.arange(2**13), np.zeros(2**13)], axis=1).astype(np.uint32)
    keys = record_keys(operator_key(jax.random.key(0), "noise"), jnp.asarray(counting))
    return bits_of(keys, WORDS // 2**13).ravel()


def assert_half(ones, size):
    """Ones among fair bits are binomial: standard deviation sqrt(size) / 2."""
    assert abs(ones - size / 2) < 5 * np.sqrt(size) / 2


def assert_random(words):
    size = len(words)
    halves = [np.bincount(words.view(np.uint16)[half::2], minlength=65_536) for half in range(2)]
    for counts in halves:
        for position in range(16):  # frequency of each bit
            assert_half(int(counts[np.arange(65_536) >> position & 1 == 1].sum()), size)
    pairs = sum(halves).reshape(256, 256)
    assert stats.chisquare(pairs.sum(axis=0) + pairs.sum(axis=1)).pvalue > 1e-4
    assert stats.chisquare(pairs.ravel()).pvalue > 1e-4
    values = words.astype(np.float32) / 2**32 - 0.5  # products of uniform values have the variance 1 / 144
    for lag in (1, 2, 3, 7, 64, 4096, 8192):  # serial correlation, of bits and of values
        assert_half(int(np.bitwise_count(words[lag:] ^ words[:-lag]).sum(dtype=np.int64)), 32 * (size - lag))
        assert abs(float((values[lag:] * values[:-lag]).sum(dtype=np.float64))) < 5 * np.sqrt(size) / 12
    # Runs of equal bits end where a bit differs from the next one.
    following = (words >> np.uint32(1)) | (np.append(words[1:], words[:1]) << np.uint32(31))
    assert_half(int(np.bitwise_count(words ^ following).sum(dtype=np.int64)), 32 * size)
    # Runs up and down have the mean (2 n - 1) / 3 and the variance (16 n - 29) / 90.
    rising = words[1:] > words[:-1]
    runs = 1 + int((rising[1:] != rising[:-1]).sum())
    assert abs(runs - (2 * size - 1) / 3) < 5 * np.sqrt((16 * size - 29) / 90)


@pytest.mark.long
@pytest.mark.parametrize("source", [one_key, across_counters, neighbouring_keys, across_neighbouring_keys, of_records])
def test_words_pass_tests_of_randomness(source):
    assert_random(source())


@pytest.mark.parametrize("broken", ["counter", "bit", "byte", "repeat"])
def test_the_tests_of_randomness_find_what_is_not_random(broken):
    words = one_key()[: 2**22].copy()
    if broken == "counter":
        words = np.arange(2**22, dtype=np.uint32) * np.uint32(2**10)
    elif broken == "bit":
        words[::100] |= np.uint32(1)
    elif broken == "byte":
        words[::100] &= np.uint32(0xFFFFFF00)
    else:
        words[1::100] = words[:-1:100]
    with pytest.raises(AssertionError):
        assert_random(words)


def assert_independent(one, other):
    """Two arrays of words: no bit agrees more often than chance has it, and the values do not correlate."""
    for shift in (0, 8, 16, 24):
        rotated = (other << np.uint32(shift)) | (other >> np.uint32(32 - shift)) if shift else other
        assert_half(int(np.bitwise_count(one ^ rotated).sum(dtype=np.int64)), 32 * one.size)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)


def test_seeds_that_differ_by_one_bit_draw_independently():
    key, base = operator_key(jax.random.key(0), "noise"), seeds(1)
    flips = np.array([[1 << bit, 0] for bit in range(32)] + [[0, 1 << bit] for bit in range(32)], np.uint32)
    reference = bits_of(record_keys(key, jnp.asarray(base)), 2**16)[0]
    for words in bits_of(record_keys(key, jnp.asarray(base ^ flips)), 2**16):
        assert_independent(reference, words)


def test_operators_draw_independently():
    record = jnp.asarray(seeds(1))
    names = ["NoiseOperator/gaussian", "NoiseOperator/poisson", "NoiseOperator/gaussian#2", "a", "b"]
    words = [bits_of(record_keys(operator_key(jax.random.key(0), name), record), 2**20)[0] for name in names]
    for index, one in enumerate(words):
        for other in words[:index]:
            assert_independent(one, other)


def test_draws_of_different_widths_are_independent():
    key = jax.random.key(11, impl=STREAM)
    draws = {width: np.asarray(jax.random.bits(key, (2**20,), f"uint{width}")) for width in (8, 16, 32)}
    for narrow, wide in ((8, 16), (8, 32), (16, 32)):
        correlation = np.corrcoef(draws[narrow], draws[wide])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(2**20)
        for shift in range(0, wide, 8):  # the joint law of a byte of each
            pair = (draws[narrow] & 255).astype(np.uint32) << 8 | ((draws[wide] >> shift) & 255).astype(np.uint32)
            assert stats.chisquare(np.bincount(pair, minlength=65_536)).pvalue > 1e-4


def test_pieces_of_one_hash_are_independent():
    key = jax.random.key(11, impl=STREAM)
    for width in (8, 16):
        pieces = np.asarray(jax.random.bits(key, (2**22,), f"uint{width}")).reshape(64 // width, -1)
        for index, one in enumerate(pieces):
            for other in pieces[:index]:
                assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(one.size)


def test_practrand_is_given_what_effects_draw_for_the_records_of_a_loader(tmp_path):
    script, names = runpy.run_path(str(PRACTRAND)), ("GaussianNoise", "SaltPepperNoise", "PoissonNoise")
    records = loader([gdx.SeedRecords()], count=4, seed=script["SAMPLER_SEED"])
    record_seed = jnp.stack([record["record_seed"] for record in records])
    keys = [record_keys(operator_key(jax.random.key(0), name), record_seed) for name in names]
    drawn = np.stack([bits_of(key, 8 * 6 * 3) for key in keys], axis=1)  # of each record, of each effect

    def written(blocks, count):
        with open(tmp_path / "stream", "wb") as file:
            script["write"](blocks, file, 4 * count)
        return np.fromfile(tmp_path / "stream", "<u4")

    np.testing.assert_array_equal(written(script["by_record"]((8, 6, 3), batch=2), drawn.size), drawn.ravel())
    # One hash gives the values number i and i + n / 2.
    pairs = drawn[:, 0].reshape(4, 2, -1).transpose(2, 1, 0).ravel()
    np.testing.assert_array_equal(written(script["by_counter"](records=4), 501), pairs[:501])
