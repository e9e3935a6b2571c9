"""A training that kills itself in some phase of a step: `step_process.py FOLDER [PHASE SIGNAL]`.

It notes a digest of each batch, and saves its state every four steps. Started again it goes on from there.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys

import grain
import jax
import numpy as np
from sources import Records

import grain_datarax as gdx
from grain_datarax.placement import RowSharding

STEPS, EVERY, BATCH = 24, 4, 8


class Dying:
    """Where it kills itself."""

    def __init__(self, phase="", number="SIGKILL"):
        self.phase, self.number, self.count = phase, signal.Signals[number], 0

    def here(self, phase, nth):
        if phase == self.phase:
            self.count += 1
            if self.count == nth:
                os.kill(os.getpid(), self.number)


class DyingRecords(Records):
    def __init__(self, dying):
        super().__init__(64)
        self.dying = dying

    def __getitem__(self, index):
        self.dying.here("reading", 11 * BATCH + 3)
        return super().__getitem__(index)


def main(folder, *killed):
    dying, folder = Dying(*killed), pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    assemble = RowSharding.assemble

    def assemble_or_die(rows, batch):  # behind the augmentation, which is under way
        dying.here("augmenting", 5)
        return assemble(rows, batch)

    RowSharding.assemble = assemble_or_die
    seeded = grain.MapDataset.source(DyingRecords(dying)).shuffle(seed=1).repeat().random_map(gdx.SeedRecords(), seed=7)
    chain = gdx.Chain([gdx.PatchDropout(patch_size=(4, 4)), gdx.GaussianNoise(std=0.1)], seed=0)
    kept = folder / "state"
    with gdx.DeviceLoader(seeded.batch(BATCH).to_iter_dataset(grain.ReadOptions(1, 2)), chain) as loader:
        batches, step = iter(loader), 0
        if kept.exists():
            saved = json.loads(kept.read_text())
            step = saved["step"]
            batches.set_state(saved["state"])
        while step < STEPS:
            step += 1
            image = np.asarray(jax.device_get(next(batches)["image"]))
            with open(folder / "digests", "a") as file:
                file.write(f"{step} {hashlib.sha256(image.tobytes()).hexdigest()}\n")
            if step % EVERY == 0:
                save(folder, step, batches.get_state(), dying)
            dying.here("between", 5)


def save(folder, step, state, dying):
    text = json.dumps({"step": step, "state": state})
    with open(folder / "unfinished", "w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        dying.here("saving", 1)
        file.write(text[len(text) // 2 :])
    (folder / "unfinished").rename(folder / "state")


if __name__ == "__main__":
    main(*sys.argv[1:])
