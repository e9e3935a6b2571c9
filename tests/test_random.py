"""Bits and keys: the layout of the stream, and the way from a record's seed to its key."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import OPERATORS, seeded_batch, seeds

import grain_datarax as gdx
from grain_datarax.random.bits import STREAM, threefry, uniform_integers, uniform_levels
from grain_datarax.random.keys import as_stream_key, operator_key, record_keys


@pytest.mark.parametrize(
    ("key", "counter", "result"),
    [
        ("00000000 00000000", "00000000 00000000", "6b200159 99ba4efe"),
        ("ffffffff ffffffff", "ffffffff ffffffff", "1cb996fc bb002be7"),
        ("13198a2e 03707344", "243f6a88 85a308d3", "c4923a9c 483df7a0"),
    ],
)
def test_threefry_gives_the_known_answers_of_random123(key, counter, result):
    key, counter, result = ([int(word, 16) for word in words.split()] for words in (key, counter, result))
    words = jax.jit(threefry)(jnp.array(key, jnp.uint32), *jnp.array(counter, jnp.uint32))
    assert [int(word) for word in words] == result


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1000,), (4, 3), (8, 5, 3), (9, 5, 3), (2, 0)], ids=str)
@pytest.mark.parametrize("width", [8, 16, 32, 64])
def test_draws_cut_up_the_hashes_of_their_counters(width, shape):
    size, pieces = math.prod(shape), 64 // width
    key = jax.random.key(5, impl=STREAM)
    index = jnp.arange(-(-size // pieces), dtype=jnp.uint32)
    first, second = threefry(jax.random.key_data(key), index, jnp.full_like(index, width))
    hashes = np.asarray(first).astype(np.uint64) | np.asarray(second).astype(np.uint64) << np.uint64(32)
    # Little-endian, so that a hash's pieces are its low bits first; all first pieces come before all second ones.
    expected = hashes.view(f"uint{width}").reshape(-1, pieces).T.ravel()[:size].reshape(shape)
    with jax.enable_x64(width == 64):
        drawn = jax.random.bits(key, shape, f"uint{width}")
        np.testing.assert_array_equal(np.asarray(drawn), expected)
        assert drawn.dtype == expected.dtype


def test_uses_of_one_key_hash_different_counters():
    key = jax.random.key(5, impl=STREAM)
    words = [jax.random.key_data(jax.random.split(key, 4)), jax.random.bits(key, (8,), jnp.uint32).reshape(2, 4).T]
    words += [jax.random.key_data(jax.random.fold_in(key, index))[None] for index in range(4)]
    words += [jax.random.bits(key, (16,), jnp.uint16).reshape(4, 4).T.copy().view(jnp.uint32)]
    words += [jax.random.bits(key, (32,), jnp.uint8).reshape(8, 4).T.copy().view(jnp.uint32)]
    hashes = np.concatenate([np.asarray(each) for each in words])
    assert len(np.unique(hashes, axis=0)) == len(hashes) == 4 * 5


@pytest.mark.parametrize(("width", "most"), [(8, 2**35), (16, 2**34), (32, 2**33)])
def test_a_draw_that_would_repeat_counters_is_refused(width, most):
    key = jax.random.key(5, impl=STREAM)

    def draw(size):
        return jax.jit(lambda: jax.random.bits(key, (size // 2**20, 2**20), f"uint{width}")).lower()

    assert math.prod(draw(most).out_info.shape) == most
    with pytest.raises(ValueError, match=r"`shape` must need at most 2\*\*32 counters of one key: got 429"):
        draw(most + 2**20)


def test_seeds_of_64_bits_give_keys_of_their_own():
    with jax.enable_x64(True):
        low, high = (np.asarray(jax.random.key_data(jax.random.key(seed, impl=STREAM))) for seed in (3, 3 + 2**40))
    np.testing.assert_array_equal(low, np.asarray(jax.random.key_data(jax.random.key(3, impl=STREAM))))
    assert low.tolist() == [0, 3]
    assert high.tolist() == [2**8, 3]


@pytest.mark.parametrize(
    "transform", [jax.jit, jax.vmap, "scan", "shard_map"], ids=["jit", "vmap", "scan", "shard_map"]
)
def test_functions_of_jax_random_draw_the_same_under_every_transformation(transform):
    def draw(key):
        first, second = jax.random.split(jax.random.fold_in(key, 3))
        return (
            jax.random.bits(key, (8, 3), jnp.uint16),
            jax.random.randint(first, (5,), 0, 100),
            jax.random.uniform(second, (2, 3)),
            jax.random.permutation(first, 7),
        )

    keys = jax.random.split(jax.random.key(5, impl=STREAM), 8)
    expected = jax.tree.map(lambda *rows: np.stack(rows), *[draw(key) for key in keys])
    if transform == "scan":
        drawn = jax.lax.map(draw, keys)
    elif transform == "shard_map":
        mesh, spec = jax.make_mesh((8,), ("data",)), jax.sharding.PartitionSpec("data")
        run = jax.shard_map(jax.vmap(draw), mesh=mesh, in_specs=spec, out_specs=spec)
        drawn = run(jax.device_put(keys, jax.sharding.NamedSharding(mesh, spec)))
    elif transform is jax.vmap:
        drawn = jax.vmap(draw)(keys)
    else:
        drawn = jax.tree.map(lambda *rows: np.stack(rows), *[jax.jit(draw)(key) for key in keys])
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(np.asarray(one), np.asarray(other)), drawn, expected)


@pytest.mark.parametrize("bound", [1, 3, 217, 65_536, 100_003, 2**31 - 1])
def test_uniform_integers_are_the_high_word_of_the_product(bound):
    key = jax.random.key(5, impl=STREAM)
    bits = np.asarray(jax.random.bits(key, (1000,), jnp.uint32)).astype(np.uint64)
    drawn = np.asarray(uniform_integers(key, (1000,), np.array([bound])))
    np.testing.assert_array_equal(drawn, (bits * np.uint64(bound)) >> np.uint64(32))
    assert drawn.dtype == np.int32


def test_split_keys_do_not_depend_on_their_number():
    key = jax.random.key(5, impl=STREAM)
    few, many = (np.asarray(jax.random.key_data(jax.random.split(key, count))) for count in (3, 100))
    np.testing.assert_array_equal(few, many[:3])
    assert len(np.unique(many, axis=0)) == 100


@pytest.mark.once
def test_draws_and_pixels_do_not_depend_on_jax_settings():
    sizes = itertools.count(2)  # batches of another size are compiled anew

    def everything():
        batch = seeded_batch(next(sizes))
        pixels = [np.asarray(gdx.AugmentBatch(make()).map(batch)["image"])[:2].tobytes() for make in OPERATORS.values()]
        key = record_keys(operator_key(jax.random.key(5), "noise"), jnp.asarray(seeds(1)))[0]
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


def test_uniform_levels_lie_inside_the_open_unit_interval_symmetrically():
    levels = np.asarray(uniform_levels(jax.random.key(0, impl=STREAM), (1_000_000,)))
    assert levels.min() >= 2.0**-24
    assert levels.max() <= 1 - 2.0**-24
    steps = levels * 2.0**24
    assert (steps % 2 == 1).all()  # odd multiples of 2**-24: 1 - level is a level too


def test_stream_version_is_public():
    assert gdx.STREAM_VERSION == 1
