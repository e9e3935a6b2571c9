"""Golden vectors of the random stream; tests/golden/README.md says when they may change."""

import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from helpers import OPERATORS

import grain_datarax as gdx
from grain_datarax.random.keys import operator_key, record_keys
from grain_datarax.random.poisson import poisson

PATH = pathlib.Path(__file__).parent / "golden" / f"stream_{gdx.STREAM_VERSION}.json"
SEEDS = np.array([[0x01234567, 0x89ABCDEF], [0xFEDCBA98, 0x76543210]], np.uint32)
EACH = {**OPERATORS, "salt_pepper_32_bits": lambda: OPERATORS["salt_pepper"](salt_prob=0.01, pepper_prob=0.01)}


def pixels(operators):
    image = (np.arange(2 * 8 * 6 * 3) // 2).reshape(2, 8, 6, 3).astype(np.uint8)
    return np.asarray(gdx.AugmentBatch(operators).map({"image": image, "record_seed": SEEDS})["image"])


def draws(operator):
    """What the two records draw under nnx.Rngs(0) and the operator's own namespace."""
    keys = record_keys(operator_key(jax.random.key(0), operator.namespace), jnp.asarray(SEEDS))
    (drawn,) = operator.generate_random_params(keys, {"image": (2, 8, 6, 3)}).values()
    return np.asarray(drawn)


def hexadecimal(words):
    return [f"{word:x}" for word in np.asarray(words).ravel().tolist()]


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def exact_vectors():
    """Everything that is made of integers."""
    keys = record_keys(operator_key(jax.random.key(0), "golden"), jnp.asarray(SEEDS))
    key = keys[0]
    vectors = {"record_keys": hexadecimal(jax.random.key_data(keys))}
    for width in (8, 16, 32, 64):
        with jax.enable_x64(width == 64):
            vectors[f"bits_{width}"] = hexadecimal(jax.random.bits(key, (21,), f"uint{width}"))
            vectors[f"bits_{width}_rows"] = hexadecimal(jax.random.bits(key, (8, 3), f"uint{width}"))
    vectors["split"] = hexadecimal(jax.random.key_data(jax.random.split(key, 3)))
    vectors["fold_in"] = hexadecimal(jax.random.key_data(jax.random.fold_in(key, 7)))
    means = jnp.float32([0, 0.05, 0.3, 1, 2, 4, 9, 10, 11, 30, 100, 255, 1000, 1e4, 1e5])
    vectors["poisson"] = np.asarray(jax.jit(poisson)(key, means)).astype(int).tolist()
    for name in ("patch_dropout", "salt_pepper", "salt_pepper_32_bits"):
        vectors[f"{name}_draws"] = draws(EACH[name]()).ravel().tolist()
    for name, operator in EACH.items():
        image = pixels(operator())
        vectors[f"{name}_pixels"] = image.reshape(2, -1)[:, :12].tolist()
        vectors[f"{name}_sha256"] = digest(image)
    vectors["chain_sha256"] = digest(pixels([operator() for operator in OPERATORS.values()]))
    return vectors


def float_vectors():
    """Draws of floating point: another backend may differ from these in the last bits."""
    return {f"{name}_draws": draws(EACH[name]()).reshape(2, -1)[:, :24].tolist() for name in ("gaussian", "poisson")}


def test_the_stream_is_pinned():
    assert exact_vectors() == json.loads(PATH.read_text())["exact"]


def test_floating_point_draws_are_pinned():
    pinned = json.loads(PATH.read_text())["float"]
    for name, drawn in float_vectors().items():
        np.testing.assert_allclose(drawn, pinned[name], rtol=2e-6, atol=1e-9, err_msg=name)


if __name__ == "__main__":
    PATH.write_text(json.dumps({"exact": exact_vectors(), "float": float_vectors()}, indent=1) + "\n")
