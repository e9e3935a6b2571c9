"""Trains a classifier on augmented digits, with checkpoints that survive a kill at any moment, to the same bits.

Run:     python examples/train.py [directory] [steps]
Takes:   under a minute on two CPU cores; nothing is downloaded.
Writes:  train.png, records and checkpoints, into `directory` (default: train).
Prints:  the progress of both models, then, in words, what it showed.

Kill it, with SIGKILL too, and start it again with the same command: it goes on from the last checkpoint, and its final
parameters have the hashes of an uninterrupted run. Once it has ended it trains no more, and reports and draws again.
"""

import argparse
import contextlib
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator

import grain
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
import orbax.checkpoint as ocp
import tqdm
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter
from flax import nnx
from sklearn.datasets import load_digits

import grain_datarax as gdx

SIZE = 16
BATCH_SIZE = 64
STEPS = 800
STEPS_PER_CHECKPOINT = 25
COVERED = "share of the image that is covered"
NOISE = "standard deviation of the noise, of full scale"

# {what is done to the images: {its strength: {name of the model: accuracy}}}
Measured = dict[str, dict[float, dict[str, float]]]


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[str]:
    """A name to write to that becomes `path` at the end: a killed run leaves the whole file there, or none."""
    unfinished = path.with_stem(f"{path.stem}.unfinished")
    yield str(unfinished)
    os.replace(unfinished, path)


def write_digits(directory: pathlib.Path) -> dict[str, str]:
    """Writes scikit-learn's 1797 digits, 8 x 8 in 17 greys, as 16 x 16 uint8: every fifth for tests, not training."""
    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    is_test = np.arange(len(images)) % 5 == 0
    paths = {}
    for split, chosen in {"train": ~is_test, "test": is_test}.items():
        path = directory / f"{split}.array_record"
        with whole(path) as unfinished:
            writer = ArrayRecordWriter(unfinished, "group_size:1")
            for image, label in zip(images[chosen], digits.target[chosen], strict=True):
                writer.write(bytes([label]) + image.tobytes())
            writer.close()
        paths[split] = str(path)
    return paths


class Decode(grain.transforms.Map):
    """ArrayRecord's bytes to {"image": uint8 (16, 16, 1), "label": int}."""

    def map(self, element: bytes) -> dict:
        image = np.frombuffer(element, np.uint8, offset=1).reshape(SIZE, SIZE, 1)
        return {"image": image, "label": element[0]}


def occlude(side: int) -> gdx.PatchDropout:
    """Drops one square patch: with several, overlaps would blur the share of the image that they cover."""
    return gdx.PatchDropout(num_patches=1, patch_size=(side, side))


class Classifier(nnx.Module):
    """Logits (B, 10) of images uint8 (B, 16, 16, 1)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 16, (3, 3), strides=2, rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.third = nnx.Linear((SIZE // 4) ** 2 * 32, 128, rngs=rngs)
        self.last = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        features = images.astype(jnp.float32) / 255 - 0.5
        features = nnx.relu(self.second(nnx.relu(self.first(features))))
        return self.last(nnx.relu(self.third(features.reshape(len(features), -1))))


@nnx.jit
def train_step(model: Classifier, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> None:
    def loss(model: Classifier) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


@nnx.jit
def accuracy(model: Classifier, images: jax.Array, labels: jax.Array) -> jax.Array:
    return (model(images).argmax(axis=1) == labels).mean()


def make_loader(path: str, chain: gdx.Chain | list) -> gdx.DeviceLoader:
    source = grain.sources.ArrayRecordDataSource(path)
    batches = grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(len(source), shuffle=True, num_epochs=None, seed=0),
        operations=[Decode(), gdx.SeedRecords(), grain.transforms.Batch(BATCH_SIZE, drop_remainder=True)],
        worker_count=0,  # such records are read faster than worker processes start
        # DeviceLoader makes batches ahead already, and Grain's buffer costs more than it saves for such records.
        read_options=grain.ReadOptions(num_threads=0, prefetch_buffer_size=0),
    )
    return gdx.DeviceLoader(batches, chain)


def save(manager: ocp.CheckpointManager, step: int, learned: dict, batches: Iterator[dict]) -> None:
    """Model, optimizer and the position in the data as one checkpoint, which is there as a whole or not at all."""
    state, data = ocp.args.StandardSave(nnx.state(learned)), grain.checkpoint.CheckpointSave(batches)
    manager.save(step, args=ocp.args.Composite(learned=state, data=data))


def restore(manager: ocp.CheckpointManager, learned: dict, batches: Iterator[dict]) -> int:
    """Goes back to the last checkpoint, and returns its step; 0 if there is none."""
    step = manager.latest_step()
    if step is None:
        return 0
    state, data = ocp.args.StandardRestore(nnx.state(learned)), grain.checkpoint.CheckpointRestore(batches)
    restored = manager.restore(step, args=ocp.args.Composite(learned=state, data=data))
    nnx.update(learned, restored.learned)
    return step


def train(path: str, checkpoints: pathlib.Path, chain: gdx.Chain | list, steps: int) -> Classifier:
    """The model after so many steps, of which those up to the last checkpoint are not made again."""
    model = Classifier(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(2e-3), wrt=nnx.Param)
    learned = {"model": model, "optimizer": optimizer}
    # What a killed run was writing bears another name; the checkpoint before is kept until the new one is complete.
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
    with (
        ocp.CheckpointManager(checkpoints.resolve(), options=options) as manager,
        make_loader(path, chain) as loader,
    ):
        # The rows of batches are spread over all devices, so what is learned must be on all of them, restored or not.
        nnx.update(learned, loader.replicate(nnx.state(learned)))
        batches = iter(loader)
        if start := restore(manager, learned, batches):
            print(f"Goes on from the checkpoint of step {start}: {checkpoints.name}.")
        rest = itertools.islice(batches, max(steps - start, 0))
        progress = tqdm.tqdm(rest, desc=checkpoints.name, initial=start, total=max(start, steps), unit=" steps")
        for step, batch in enumerate(progress, start + 1):
            train_step(model, optimizer, batch["image"], batch["label"])
            if step % STEPS_PER_CHECKPOINT == 0 or step == steps:
                save(manager, step, learned, batches)
    return model


def parameter_hash(model: Classifier) -> str:
    parameters = jax.tree.leaves(nnx.state(model, nnx.Param))
    return hashlib.blake2b(b"".join(np.asarray(each).tobytes() for each in parameters), digest_size=16).hexdigest()


def measure(path: str, models: dict[str, Classifier]) -> Measured:
    """All models on the test images, which are augmented by the same draws in every run."""
    source = grain.sources.ArrayRecordDataSource(path)
    records = grain.MapDataset.source(source).map(Decode()).random_map(gdx.SeedRecords(), seed=1)
    batch = records.batch(len(source))[0]
    effects = {
        COVERED: {side**2 / SIZE**2: occlude(side) for side in (4, 6, 8, 10, 12)},
        NOISE: {std: gdx.GaussianNoise(std=std) for std in (0.2, 0.4, 0.6, 0.8, 1.0)},
    }

    def accuracies(images: jax.Array | np.ndarray) -> dict[str, float]:
        return {name: float(accuracy(model, images, batch["label"])) for name, model in models.items()}

    def augmented(effect: gdx.Effect) -> jax.Array:
        return gdx.augment(gdx.Chain([effect], seed=1), batch)["image"]  # not the draws of the training

    clean = accuracies(batch["image"])
    return {
        kind: {0.0: clean, **{strength: accuracies(augmented(each)) for strength, each in by_strength.items()}}
        for kind, by_strength in effects.items()
    }


def draw_plot(measured: Measured, path: pathlib.Path) -> None:
    figure, axes = plt.subplots(1, len(measured), figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (kind, by_strength) in zip(axes, measured.items(), strict=True):
        for name in by_strength[0.0]:
            axis.plot(by_strength.keys(), [each[name] for each in by_strength.values()], "o-", label=name)
        axis.set_xlabel(kind)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("accuracy on test images")
    axes[0].legend()
    with whole(path) as unfinished:
        figure.savefig(unfinished, dpi=100)


def report(measured: Measured, models: dict[str, Classifier], plot: pathlib.Path) -> None:
    def accuracies(kind: str, strength: float) -> str:
        return ", ".join(f"{name} {value:.0%}" for name, value in measured[kind][strength].items())

    print(
        "\nTwo models learned the same digits: one augmented, with a patch dropped and noise added, one as they are.\n"
        "Of digits that they had not seen they recognize\n"
        f"  as they are:               {accuracies(COVERED, 0.0)};\n"
        f"  with a quarter covered:    {accuracies(COVERED, 0.25)};\n"
        f"  under noise of std 0.8:    {accuracies(NOISE, 0.8)}.\n"
        f"See {plot} for all strengths.\n"
        "The hashes of their parameters, the same whether the training was killed on its way or not:"
    )
    for name, model in models.items():
        print(f"  {name} {parameter_hash(model)}")


def main(directory: pathlib.Path = pathlib.Path("train"), steps: int = STEPS) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    paths = write_digits(directory)
    chains = {"augmented": gdx.Chain([occlude(8), gdx.GaussianNoise(std=0.4)], seed=0), "plain": []}
    models = {name: train(paths["train"], directory / name, chain, steps) for name, chain in chains.items()}
    measured = measure(paths["test"], models)
    draw_plot(measured, directory / "train.png")
    report(measured, models, directory / "train.png")


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)  # Orbax warns of a checkpoint that a killed run had half deleted
    matplotlib.use("agg")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=pathlib.Path, default="train")
    parser.add_argument("steps", nargs="?", type=int, default=STEPS, help="of each model")
    given = parser.parse_args()
    main(given.directory, given.steps)
