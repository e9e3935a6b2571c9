"""Golden vectors of STREAM_VERSION 1: keys, bits, draws and pixels for two record seeds.

They pin what users' runs depend on, on every supported version of Python and JAX. They may change together with
STREAM_VERSION alone, and then the changelog has a *Breaking* line.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import OPERATORS

import grain_datarax as gdx
from grain_datarax.random.keys import operator_key, record_keys

SEEDS = jnp.array([[0x01234567, 0x89ABCDEF], [0xFEDCBA98, 0x76543210]], jnp.uint32)

# What the two records draw first, under nnx.Rngs(0) and the operators' own namespaces.
DRAWS = {
    "patch_dropout": [[5, 1, 5, 0], [5, 1, 2, 1]],
    "gaussian": [[-0.0357093, 0.0351608, 0.0163682, 0.1228572], [0.0150383, -0.0016120, -0.0128312, -0.0406255]],
    "salt_pepper": [[0, 0, 0, 1, -1, 0, 1, 0], [0, 0, 0, 0, 0, -1, 0, 0]],
    "poisson": [[0.1479571, 0.6056473, 0.8685799, 0.2525409], [0.7367949, 0.6213339, 0.5911650, 0.9354512]],
}
# The pixels of a uint8 ramp: the first of each record, and the SHA-256 of all.
PIXELS = {
    "patch_dropout": ([[0, 0, 1, 1, 2, 2, 3, 3], [72, 72, 73, 73, 74, 74, 75, 75]], "87fc44fd8e1ead96"),
    "gaussian": ([[0, 9, 5, 32, 2, 5, 0, 2], [76, 72, 70, 63, 61, 43, 78, 83]], "11d3c5cbbcb9f5fe"),
    "salt_pepper": ([[0, 0, 1, 255, 0, 2, 255, 3], [72, 72, 73, 73, 74, 0, 75, 75]], "5fe7a88f83c6222f"),
    "poisson": ([[0, 0, 0, 0, 0, 0, 0, 8], [85, 76, 76, 110, 110, 85, 51, 68]], "37ae9cade0b3bf48"),
}
CHAIN = "6127bc00d58364fb"


def ramp():
    values = np.arange(2 * 8 * 6 * 3) // 2
    return {"image": values.reshape(2, 8, 6, 3).astype(np.uint8), "record_seed": np.asarray(SEEDS)}


def digest(image):
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()[:16]


def hexadecimal(words):
    return [f"{word:x}" for word in np.asarray(words).ravel().tolist()]


def test_keys_and_bits_are_pinned():
    keys = record_keys(operator_key(jax.random.key(0), "golden"), SEEDS)
    assert hexadecimal(jax.random.key_data(keys)) == ["f1a2c06e", "3ea1a06d", "d728a9e", "5f62d132"]
    key = keys[0]
    assert hexadecimal(jax.random.bits(key, (5,))) == ["68507b6b", "493f32fd", "6e31e7bd", "e4f45751", "87fd5a30"]
    assert hexadecimal(jax.random.bits(key, (5,), jnp.uint16)) == ["48ad", "a9c0", "3288", "a4b3", "47b5"]
    assert hexadecimal(jax.random.bits(key, (5,), jnp.uint8)) == ["7b", "4e", "9e", "64", "3c"]
    assert hexadecimal(jax.random.key_data(jax.random.fold_in(key, 7))) == ["7769fae0", "79388e62"]
    split = ["853c49ff", "813f545f", "649e4e7b", "d6f0843c"]
    assert hexadecimal(jax.random.key_data(jax.random.split(key, 2))) == split


@pytest.mark.parametrize("name", OPERATORS)
def test_draws_and_pixels_are_pinned(name):
    operator = OPERATORS[name]()
    keys = record_keys(operator_key(jax.random.key(0), operator.namespace), SEEDS)
    (drawn,) = operator.generate_random_params(keys, {"image": (2, 8, 6, 3)}).values()
    first = np.asarray(drawn).reshape(2, -1)[:, : len(DRAWS[name][0])]
    np.testing.assert_allclose(first, DRAWS[name], rtol=0, atol=1e-7)
    pixels, whole = PIXELS[name]
    image = np.asarray(gdx.AugmentBatch(operator).map(ramp())["image"])
    assert image.reshape(2, -1)[:, :8].tolist() == pixels
    assert digest(image) == whole


def test_the_chain_is_pinned():
    chain = [operator() for operator in OPERATORS.values()]
    assert digest(gdx.AugmentBatch(chain).map(ramp())["image"]) == CHAIN
