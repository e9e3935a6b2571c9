"""Augmentation on the accelerator for Grain: every record keeps its own random numbers through `Batch`."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from grain_datarax import orphans, parcels

if TYPE_CHECKING:
    from grain_datarax import extend, presets, testing
    from grain_datarax.chain import Chain
    from grain_datarax.check import check_pipeline
    from grain_datarax.device import DeviceLoader
    from grain_datarax.effects.brightness_contrast import BrightnessContrast, brightness_contrast
    from grain_datarax.effects.channel_dropout import ChannelDropout
    from grain_datarax.effects.color_jitter import ColorJitter, color_jitter
    from grain_datarax.effects.composition import OneOf, Sequential, SomeOf
    from grain_datarax.effects.conversion import Cast, Normalize
    from grain_datarax.effects.coverage_dropout import CoverageDropout
    from grain_datarax.effects.cutout import Cutout
    from grain_datarax.effects.effect import Effect
    from grain_datarax.effects.flip import HorizontalFlip, VerticalFlip, horizontal_flip, vertical_flip
    from grain_datarax.effects.function import Function
    from grain_datarax.effects.gaussian_noise import GaussianNoise, gaussian_noise
    from grain_datarax.effects.grid_dropout import GridDropout
    from grain_datarax.effects.grid_mask import GridMask
    from grain_datarax.effects.mixing import CutMix, MixUp
    from grain_datarax.effects.multiplicative_noise import MultiplicativeNoise
    from grain_datarax.effects.pad_crop import PadCrop, pad_crop
    from grain_datarax.effects.patch_dropout import PatchDropout, patch_dropout
    from grain_datarax.effects.patch_gaussian import PatchGaussian
    from grain_datarax.effects.pixel_dropout import PixelDropout
    from grain_datarax.effects.poisson_noise import PoissonNoise, poisson_noise
    from grain_datarax.effects.random_erasing import RandomErasing
    from grain_datarax.effects.random_resized_crop import RandomResizedCrop, random_resized_crop
    from grain_datarax.effects.rician_noise import RicianNoise
    from grain_datarax.effects.salt_pepper_noise import SaltPepperNoise, salt_pepper_noise
    from grain_datarax.effects.sensor_noise import SensorNoise
    from grain_datarax.effects.speckle_noise import SpeckleNoise
    from grain_datarax.effects.uniform_noise import UniformNoise
    from grain_datarax.inspection import draws, replay
    from grain_datarax.pages.batch import Batch, Element
    from grain_datarax.pages.modality import ModalityOperator, ModalityOperatorConfig
    from grain_datarax.pages.module import DataraxModule, DataraxModuleConfig
    from grain_datarax.pages.noise_operator import NoiseOperator, NoiseOperatorConfig
    from grain_datarax.pages.patch_dropout_operator import PatchDropoutOperator, PatchDropoutOperatorConfig
    from grain_datarax.pictures import preview
    from grain_datarax.random.keys import STREAM_VERSION
    from grain_datarax.seeding import SeedChildren, SeedRecords, child_seed
    from grain_datarax.transforms import AugmentBatch, AugmentRecord, augment

    __version__: str

__all__ = [
    "STREAM_VERSION",
    "AugmentBatch",
    "AugmentRecord",
    "Batch",
    "BrightnessContrast",
    "Cast",
    "Chain",
    "ChannelDropout",
    "ColorJitter",
    "CoverageDropout",
    "CutMix",
    "Cutout",
    "DataraxModule",
    "DataraxModuleConfig",
    "DeviceLoader",
    "Effect",
    "Element",
    "Function",
    "GaussianNoise",
    "GridDropout",
    "GridMask",
    "HorizontalFlip",
    "MixUp",
    "ModalityOperator",
    "ModalityOperatorConfig",
    "MultiplicativeNoise",
    "NoiseOperator",
    "NoiseOperatorConfig",
    "Normalize",
    "OneOf",
    "PadCrop",
    "PatchDropout",
    "PatchDropoutOperator",
    "PatchDropoutOperatorConfig",
    "PatchGaussian",
    "PixelDropout",
    "PoissonNoise",
    "RandomErasing",
    "RandomResizedCrop",
    "RicianNoise",
    "SaltPepperNoise",
    "SeedChildren",
    "SeedRecords",
    "SensorNoise",
    "Sequential",
    "SomeOf",
    "SpeckleNoise",
    "UniformNoise",
    "VerticalFlip",
    "__version__",
    "augment",
    "brightness_contrast",
    "check_pipeline",
    "child_seed",
    "color_jitter",
    "draws",
    "extend",
    "gaussian_noise",
    "horizontal_flip",
    "pad_crop",
    "patch_dropout",
    "poisson_noise",
    "presets",
    "preview",
    "random_resized_crop",
    "replay",
    "salt_pepper_noise",
    "testing",
    "vertical_flip",
]

# Searched in this order, and only as far as a name is found: Grain's workers unpickle SeedRecords and need no flax.
_HOMES = (
    "seeding",
    "random.keys",
    "effects.effect",
    "effects.composition",
    "effects.conversion",
    "effects.function",
    "effects.mixing",
    "effects.patch_dropout",
    "effects.gaussian_noise",
    "effects.salt_pepper_noise",
    "effects.poisson_noise",
    "effects.channel_dropout",
    "effects.coverage_dropout",
    "effects.cutout",
    "effects.grid_dropout",
    "effects.grid_mask",
    "effects.multiplicative_noise",
    "effects.patch_gaussian",
    "effects.pixel_dropout",
    "effects.random_erasing",
    "effects.rician_noise",
    "effects.sensor_noise",
    "effects.speckle_noise",
    "effects.uniform_noise",
    "effects.brightness_contrast",
    "effects.color_jitter",
    "effects.flip",
    "effects.pad_crop",
    "effects.random_resized_crop",
    "chain",
    "pages.batch",
    "pages.module",
    "pages.modality",
    "pages.patch_dropout_operator",
    "pages.noise_operator",
    "transforms",
    "inspection",
    "pictures",
    "device",
    "check",
)

# Here, since Grain's workers import the package before anything of it.
orphans.end_with_parent()
parcels.send_all()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("grain-datarax")
    if name in ("extend", "presets", "testing"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"{__name__}.{home}")
            if name in vars(module):
                globals()[name] = vars(module)[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
