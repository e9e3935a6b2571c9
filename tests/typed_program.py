"""Every public entry as users write it: mypy and pyright check it beside the package, and test_types.py runs it."""

import dataclasses
from typing import Any, NamedTuple, assert_type

import grain
import jax
import numpy as np
from flax import nnx

import grain_datarax as gdx


@dataclasses.dataclass(frozen=True)
class Fade(gdx.Effect):
    most: float = 0.5

    def draw(self, key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        return self.most * jax.random.uniform(key)

    def image(self, image: jax.Array, drawn: jax.Array) -> jax.Array:
        return image * (1 - drawn)


class Pair(NamedTuple):
    image: Any
    m: Any
    record_seed: Any = None


class Source:
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": np.full((8, 8, 3), index, np.uint8), "m": np.zeros((8, 8), np.int32)}


effects = [gdx.PatchDropout(num_patches=2, patch_size=(2, 3)), gdx.SaltPepperNoise(), gdx.PoissonNoise(photons=30)]
chain = gdx.Chain([*effects, Fade(most=0.2, name="fade"), gdx.GaussianNoise(std=0.1, p=0.5)], seed=0, masks={"m": 255})


@jax.jit
def step(batch: dict[str, Any]) -> dict[str, Any]:
    assert_type(gdx.augment(chain, batch, keep_seed=True), dict[str, Any])
    augmented, counts = gdx.augment(chain, batch, counts=True)
    assert_type(augmented, dict[str, Any])
    assert_type(counts, dict[str, dict[str, jax.Array]])
    return augmented


def use_values(image: jax.Array) -> None:
    assert assert_type(gdx.Chain.from_dict(chain.to_dict(), [Fade]), gdx.Chain) == chain
    assert assert_type(Fade.from_dict({"most": 0.2}), Fade) == Fade(most=0.2)
    assert_type(gdx.gaussian_noise(jax.random.key(gdx.STREAM_VERSION), image, std=0.1), jax.Array)
    assert_type(gdx.salt_pepper_noise(jax.random.key(0), image, salt_prob=0.1, pepper_prob=0.1), jax.Array)


def use_records(data: dict[str, Any]) -> None:
    image, mask = gdx.augment(gdx.Chain(effects, seed=0, image=0), (data["image"], data["m"], data["record_seed"]))
    pair = gdx.augment(chain, Pair(data["image"], data["m"], data["record_seed"]))
    assert (pair.image.shape, pair.m.shape) == (image.shape, mask.shape)
    rng = np.random.default_rng(0)
    assert_type(gdx.SeedRecords().random_map(Source()[0], rng), dict[str, Any])
    assert_type(gdx.AugmentRecord(chain).random_map(Source()[0], rng), dict[str, Any])
    assert_type(gdx.replay(Source()[0], np.array([1, 2], np.uint32), chain), dict[str, Any])


def use_operators(data: dict[str, Any]) -> None:
    noise = gdx.NoiseOperator(gdx.NoiseOperatorConfig(field_key="image", mode="poisson"), rngs=nnx.Rngs(0))
    patches = gdx.PatchDropoutOperator(gdx.PatchDropoutOperatorConfig(field_key="image", num_patches=1), name="patches")
    assert_type(noise(gdx.Batch(data)), gdx.Batch)
    assert_type(noise(data, {}, {}), tuple[dict[str, Any], Any, Any])
    assert_type(gdx.Batch(data)[0], gdx.Element)
    assert_type(gdx.AugmentBatch([noise, patches]).map(data), dict[str, Any])
    assert_type(patches.counts(), dict[str, int])


def main() -> None:
    source = Source()
    sampler = grain.samplers.IndexSampler(len(source), num_epochs=1, seed=0)
    operations = [gdx.SeedRecords(), grain.transforms.Batch(8), gdx.AugmentBatch(chain)]
    assert len(list(grain.DataLoader(data_source=source, sampler=sampler, operations=operations))) == 2
    loader = grain.DataLoader(data_source=source, sampler=sampler, operations=operations[:2])
    with gdx.DeviceLoader(loader, chain, buffer_size=1) as batches:
        iterator = iter(batches)
        state = iterator.get_state()
        batch = assert_type(next(iterator), Any)  # in the type of the records
        iterator.set_state(state)
        assert (next(iterator)["image"] == batch["image"]).all()
        assert_type(batches.counts(), dict[str, dict[str, int]])
    dataset = grain.MapDataset.source(source).random_map(gdx.SeedRecords(), seed=0)
    assert next(iter(dataset.random_map(gdx.AugmentRecord(chain), seed=0)))["image"].shape == (8, 8, 3)
    with gdx.DeviceLoader(dataset.batch(8), keep_seed=True) as placed:
        for batch in placed:
            step(batch)
            use_operators(batch)
            use_records(batch)
            use_values(batch["image"])


if __name__ == "__main__":
    main()
