"""The effects that are timed: ours, and the same written in plain `jax.random` with a key for each record."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import grain_datarax as gdx
from benchmarks.batches import operators_of
from grain_datarax.effects.patches import _scatter
from grain_datarax.images import Scale

SALT_PROB = PEPPER_PROB = 0.1  # and 0.02, which is no whole number of 2**-16
NOISE_STD, PHOTONS = 0.1, 30.0


def patches(num_patches: int, size: int) -> gdx.PatchDropout:
    return gdx.PatchDropout(num_patches=num_patches, patch_size=(size, size))


def chain(*effects: gdx.Effect) -> gdx.Chain:
    return gdx.Chain(effects, seed=0)


GAUSSIAN = gdx.GaussianNoise(std=NOISE_STD)
SALT_PEPPER = gdx.SaltPepperNoise(salt_prob=SALT_PROB, pepper_prob=PEPPER_PROB)

EFFECTS = {
    "gaussian": chain(GAUSSIAN),
    "operator: gaussian": chain(GAUSSIAN),
    "salt_pepper": chain(SALT_PEPPER),
    "salt_pepper, 0.02": chain(gdx.SaltPepperNoise(salt_prob=0.02, pepper_prob=0.02)),
    "poisson": chain(gdx.PoissonNoise(photons=PHOTONS)),
    "patches 4 x 8x8": chain(patches(4, 8)),
    "patches 8 x 32x32": chain(patches(8, 32)),
    "patches 147 x 16x16": chain(patches(147, 16)),
    "patches 1000 x 4x4": chain(patches(1000, 4)),
    "patches 3000 x 4x4": chain(patches(3000, 4)),
    "chain": chain(patches(4, 8), GAUSSIAN, SALT_PEPPER),
}
CHAINED = ("patches 4 x 8x8", "gaussian", "salt_pepper")
_ON_LARGE_IMAGES = ("patches 147 x 16x16", "patches 1000 x 4x4", "patches 3000 x 4x4")


def rows(shape: tuple[int, ...]) -> list[str]:
    """The names of the effects that are timed on such batches."""
    return [name for name in EFFECTS if shape[1] >= 224 or name not in _ON_LARGE_IMAGES]


def form(name: str) -> str:
    """`"chain"`, or `"operators"` for a row that shows what the operators of the reference pages cost."""
    return "operators" if name.startswith("operator: ") else "chain"


def augmentation(name: str) -> Any:
    """What `AugmentBatch` is given for a row."""
    return EFFECTS[name] if form(name) == "chain" else operators_of(EFFECTS[name].to_dict())


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Scattered(gdx.PatchDropout):
    """Patch dropout that scatters, also where its law finds that dearer."""

    def pixels(self, image: jax.Array, drawn: jax.Array, scale: Scale) -> jax.Array:
        value = jnp.asarray(scale.value(self.fill, image.dtype), image.dtype)
        return _scatter(image, drawn, patch_size=self.patch_size, value=value)


def scattered(name: str) -> gdx.Chain | None:
    """The same patches scattered, of a row of patches."""
    effect = EFFECTS[name].effects[0]
    return chain(Scattered(**dataclasses.asdict(effect))) if name.startswith("patches") else None


def plain(name: str, generator: str = "threefry2x32") -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The row in plain `jax.random`, with a key for each record, of this implementation of keys."""

    def batched(images: jax.Array, seeds: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(0, impl=generator), seed[0]))(seeds)
        return jax.vmap(PLAIN[name])(keys, images)

    return batched


def samplers(name: str) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """The samplers that this version of JAX has for a row, by what they are called in the table."""
    if name == "poisson" and "method" in inspect.signature(jax.random.poisson).parameters:
        return {"approximate": plain("poisson, approximate")}  # the exact one takes 13 seconds
    noise = name in ("gaussian", "salt_pepper", "salt_pepper, 0.02")
    others = [generator for generator in ("philox2x32", "philox4x32", "rbg") if noise and _has(generator)]
    default = {"jax.random": plain(name)} if name in PLAIN else {}
    return default | {generator: plain(name, generator) for generator in others}


def _has(generator: str) -> bool:
    try:
        jax.random.key(0, impl=generator)
    except ValueError:
        return False
    return True


def _to_image(values: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return jnp.clip(jnp.round(values), 0, 255).astype(dtype) if dtype == jnp.uint8 else jnp.clip(values, 0, 1)


def _full_scale(image: jax.Array) -> int:
    return 255 if image.dtype == jnp.uint8 else 1


def _gaussian(key: jax.Array, image: jax.Array) -> jax.Array:
    values = image + _full_scale(image) * NOISE_STD * jax.random.normal(key, image.shape)
    return _to_image(values, image.dtype)


def _salt_pepper(key: jax.Array, image: jax.Array, prob: float = SALT_PROB) -> jax.Array:
    level = jax.random.uniform(key, image.shape)
    full = jnp.asarray(_full_scale(image), image.dtype)
    return jnp.where(level < prob, full, jnp.where(level < 2 * prob, jnp.zeros_like(full), image))


def _poisson(key: jax.Array, image: jax.Array, **method: str) -> jax.Array:
    per_photon = _full_scale(image) / PHOTONS
    return _to_image(jax.random.poisson(key, image / per_photon, **method) * per_photon, image.dtype)


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
    "salt_pepper, 0.02": functools.partial(_salt_pepper, prob=0.02),
    "poisson": _poisson,
    "poisson, approximate": functools.partial(_poisson, method="approximate"),
    "patches 4 x 8x8": lambda key, image: _patches(key, image, 4, 8),
    "patches 8 x 32x32": lambda key, image: _patches(key, image, 8, 32),
    "chain": _chain,
}
