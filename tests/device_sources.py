"""What a DeviceLoader is tested on: a source of each kind, and the batches that must come of it."""

import functools
import itertools

import grain
import pytest
from helpers import closing, contents, loader, noise, patch_dropout
from sources import Records

import grain_datarax as gdx

BATCH = 8  # divides over the eight devices
# By default Grain reads 500 elements ahead, which may be batches.
READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
SEEDED = [gdx.SeedRecords(), grain.transforms.Batch(BATCH)]


def chain():
    return [patch_dropout(), noise()]


def dataset(count=32, epochs=1):
    return grain.MapDataset.source(Records(count)).shuffle(seed=1).repeat(epochs).random_map(gdx.SeedRecords(), seed=7)


def worker_dataset(epochs=1, workers=2):
    options = grain.MultiprocessingOptions(num_workers=workers)
    return dataset(epochs=epochs).batch(BATCH).to_iter_dataset(READ_OPTIONS).mp_prefetch(options)


def elastic(epochs=1):
    whole = grain.sharding.NoSharding()
    return grain.experimental.ElasticIterator(dataset(epochs=epochs), BATCH, whole, read_options=READ_OPTIONS)


# Four batches in each epoch; without end for epochs=None.
SOURCES = {
    "loader": lambda epochs=1: loader(SEEDED, epochs=epochs),
    "loader, 2 workers": lambda epochs=1: loader(SEEDED, epochs=epochs, workers=2),
    "MapDataset": lambda epochs=1: dataset(epochs=epochs).batch(BATCH),
    "IterDataset": lambda epochs=1: dataset(epochs=epochs).to_iter_dataset(READ_OPTIONS).batch(BATCH),
    "IterDataset, 2 workers": worker_dataset,
    "ElasticIterator": elastic,
}
every_source = pytest.mark.parametrize(
    "source",
    [pytest.param(make, marks=[pytest.mark.long] * ("workers" in name), id=name) for name, make in SOURCES.items()],
)
every_buffer_size = pytest.mark.parametrize("buffer_size", [0, 1, 4])


def plain(source):
    """Grain's own iterator, of anything that a DeviceLoader takes."""
    if isinstance(source, grain.MapDataset):
        return iter(source.to_iter_dataset(grain.ReadOptions(0, 0)))
    return iter(source)


def expected_of(source, count=None):
    """Labels and pixels of the first batches, or of all: those of AugmentBatch over Grain's own iterator."""
    augment = gdx.AugmentBatch(chain())
    with closing(plain(source)) as iterator:
        return [contents(augment.map(batch)) for batch in itertools.islice(iterator, count)]


@functools.cache
def expected_from(source, epochs=1):
    """The same for one of `SOURCES`, at most nine batches: worker processes take seconds to start."""
    return expected_of(source(epochs), 9)


class Map(grain.transforms.Map):
    def __init__(self, function):
        self.function = function

    def map(self, element):
        return self.function(element)
