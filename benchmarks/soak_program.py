"""The training that benchmarks/soak.py kills: `python -m benchmarks.soak_program FOLDER BATCHES`.

Its log of delivered records is committed with its checkpoint, which holds the log's length.
"""

import grain_datarax as gdx  # isort: skip: first, as the workers end with their parent from here on
import hashlib
import json
import multiprocessing.shared_memory
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

BATCH, EVERY, WORKERS, COUNT = 64, 50, 2, 4096
# A delivered record: its number, its seed, and a digest of its pixels.
ROW = np.dtype([("label", "<i8"), ("seed", "<u8"), ("digest", "<u8")])

if "PREFIX" in os.environ:  # so that what it leaves can be told from that of others
    multiprocessing.shared_memory._SHM_NAME_PREFIX = f"/{os.environ['PREFIX']}"  # type: ignore[attr-defined]
    multiprocessing.current_process()._config["semprefix"] = f"/{os.environ['PREFIX']}"  # type: ignore[attr-defined]


class Images:
    """4096 images, uint8 (32, 32, 3), made of their number."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.Generator(np.random.Philox(key=index))
        return {"image": rng.integers(0, 256, (32, 32, 3), np.uint8), "label": index}

    def __repr__(self) -> str:
        return "Images()"


def batches(workers: int) -> gdx.DeviceLoader:
    loader = grain.DataLoader(
        data_source=Images(),
        sampler=grain.samplers.IndexSampler(COUNT, shuffle=True, num_epochs=None, seed=0),
        operations=[gdx.SeedRecords(), grain.transforms.Batch(BATCH, drop_remainder=True)],
        worker_count=workers,
        read_options=grain.ReadOptions(1, 16),
    )
    effects = [
        gdx.PatchDropout(patch_size=(8, 8), p=0.5),
        gdx.GaussianNoise(std=(0.0, 0.1)),
        gdx.PoissonNoise(photons=60),
    ]
    return gdx.DeviceLoader(loader, gdx.Chain(effects, seed=0), keep_seed=True)  # fmt: skip


def rows_of(batch: dict[str, Any]) -> np.ndarray:
    rows = np.empty(len(batch["label"]), ROW)
    rows["label"] = np.asarray(batch["label"])
    rows["seed"] = np.ascontiguousarray(batch["record_seed"]).view("<u8").ravel()
    images = np.asarray(batch["image"])
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    rows["digest"] = np.frombuffer(b"".join(digests), "<u8")
    return rows


def expected_rows(count: int) -> np.ndarray:
    """Those of so many batches of a run that nobody kills, without workers, which deliver in another order."""
    with batches(0) as loader:
        iterator = iter(loader)
        return np.concatenate([np.empty(0, ROW), *(rows_of(next(iterator)) for _ in range(count))])


def retried(iterator: Any) -> Iterator[dict[str, Any]]:
    """Its batches; after an error the same once more."""
    while True:
        try:
            batch = next(iterator)
        except RuntimeError as error:
            print(f"It tries again after {error!r}", file=sys.stderr, flush=True)
        else:
            yield batch


def train(folder: pathlib.Path, last: int) -> None:
    checkpoint, delivered = folder / "checkpoint", folder / "delivered"
    kept = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "length": 0}
    with open(delivered, "ab") as log, open(folder / "made", "ab", buffering=0) as made, batches(WORKERS) as loader:
        iterator = iter(loader)
        log.truncate(kept["length"])  # delivered behind the checkpoint, and now once more
        if "state" in kept:
            iterator.set_state(kept["state"].encode())
        for step, batch in enumerate(retried(iterator), kept["step"] + 1):
            log.write(rows_of(batch).tobytes())
            made.write(b".")
            (folder / "progress").write_text(str(step))
            time.sleep(0.02)  # a training step
            if step % EVERY == 0:
                log.flush()
                os.fsync(log.fileno())
                text = json.dumps({"step": step, "length": log.tell(), "state": iterator.get_state().decode()})
                (folder / "unfinished").write_text(text)
                os.replace(folder / "unfinished", checkpoint)
            if step == last:
                return


if __name__ == "__main__":
    import absl.flags

    absl.flags.FLAGS.mark_as_parsed()
    train(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
