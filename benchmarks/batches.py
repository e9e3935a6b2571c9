"""What is augmented, and by what function; of this version of the package or of another one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import grain_datarax as gdx
from benchmarks import timing


def batches_of(count: int = 64) -> list[tuple[tuple[int, ...], str]]:
    """The shapes and dtypes that are timed: of so many large images, and of 256 small ones."""
    return [((count, 224, 224, 3), "float32"), ((count, 224, 224, 3), "uint8"), ((256, 32, 32, 3), "float32")]


def make_batch(shape: tuple[int, ...], dtype: str) -> tuple[jax.Array, jax.Array]:
    """Images that use the whole range, and record seeds, on the default device."""
    generator = np.random.default_rng(0)
    image = generator.random(shape, np.float32)
    seeds = generator.integers(0, 2**32, (shape[0], 2), dtype=np.uint32)
    return jax.device_put(((image * 255).astype(np.uint8) if dtype == "uint8" else image, seeds))


copy = jax.jit(jnp.copy)


def ours(operators: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A function of images and seeds, to be compiled, of whatever `AugmentBatch` takes."""
    return lambda image, seeds: gdx.augment(operators, {"image": image, "record_seed": seeds})["image"]


def operators_of(description: Mapping[str, Any]) -> list[gdx.ModalityOperator]:
    """The operators that equal a chain, of which this is the `to_dict`: other versions may know no chains."""
    rngs = nnx.Rngs(description["seed"])
    return [_operator(**effect, rngs=rngs) for effect in description["effects"]]


def _operator(effect: str, rngs: nnx.Rngs, **settings: Any) -> gdx.ModalityOperator:
    common = {"field_key": "image", "stochastic": True}
    for name in ("name", "p", "same_on_frame", "same_on_channel", "inverse", "truncate"):  # of effects alone
        settings.pop(name, None)
    if effect == "PatchDropout":
        settings["patch_size"] = tuple(settings["patch_size"])  # JSON has lists
        settings["drop_value"] = settings.pop("fill")
        return gdx.PatchDropoutOperator(gdx.PatchDropoutOperatorConfig(**common, **settings), rngs=rngs)
    mode, names = _MODES[effect]
    settings = {names.get(name, name): value for name, value in settings.items()}
    return gdx.NoiseOperator(gdx.NoiseOperatorConfig(mode=mode, **common, **settings), rngs=rngs)


# By effect: the operator's mode, and its names of settings where they differ.
_MODES = {
    "GaussianNoise": ("gaussian", {"std": "noise_std", "mean": "noise_mean"}),
    "SaltPepperNoise": ("salt_pepper", {}),
    "PoissonNoise": ("poisson", {"photons": "lam_scale"}),
}


def from_description(description: Mapping[str, Any], form: str) -> Any:
    """The described chain in the form `"chain"`, or the operators that equal it in the form `"operators"`."""
    return gdx.Chain.from_dict(description) if form == "chain" else operators_of(description)


WAYS = ("inside jit", "inside jit, donated", "AugmentBatch", "AugmentBatch, donated")


def calls(description: Mapping[str, Any], form: str, shape: list[int], dtype: str) -> dict[str, timing.Call]:
    """Each of the ways: inside a compiled function, and through `AugmentBatch`, which also counts."""
    image, seeds = make_batch(tuple(shape), dtype)
    operators = from_description(description, form)

    def through_map(image: jax.Array, *, donate: bool) -> timing.Call:
        augment = gdx.AugmentBatch(operators, donate=donate)

        def prepare() -> Callable[[], jax.Array]:
            given = jax.block_until_ready(image.copy()) if donate else image
            return lambda: augment.map({"image": given, "record_seed": seeds})["image"]

        return prepare

    inside = timing.call(jax.jit(ours(operators)), image, seeds)
    inside_donated = timing.donating_call(ours(operators), image, seeds)
    ways = (inside, inside_donated, through_map(image, donate=False), through_map(image, donate=True))
    return dict(zip(WAYS, ways, strict=True))
