"""Times whole pipelines: images per second, what overlaps, and what the loader itself takes.

    python -m benchmarks.pipelines [throughput] [apart] [overlap] [overhead] [memory]

Without arguments all of it. Albumentations joins where it is installed: pip install '.[bench]'.
"""

import gc
import importlib.util
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import timing
from benchmarks.sources import Albumentations, Crops, NumPy
from grain_datarax import (
    AugmentBatch,
    Chain,
    DeviceLoader,
    GaussianNoise,
    PatchDropout,
    PoissonNoise,
    SaltPepperNoise,
    SeedRecords,
    augment,
)
from grain_datarax.launch import compiled_count
from grain_datarax.placement import RowSharding

BATCH = 64
SHAPE = (BATCH, 224, 224, 3)
EFFECTS = {
    "patches": PatchDropout(num_patches=4, patch_size=(32, 32)),
    "gaussian": GaussianNoise(std=0.05),
    "salt_pepper": SaltPepperNoise(salt_prob=0.02, pepper_prob=0.02),
    "poisson": PoissonNoise(photons=30.0),
}
TOGETHER = ("patches", "gaussian", "poisson")
CHAIN = Chain([EFFECTS[name] for name in TOGETHER], seed=0)


def loader(stages: list, *, workers: int = 2) -> grain.DataLoader:
    source = Crops()
    return grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(len(source), shuffle=True, num_epochs=None, seed=0),
        operations=stages,
        worker_count=workers,
        read_options=grain.ReadOptions(num_threads=1, prefetch_buffer_size=16),
    )


def on_device(batches: Iterator[dict]) -> Iterator[dict]:
    return (jax.device_put({name: np.asarray(field) for name, field in batch.items()}) for batch in batches)


def images_per_second(batches: Iterator[dict], seconds: float = 20.0) -> float:
    """Over this time, after what was made ahead while workers started and functions compiled has been taken."""
    for batch in itertools.islice(batches, 8):
        jax.block_until_ready(batch["image"])
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        jax.block_until_ready(next(batches)["image"])
        count += 1
    return BATCH * count / (time.perf_counter() - start)


def throughput() -> None:
    print(
        f"\nImages per second, 224 x 224 x 3 uint8, batches of {BATCH}, 2 workers: patch dropout, gaussian, poisson\n"
    )
    batch = grain.transforms.Batch(BATCH, drop_remainder=True)
    pipelines: dict[str, Callable[[], Iterator[dict]]] = {
        "no augmentation": lambda: on_device(iter(loader([batch]))),
        "NumPy, RandomMap per record in workers": lambda: on_device(iter(loader([NumPy(), batch]))),
        "AugmentBatch in workers": lambda: on_device(iter(loader([SeedRecords(), batch, AugmentBatch(CHAIN)]))),
        "DeviceLoader": lambda: iter(DeviceLoader(loader([SeedRecords(), batch]), CHAIN)),
    }
    if importlib.util.find_spec("albumentations"):
        pipelines["albumentations, per record in workers"] = lambda: on_device(
            iter(loader([Albumentations(*TOGETHER), batch]))
        )
    speeds = {}
    for name, start in pipelines.items():
        batches = start()
        speeds[name] = images_per_second(batches)
        del batches
        gc.collect()
        print(f"{name}: {speeds[name]:.0f}", flush=True)
    others = {name: speed for name, speed in speeds.items() if name[:2] in ("Nu", "al")}
    print(f"DeviceLoader over the best of the others: {speeds['DeviceLoader'] / max(others.values()):.2f}")
    by_batch, image = AugmentBatch(CHAIN), Crops()[0]["image"]
    host = {"image": np.stack([image] * BATCH), "record_seed": np.zeros((BATCH, 2), np.uint32)}
    alone = timing.medians({"augment": timing.call(lambda: by_batch.map(host)["image"])}, 15)["augment"]
    print(f"The augmentation alone: {BATCH / alone:.0f}")


def apart() -> None:
    """Each effect alone, beside albumentations in the workers where it is installed."""
    print(f"\nImages per second, 224 x 224 x 3 uint8, batches of {BATCH}, 2 workers, one effect\n")
    batch = grain.transforms.Batch(BATCH, drop_remainder=True)
    for name, effect in EFFECTS.items():
        chain = Chain([effect], seed=0)
        speeds = {"DeviceLoader": images_per_second(iter(DeviceLoader(loader([SeedRecords(), batch]), chain)), 10)}
        gc.collect()
        if importlib.util.find_spec("albumentations"):
            batches = on_device(iter(loader([Albumentations(name), batch])))
            speeds["albumentations"] = images_per_second(batches, 10)
            del batches
            gc.collect()
        print(f"{name}: " + ", ".join(f"{who} {speed:.0f}" for who, speed in speeds.items()), flush=True)


class Waits(grain.transforms.Map):
    """A host stage that waits, as for storage."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def map(self, element: dict) -> dict:
        time.sleep(self.seconds)
        return element


def overlap(steps: int = 40) -> None:
    """A host stage and a training step of equal length, in turns and through DeviceLoader."""
    matrix = jnp.ones((1024, 1024))

    @jax.jit
    def train_step(batch: dict, count: int) -> jax.Array:
        def multiply(_: int, product: jax.Array) -> jax.Array:
            return product @ matrix / 1024

        return jax.lax.fori_loop(0, count, multiply, matrix).sum() + batch["image"].sum()

    images = grain.MapDataset.range(steps).map(lambda _: {"image": np.zeros((64, 64, 3), np.uint8)})
    seeded = images.random_map(SeedRecords(), seed=0).batch(1)
    batch = jax.device_put({"image": np.zeros((1, 64, 64, 3), np.uint8)})
    count = 40

    def step(batch: dict) -> float:
        start = time.perf_counter()
        train_step(batch, count).block_until_ready()
        return time.perf_counter() - start

    step(batch)
    seconds = statistics.median(step(batch) for _ in range(15))
    waiting = seeded.map(Waits(seconds))
    chain = Chain([GaussianNoise()], seed=0)
    by_batch = AugmentBatch(chain)

    def in_turns() -> None:
        for host in waiting.to_iter_dataset(grain.ReadOptions(0, 0)):
            step(by_batch.map(host))

    def through_the_loader() -> None:
        with DeviceLoader(waiting, chain, buffer_size=2) as batches:
            for batch in batches:
                step(batch)

    times = {}
    for name, epoch in {"in turns": in_turns, "DeviceLoader": through_the_loader}.items():
        epoch()
        start = time.perf_counter()
        epoch()
        times[name] = (time.perf_counter() - start) / (steps * seconds)
    print(f"\nEpochs of {steps} steps, a host stage of {1e3 * seconds:.0f} ms and a step as long, in such lengths")
    print(", ".join(f"{name}: {length:.2f}" for name, length in times.items()))


def overhead(repeats: int = 60) -> None:
    """A batch through DeviceLoader without a buffer, and the same calls by hand: placing, and one compiled function."""
    print(f"\nThe loader itself, milliseconds for each batch; copying {SHAPE} float32 takes", end=" ")
    generator = np.random.default_rng(0)
    large = jax.device_put(generator.random(SHAPE, np.float32))
    copied = timing.medians({"copy": timing.call(jax.jit(jnp.copy), large)}, 15)["copy"]
    print(f"{1e3 * copied:.1f}")
    small = PatchDropout(num_patches=4, patch_size=(2, 2))
    for name, shape, effects in [
        (f"{SHAPE} float32, patch dropout", SHAPE, CHAIN.effects[:1]),
        ("(64, 8, 8, 3) float32, patch dropout", (BATCH, 8, 8, 3), [small]),
        ("(64, 8, 8, 3) float32, chain of three", (BATCH, 8, 8, 3), [small, EFFECTS["gaussian"], EFFECTS["poisson"]]),
    ]:
        chain = Chain(effects, seed=0)
        medians = timing.medians(overhead_calls(generator.random(shape, np.float32), chain, repeats), repeats)
        loader_ms, by_hand_ms = (1e3 * medians[which] for which in ("loader", "by hand"))
        print(f"{name}: {loader_ms:.2f}, by hand {by_hand_ms:.2f}: {loader_ms - by_hand_ms:.2f} more")


def overhead_calls(images: np.ndarray, chain: Chain, repeats: int) -> dict[str, timing.Call]:
    seeds = np.random.default_rng(0).integers(0, 2**32, (len(images), 2), dtype=np.uint32)
    batch = {"image": images, "label": np.arange(len(images)), "record_seed": seeds}
    dataset = grain.MapDataset.source([batch]).repeat(repeats + 2)
    by_hand = jax.jit(lambda batch: augment(chain, batch), donate_argnums=0)
    warnings.filterwarnings("ignore", "Some donated buffers were not usable")  # the seeds, of which nothing is left
    rows, host = RowSharding(), iter(dataset.to_iter_dataset(grain.ReadOptions(0, 0)))
    batches = iter(DeviceLoader(dataset, chain, buffer_size=0))
    return {
        "loader": timing.call(lambda: next(batches)["image"]),
        "by hand": timing.call(lambda: by_hand(jax.device_put(next(host), rows.local))["image"]),
    }


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(batches: int = 5000) -> None:
    """The resident size of this process, and compilations, while batches go by."""
    print(f"\nMemory over {batches} batches of (64, 64, 64, 3) uint8 from two workers")
    stages = [SeedRecords(), grain.transforms.Batch(BATCH, drop_remainder=True)]
    source = Crops(64)
    small = grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(len(source), shuffle=True, num_epochs=None, seed=0),
        operations=stages,
        worker_count=2,
        read_options=grain.ReadOptions(num_threads=1, prefetch_buffer_size=16),
    )
    with DeviceLoader(small, CHAIN) as loader:
        for count, batch in enumerate(itertools.islice(loader, batches), 1):
            batch["image"].block_until_ready()
            if count in (1, 500) or count % 1000 == 0:
                print(f"batch {count}: {resident_bytes() / 2**20:.1f} MiB, {compiled_count()} compiled", flush=True)


def main() -> None:
    flags.FLAGS.mark_as_parsed()  # Grain reads an absl flag before it starts workers
    parts = {part.__name__: part for part in (throughput, apart, overlap, overhead, memory)}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
