"""Augmentation on the accelerator for Grain: every record keeps its own random numbers through `Batch`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grain_datarax.device import DeviceLoader
    from grain_datarax.operators.batch import Batch, Element
    from grain_datarax.operators.modality import ModalityOperator, ModalityOperatorConfig
    from grain_datarax.operators.module import DataraxModule, DataraxModuleConfig
    from grain_datarax.operators.noise import (
        NoiseOperator,
        NoiseOperatorConfig,
        gaussian_noise,
        poisson_noise,
        salt_pepper_noise,
    )
    from grain_datarax.operators.patch_dropout import PatchDropoutOperator, PatchDropoutOperatorConfig, patch_dropout
    from grain_datarax.random.keys import STREAM_VERSION
    from grain_datarax.seeding import SeedRecords
    from grain_datarax.transforms import AugmentBatch, AugmentRecord, augment

__all__ = [
    "STREAM_VERSION",
    "AugmentBatch",
    "AugmentRecord",
    "Batch",
    "DataraxModule",
    "DataraxModuleConfig",
    "DeviceLoader",
    "Element",
    "ModalityOperator",
    "ModalityOperatorConfig",
    "NoiseOperator",
    "NoiseOperatorConfig",
    "PatchDropoutOperator",
    "PatchDropoutOperatorConfig",
    "SeedRecords",
    "augment",
    "gaussian_noise",
    "patch_dropout",
    "poisson_noise",
    "salt_pepper_noise",
]

# Searched in this order, and only as far as a name is found: Grain's workers unpickle SeedRecords and need no flax.
_HOMES = (
    "seeding",
    "random.keys",
    "operators.batch",
    "operators.module",
    "operators.modality",
    "operators.patch_dropout",
    "operators.noise",
    "transforms",
    "device",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(f"{__name__}.{home}")
            if name in vars(module):
                globals()[name] = vars(module)[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
