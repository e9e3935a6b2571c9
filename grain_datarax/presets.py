"""Settings that papers have published: effects, ready to be put into a chain."""

import dataclasses

from grain_datarax.effects.composition import OneOf
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.gaussian_noise import GaussianNoise
from grain_datarax.effects.patch_gaussian import PatchGaussian
from grain_datarax.effects.poisson_noise import PoissonNoise
from grain_datarax.effects.salt_pepper_noise import SaltPepperNoise
from grain_datarax.effects.settings import Choice, Integer
from grain_datarax.effects.speckle_noise import SpeckleNoise

# Severities 1 to 5 of the noises of ImageNet-C, CIFAR-10-C and CIFAR-100-C, and Tiny-ImageNet-C.
_IMAGENET_C = {
    "imagenet": {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    },
    "cifar": {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.1),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    },
    "tiny": {
        "gaussian_noise": (0.04, 0.08, 0.12, 0.15, 0.18),
        "shot_noise": (250, 100, 50, 30, 15),
        "impulse_noise": (0.01, 0.02, 0.05, 0.08, 0.14),
        "speckle_noise": (0.15, 0.2, 0.25, 0.3, 0.35),
    },
}
# Standard deviations of the noises that Rusak et al. train with.
_TRAINING = {
    "gaussian": (0.5,),
    "gaussian_mult": _IMAGENET_C["imagenet"]["gaussian_noise"],
    "speckle": _IMAGENET_C["imagenet"]["speckle_noise"],
}


def imagenet_c(name: str, severity: int, variant: str = "imagenet") -> Effect:
    """A noise of ImageNet-C, with its constants; uint8 images come out cut off to whole numbers, as there.

    Each record has noise of its own, so that a model is tested by the benchmark's law, not by its files.

    Args:
      name: `"gaussian_noise"`, `"shot_noise"`, `"impulse_noise"` or `"speckle_noise"`.
      severity: From 1 to 5.
      variant: `"imagenet"`, `"cifar"` (CIFAR-10-C and CIFAR-100-C) or `"tiny"` (Tiny-ImageNet-C).

    Raises:
      TypeError, ValueError: If there is no such noise.

    Example:
      >>> imagenet_c("shot_noise", 3)
      PoissonNoise(truncate=True, photons=12.0)

    Source: Hendrycks & Dietterich, ICLR 2019.
    """
    Choice(tuple(_IMAGENET_C))("variant", variant)
    Choice(tuple(_IMAGENET_C[variant]))("name", name)
    Choice((1, 2, 3, 4, 5))("severity", Integer()("severity", severity))
    strength = _IMAGENET_C[variant][name][severity - 1]
    if name == "gaussian_noise":
        return GaussianNoise(std=strength, truncate=True)
    if name == "shot_noise":
        return PoissonNoise(photons=strength, truncate=True)
    if name == "impulse_noise":
        return SaltPepperNoise(salt_prob=strength / 2, pepper_prob=strength / 2, truncate=True)
    return SpeckleNoise(std=strength, truncate=True)


def patch_gaussian(dataset: str) -> Effect:
    """The noise in a square that makes models robust without a loss on clean images.

    Args:
      dataset: `"cifar"`: a square of 25 pixels with a standard deviation of 0.1; or `"imagenet"`: a side of up to 250
        pixels and a standard deviation of up to 1, drawn for each record.

    Raises:
      ValueError: If it is another.

    Example:
      >>> patch_gaussian("imagenet")
      PatchGaussian(side=(1, 250), std=(0.0, 1.0))

    Source: Lopes et al., arXiv 1906.02611; the ranges are also the defaults of `random_patch_gaussian` in
    TensorFlow's object detection.
    """
    Choice(("cifar", "imagenet"))("dataset", dataset)
    return PatchGaussian(side=25) if dataset == "cifar" else PatchGaussian(side=(1, 250), std=(0.0, 1.0))


def noise_training(name: str) -> Effect:
    """Noise on half of the records, which makes models robust to corruptions of other kinds, too.

    Args:
      name: `"gaussian"`: a standard deviation of 0.5; `"gaussian_mult"`: one of ImageNet-C's five for each record; or
        `"speckle"`: one of its five of speckle noise.

    Raises:
      ValueError: If it is another.

    Example:
      >>> noise_training("gaussian")
      GaussianNoise(p=0.5, std=0.5)

    Source: Rusak et al., ECCV 2020.
    """
    Choice(tuple(_TRAINING))("name", name)
    noises = [SpeckleNoise(std=std) if name == "speckle" else GaussianNoise(std=std) for std in _TRAINING[name]]
    return dataclasses.replace(noises[0], p=0.5) if len(noises) == 1 else OneOf(noises, p=0.5)
