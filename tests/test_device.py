"""DeviceLoader: wrong arguments, and errors that arrive at their batch."""

import re

import grain
import jax
import numpy as np
import pytest
from device_sources import SEEDED, SOURCES, Map, chain, dataset, elastic, expected_of
from helpers import contents, loader, noise
from jax.sharding import NamedSharding, PartitionSpec
from sources import Records

import grain_datarax as gdx

pytestmark = pytest.mark.once


def fails_at(label):
    def check(record):
        if record["label"] == label:
            raise ValueError(f"record {label} is broken")
        return record

    return Map(check)


@pytest.mark.parametrize(
    ("workers", "buffer_size"), [(0, 0), (0, 1), (0, 4), pytest.param(2, 4, marks=pytest.mark.long)]
)
def test_an_error_in_the_pipeline_arrives_at_its_batch_and_leaves_the_last_state(workers, buffer_size):
    source = loader([fails_at(18), *SEEDED], workers=workers, shuffle=False)
    expected = expected_of(loader(SEEDED, shuffle=False, workers=workers))
    with gdx.DeviceLoader(source, chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        assert [contents(next(iterator)) for _ in range(2)] == expected[:2]
        state = iterator.get_state()
        with pytest.raises(ValueError, match="record 18 is broken"):
            next(iterator)
        if buffer_size:
            assert iterator.get_state() == state
    with gdx.DeviceLoader(loader(SEEDED, workers=workers, shuffle=False), chain()) as batches:
        iterator = iter(batches)
        iterator.set_state(state)
        assert [contents(batch) for batch in iterator] == expected[2:]


WRONG = {
    "iterator": (lambda: gdx.DeviceLoader(iter([])), TypeError, "`source` must be a grain.DataLoader"),
    "operator": (lambda: gdx.DeviceLoader(dataset().batch(8), ["noise"]), TypeError, "`operators` must be operators"),
    "buffer": (lambda: gdx.DeviceLoader(dataset().batch(8), buffer_size=-1), ValueError, "`buffer_size` must not be"),
    "bool": (lambda: gdx.DeviceLoader(dataset().batch(8), buffer_size=True), TypeError, "`buffer_size` must be an int"),
    "device": (
        lambda: gdx.DeviceLoader(dataset().batch(8), sharding=jax.devices()[0]),
        TypeError,
        "`sharding` must be a NamedSharding",
    ),
    "spec": (
        lambda: gdx.DeviceLoader(
            dataset().batch(8), sharding=NamedSharding(jax.make_mesh((8,), "x"), PartitionSpec(None, "x"))
        ),
        ValueError,
        "`sharding` must spread axis 0",
    ),
    "seeds": (
        lambda: next(iter(gdx.DeviceLoader(grain.MapDataset.source(Records(8)).batch(8), [noise()]))),
        KeyError,
        "`record_seed` must be in the batch",
    ),
    "record": (
        lambda: next(iter(gdx.DeviceLoader(grain.MapDataset.range(8).batch(8)))),
        TypeError,
        "`element` must be a mapping",
    ),
    "statistics": (
        lambda: gdx.DeviceLoader(dataset().batch(8), [noise(batch_stats_fn=dict)]),
        ValueError,
        "`batch_stats_fn` must be None over several devices",
    ),
    "elastic": (
        lambda: gdx.DeviceLoader(elastic().map(lambda batch: batch).map(lambda batch: batch)),
        ValueError,
        "`source` must not be built on an ElasticIterator",
    ),
    "nothing": (
        lambda: next(iter(gdx.DeviceLoader(loader([*SEEDED, Map(lambda _: None)])))),
        TypeError,
        "`element` must be a mapping from field names, a tuple, .*: got NoneType",
    ),
    "lengths": (
        lambda: next(iter(gdx.DeviceLoader(dataset().batch(8).map(lambda batch: {**batch, "x": np.ones(3)})))),
        ValueError,
        "`data` must share the batch as axis 0",
    ),
}


@pytest.mark.parametrize(("act", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_and_batches_are_refused(act, kind, message):
    with pytest.raises(kind, match=message):
        act()


@pytest.mark.parametrize(("source", "kind"), {name: name.split(",")[0] for name in SOURCES}.items())
def test_a_loader_says_what_it_is_made_of(source, kind):
    kind = "DataLoader" if kind == "loader" else kind
    text = repr(gdx.DeviceLoader(SOURCES[source](), chain(), buffer_size=3))
    assert text.startswith(
        f"DeviceLoader(source={kind}, operators=[PatchDropoutOperator/2x3x4, NoiseOperator/gaussian],\n"
    )
    assert re.search(r"sharding=P\w*\('data',?\) over 8 devices, buffer_size=3\)$", text)
    assert all(len(line) <= 120 for line in text.split("\n"))


def test_a_loader_of_many_operators_is_shown_in_two_lines():
    lines = repr(gdx.DeviceLoader(dataset().batch(8), [noise(name=f"noise {index}") for index in range(20)])).split(
        "\n"
    )
    assert "operators=[noise 0, noise 1, noise 2, 17 more]" in lines[0]
    assert [len(line) <= 120 for line in lines] == [True] * 2
    assert "operators=[]," in repr(gdx.DeviceLoader(dataset().batch(8)))
