"""What DeviceLoader does with each batch: it augments it in place, once compiled, and refuses what it can not treat."""

import grain
import jax
import numpy as np
import pytest
from device_sources import SEEDED, Map, chain
from helpers import OPERATORS, contents, loader
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import grain_datarax as gdx
from grain_datarax.launch import compiled_count
from grain_datarax.placement import RowSharding

pytestmark = pytest.mark.once


def test_augmenting_compiles_to_no_collective_operation():
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    rows = RowSharding(NamedSharding(mesh, PartitionSpec("data")))
    batch = next(iter(loader(SEEDED)))
    placed, _ = rows.place(batch)
    operators = [OPERATORS[mode](name=mode) for mode in OPERATORS]
    text = jax.jit(gdx.AugmentBatch(operators).map).lower(placed).compile().as_text()
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
    assert not [name for name in collectives if name in text]


def test_augmenting_takes_the_buffers_that_the_loader_has_placed(monkeypatch):
    place, placed = RowSharding.place, []

    def remember(self, batch, pad_to):
        placed.append(place(self, batch, pad_to)[0])
        return placed[-1], len(batch["label"])

    monkeypatch.setattr(RowSharding, "place", remember)
    # Of jax.Arrays there is always a copy; NumPy's may be read where they are, and are not ours to take then.
    source = grain.MapDataset.source([jax.tree.map(jax.numpy.asarray, batch) for batch in loader(SEEDED)])
    jax.block_until_ready(list(gdx.DeviceLoader(source, chain())))
    assert [batch["image"].is_deleted() for batch in placed] == [True] * 4


@pytest.mark.parametrize("donor", [np.asarray, jax.numpy.asarray], ids=["NumPy", "JAX"])
def test_arrays_of_the_source_stay_as_they_are(donor):
    batches = [jax.tree.map(donor, batch) for batch in loader(SEEDED)]
    before = [np.array(batch["image"]) for batch in batches]
    one = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    augmented = list(gdx.DeviceLoader(grain.MapDataset.source(batches), chain(), sharding=one))
    jax.block_until_ready(augmented)
    for batch, image, result in zip(batches, before, augmented, strict=True):
        np.testing.assert_array_equal(np.asarray(batch["image"]), image)
        assert contents(result) == contents(gdx.AugmentBatch(chain()).map(jax.tree.map(np.asarray, batch)))


def test_images_of_64_bits_are_an_error_as_in_augment_batch():
    wide = Map(lambda record: {**record, "image": record["image"].astype(np.float64)})
    with pytest.raises(TypeError, match="`image` must have a dtype of at most 32 bits: got float64"):
        list(gdx.DeviceLoader(loader([wide, *SEEDED]), chain()))


def test_values_outside_the_clip_range_are_an_error_in_the_first_batch():
    bright = Map(lambda record: {**record, "image": record["image"] * 255})
    with pytest.raises(ValueError, match="`clip_range` must hold the values"):
        list(gdx.DeviceLoader(loader([bright, *SEEDED]), chain()))


def test_nothing_is_compiled_after_the_first_batch():
    def sizes():
        return compiled_count()

    with gdx.DeviceLoader(loader(SEEDED, epochs=20), chain()) as batches:
        iterator = iter(batches)
        next(iterator)
        first = sizes()
        assert len(list(iterator)) == 79
        assert sizes() == first
    with gdx.DeviceLoader(loader(SEEDED), chain()) as batches:
        next(iter(batches))
        assert sizes() == first
