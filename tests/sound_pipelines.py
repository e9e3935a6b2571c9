"""Pipelines that keep the promise, as functions that `grain_datarax.testing` can vary. Imported by second processes."""

import grain
import jax
import numpy as np
from sources import Records

import grain_datarax as gdx

CHAIN = gdx.Chain([gdx.PatchDropout(num_patches=2, patch_size=(3, 4)), gdx.GaussianNoise(std=0.1, p=0.5)], seed=0)
# One for all: each compiles for itself.
AUGMENT_BATCH, AUGMENT_RECORD = gdx.AugmentBatch(CHAIN), gdx.AugmentRecord(CHAIN)
READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
COUNT = 20


class Decode(grain.transforms.Map):
    """Bytes to an image, as the quick start does."""

    def map(self, element):
        return {"image": np.round(element["image"] * 255).astype(np.uint8), "label": element["label"]}


def loader(operations, worker_count=0, shard_options=None, epochs=2):
    return grain.DataLoader(
        data_source=Records(COUNT),
        sampler=grain.samplers.IndexSampler(COUNT, shuffle=True, num_epochs=epochs, seed=3),
        operations=[Decode(), *operations],
        worker_count=worker_count,
        shard_options=shard_options or grain.sharding.NoSharding(),
        read_options=READ_OPTIONS,
    )


def data_loader(batch_size=8, worker_count=0, shard_options=None, per_record=False):
    """The drop-in: AugmentBatch, or AugmentRecord before batching, in the operations."""
    if per_record:
        return loader([AUGMENT_RECORD], worker_count, shard_options)
    batched = [gdx.SeedRecords(), grain.transforms.Batch(batch_size), AUGMENT_BATCH]
    return loader(batched, worker_count, shard_options)


def device_loader(batch_size=8, worker_count=0, shard_options=None):
    """The fast path, as the quick start has it."""
    seeded = loader([gdx.SeedRecords(), grain.transforms.Batch(batch_size)], worker_count, shard_options)
    return gdx.DeviceLoader(seeded, CHAIN, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def dataset(batch_size=8, worker_count=0, shard_index=0, shard_count=1, per_record=False):
    """The Dataset API: drawn, then cut for the hosts."""
    source = grain.MapDataset.source(Records(COUNT)).map(Decode()).shuffle(seed=1).repeat(2)
    if per_record:
        return source.random_map(AUGMENT_RECORD, seed=7)
    seeded = source.random_map(gdx.SeedRecords(), seed=7)[shard_index::shard_count].batch(batch_size)
    batches = seeded.to_iter_dataset(READ_OPTIONS).mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))
    return batches.map(AUGMENT_BATCH)
