"""One process of several: augments its share of the records, and writes down what it got. Started by test_multihost.py.

cd tests; python -c "import multihost_process; multihost_process.main(COORDINATOR, PROCESSES, INDEX, DIRECTORY, SCENARIO)"
"""

import contextlib
import os
import pathlib
import sys

import grain
import jax
import numpy as np
from absl import flags
from helpers import OPERATORS, Records, loader
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import grain_datarax as gdx

DEVICES = 2  # of each process
GLOBAL_BATCH = 8
RECORDS = 64


def chain():
    return [OPERATORS[mode](name=mode) for mode in OPERATORS]


def sharded_loader(workers, **kwargs):
    index, count = jax.process_index(), jax.process_count()
    stages = [gdx.SeedRecords(), grain.transforms.Batch(GLOBAL_BATCH // count, drop_remainder=True)]
    return loader(stages, count=RECORDS, workers=workers, shard=index, shards=count, **kwargs)


def mesh(shape, names, axis_type):
    return jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), names, axis_types=(axis_type,) * len(shape))


def shardings():
    processes = jax.process_count()
    yield "all devices", None
    for axis_type in (AxisType.Auto, AxisType.Explicit):
        flat = mesh((DEVICES * processes,), ("data",), axis_type)
        yield f"data, {axis_type}", NamedSharding(flat, PartitionSpec("data"))
        square = mesh((processes, DEVICES), ("data", "model"), axis_type)
        yield f"data x model, {axis_type}", NamedSharding(square, PartitionSpec("data"))
        yield f"(data, model), {axis_type}", NamedSharding(square, PartitionSpec(("data", "model")))
        yield f"as for images, {axis_type}", NamedSharding(square, PartitionSpec("data", None, None, None))


def take(batches, steps=None):
    """Step, label and pixels of every record of this process; copies on several devices must be equal."""
    seen = {}
    for step, batch in zip(range(steps or sys.maxsize), batches, strict=False):
        assert batch["image"].shape[0] == GLOBAL_BATCH
        assert batch["image"].is_fully_addressable == (jax.process_count() == 1)
        for labels, images in zip(batch["label"].addressable_shards, batch["image"].addressable_shards, strict=True):
            for label, image in zip(np.asarray(labels.data).tolist(), np.asarray(images.data), strict=True):
                np.testing.assert_array_equal(seen.setdefault((step, label), image), image)
    return seen


def save(path, seen):
    keys = np.array([*seen], np.int64).reshape(-1, 2)
    np.savez(path, step=keys[:, 0], label=keys[:, 1], image=np.array([*seen.values()]))


def pixels(directory):
    """All shardings with one loader each, and worker processes."""
    cases = {name: (0, sharding) for name, sharding in shardings()}
    cases |= {f"{workers} workers": (workers, None) for workers in (1, 2)}
    for name, (workers, sharding) in cases.items():
        with contextlib.ExitStack() as stack:
            if sharding is not None:
                stack.enter_context(jax.set_mesh(sharding.mesh))  # as for a training step; operators are made there
            batches = stack.enter_context(gdx.DeviceLoader(sharded_loader(workers), chain(), sharding=sharding))
            save(directory / f"{name}, {jax.process_index()}.npz", take(batches))


def same_rows(directory):
    """Meshes over which all processes hold the same rows: all are given the same records."""
    devices = np.array(jax.devices()).reshape(jax.process_count(), DEVICES)
    across = jax.sharding.Mesh(devices.T, ("data", "model"))
    stages = [gdx.SeedRecords(), grain.transforms.Batch(GLOBAL_BATCH)]
    for name, spec in {"same rows": PartitionSpec("data"), "replicated": PartitionSpec()}.items():
        source = loader(stages, count=RECORDS)
        with gdx.DeviceLoader(source, chain(), sharding=NamedSharding(across, spec)) as batches:
            save(directory / f"{name}, {jax.process_index()}.npz", take(batches))


def refused_meshes(directory):
    """What each process says of a mesh that leaves it out, or deals rows out unequally; the advice works."""

    def outcome(devices):
        sharding = NamedSharding(jax.sharding.Mesh(np.array(devices), ("data",)), PartitionSpec("data"))
        try:
            with gdx.DeviceLoader(sharded_loader(0), chain(), sharding=sharding) as batches:
                return f"took {len(take(batches))} records"
        except ValueError as error:
            return str(error)

    devices = jax.devices()
    lines = [outcome(devices[:DEVICES]) if jax.process_index() else "", outcome(devices[:3]), outcome(devices)]
    (directory / f"{jax.process_index()}.txt").write_text("\n".join(lines))


def training(directory):
    """Steps with collectives in this thread, while batches are augmented in another: the sums must be right."""
    step = jax.jit(lambda batch: (batch["label"].sum(), batch["image"].astype(np.float32).mean()))
    with gdx.DeviceLoader(sharded_loader(0, epochs=20), chain(), buffer_size=4) as batches:
        sums = [int(step(batch)[0]) for batch in batches]
    assert len(sums) == 20 * RECORDS // GLOBAL_BATCH
    np.save(directory / f"training, {jax.process_index()}.npy", np.array(sums))


def replicated_model(directory):
    """A model with Dropout, whose state has keys, put on the devices of the batches, and trained on them."""
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.dropout, self.last = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(6, 1, rngs=rngs)

        def __call__(self, image):
            return self.last(self.dropout(image[:, 0, :2].reshape(len(image), -1) / 255))

    model = Model(nnx.Rngs(0))
    with gdx.DeviceLoader(sharded_loader(0), chain()[:2]) as batches:
        alone = jax.device_put(nnx.state(model), jax.local_devices()[0])  # as restored onto one device
        nnx.update(model, batches.replicate(alone))
        loss = nnx.jit(nnx.grad(lambda model, image: model(image).sum()))
        gradients = [np.asarray(loss(model, batch["image"]).last.kernel[...]) for batch in batches]
    np.save(directory / f"gradients, {jax.process_index()}.npy", np.array(gradients))


def sources(workers):
    """What can be restored anywhere: a loader, slices of a MapDataset, and an ElasticIterator."""
    index, count = jax.process_index(), jax.process_count()
    seeded = grain.MapDataset.source(Records(RECORDS)).shuffle(seed=1).random_map(gdx.SeedRecords(), seed=7)
    options = grain.MultiprocessingOptions(num_workers=workers)
    mine = seeded[index::count].batch(GLOBAL_BATCH // count)
    shard = grain.sharding.ShardOptions(shard_index=index, shard_count=count)
    yield "loader", sharded_loader(workers)
    yield "dataset", mine.to_iter_dataset().mp_prefetch(options) if workers else mine
    yield "elastic", grain.experimental.ElasticIterator(seeded, GLOBAL_BATCH, shard)


def resume(directory, before, after, workers, steps):
    """Goes on from the checkpoint of step `before`, if there is one, takes `steps`, and saves step `after`."""
    import orbax.checkpoint as ocp

    from grain_datarax import checkpoint

    for name, source in sources(int(workers)):
        with ocp.CheckpointManager(directory / name) as manager, gdx.DeviceLoader(source, chain()[:2]) as loader:
            iterator = iter(loader)
            if before != "0":
                manager.restore(int(before), args=ocp.args.Composite(data=checkpoint.CheckpointRestore(iterator)))
            seen = take(iterator, int(steps))
            manager.save(int(after), args=ocp.args.Composite(data=checkpoint.CheckpointSave(iterator)))
            manager.wait_until_finished()
        save(directory / f"{name}, {after}, {jax.process_index()}.npz", seen)


def main(coordinator, processes, process, directory, scenario, *arguments, scenarios=None):
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
    flags.FLAGS.mark_as_parsed()
    jax.distributed.initialize(coordinator, int(processes), int(process))
    assert (jax.process_count(), jax.local_device_count()) == (int(processes), DEVICES)
    (scenarios or globals())[scenario](pathlib.Path(directory), *arguments)
