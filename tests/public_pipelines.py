"""Pipelines as three public projects build them, small and rebuilt from how they are described. Imported by second processes.

big_vision: google-research/big_vision, input_pipeline.py and pp/ops_image.py. MaxText: AI-Hypercomputer/maxtext,
input_pipeline/grain_data_processing.py. Grain: the tutorials "Dataset basics" and "DataLoader guide".
"""

import functools

import grain
import numpy as np
from sound_pipelines import READ_OPTIONS
from sources import Records

COUNT = 24


def crop_and_flip(record, rng):
    """A random crop and a random flip of one example."""
    y, x, toss = drawn = rng.random(3)
    image = record["image"][int(4 * y) :, int(4 * x) :][:12, :8]
    return {"_id": record["label"], "drawn": drawn, "image": image[:, ::-1] if toss < 0.5 else image}


def _host_split(shard_index, shard_count):
    """Each host is given its own even piece of the data, once and for all."""
    bounds = np.linspace(0, COUNT, shard_count + 1).astype(int)
    return grain.MapDataset.source(Records(COUNT)).slice(slice(bounds[shard_index], bounds[shard_index + 1]))


def big_vision(batch_size, shard_index, shard_count):
    """Unseeded, as there: the shuffle is, and the ops draw from one global generator; it is no checkpoint's business."""
    shuffled = _host_split(shard_index, shard_count).shuffle(seed=np.random.randint(2**31)).repeat()
    examples = shuffled.map(lambda record: crop_and_flip(record, np.random.default_rng(np.random.randint(2**31))))
    local_size = max(batch_size // shard_count, 1)
    yield from examples.batch(local_size, drop_remainder=True).to_iter_dataset(READ_OPTIONS)


def big_vision_seeded(batch_size, shard_index, shard_count):
    """The same stages with Grain's seeds."""
    examples = _host_split(shard_index, shard_count).shuffle(seed=1).repeat().random_map(crop_and_flip, seed=2)
    return examples.batch(max(batch_size // shard_count, 1), drop_remainder=True)


def tokens(record):
    """Two to nine tokens, none of which is 0, the padding's."""
    return {"inputs": np.arange(1, 2 + record["label"] % 8) + 10 * record["label"]}


def padded(record):
    return {"inputs": np.pad(record["inputs"], (0, 10 - len(record["inputs"])))}


def shifted(batch):
    """Targets are the tokens that follow."""
    return {"inputs": np.pad(batch["inputs"], ((0, 0), (1, 0)))[:, :-1], "targets": batch["inputs"]}


def maxtext(batch_size, worker_count, shard_index, shard_count):
    """Shuffled, repeated, cut for the hosts, made to a stream, padded, batched, read by workers."""
    dataset = grain.MapDataset.source(Records(COUNT)).shuffle(seed=0).repeat(2)[shard_index::shard_count]
    examples = dataset.to_iter_dataset(READ_OPTIONS).map(tokens).map(padded)
    batch_fn = functools.partial(grain.experimental.batch_and_pad, batch_size=batch_size, pad_value=0)
    batches = examples.batch(batch_size, batch_fn=batch_fn).map(shifted)
    return batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))


def dataset_tutorial(batch_size, shard_index, shard_count):
    """Shuffled, mapped at random, batched, and then cut for the hosts."""
    examples = grain.MapDataset.source(Records(COUNT)).seed(10).shuffle().random_map(crop_and_flip)
    return examples.batch(batch_size)[shard_index::shard_count].to_iter_dataset(READ_OPTIONS)


class CropAndFlip(grain.transforms.RandomMap):
    def random_map(self, element, rng):
        return crop_and_flip(element, rng)


def data_loader_tutorial(batch_size, worker_count, shard_options):
    """The sampler deals out the records, and the loader takes that over."""
    sampler = grain.samplers.IndexSampler(
        num_records=COUNT, num_epochs=2, shard_options=shard_options, shuffle=True, seed=0
    )
    return grain.DataLoader(
        data_source=Records(COUNT),
        operations=[CropAndFlip(), grain.transforms.Batch(batch_size)],
        sampler=sampler,
        worker_count=worker_count,
        read_options=READ_OPTIONS,
    )
