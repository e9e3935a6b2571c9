"""Augments real photographs from a Grain loader, looks at the result, and resumes in mid-epoch to the same bits.

Run:     python examples/quickstart.py [directory]
Takes:   about a minute on two CPU cores; nothing is downloaded.
Writes:  quickstart.png, records and a loader state, into `directory` (default: quickstart).
Prints:  the size of every step, then, in words, what it showed.
"""

import argparse
import itertools
import pathlib
from collections.abc import Iterator

import grain
import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import tqdm
from absl import flags
from array_record.python.array_record_module import ArrayRecordWriter
from sklearn.datasets import load_sample_images

import grain_datarax as gdx

SIZE = 96
CROPS_PER_PHOTOGRAPH = 64
BATCH_SIZE = 16
EFFECTS = {
    "patch dropout": gdx.PatchDropout(num_patches=4, patch_size=(16, 16)),
    "gaussian": gdx.GaussianNoise(std=0.1),
    "salt and pepper": gdx.SaltPepperNoise(salt_prob=0.03, pepper_prob=0.03),
    "poisson": gdx.PoissonNoise(photons=30),
}
# Others, which are shown.
MORE = [
    gdx.RandomErasing(fill="noise", p=1.0),
    gdx.Cutout(patch_size=(32, 32), num_patches=2, fill="random"),
    gdx.GridMask(unit=(16, 40)),
    gdx.GridDropout(patch_size=(12, 12), fill="mean"),
    gdx.CoverageDropout(coverage=0.3, patch_size=(12, 12)),
    gdx.PixelDropout(drop_prob=0.1),
    gdx.ChannelDropout(),
    gdx.SpeckleNoise(std=0.3),
    gdx.UniformNoise(amplitude=0.3),
    gdx.MultiplicativeNoise(multiplier=(0.5, 1.5)),
    gdx.SensorNoise(shot=0.03, read=0.03),
    gdx.RicianNoise(std=0.15),
    gdx.PatchGaussian(side=48, std=0.5),
    gdx.HorizontalFlip(p=1.0),
    gdx.VerticalFlip(p=1.0),
    gdx.PadCrop(padding=20),
    gdx.RandomResizedCrop(scale=(0.2, 0.6)),
    gdx.BrightnessContrast(brightness=0.2, contrast=(0.3, 0.5)),
    gdx.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.8, hue=0.3),
]
COLUMNS = 9


def write_crops(directory: pathlib.Path) -> list[str]:
    """Cuts two photographs into 128 crops, and writes them as one ArrayRecord file for each photograph."""
    rng = np.random.default_rng(0)
    paths = []
    for label, photograph in enumerate(load_sample_images().images):
        path = directory / f"photograph{label}.array_record"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for _ in range(CROPS_PER_PHOTOGRAPH):
            y, x = (rng.integers(length - SIZE + 1) for length in photograph.shape[:2])
            crop = photograph[y : y + SIZE, x : x + SIZE]
            writer.write(bytes([label]) + crop.tobytes())
        writer.close()
        paths.append(str(path))
    return paths


class Decode(grain.transforms.Map):
    """ArrayRecord's bytes to {"image": uint8 (96, 96, 3), "label": int}."""

    def map(self, element: bytes) -> dict:
        image = np.frombuffer(element, np.uint8, offset=1).reshape(SIZE, SIZE, 3)
        return {"image": image, "label": element[0]}


def make_loader(paths: list[str]) -> gdx.DeviceLoader:
    """Two worker processes decode; the devices augment."""
    source = grain.sources.ArrayRecordDataSource(paths)
    batches = grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(len(source), shuffle=True, num_epochs=2, seed=0),
        operations=[Decode(), gdx.SeedRecords(), grain.transforms.Batch(BATCH_SIZE, drop_remainder=True)],
        worker_count=2,
    )
    return gdx.DeviceLoader(batches, gdx.Chain(list(EFFECTS.values()), seed=0))


def draw_picture(paths: list[str], path: pathlib.Path) -> None:
    """Two photographs, as they are, with each effect, and with the whole chain."""
    source = grain.sources.ArrayRecordDataSource(paths)
    records = grain.MapDataset.source(source).map(Decode())[::CROPS_PER_PHOTOGRAPH]
    batch = records.random_map(gdx.SeedRecords(), seed=0).batch(2)[0]
    chain = [*EFFECTS.values()]
    shown = {name: [effect] for name, effect in EFFECTS.items()} | {"the whole chain": chain}
    shown |= {type(effect).__name__: [effect] for effect in MORE}

    @jax.jit  # all of them in one program, which is compiled faster than each in one of its own
    def augment(batch: dict[str, jax.Array]) -> list[jax.Array]:
        return [gdx.augment(gdx.Chain(effects, seed=0), batch)["image"] for effects in shown.values()]

    augmented = augment({name: batch[name] for name in ("image", "record_seed")})
    images = {"original": batch["image"], **dict(zip(shown, augmented, strict=True))}
    rows = -(-len(images) // COLUMNS)
    figure, axes = plt.subplots(2 * rows, COLUMNS, figsize=(1.5 * COLUMNS, 3.2 * rows), layout="constrained")
    for axis in axes.ravel():
        axis.set_axis_off()
    for place, (name, pair) in enumerate(images.items()):
        row, column = divmod(place, COLUMNS)
        axes[2 * row, column].set_title(name, fontsize=9)
        for photograph in range(2):
            axes[2 * row + photograph, column].imshow(np.asarray(pair[photograph]))
    figure.savefig(path, dpi=100)


def read(iterator: Iterator[dict[str, jax.Array]], steps: int, title: str) -> list[dict[str, jax.Array]]:
    return list(tqdm.tqdm(itertools.islice(iterator, steps), desc=title, total=steps, unit=" batches"))


def main(directory: pathlib.Path = pathlib.Path("quickstart")) -> None:
    # Grain reads an absl flag before it starts workers; absl.app.run would parse the flags too.
    flags.FLAGS.mark_as_parsed()
    directory.mkdir(parents=True, exist_ok=True)

    paths = write_crops(directory)
    print(f"Wrote {2 * CROPS_PER_PHOTOGRAPH} crops of two photographs, {SIZE} x {SIZE} x 3 uint8, into {directory}.")
    draw_picture(paths, directory / "quickstart.png")
    print(f"Drew every effect into {directory / 'quickstart.png'}.")

    steps = 2 * 2 * CROPS_PER_PHOTOGRAPH // BATCH_SIZE
    stop = steps // 4  # in the middle of the first epoch
    state = directory / "loader_state.json"
    with make_loader(paths) as loader:
        iterator = iter(loader)
        read(iterator, stop, "start")
        state.write_bytes(iterator.get_state())
        expected = read(iterator, steps - stop, "to the end of the second epoch")

    with make_loader(paths) as loader:
        iterator = iter(loader)
        iterator.set_state(state.read_bytes())
        resumed = read(iterator, steps - stop, f"again, from the state after step {stop}")

    for first, second in zip(expected, resumed, strict=True):
        np.testing.assert_array_equal(first["label"], second["label"])
        np.testing.assert_array_equal(first["image"], second["image"])

    print(
        f"\n{steps} batches of {BATCH_SIZE} photographs, decoded by two workers, were augmented over two epochs:\n"
        f"each record by its own seed, with {', '.join(EFFECTS)}.\n"
        f"A fresh loader, started from the state saved after step {stop}, gave the remaining {len(resumed)} batches\n"
        f"bit for bit as the uninterrupted run did. See {directory / 'quickstart.png'} for the effects."
    )


if __name__ == "__main__":
    matplotlib.use("agg")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=pathlib.Path, default="quickstart")
    main(parser.parse_args().directory)
