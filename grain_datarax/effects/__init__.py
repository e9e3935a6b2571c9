"""The effects, one law a file. Tests, golden vectors, benchmarks and the text form of chains follow from this table."""

from grain_datarax.effects.brightness_contrast import BrightnessContrast
from grain_datarax.effects.channel_dropout import ChannelDropout
from grain_datarax.effects.color_jitter import ColorJitter
from grain_datarax.effects.composition import OneOf, Sequential, SomeOf
from grain_datarax.effects.conversion import Cast, Normalize
from grain_datarax.effects.coverage_dropout import CoverageDropout
from grain_datarax.effects.cutout import Cutout
from grain_datarax.effects.effect import Effect
from grain_datarax.effects.flip import HorizontalFlip, VerticalFlip
from grain_datarax.effects.function import Function
from grain_datarax.effects.gaussian_noise import GaussianNoise
from grain_datarax.effects.grid_dropout import GridDropout
from grain_datarax.effects.grid_mask import GridMask
from grain_datarax.effects.mixing import CutMix, MixUp
from grain_datarax.effects.multiplicative_noise import MultiplicativeNoise
from grain_datarax.effects.pad_crop import PadCrop
from grain_datarax.effects.patch_dropout import PatchDropout
from grain_datarax.effects.patch_gaussian import PatchGaussian
from grain_datarax.effects.pixel_dropout import PixelDropout
from grain_datarax.effects.poisson_noise import PoissonNoise
from grain_datarax.effects.random_erasing import RandomErasing
from grain_datarax.effects.random_resized_crop import RandomResizedCrop
from grain_datarax.effects.rician_noise import RicianNoise
from grain_datarax.effects.salt_pepper_noise import SaltPepperNoise
from grain_datarax.effects.sensor_noise import SensorNoise
from grain_datarax.effects.speckle_noise import SpeckleNoise
from grain_datarax.effects.uniform_noise import UniformNoise

EFFECTS: dict[str, type[Effect]] = {
    effect.__name__: effect
    for effect in (
        PatchDropout,
        GaussianNoise,
        SaltPepperNoise,
        PoissonNoise,
        SpeckleNoise,
        UniformNoise,
        MultiplicativeNoise,
        SensorNoise,
        RicianNoise,
        PatchGaussian,
        RandomErasing,
        Cutout,
        GridMask,
        GridDropout,
        CoverageDropout,
        PixelDropout,
        ChannelDropout,
        BrightnessContrast,
        ColorJitter,
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
