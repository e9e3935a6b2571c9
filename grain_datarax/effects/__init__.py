"""The effects, one law a file. Tests, golden vectors, benchmarks and the text form of chains follow from this table."""

from grain_datarax.effects.composition import OneOf, Sequential, SomeOf
from grain_datarax.effects.conversion import Cast, Normalize
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.flip import HorizontalFlip, VerticalFlip
from grain_datarax.effects.function import Function
from grain_datarax.effects.gaussian_noise import GaussianNoise
from grain_datarax.effects.mixing import CutMix, MixUp
from grain_datarax.effects.pad_crop import PadCrop
from grain_datarax.effects.patch_dropout import PatchDropout
from grain_datarax.effects.poisson_noise import PoissonNoise
from grain_datarax.effects.random_resized_crop import RandomResizedCrop
from grain_datarax.effects.salt_pepper_noise import SaltPepperNoise

EFFECTS: dict[str, type[Effect]] = {
    effect.__name__: effect
    for effect in (
        PatchDropout,
        GaussianNoise,
        SaltPepperNoise,
        PoissonNoise,
        HorizontalFlip,
        VerticalFlip,
        PadCrop,
        RandomResizedCrop,
        OneOf,
        SomeOf,
        Sequential,
        Function,
        MixUp,
        CutMix,
        Cast,
        Normalize,
    )
}
