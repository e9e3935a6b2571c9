"""Trains on several processes: each loads its share, augments on its own devices, and all see one global batch.

Run:     python examples/multihost.py
         on one machine: starts one, then four processes with two virtual CPU devices each, and compares them.
         python examples/multihost.py --coordinator 10.0.0.1:1234 --processes 8 --process 0
         on a cluster: on each host, with its own number; the address is that of process 0.
         python examples/multihost.py --coordinator auto
         under SLURM, on Cloud TPU and GKE, where JAX finds out by itself; see docs/multihost.md.
Takes:   half a minute on two CPU cores; nothing is downloaded.
Prints:  for each number of processes the loss, and a checksum of all augmented pixels: it is the same.
"""

import argparse
import os
import socket
import subprocess
import sys

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_sample_images

import grain_datarax as gdx

SIZE = 32
GLOBAL_BATCH = 32
STEPS = 40
CHAIN = gdx.Chain([gdx.PatchDropout(num_patches=2, patch_size=(8, 8)), gdx.PoissonNoise(photons=30)], seed=0)


class Crops:
    """512 crops of two photographs; every process can reach all of them, as on a shared file system."""

    def __init__(self) -> None:
        self._photographs = load_sample_images().images

    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> dict:
        photograph = self._photographs[index % 2]
        y, x = (np.random.default_rng(index).integers(length - SIZE) for length in photograph.shape[:2])
        return {"image": photograph[y : y + SIZE, x : x + SIZE], "label": index % 2}

    def __repr__(self) -> str:
        return "Crops()"  # the same in every process and run, for checkpoints


def make_loader() -> grain.DataLoader:
    return grain.DataLoader(
        data_source=Crops(),
        # One order for all processes, without shards: the loader deals it out.
        sampler=grain.samplers.IndexSampler(len(Crops()), shuffle=True, num_epochs=None, seed=0),
        shard_options=grain.sharding.ShardByJaxProcess(drop_remainder=True),
        operations=[
            gdx.SeedRecords(),
            grain.transforms.Batch(GLOBAL_BATCH // jax.process_count(), drop_remainder=True),
        ],
    )


def loss_of(model: nnx.Linear, batch: dict) -> jax.Array:
    pixels = batch["image"].reshape(len(batch["label"]), -1) / 255.0
    return optax.sigmoid_binary_cross_entropy(model(pixels)[:, 0], batch["label"]).mean()


@nnx.jit
def train_step(model: nnx.Linear, optimizer: nnx.Optimizer, batch: dict) -> jax.Array:
    """One step on the global batch; JAX puts in the collectives."""
    loss, gradients = nnx.value_and_grad(loss_of)(model, batch)
    optimizer.update(model, gradients)
    return loss


@jax.jit
def checksum(batch: dict) -> jax.Array:
    """A number that depends on every pixel of every record, and not on the order of the records."""
    weights = jnp.arange(1, SIZE * SIZE * 3 + 1, dtype=jnp.uint32)
    return (batch["image"].reshape(-1, weights.size).astype(jnp.uint32) * weights).sum(dtype=jnp.uint32)


def train() -> None:
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    model = nnx.Linear(SIZE * SIZE * 3, 1, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-4), wrt=nnx.Param)
    total, losses = 0, []
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    with gdx.DeviceLoader(make_loader(), CHAIN, sharding=sharding) as loader:
        for _, batch in zip(range(STEPS), loader, strict=False):
            losses.append(float(train_step(model, optimizer, batch)))
            total = (total + int(checksum(batch))) % 2**32
    if jax.process_index() == 0:
        print(
            f"{jax.process_count()} processes with {jax.local_device_count()} devices: batches of"
            f" {batch['image'].shape} on {batch['image'].sharding.num_devices} devices, loss {losses[0]:.3f} ->"
            f" {losses[-1]:.3f}, checksum {total}",
            flush=True,
        )


def start_here(processes: int) -> str:
    """Runs this program as several processes on this machine; what process 0 printed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, __file__, "--coordinator", coordinator, "--processes", str(processes), "--process"]
    started = [
        subprocess.Popen([*command, str(index)], stdout=subprocess.PIPE, text=True, env=environment)
        for index in range(processes)
    ]
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("A process failed; its message is above.")
    return printed[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coordinator", help='host:port of process 0, or "auto"')
    parser.add_argument("--processes", type=int, help="how many there are")
    parser.add_argument("--process", type=int, help="which one this is, from 0")
    arguments = parser.parse_args()
    if arguments.coordinator == "auto":
        jax.distributed.initialize()
        train()
    elif arguments.coordinator is not None:
        jax.distributed.initialize(arguments.coordinator, arguments.processes, arguments.process)
        train()
    else:
        lines = []
        for processes in (1, 4):
            lines.append(start_here(processes))
            print(lines[-1], flush=True)
        assert len({line.rpartition(" ")[2] for line in lines}) == 1, "the checksums differ"
        print(f"\n1 and 4 processes augmented {STEPS} global batches of {GLOBAL_BATCH} records to the same pixels.")


if __name__ == "__main__":
    main()
