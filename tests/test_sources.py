"""Each iterator of a DeviceLoader reads its source for itself, and as far ahead as asked."""

import time

import grain
import pytest
from device_sources import BATCH, SOURCES, chain, every_source, expected_from, expected_of
from helpers import closing, contents
from sources import Records

import grain_datarax as gdx

pytestmark = pytest.mark.once


class Counted:
    """A source that knows which records were read."""

    def __init__(self, count):
        self._records, self.read = Records(count), []

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        self.read.append(index)
        return self._records[index]


@pytest.mark.parametrize("buffer_size", [0, 1, 2, 5])
@pytest.mark.parametrize("kind", ["MapDataset", "IterDataset"])
def test_batches_are_made_ahead_as_far_as_the_buffer_says(buffer_size, kind):
    source = Counted(32 * BATCH)
    seeded = grain.MapDataset.source(source).random_map(gdx.SeedRecords(), seed=7).batch(BATCH)
    host = seeded if kind == "MapDataset" else seeded.to_iter_dataset(grain.ReadOptions(0, 0))
    with closing(iter(gdx.DeviceLoader(host, buffer_size=buffer_size))) as iterator:
        next(iterator)
        # One more is in the making; the threads that read a MapDataset are as far ahead again, and hold one more.
        low, high = (buffer_size + 1, 2 * buffer_size + 2) if buffer_size else (0, 0)
        deadline = time.monotonic() + 20
        while len(source.read) // BATCH - 1 < low and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        ahead = len(source.read) // BATCH - 1
    assert low <= ahead <= (high if kind == "MapDataset" else low)


@every_source
def test_every_iterator_starts_anew(source):
    expected = expected_from(source)
    with gdx.DeviceLoader(source(), chain()) as batches:
        first = iter(batches)
        assert contents(next(first)) == expected[0]
        assert [contents(batch) for batch in batches] == expected  # beside the first
        assert contents(next(first)) == expected[1]


def test_an_elastic_iterator_stays_where_its_user_left_it():
    source, expected = SOURCES["ElasticIterator"](), expected_of(SOURCES["ElasticIterator"]())
    source.set_state({"global_next_index": BATCH})
    for _ in range(2):
        assert [contents(batch) for batch in gdx.DeviceLoader(source, chain())] == expected[1:]
    assert source.get_state() == {"global_next_index": BATCH}
