"""A program with two worker processes, to be killed: `orphan_process.py PHASE SOURCE`, with a prefix for shared memory.

It prints "ready" once it is in its phase: for "start" in the moment before the workers are started.
"""

import sys

if __name__ == "__main__" or sys.argv[1:2] == ["start"]:  # else workers import it with what they unpickle
    import grain_datarax as gdx  # first, as from here on they end with their parent
import multiprocessing.shared_memory
import os
import time

import grain
from sources import Records

if prefix := os.environ.get("PREFIX"):  # so that what it leaves can be told from that of others
    multiprocessing.shared_memory._SHM_NAME_PREFIX = f"/{prefix}"
    multiprocessing.current_process()._config["semprefix"] = f"/{prefix}"


class Busy(grain.transforms.Map):
    """Holds a worker in its second batch."""

    def __init__(self, how):
        self.how = how

    def map(self, record):
        if int(record["label"]) >= 16 and self.how in ("sleep", "loop", "close"):
            print("ready", flush=True)
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if self.how != "loop":
                    time.sleep(60)
        return record


def loader(how, operations):
    return grain.DataLoader(
        data_source=Records(64),
        sampler=grain.samplers.IndexSampler(64, num_epochs=None, seed=3),
        operations=[*operations, Busy(how), grain.transforms.Batch(8)],
        worker_count=2,
    )


def dataset(how):
    seeded = grain.MapDataset.source(Records(64)).repeat().random_map(gdx.SeedRecords(), seed=7)
    options = grain.MultiprocessingOptions(num_workers=2)
    return seeded.map(Busy(how)).batch(8).to_iter_dataset(grain.ReadOptions(1, 2)).mp_prefetch(options)


SOURCES = {
    "loader": lambda how: loader(how, [gdx.SeedRecords()]),
    "loader without seeds": lambda how: loader(how, []),
    "mp_prefetch": dataset,
}


def main(phase, source):
    import absl.flags

    absl.flags.FLAGS.mark_as_parsed()
    chain = () if source == "loader without seeds" else gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
    batches = gdx.DeviceLoader(SOURCES[source](phase), chain)
    iterator = iter(batches)
    if phase == "start":
        print("ready", flush=True)
    next(iterator)
    if phase == "close":
        iterator.close()
    elif phase == "full":
        time.sleep(1)
        print("ready", flush=True)
        time.sleep(60)
    for step, _ in enumerate(iterator):
        if step == 4 and phase == "steady":
            print("ready", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
