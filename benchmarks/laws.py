"""Times every law beyond the first four against copying the batch and the libraries that have it; prints a table.

    python -m benchmarks.laws [--repeats 7] [--batch 64] [NAME ...]

Times are medians, taken in turns within one run; peers run image by image in as many threads as there are cores, or on
the whole batch where they can, with as many threads of their own. Other libraries join where they are installed: pip
install '.[bench]'.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import grain_datarax as gdx
from benchmarks import batches, timing
from benchmarks.peers import installed, on_torch, threaded

SIDE = 224
EFFECTS = {
    "SpeckleNoise": gdx.SpeckleNoise(),
    "UniformNoise": gdx.UniformNoise(),
    "MultiplicativeNoise": gdx.MultiplicativeNoise(),
    "SensorNoise": gdx.SensorNoise(),
    "RicianNoise": gdx.RicianNoise(),
    "PatchGaussian": gdx.PatchGaussian(side=(1, 250), std=(0.0, 1.0)),
    "GaussianNoise, grey": gdx.GaussianNoise(std=0.1, same_on_channel=True),
    "RandomErasing": gdx.RandomErasing(p=1.0),
    "RandomErasing, noise": gdx.RandomErasing(p=1.0, fill="noise"),
    "Cutout": gdx.Cutout(patch_size=(64, 64), num_patches=1),
    "GridMask": gdx.GridMask(),
    "GridDropout": gdx.GridDropout(),
    "GridDropout, mean": gdx.GridDropout(fill="mean"),
    "CoverageDropout": gdx.CoverageDropout(),
    "PixelDropout": gdx.PixelDropout(),
    "ChannelDropout": gdx.ChannelDropout(),
    "HorizontalFlip": gdx.HorizontalFlip(),
    "VerticalFlip": gdx.VerticalFlip(),
    "PadCrop": gdx.PadCrop(),
    "RandomResizedCrop": gdx.RandomResizedCrop(),
    "BrightnessContrast": gdx.BrightnessContrast(),
    "ColorJitter, without hue": gdx.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
    "ColorJitter": gdx.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
}
_AREA = {"scale": (0.02, 0.33), "ratio": (0.3, 3.3)}


def _albumentations() -> Mapping[str, Any]:
    import albumentations as other

    return {
        "UniformNoise": other.AdditiveNoise(
            noise_type="uniform", spatial_mode="per_pixel", noise_params={"ranges": [(-0.1, 0.1)]}, p=1
        ),
        "MultiplicativeNoise": other.MultiplicativeNoise((0.9, 1.1), per_channel=True, elementwise=True, p=1),
        "GaussianNoise, grey": other.GaussNoise(std_range=(0.1, 0.1), per_channel=False, p=1),
        "RandomErasing": other.Erasing(**_AREA, p=1),
        "RandomErasing, noise": other.Erasing(**_AREA, fill="random", p=1),
        "Cutout": other.CoarseDropout((1, 1), (64, 64), (64, 64), p=1),
        "GridMask": other.GridDropout(ratio=0.4, unit_size_range=(96, 224), random_offset=True, p=1),
        "PixelDropout": other.PixelDropout(0.01, p=1),
        "ChannelDropout": other.ChannelDropout(p=1),
        "HorizontalFlip": other.HorizontalFlip(p=0.5),
        "VerticalFlip": other.VerticalFlip(p=0.5),
        "PadCrop": other.Compose([other.Pad(4), other.RandomCrop(SIDE, SIDE)]),
        "RandomResizedCrop": other.RandomResizedCrop((SIDE, SIDE), p=1),
        "BrightnessContrast": other.RandomBrightnessContrast(p=1),
        "ColorJitter, without hue": other.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (0, 0), p=1),
        "ColorJitter": other.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=1),
    }


def _torchvision() -> Mapping[str, Any]:
    from torchvision.transforms import v2

    return {
        "RandomErasing": v2.RandomErasing(p=1, **_AREA),
        "RandomErasing, noise": v2.RandomErasing(p=1, value="random", **_AREA),
        "HorizontalFlip": v2.RandomHorizontalFlip(),
        "VerticalFlip": v2.RandomVerticalFlip(),
        "PadCrop": v2.RandomCrop(SIDE, padding=4),
        "RandomResizedCrop": v2.RandomResizedCrop(SIDE),
        "ColorJitter, without hue": v2.ColorJitter(0.4, 0.4, 0.4),
        "ColorJitter": v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    }


def _kornia() -> Mapping[str, Any]:
    from kornia import augmentation as other

    return {
        "RandomErasing": other.RandomErasing(p=1, **_AREA),
        "ChannelDropout": other.RandomChannelDropout(p=1),
        "HorizontalFlip": other.RandomHorizontalFlip(),
        "VerticalFlip": other.RandomVerticalFlip(),
        "PadCrop": other.RandomCrop((SIDE, SIDE), padding=4),
        "RandomResizedCrop": other.RandomResizedCrop((SIDE, SIDE)),
        "BrightnessContrast": other.ColorJiggle(0.2, 0.2, p=1),
        "ColorJitter, without hue": other.ColorJitter(0.4, 0.4, 0.4, p=1),
        "ColorJitter": other.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1),
    }


def peers(name: str, images: np.ndarray) -> dict[str, timing.Call]:
    """What each library that has the law does to the whole batch."""
    runs: dict[str, Callable[[], Any]] = {}
    found: dict[str, timing.Call] = {}
    if installed("albumentations") and name in (table := _albumentations()):
        transform = table[name]

        def treat(image: np.ndarray) -> np.ndarray:
            return transform(image=image)["image"]

        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        runs["albumentations"] = lambda: [treat(image) for image in images]
        found[f"albumentations, {count} threads"] = threaded(treat, images, count)
    if installed("torchvision") and name in (table := _torchvision()):
        one = table[name]
        runs["torchvision"] = on_torch(lambda tensor: [one(image) for image in tensor], images)  # else all get the same
    if installed("kornia") and images.dtype == np.float32 and name in (table := _kornia()):
        runs["kornia"] = on_torch(table[name], images)
    return {library: lambda run=run: run for library, run in runs.items()} | found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.laws", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="the laws to time (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="how often each call is timed (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="of how many images (default: %(default)s)")
    arguments = parser.parse_args()
    columns = ("batch", "law", "ms", "copies", "copies, donated", "compile s", "others / ours")
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)
    for dtype in ("uint8", "float32"):
        image, seeds = batches.make_batch((arguments.batch, SIDE, SIDE, 3), dtype)
        for name in arguments.names or EFFECTS:
            function = batches.ours(gdx.Chain([EFFECTS[name]], seed=0))
            ours = timing.compiled(function, image, seeds)
            calls = {
                "copy": timing.call(batches.copy, image),
                "ours": timing.call(ours.run, image, seeds),
                "donated": timing.donating_call(function, image, seeds),
            }
            medians = timing.medians(calls, arguments.repeats)
            others = timing.medians(peers(name, np.asarray(image)), arguments.repeats)
            copy, own, donated = (medians[call] for call in ("copy", "ours", "donated"))
            ratios = ", ".join(f"{peer} {seconds / own:.2f}" for peer, seconds in others.items())
            cells = [dtype, name, f"{1e3 * own:.2f}", f"{own / copy:.2f}", f"{donated / copy:.2f}"]
            print("| " + " | ".join([*cells, f"{ours.seconds:.2f}", ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()
