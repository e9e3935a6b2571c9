"""A training whose disk is full for its second checkpoint: `disk_process.py FOLDER file|Orbax`.

Prints what it sees then; goes on; and from its first and third checkpoint another iterator gives what it gave.
"""

import os
import pathlib
import resource
import sys

import grain
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from sources import Records

import grain_datarax as gdx

WEIGHTS = jnp.asarray(np.random.default_rng(0).random((512, 512), np.float32))  # more than the disk holds then


def loader():
    seeded = grain.MapDataset.source(Records(64)).shuffle(seed=1).random_map(gdx.SeedRecords(), seed=7)
    return gdx.DeviceLoader(seeded.batch(8), gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0))


class File:
    def __init__(self, folder):
        self.folder = folder

    def save(self, step, iterator):
        with open(self.folder / "unfinished", "w") as file:
            file.write(" " * 10_000 + repr(iterator.get_state()))
            file.flush()
            os.fsync(file.fileno())
        (self.folder / "unfinished").rename(self.folder / str(step))

    def restore(self, step, iterator):
        iterator.set_state(eval((self.folder / str(step)).read_text()))


class Orbax:
    def __init__(self, folder):
        self.folder = folder

    def save(self, step, iterator):
        with ocp.CheckpointManager(self.folder) as manager:
            data = grain.checkpoint.CheckpointSave(iterator)
            manager.save(step, args=ocp.args.Composite(model=ocp.args.StandardSave({"weights": WEIGHTS}), data=data))
            manager.wait_until_finished()

    def restore(self, step, iterator):
        with ocp.CheckpointManager(self.folder) as manager:
            manager.restore(step, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(iterator)))


def main(folder, kind):
    keeper = {"file": File, "Orbax": Orbax}[kind](pathlib.Path(folder))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with loader() as batches:
        iterator, images = iter(batches), []
        for step in (1, 2, 3, 4):
            images.append(np.asarray(next(iterator)["image"]))
            if step == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
            try:
                if step < 4:
                    keeper.save(step, iterator)
            except Exception as error:
                print(f"{type(error).__name__}: {error}".replace("\n", " "))
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    for step in (1, 3):
        with loader() as batches:
            iterator = iter(batches)
            keeper.restore(step, iterator)
            np.testing.assert_array_equal(np.asarray(next(iterator)["image"]), images[step])


if __name__ == "__main__":
    main(*sys.argv[1:])
