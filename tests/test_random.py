"""Bits and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import OPERATORS, seeded_batch, seeds

import grain_datarax as gdx
from grain_datarax.random.bits import STREAM, threefry, uniform_levels
from grain_datarax.random.keys import as_stream_key, operator_key, record_keys
from grain_datarax.random.poisson import poisson_quantile


@pytest.mark.parametrize(
    ("key", "counter", "result"),
    [
        ("00000000 00000000", "00000000 00000000", "6b200159 99ba4efe"),
        ("ffffffff ffffffff", "ffffffff ffffffff", "1cb996fc bb002be7"),
        ("13198a2e 03707344", "243f6a88 85a308d3", "c4923a9c 483df7a0"),
    ],
)
def test_threefry_gives_the_known_answers_of_random123(key, counter, result):
    key, counter, result = (
        jnp.array([int(word, 16) for word in words.split()], jnp.uint32) for words in (key, counter, result)
    )
    np.testing.assert_array_equal(np.asarray(threefry(key, counter)), np.asarray(result))


@pytest.mark.parametrize("width", [8, 16, 32])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_draws_of_any_width_come_from_the_same_words(width, size):
    key = jax.random.key(5, impl=STREAM)
    words = np.asarray(jax.random.bits(key, (-(-size * width // 32),), jnp.uint32))
    drawn = np.asarray(jax.random.bits(key, (size,), f"uint{width}"))
    np.testing.assert_array_equal(drawn, words.view(f"uint{width}")[:size])


def test_split_keys_do_not_depend_on_their_number():
    key = jax.random.key(5, impl=STREAM)
    few, many = (np.asarray(jax.random.key_data(jax.random.split(key, count))) for count in (3, 100))
    np.testing.assert_array_equal(few, many[:3])
    assert len(np.unique(many, axis=0)) == 100


def test_draws_and_pixels_do_not_depend_on_jax_settings():
    def everything():
        jax.clear_caches()
        pixels = [
            np.asarray(gdx.AugmentBatch(operator()).map(seeded_batch(2))["image"]).tobytes()
            for operator in OPERATORS.values()
        ]
        key = jax.random.key(5, impl=STREAM)
        return [*pixels, *(np.asarray(draw(key, (3,))).tobytes() for draw in (jax.random.normal, jax.random.bits))]

    expected = everything()
    with jax.threefry_partitionable(False):
        assert everything() == expected
    with jax.default_prng_impl("rbg"):
        assert everything() == expected
    with jax.enable_x64(True):
        assert everything()[:-2] == expected[:-2]
    with jax.numpy_dtype_promotion("strict"):
        assert everything() == expected
    jax.clear_caches()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_root_key_of_any_implementation_gives_the_same_operator_key(impl):
    keys = [operator_key(jax.random.key(7, impl=name), "noise") for name in ("threefry2x32", impl)]
    first, second = (np.asarray(jax.random.key_data(key)) for key in keys)
    np.testing.assert_array_equal(first, second)


def test_raw_key_data_is_a_key_and_anything_else_is_refused():
    typed, raw = as_stream_key(jax.random.key(7)), as_stream_key(jax.random.PRNGKey(7))
    np.testing.assert_array_equal(*(np.asarray(jax.random.key_data(key)) for key in (typed, raw)))
    with pytest.raises(TypeError, match="`key` must be a JAX PRNG key: got Array"):
        as_stream_key(jnp.ones(2))
    with pytest.raises(TypeError, match="`key` must be a JAX PRNG key: got 0"):
        as_stream_key(0)


def test_record_keys_are_a_bijection_of_the_seed():
    key = operator_key(nnx.Rngs(0).default.key[...], "noise")
    many = np.stack([np.arange(50_000, dtype=np.uint32), np.zeros(50_000, np.uint32)], axis=1)
    words = np.asarray(jax.random.key_data(record_keys(key, jnp.asarray(many))))
    assert len(np.unique(words, axis=0)) == len(many)


def test_namespaces_give_other_keys():
    root = jax.random.key(0)
    words = {tuple(np.asarray(jax.random.key_data(operator_key(root, name))).tolist()) for name in ("a", "b", "ab", "")}
    assert len(words) == 4


def test_seeds_that_differ_by_one_bit_draw_independently():
    key = operator_key(jax.random.key(0), "noise")
    base = seeds(1)
    flipped = np.concatenate([base ^ np.uint32([1 << bit, 0]) for bit in range(32)])
    draw = jax.vmap(lambda key: jax.random.normal(key, (4096,)))
    reference = np.asarray(draw(record_keys(key, jnp.asarray(base))))[0]
    others = np.asarray(draw(record_keys(key, jnp.asarray(flipped))))
    correlation = [np.corrcoef(reference, other)[0, 1] for other in others]
    assert np.abs(correlation).max() < 5 / np.sqrt(4096)


def test_uniform_levels_lie_inside_the_open_unit_interval_symmetrically():
    levels = np.asarray(uniform_levels(jax.random.key(0, impl=STREAM), (1_000_000,)))
    assert levels.min() >= 2.0**-24
    assert levels.max() <= 1 - 2.0**-24
    steps = levels * 2.0**24
    assert (steps % 2 == 1).all()  # odd multiples of 2**-24: 1 - level is a level too


def test_poisson_quantile_is_monotone_and_graceful_at_the_ends():
    levels = jnp.linspace(2.0**-24, 1 - 2.0**-24, 10_001)
    for mean in (0.0, 0.05, 1.0, 9.99, 10.0, 300.0, 1e5):
        counts = np.asarray(poisson_quantile(levels, jnp.full_like(levels, mean)))
        assert (np.diff(counts) >= 0).all()
        assert counts[0] >= 0
        # P(|N - mean| > bound) is below the levels' resolution, by Chernoff's bound.
        assert np.abs(counts - mean).max() <= 6.5 * np.sqrt(mean) + 20
    assert np.isnan(poisson_quantile(jnp.float32(0.5), jnp.float32(np.nan)))
    assert np.isinf(poisson_quantile(jnp.float32([0.1, 0.9]), jnp.float32([np.inf, np.inf]))).all()
    assert poisson_quantile(jnp.float32(0.5), jnp.float32(1e9)) == pytest.approx(1e9, rel=1e-6)


def test_stream_version_is_public():
    assert gdx.STREAM_VERSION == 1
