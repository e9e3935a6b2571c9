"""Augmentation on the accelerator for Grain: every record keeps its own random numbers through `Batch`."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grain_datarax.chain import Chain
    from grain_datarax.device import DeviceLoader
    from grain_datarax.effects.composition import OneOf, Sequential, SomeOf
    from grain_datarax.effects.conversion import Cast, Normalize
    from grain_datarax.effects.effect import Effect
    from grain_datarax.effects.flip import HorizontalFlip, VerticalFlip, horizontal_flip, vertical_flip
    from grain_datarax.effects.function import Function
    from grain_datarax.effects.gaussian_noise import GaussianNoise, gaussian_noise
    from grain_datarax.effects.mixing import CutMix, MixUp
    from grain_datarax.effects.pad_crop import PadCrop, pad_crop
    from grain_datarax.effects.patch_dropout import PatchDropout, patch_dropout
    from grain_datarax.effects.poisson_noise import PoissonNoise, poisson_noise
    from grain_datarax.effects.random_resized_crop import RandomResizedCrop, random_resized_crop
    from grain_datarax.effects.salt_pepper_noise import SaltPepperNoise, salt_pepper_noise
    from grain_datarax.inspection import draws, replay
    from grain_datarax.pages.batch import Batch, Element
    from grain_datarax.pages.modality import ModalityOperator, ModalityOperatorConfig
    from grain_datarax.pages.module import DataraxModule, DataraxModuleConfig
    from grain_datarax.pages.noise_operator import NoiseOperator, NoiseOperatorConfig
    from grain_datarax.pages.patch_dropout_operator import PatchDropoutOperator, PatchDropoutOperatorConfig
    from grain_datarax.random.keys import STREAM_VERSION
    from grain_datarax.seeding import SeedChildren, SeedRecords, child_seed
    from grain_datarax.transforms import AugmentBatch, AugmentRecord, augment

    __version__: str

__all__ = [
    "STREAM_VERSION",
    "AugmentBatch",
    "AugmentRecord",
    "Batch",
    "Cast",
    "Chain",
    "CutMix",
    "DataraxModule",
    "DataraxModuleConfig",
    "DeviceLoader",
    "Effect",
    "Element",
    "Function",
    "GaussianNoise",
    "HorizontalFlip",
    "MixUp",
    "ModalityOperator",
    "ModalityOperatorConfig",
    "NoiseOperator",
    "NoiseOperatorConfig",
    "Normalize",
    "OneOf",
    "PadCrop",
    "PatchDropout",
    "PatchDropoutOperator",
    "PatchDropoutOperatorConfig",
    "PoissonNoise",
    "RandomResizedCrop",
    "SaltPepperNoise",
    "SeedChildren",
    "SeedRecords",
    "Sequential",
    "SomeOf",
    "VerticalFlip",
    "__version__",
    "augment",
    "child_seed",
    "draws",
    "gaussian_noise",
    "horizontal_flip",
    "pad_crop",
    "patch_dropout",
    "poisson_noise",
    "random_resized_crop",
    "replay",
    "salt_pepper_noise",
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
    "device",
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("grain-datarax")
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"{__name__}.{home}")
            if name in vars(module):
                globals()[name] = vars(module)[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
