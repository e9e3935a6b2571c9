"""The effects that are timed: ours, and the same written in plain `jax.random` with a key for each record."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import grain_datarax as gdx

SALT_PROB = PEPPER_PROB = 0.1
NOISE_STD, LAM_SCALE = 0.1, 30.0


def patches(**settings) -> gdx.PatchDropoutOperator:
    config = gdx.PatchDropoutOperatorConfig(field_key="image", stochastic=True, **settings)
    return gdx.PatchDropoutOperator(config, rngs=nnx.Rngs(0))


def noise(mode: str, **settings) -> gdx.NoiseOperator:
    config = gdx.NoiseOperatorConfig(field_key="image", mode=mode, stochastic=True, **settings)
    return gdx.NoiseOperator(config, rngs=nnx.Rngs(0))


def salt_pepper() -> gdx.NoiseOperator:
    return noise("salt_pepper", salt_prob=SALT_PROB, pepper_prob=PEPPER_PROB)


EFFECTS = {
    "gaussian": [noise("gaussian", noise_std=NOISE_STD)],
    "salt_pepper": [salt_pepper()],
    "salt_pepper, 0.01": [noise("salt_pepper", salt_prob=0.01, pepper_prob=0.01)],
    "poisson": [noise("poisson", lam_scale=LAM_SCALE)],
    "patches 4 x 8x8": [patches(num_patches=4, patch_size=(8, 8))],
    "patches 8 x 32x32": [patches(num_patches=8, patch_size=(32, 32))],
    "chain": [
        patches(num_patches=4, patch_size=(8, 8)),
        noise("gaussian", noise_std=NOISE_STD),
        salt_pepper(),
    ],
}
CHAINED = ("patches 4 x 8x8", "gaussian", "salt_pepper")


def make_batch(shape: tuple[int, ...], dtype: str) -> tuple[jax.Array, jax.Array]:
    """Images that use the whole range, and record seeds, on the default device."""
    generator = np.random.default_rng(0)
    image = generator.random(shape, np.float32)
    seeds = generator.integers(0, 2**32, (shape[0], 2), dtype=np.uint32)
    return jax.device_put(((image * 255).astype(np.uint8) if dtype == "uint8" else image, seeds))


copy = jax.jit(jnp.copy)


def ours(operators: Sequence[gdx.ModalityOperator]) -> Callable[[jax.Array, jax.Array], jax.Array]:
    augment = gdx.AugmentBatch(operators)
    return lambda image, seeds: augment.map({"image": image, "record_seed": seeds})["image"]


def plain(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def batched(images: jax.Array, seeds: jax.Array) -> jax.Array:
        keys = jax.random.wrap_key_data(seeds, impl="threefry2x32")
        return jax.vmap(PLAIN[name])(keys, images)

    return batched


def _to_image(values: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.clip(jnp.round(values), 0, 255).astype(dtype) if dtype == jnp.uint8 else jnp.clip(values, 0, 1)


def _full_scale(image: jax.Array) -> int:
    return 255 if image.dtype == jnp.uint8 else 1


def _gaussian(key: jax.Array, image: jax.Array) -> jax.Array:
    values = image + _full_scale(image) * NOISE_STD * jax.random.normal(key, image.shape)
    return _to_image(values, image.dtype)


def _salt_pepper(key: jax.Array, image: jax.Array) -> jax.Array:
    level = jax.random.uniform(key, image.shape)
    full = jnp.asarray(_full_scale(image), image.dtype)
    return jnp.where(level < SALT_PROB, full, jnp.where(level < SALT_PROB + PEPPER_PROB, jnp.zeros_like(full), image))


def _poisson(key: jax.Array, image: jax.Array) -> jax.Array:
    per_photon = _full_scale(image) / LAM_SCALE
    return _to_image(jax.random.poisson(key, image / per_photon) * per_photon, image.dtype)


def _patches(key: jax.Array, image: jax.Array, count: int, size: int) -> jax.Array:
    size = min(size, image.shape[0])
    corners = jax.random.randint(key, (count, 2), 0, jnp.array(image.shape[:2]) - size + 1)
    patch = jnp.zeros((size, size, image.shape[2]), image.dtype)
    for corner in corners:
        image = jax.lax.dynamic_update_slice(image, patch, (corner[0], corner[1], 0))
    return image


def _chain(key: jax.Array, image: jax.Array) -> jax.Array:
    first, second, third = jax.random.split(key, 3)
    return _salt_pepper(third, _gaussian(second, _patches(first, image, 4, 8)))


PLAIN = {
    "gaussian": _gaussian,
    "salt_pepper": _salt_pepper,
    "poisson": _poisson,
    "patches 4 x 8x8": lambda key, image: _patches(key, image, 4, 8),
    "patches 8 x 32x32": lambda key, image: _patches(key, image, 8, 32),
    "chain": _chain,
}
