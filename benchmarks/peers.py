"""The same effects in other libraries, on the same images; those that are not installed are left out."""

import concurrent.futures
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from benchmarks.effects import NOISE_STD, PEPPER_PROB, PHOTONS, SALT_PROB
from benchmarks.timing import Call


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "numpy", *_PEERS) if installed(name)}


def calls(effect: str, images: np.ndarray) -> dict[str, Call]:
    """What each library that has the effect does to the whole batch."""
    found = {}
    for name, make in _PEERS.items():
        run = make(effect, images) if installed(name) else None
        if run is not None:
            found[name] = lambda run=run: run
    if "albumentations" in found:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        found[f"albumentations, {count} threads"] = threaded(_albumentations(effect), images, count)
    run = _numpy(effect, images)
    return found if run is None else {"numpy": lambda: run, **found}


def threaded(transform: Callable, images: np.ndarray, count: int) -> Call:
    """An image at a time, in as many threads as JAX uses."""
    pool = concurrent.futures.ThreadPoolExecutor(count)
    return lambda: lambda: list(pool.map(transform, images))


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _numpy(effect: str, images: np.ndarray) -> Callable | None:
    """Bare random numbers, in one thread, not added to anything."""
    generator = np.random.default_rng(0)
    if effect == "gaussian":
        return lambda: generator.standard_normal(images.shape, np.float32)
    if effect == "poisson":
        mean = images * (PHOTONS / (255 if images.dtype == np.uint8 else 1))
        return lambda: generator.poisson(mean)
    return None


# Patches by the hundred are timed against ours alone.
_PATCHES = {"patches 4 x 8x8": (4, 8), "patches 8 x 32x32": (8, 32)}


def _albumentations(effect: str) -> Callable | None:
    import albumentations

    if effect in _PATCHES:
        count, size = _PATCHES[effect]
        transform = albumentations.CoarseDropout(
            num_holes_range=(count, count), hole_height_range=(size, size), hole_width_range=(size, size), p=1
        )
    elif effect == "gaussian":
        transform = albumentations.GaussNoise(std_range=(NOISE_STD, NOISE_STD), p=1)
    elif effect in ("salt_pepper", "salt_pepper, 0.02"):
        total = SALT_PROB + PEPPER_PROB if effect == "salt_pepper" else 0.04
        transform = albumentations.SaltAndPepper(amount=(total, total), salt_vs_pepper=(0.5, 0.5), p=1)
    elif effect == "poisson":
        transform = albumentations.ShotNoise(scale_range=(1 / PHOTONS, 1 / PHOTONS), p=1)
    else:
        return None
    return lambda image: transform(image=image)["image"]


def _torchvision(effect: str, images: np.ndarray) -> Callable | None:
    from torchvision.transforms import v2

    if effect == "gaussian" and images.dtype == np.float32:
        transform = v2.GaussianNoise(sigma=NOISE_STD)  # of uint8 images it takes no noise
    elif effect in _PATCHES:
        count, size = _PATCHES[effect]
        area = size * size / (images.shape[1] * images.shape[2])
        transform = v2.Compose([v2.RandomErasing(p=1, scale=(area, area), ratio=(1, 1)) for _ in range(count)])
    else:
        return None
    if effect == "gaussian":
        return on_torch(transform, images)
    return on_torch(lambda tensor: [transform(image) for image in tensor], images)  # else all lose the same patches


def _kornia(effect: str, images: np.ndarray) -> Callable | None:
    import torch
    from kornia import augmentation

    if images.dtype != np.float32:
        return None
    if effect == "gaussian":
        transform = augmentation.RandomGaussianNoise(std=NOISE_STD, p=1)
    elif effect == "salt_pepper":
        total = SALT_PROB + PEPPER_PROB
        transform = augmentation.RandomSaltAndPepperNoise(amount=(total, total), salt_vs_pepper=(0.5, 0.5), p=1)
    elif effect == "patches 4 x 8x8":  # one rectangle each
        area = 64 / (images.shape[1] * images.shape[2])
        erasing = [augmentation.RandomErasing(scale=(area, area), ratio=(1, 1), p=1) for _ in range(4)]
        transform = torch.nn.Sequential(*erasing)
    else:
        return None
    return on_torch(transform, images)


def on_torch(transform: Callable, images: np.ndarray) -> Callable:
    """Runs on the GPU where PyTorch finds one, and waits for it."""
    import torch

    cuda = torch.cuda.is_available()
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to("cuda" if cuda else "cpu")

    def run() -> object:
        result = transform(tensor)
        if cuda:
            torch.cuda.synchronize()
        return result

    return run


def _datarax(effect: str, images: np.ndarray) -> Callable | None:
    from datarax.core.element_batch import Batch
    from datarax.operators.modality.image import noise_operator, patch_dropout_operator

    common = {"field_key": "image", "stochastic": True, "stream_name": "augment"}
    rngs = nnx.Rngs(0, augment=1)
    if images.dtype != np.float32:
        return None
    if effect in _PATCHES:
        count, size = _PATCHES[effect]
        config = patch_dropout_operator.PatchDropoutOperatorConfig(num_patches=count, patch_size=(size, size), **common)
        operator = patch_dropout_operator.PatchDropoutOperator(config, rngs=rngs)
    elif effect in ("gaussian", "salt_pepper", "poisson"):
        strength = {"noise_std": NOISE_STD, "salt_prob": SALT_PROB, "pepper_prob": PEPPER_PROB, "lam_scale": PHOTONS}
        config = noise_operator.NoiseOperatorConfig(mode=effect, **strength, **common)
        operator = noise_operator.NoiseOperator(config, rngs=rngs)
    else:
        return None

    @nnx.jit
    def run(operator, images):
        batch = Batch.from_parts(data={"image": images}, states={}, validate=False)
        return operator.apply_batch(batch).data.get_value()["image"]

    images = jax.device_put(images)
    return lambda: run(operator, images)


def _one_by_one(effect: str, images: np.ndarray) -> Callable | None:
    transform = _albumentations(effect)
    return None if transform is None else lambda: [transform(image) for image in images]


_PEERS = {
    "albumentations": _one_by_one,
    "kornia": _kornia,
    "torchvision": _torchvision,
    "datarax": _datarax,
}
