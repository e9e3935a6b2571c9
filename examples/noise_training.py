"""Makes a published result again: training with noise helps against the noises of ImageNet-C, at no cost without them.

Run:     python examples/noise_training.py [directory] [steps]
Takes:   about two minutes on two CPU cores; nothing is downloaded.
Writes:  noise_training.png, and records, into `directory` (default: noise_training).
Prints:  for each training the accuracy on images as they are and under the noises, beside the paper's.

Rusak et al., "A simple way to make neural networks robust against diverse image corruptions", ECCV 2020, train a
ResNet-50 on ImageNet. Here a small network learns scikit-learn's digits, in faint grey, as noise of that strength does
not hide black and white ones; and of the corruptions there are the noises alone. The numbers are others, the claim is
the same.
"""

import argparse
import itertools
import pathlib

import grain
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from train import Classifier, Decode, accuracy, make_loader, train_step, write_digits

import grain_datarax as gdx
from grain_datarax import presets

STEPS = 800
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise")
# A fourth of the contrast, around the middle of the range.
FAINT = gdx.BrightnessContrast(brightness=0.375, contrast=-0.75)
# The trainings, and what the paper's authors have of each, top-1 in percent, with ImageNet and with ImageNet-C:
# https://github.com/bethgelab/game-of-noise#results
PUBLISHED = {"none": (76.1, 39.2), "speckle": (75.8, 46.4), "gaussian": (75.9, 49.4), "gaussian_mult": (76.1, 49.2)}

# {the name of a training: {the name of a noise: accuracies, by severity from 0, which is none, to 5}}
Measured = dict[str, dict[str, list[float]]]


def trained(path: str, name: str, steps: int) -> Classifier:
    """A model that saw noise on half of its images, or, by the name of "none", on none."""
    noise = [] if name == "none" else [presets.noise_training(name)]
    model = Classifier(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)
    with make_loader(path, gdx.Chain([FAINT, *noise], seed=0)) as loader:
        for part in (model, optimizer):
            nnx.update(part, loader.replicate(nnx.state(part)))
        for batch in itertools.islice(loader, steps):
            train_step(model, optimizer, batch["image"], batch["label"])
    return model


def measure(path: str, models: dict[str, Classifier]) -> Measured:
    """Accuracies on the test images under each noise, which is the same for all models and in every run."""
    source = grain.sources.ArrayRecordDataSource(path)
    batch = grain.MapDataset.source(source).map(Decode()).random_map(gdx.SeedRecords(), seed=1).batch(len(source))[0]
    measured: Measured = {name: {noise: [] for noise in NOISES} for name in models}
    for noise, severity in itertools.product(NOISES, range(6)):
        effects = [FAINT, presets.imagenet_c(noise, severity)] if severity else [FAINT]
        images = gdx.augment(gdx.Chain(effects, seed=1), batch)["image"]
        for name, model in models.items():
            measured[name][noise].append(float(accuracy(model, images, batch["label"])))
    return measured


def summary(measured: Measured) -> dict[str, tuple[float, float]]:
    """By training: accuracy in percent on images as they are, and the mean under all noises and severities."""
    return {
        name: (100 * by_noise[NOISES[0]][0], 100 * float(np.mean([each[1:] for each in by_noise.values()])))
        for name, by_noise in measured.items()
    }


def draw_plot(measured: Measured) -> plt.Figure:
    """Accuracy by severity for each noise, and all trainings beside the paper's."""
    figure, axes = plt.subplots(1, len(NOISES) + 1, figsize=(15, 4), layout="constrained")
    for axis, noise in zip(axes, NOISES, strict=False):
        for name, by_noise in measured.items():
            axis.plot(range(6), [100 * each for each in by_noise[noise]], "o-", label=name)
        axis.set(title=noise, xlabel="severity", ylabel="accuracy on digits, percent", ylim=(0, 101))
        axis.grid(alpha=0.3)
    axes[0].legend(title="trained with noise")
    last, places = axes[-1], np.arange(len(PUBLISHED))
    for shift, (label, by_name) in zip(
        (-0.2, 0.2), [("digits", summary(measured)), ("ImageNet", PUBLISHED)], strict=True
    ):
        gains = [by_name[name][1] - by_name["none"][1] for name in PUBLISHED]
        last.bar(places + shift, gains, 0.38, label=f"{label}: under corruptions")
        last.plot(places + shift, [by_name[name][0] - by_name["none"][0] for name in PUBLISHED], "kD", ms=5)
    last.set(title="beside the paper", ylabel="percentage points over no noise", ylim=(-1, 15))
    last.set_xticks(places, PUBLISHED, rotation=20)
    last.legend(title="diamonds: without corruptions", loc="upper left")
    return figure


def report(measured: Measured) -> None:
    print("\naccuracy in percent     digits, here            ImageNet, Rusak et al.")
    print("trained with noise      as they are  with noise  as they are  ImageNet-C")
    for name, (clean, noisy) in summary(measured).items():
        theirs = "{:11.1f}  {:10.1f}".format(*PUBLISHED[name])
        print(f"{name:<24}{clean:11.1f}  {noisy:10.1f}  {theirs}")


def main(directory: pathlib.Path = pathlib.Path("noise_training"), steps: int = STEPS) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    paths = write_digits(directory)
    models = {name: trained(paths["train"], name, steps) for name in PUBLISHED}
    measured = measure(paths["test"], models)
    draw_plot(measured).savefig(directory / "noise_training.png", dpi=100)
    report(measured)


if __name__ == "__main__":
    matplotlib.use("agg")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=pathlib.Path, default="noise_training")
    parser.add_argument("steps", nargs="?", type=int, default=STEPS, help="of each model")
    given = parser.parse_args()
    main(given.directory, given.steps)
