"""Pipelines that break the promise, each in one way, as people write them. Imported by second processes."""

import grain
import jax
import numpy as np
from sound_pipelines import READ_OPTIONS
from sources import Records

COUNT = 24


def noisy(record, rng):
    return {**record, "noise": rng.random(3)}


class Noise(grain.transforms.RandomMap):
    def random_map(self, element, rng):
        return {**element, "noise": rng.random((*np.shape(element["label"]), 3))}


def source(count=COUNT):
    return grain.MapDataset.source(Records(count))


def data_loader(operations, shard_options=None, sampler_shards=None, worker_count=0, seed=3, epochs=1):
    return grain.DataLoader(
        data_source=Records(COUNT),
        sampler=grain.samplers.IndexSampler(
            COUNT,
            shuffle=True,
            num_epochs=epochs,
            seed=seed,
            shard_options=sampler_shards or grain.sharding.NoSharding(),
        ),
        operations=operations,
        shard_options=shard_options or grain.sharding.NoSharding(),
        worker_count=worker_count,
        read_options=READ_OPTIONS,
    )


def random_map_behind_batch(batch_size, shard_options=None):
    return data_loader([grain.transforms.Batch(batch_size), Noise()], shard_options)


def host_slice_before_random_map(batch_size, shard_index, shard_count):
    return source().shuffle(seed=1)[shard_index::shard_count].random_map(noisy, seed=7).batch(batch_size)


def iter_random_map_on_shards(batch_size, shard_index, shard_count):
    shard = source().shuffle(seed=1)[shard_index::shard_count].to_iter_dataset(READ_OPTIONS)
    return shard.random_map(noisy, seed=7).batch(batch_size)


def filter_before_iter_random_map(batch_size, worker_count):
    kept = source().to_iter_dataset(READ_OPTIONS).filter(lambda record: record["label"] % 3 > 0)
    workers = grain.MultiprocessingOptions(num_workers=worker_count)
    return kept.random_map(noisy, seed=7).batch(batch_size).mp_prefetch(workers)


def sampler_and_loader_sharded(batch_size, shard_options):
    return data_loader([Noise(), grain.transforms.Batch(batch_size)], shard_options, shard_options)


def sampler_sharded_alone(batch_size, shard_options):
    return data_loader([Noise(), grain.transforms.Batch(batch_size)], None, shard_options)


def host_in_the_seed(batch_size, shard_options):
    seed = 3 + shard_options.shard_index
    return data_loader([Noise(), grain.transforms.Batch(batch_size)], shard_options, seed=seed)


def with_global_noise(record):
    return {**record, "noise": np.random.random(3)}


def global_random_state(batch_size, worker_count=0):
    dataset = source().map(with_global_noise).batch(batch_size).to_iter_dataset(READ_OPTIONS)
    return dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))


class StepKeys(grain.transforms.Map):
    """A key on the device, and the number of the step."""

    def __init__(self):
        self.step = 0

    def map(self, element):
        key = jax.random.fold_in(jax.random.key(0), self.step)
        self.step += 1
        return {**element, "noise": jax.random.uniform(key, (len(element["label"]), 3))}


def key_and_step_counter(batch_size):
    return source().batch(batch_size).to_iter_dataset(READ_OPTIONS).map(StepKeys())


class RunningMean(grain.transforms.Map):
    """Subtracts the mean of all that came before."""

    def __init__(self):
        self.total, self.count = 0.0, 0

    def map(self, element):
        self.total, self.count = self.total + float(element["image"].mean()), self.count + 1
        return {**element, "image": element["image"] - self.total / self.count}


def state_beside_the_checkpoint(batch_size):
    return source().to_iter_dataset(READ_OPTIONS).map(RunningMean()).batch(batch_size)


def with_noise_of_hash(record):
    return {**record, "noise": np.random.default_rng(hash(f"record {record['label']}") % 2**32).random(3)}


def seeded_by_hash(batch_size):
    return source().map(with_noise_of_hash).batch(batch_size)


def repeated_without_reseeding(batch_size):
    return source().random_map(noisy, seed=7).repeat(2, reseed_each_epoch=False).batch(batch_size)


def one_epoch(batch_size):
    return data_loader([Noise(), grain.transforms.Batch(batch_size)])


def one_epoch_each(batch_size, epoch):
    return data_loader([Noise(), grain.transforms.Batch(batch_size)], seed=3 + epoch)


def losing_records(batch_size, shard_index, shard_count):
    stop = COUNT - 2 * (shard_count - 1)
    return source().random_map(noisy, seed=7)[shard_index:stop:shard_count].batch(batch_size)


def reshuffled(batch_size):
    return source().shuffle(seed=np.random.randint(2**31)).batch(batch_size)


class Moving:
    """An iterator that hands out the state that it goes on to change."""

    def __init__(self):
        self.state = {"next": 0}

    def __iter__(self):
        return self

    def __next__(self):
        if self.state["next"] == 6:
            raise StopIteration
        self.state["next"] += 1
        return {"label": np.full(2, self.state["next"])}

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


class Unwritable(Moving):
    """An iterator whose state no JSON holds."""

    def get_state(self):
        return {"next": np.int64(self.state["next"])}

    def set_state(self, state):
        self.state = {"next": int(state["next"])}


def generator(batch_size):
    yield from source().random_map(noisy, seed=7).batch(batch_size).to_iter_dataset(READ_OPTIONS)
