"""Augments real photographs from a Grain loader, looks at the result, and resumes in mid-epoch to the same bits.

Run:     python examples/quickstart.py [directory]
Takes:   well under a minute on two CPU cores; nothing is downloaded.
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
    """One row for each photograph, one column for each effect."""
    columns = {"original": [], **{name: [effect] for name, effect in EFFECTS.items()}, "all": [*EFFECTS.values()]}
    source = grain.sources.ArrayRecordDataSource(paths)
    records = grain.MapDataset.source(source).map(Decode())[::CROPS_PER_PHOTOGRAPH]
    batch = records.random_map(gdx.SeedRecords(), seed=0).batch(2)[0]
    figure, axes = plt.subplots(2, len(columns), figsize=(2 * len(columns), 4.3), layout="constrained")
    for column, (name, effects) in enumerate(columns.items()):
        images = gdx.augment(gdx.Chain(effects, seed=0), batch)["image"] if effects else batch["image"]
        for row in range(2):
            axes[row, column].imshow(np.asarray(images[row]))
            axes[row, column].set_axis_off()
        axes[0, column].set_title(name)
    figure.savefig(path, dpi=100)


def read(iterator: Iterator[dict[str, jax.Array]], steps: int, title: str) -> list[dict[str, jax.Array]]:
    return list(tqdm.tqdm(itertools.islice(iterator, steps), desc=title, total=steps, unit=" batches"))


def main() -> None:
    # Grain reads an absl flag before it starts workers; absl.app.run would parse the flags too.
    flags.FLAGS.mark_as_parsed()
    matplotlib.use("agg")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=pathlib.Path, default="quickstart")
    directory = parser.parse_args().directory
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
    main()
