"""Sources that fail, as long as there is a file. Apart from the tests, so that worker processes start fast."""

import asyncio
import multiprocessing
import os
import pathlib
import signal
import time

import grain
import numpy as np
from sources import Records

import grain_datarax as gdx

BATCH, COUNT, FAILS_AT = 8, 96, 19  # which is in the third batch


class TwoParts(Exception):
    """Pickle takes it, and can't make it again."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Holding(Exception):
    """Pickle does not take it."""

    def __init__(self, text):
        super().__init__(text)
        self.hold = lambda: text


def kill():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def raising(make):
    def fail():
        raise make()

    return fail


def record(**fields):
    return lambda: {**Records(1)[0], **fields}


# What becomes of a record.
ACTS = {
    "raises": raising(lambda: ValueError("record 19 is broken")),
    "raises what can't be pickled": raising(lambda: Holding("record 19 is broken")),
    "raises what can't be made again": raising(lambda: TwoParts("record 19", "its neighbour")),
    "raises StopIteration": raising(lambda: StopIteration()),
    "raises KeyboardInterrupt": raising(lambda: KeyboardInterrupt()),
    "raises SystemExit": raising(lambda: SystemExit()),
    "raises CancelledError": raising(lambda: asyncio.CancelledError()),
    "is killed": kill,
    "exits": lambda: os._exit(3),
    "exits as if all were well": lambda: os._exit(0),
    "none": lambda: None,
    "text": lambda: "record",
    "without an image": lambda: {"label": 19},
    "another shape": record(image=np.zeros((4, 4, 3), np.float32)),
    "another dtype": record(image=np.full((16, 12, 3), 200, np.uint8)),
    "path for an image": record(image="19.png"),
    "no number": record(image=np.full((16, 12, 3), np.nan, np.float32)),
}


class Faulty:
    """Records, one of which is another, or does something, as long as the file is there."""

    def __init__(self, act, flag):
        self.act, self.flag = act, pathlib.Path(flag)
        self.records = Records(COUNT)

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if index == FAILS_AT and self.act in ACTS and self.flag.exists():
            return ACTS[self.act]()
        return self.records[index]

    def __repr__(self):
        return "Faulty()"

    def __setstate__(self, state):
        vars(self).update(state)
        in_worker = multiprocessing.current_process().name.startswith("grain-process-prefetch")
        if self.act == "can't start" and in_worker and self.flag.exists():
            raise FileNotFoundError("there is no data")


class Batches(grain.transforms.Map):
    """What becomes of batches."""

    def __init__(self, act, flag):
        self.act, self.flag = act, pathlib.Path(flag)

    def map(self, batch):
        fails = FAILS_AT in batch["label"] and self.flag.exists()
        if fails and self.act == "empty batch":
            return {name: field[:0] for name, field in batch.items()}
        if fails and self.act == "fields of other lengths":
            return {**batch, "label": batch["label"][:3]}
        if fails and self.act == "can't be pickled":
            return {**batch, "more": (part for part in ())}
        if self.act == "large":  # more than a pipe holds
            return {**batch, "more": b"x" * 1_000_000}
        return batch


def loader(act, flag, workers=0):
    return grain.DataLoader(
        data_source=Faulty(act, flag),
        sampler=grain.samplers.SequentialSampler(COUNT, seed=3),
        operations=[gdx.SeedRecords(), grain.transforms.Batch(BATCH), Batches(act, flag)],
        worker_count=workers,
        read_options=grain.ReadOptions(1, 2),
    )


def map_dataset(act, flag):
    seeded = grain.MapDataset.source(Faulty(act, flag)).random_map(gdx.SeedRecords(), seed=7)
    return seeded.batch(BATCH).map(Batches(act, flag))


def iter_dataset(act, flag, workers=0):
    batches = map_dataset(act, flag).to_iter_dataset(grain.ReadOptions(1, 2))
    return batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
