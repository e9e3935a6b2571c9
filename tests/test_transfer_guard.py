"""With `jax_transfer_guard` at "disallow", as some training loops set it, nothing is transferred but what is meant."""

import grain
import jax
import numpy as np
import pytest
from effect_table import EFFECTS, PLAIN, seeded_batch, seeds
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

import grain_datarax as gdx

# In all threads, which the context manager does not reach.
SETTING = "jax_transfer_guard"
CHAIN = gdx.Chain([EFFECTS[name](name=name, p=0.5) for name in PLAIN], seed=0)
SIZED = gdx.Chain([gdx.GaussianNoise(), gdx.PatchDropout(patch_size=(3, 3))], seed=0, size="size", draws="drawn")
MIXED = gdx.Chain([gdx.MixUp(), gdx.CutMix()], seed=0)


@pytest.fixture
def guarded():
    jax.config.update(SETTING, "disallow")
    yield
    jax.config.update(SETTING, "allow")  # None would leave it as it is


def batches():
    source = grain.MapDataset.source([{"image": image, "path": "a.png"} for image in seeded_batch(32)["image"]])
    return source.random_map(gdx.SeedRecords(), seed=1).batch(8)


def read(**settings):
    with gdx.DeviceLoader(batches(), CHAIN, **settings) as loader:
        iterator = iter(loader)
        next(iterator)
        state = iterator.get_state()
        rest = [jax.device_get(batch["image"]) for batch in iterator]
        iterator.set_state(state)
        np.testing.assert_array_equal(jax.device_get(next(iterator)["image"]), rest[0])
        return loader.counts()


def spread(augment):
    mesh = jax.make_mesh((8,), ("data",))
    batch = jax.device_put(seeded_batch(8), NamedSharding(mesh, PartitionSpec("data")))
    return augment.map(batch), augment.counts()


def beside(sharding):
    batch = seeded_batch(8)
    augment = gdx.AugmentBatch(CHAIN)
    result = augment.map({**batch, "image": jax.device_put(batch["image"], sharding)})["image"]
    assert result.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_array_equal(jax.device_get(result), jax.device_get(augment.map(batch)["image"]))


def on_device():
    return jax.device_put(seeded_batch(8))


def counted(augment, batch):
    for _ in range(3):
        jax.block_until_ready(augment.map(batch)["image"])
    return augment.counts()


PATTERN = gdx.PatchDropoutOperatorConfig(field_key="image", stochastic=False, patch_size=(3, 3))
USES = {
    "AugmentBatch": lambda: counted(gdx.AugmentBatch(CHAIN), seeded_batch(8)),
    "keep_seed": lambda: gdx.AugmentBatch(CHAIN, keep_seed=True).map(on_device()),
    "AugmentRecord": lambda: [
        gdx.AugmentRecord(CHAIN).random_map({"image": image}, np.random.default_rng(0))
        for image in (seeded_batch(1)["image"][0], seeded_batch(1)["image"][0, :9])
    ],
    "DeviceLoader": read,
    "DeviceLoader, seeds kept": lambda: read(keep_seed=True),
    "DeviceLoader, padded": lambda: read(pad_last_batch=True),
    "DeviceLoader, no thread": lambda: read(buffer_size=0),
    "draws": lambda: gdx.draws(CHAIN, seeds(3), (16, 12, 3)),
    "replay": lambda: gdx.replay({"image": seeded_batch(1)["image"][0]}, seeds(1)[0], CHAIN),
    "augment": lambda: gdx.augment(CHAIN, seeded_batch(8), counts=True),
    "augment in jit": lambda: jax.jit(lambda batch: gdx.augment(CHAIN, batch))(on_device()),
    "a mesh": lambda: spread(gdx.AugmentBatch(CHAIN)),
    "another device": lambda: beside(SingleDeviceSharding(jax.devices()[3])),
    "copies on all devices": lambda: beside(NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec())),
    "rows on all devices": lambda: beside(NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))),
    "images in parts": lambda: beside(NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec(None, "data"))),
    "sizes": lambda: gdx.AugmentBatch(SIZED).map({**seeded_batch(8), "size": np.full((8, 2), 9)}),
    "partners": lambda: gdx.AugmentBatch(MIXED).map({**seeded_batch(8), "partner": seeded_batch(8)}),
}
OF_PAGES = {
    "noise": lambda rngs: gdx.NoiseOperator(gdx.NoiseOperatorConfig(field_key="image", stochastic=True), rngs=rngs),
    "patches": lambda rngs: gdx.PatchDropoutOperator(
        gdx.PatchDropoutOperatorConfig(field_key="image", stochastic=True, patch_size=(3, 3)), rngs=rngs
    ),
    "one pattern": lambda rngs: gdx.PatchDropoutOperator(PATTERN, rngs=rngs),
}


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_nothing_is_transferred_implicitly(use):
    use()


@pytest.mark.parametrize("make", OF_PAGES.values(), ids=OF_PAGES)
def test_operators_of_the_pages_transfer_nothing_implicitly(make):
    operator = make(nnx.Rngs(0))
    jax.config.update(SETTING, "disallow")
    try:
        counted(gdx.AugmentBatch(operator), seeded_batch(8))
        operator.apply_batch(gdx.Batch({"image": seeded_batch(8)["image"]}))
        operator.get_operation_stats()
    finally:
        jax.config.update(SETTING, "allow")  # None would leave it as it is


@pytest.mark.usefixtures("guarded")
def test_the_guard_is_on():
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        jax.jit(lambda image: image + 1)(np.zeros(3))
