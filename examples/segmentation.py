"""Trains a network that finds a flower in photographs, with masks that move as the image does; kill it, and it goes on.

Run:     python examples/segmentation.py [directory] [steps]
Takes:   about a minute on two CPU cores; nothing is downloaded.
Writes:  segmentation.png, records and checkpoints, into `directory` (default: segmentation).
Prints:  the progress, then, in words, what it showed.

A record is a crop of a photograph and its mask, 1 on the flower and 0 beside it. Flips and crops move both by the same
draw. What a patch covers nobody can see: the mask says 255 there, and the loss leaves it out. Killed at any moment and
started again by the same command, it ends with the parameters of an uninterrupted run.
"""

import argparse
import itertools
import pathlib

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
from flax import nnx
from sklearn.datasets import load_sample_image
from train import parameter_hash, restore, save, whole

import grain_datarax as gdx

SIZE = 64
BATCH_SIZE = 32
STEPS = 300
STEPS_PER_CHECKPOINT = 25
UNSEEN = 255  # in masks: not to be learned
CHAIN = gdx.Chain(
    [
        gdx.HorizontalFlip(),
        gdx.RandomResizedCrop(scale=(0.5, 1.0)),
        gdx.ColorJitter(brightness=0.3, saturation=0.3),
        gdx.PatchDropout(num_patches=(0, 2), patch_size=((8, 24), (8, 24)), fill="mean"),
        gdx.GaussianNoise(std=(0.0, 0.1)),
    ],
    seed=0,
    masks={"mask": UNSEEN},
)


def write_photographs(directory: pathlib.Path) -> pathlib.Path:
    """Cuts a photograph of a flower into 256 crops with masks: of its right half, and of its left, for tests."""
    photograph = load_sample_image("flower.jpg")
    red, green, _ = np.moveaxis(photograph.astype(int), -1, 0)
    mask = ((red > 120) & (red > green + 20)).astype(np.uint8)
    rng, middle, path = np.random.default_rng(0), photograph.shape[1] // 2, directory / "photographs.npz"
    crops = {}
    for split, columns in {"test": slice(0, middle), "train": slice(middle, None)}.items():
        image, own = photograph[:, columns], mask[:, columns]
        places = [tuple(rng.integers(length - SIZE + 1) for length in own.shape) for _ in range(4096)]
        crop_of = [(slice(y, y + SIZE), slice(x, x + SIZE)) for y, x in places]
        both = [crop for crop in crop_of if 0.1 < own[crop].mean() < 0.9][:256]  # flower, and what is not
        crops[f"{split}_image"] = np.stack([image[crop] for crop in both])
        crops[f"{split}_mask"] = np.stack([own[crop] for crop in both])
    with whole(path) as unfinished:
        np.savez(unfinished, **crops)
    return path


class Photographs:
    """Records {"image": uint8 (64, 64, 3), "mask": uint8 (64, 64)} of a file."""

    def __init__(self, path: pathlib.Path, split: str) -> None:
        self._path, self._split = path, split
        with np.load(path) as crops:
            self._images, self._masks = crops[f"{split}_image"], crops[f"{split}_mask"]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": self._images[index], "mask": self._masks[index]}

    def __repr__(self) -> str:  # by which a checkpoint tells that the data is the same
        return f"Photographs({str(self._path)!r}, {self._split!r})"


class Segmenter(nnx.Module):
    """Logits (B, 64, 64) of images uint8 (B, 64, 64, 3)."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        sizes = [(3, 16), (16, 32), (32, 32)]
        self.down = nnx.List([nnx.Conv(take, give, (3, 3), strides=2, rngs=rngs) for take, give in sizes])
        self.last = nnx.Conv(32 + 3, 1, (3, 3), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        pixels = images.astype(jnp.float32) / 255 - 0.5
        features = pixels
        for layer in self.down:
            features = nnx.relu(layer(features))
        features = jax.image.resize(features, (*pixels.shape[:3], 32), "bilinear")
        return self.last(jnp.concatenate([features, pixels], axis=-1))[..., 0]


@nnx.jit
def train_step(model: Segmenter, optimizer: nnx.Optimizer, batch: dict[str, jax.Array]) -> None:
    def loss(model: Segmenter) -> jax.Array:
        losses = optax.sigmoid_binary_cross_entropy(model(batch["image"]), batch["mask"].astype(jnp.float32))
        return losses.mean(where=batch["mask"] != UNSEEN)

    optimizer.update(model, nnx.grad(loss)(model))


def train(path: pathlib.Path, checkpoints: pathlib.Path, steps: int) -> Segmenter:
    """The model after so many steps, of which those up to the last checkpoint are not made again."""
    source = Photographs(path, "train")
    sampler = grain.samplers.IndexSampler(len(source), shuffle=True, num_epochs=None, seed=0)
    operations = [gdx.SeedRecords(), grain.transforms.Batch(BATCH_SIZE, drop_remainder=True)]
    records = grain.DataLoader(
        data_source=source, sampler=sampler, operations=operations, read_options=grain.ReadOptions(0, 0)
    )
    model = Segmenter(nnx.Rngs(0))
    learned = {"model": model, "optimizer": nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)}
    options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
    with (
        ocp.CheckpointManager(checkpoints.resolve(), options=options) as manager,
        gdx.DeviceLoader(records, CHAIN) as loader,
    ):
        nnx.update(learned, loader.replicate(nnx.state(learned)))
        batches = iter(loader)
        start = restore(manager, learned, batches)
        rest = itertools.islice(batches, max(steps - start, 0))
        for step, batch in enumerate(tqdm.tqdm(rest, initial=start, total=steps, unit=" steps"), start + 1):
            train_step(model, learned["optimizer"], batch)
            if step % STEPS_PER_CHECKPOINT == 0 or step == steps:
                save(manager, step, learned, batches)
    return model


def measure(path: pathlib.Path, model: Segmenter) -> float:
    """Intersection over union of the flower, on the half of the photograph that was not learned."""
    with np.load(path) as crops:
        found, mask = model(jnp.asarray(crops["test_image"])) > 0, crops["test_mask"] == 1
    return float((found & mask).sum() / (found | mask).sum())


def draw_picture(path: pathlib.Path, model: Segmenter) -> plt.Figure:
    """Records as they are, augmented with their masks, and what the model finds in them."""
    records = grain.MapDataset.source(Photographs(path, "train"))[:6].random_map(gdx.SeedRecords(), seed=0)
    batch = records.batch(6)[0]
    augmented = gdx.augment(CHAIN, batch)
    rows = {
        "image": batch["image"],
        "its mask": batch["mask"],
        "augmented": augmented["image"],
        "mask, unseen in yellow": jnp.where(augmented["mask"] == UNSEEN, 2, augmented["mask"]),
        "found": model(augmented["image"]) > 0,
    }
    figure, axes = plt.subplots(len(rows), 6, figsize=(8, 7), layout="constrained")
    for row, (title, images) in zip(axes, rows.items(), strict=True):
        row[0].set_title(title, fontsize=9, loc="left")
        for axis, image in zip(row, images, strict=True):
            axis.imshow(np.asarray(image), vmin=0, vmax=2)
            axis.set_axis_off()
    return figure


def main(directory: pathlib.Path = pathlib.Path("segmentation"), steps: int = STEPS) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    path = write_photographs(directory)
    model = train(path, directory / "checkpoints", steps)
    draw_picture(path, model).savefig(directory / "segmentation.png", dpi=100)
    print(
        f"\nOn the half of the photograph that it has not seen the model finds the flower with an intersection over\n"
        f"union of {measure(path, model):.2f}. See {directory / 'segmentation.png'} for what it learned from.\n"
        "The hash of its parameters, the same whether the training was killed on its way or not:\n"
        f"  {parameter_hash(model)}"
    )


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)  # Orbax warns of a checkpoint that a killed run had half deleted
    matplotlib.use("agg")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=pathlib.Path, default="segmentation")
    parser.add_argument("steps", nargs="?", type=int, default=STEPS)
    given = parser.parse_args()
    main(given.directory, given.steps)
