"""The table of operators that every property is tested on, and records to apply them to."""

import contextlib
import pathlib
import subprocess
import sys

import cloudpickle
import grain
import numpy as np
import pytest
from flax import nnx
from sources import Records, images

import grain_datarax as gdx


def patch_dropout(**settings):
    settings = {"num_patches": 2, "patch_size": (3, 4), "stochastic": True, "field_key": "image", **settings}
    name = settings.pop("name", None)
    return gdx.PatchDropoutOperator(gdx.PatchDropoutOperatorConfig(**settings), rngs=nnx.Rngs(0), name=name)


def noise(mode="gaussian", **settings):
    strength = {"salt_prob": 0.1, "pepper_prob": 0.1, "lam_scale": 30.0}
    settings = {"stochastic": True, "field_key": "image", "mode": mode, **strength, **settings}
    name = settings.pop("name", None)
    return gdx.NoiseOperator(gdx.NoiseOperatorConfig(**settings), rngs=nnx.Rngs(0), name=name)


# Each newcomer joins here, and inherits every test that is marked with `every_operator`.
OPERATORS = {
    "patch_dropout": patch_dropout,
    "gaussian": noise,
    "salt_pepper": lambda **settings: noise("salt_pepper", **settings),
    "poisson": lambda **settings: noise("poisson", **settings),
}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
every_dtype = pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
every_shape = pytest.mark.parametrize("shape", [(16, 12), (16, 12, 3)], ids=["HW", "HWC"])


def seeds(count, seed=1):
    return np.random.default_rng(seed).integers(0, 2**32, (count, 2), dtype=np.uint32)


def seeded_batch(count, **kwargs):
    return {"image": images(count, **kwargs), "record_seed": seeds(count)}


def loader(operations, *, count=32, epochs=1, workers=0, shard=0, shards=1, seed=3, shuffle=True, **kwargs):
    source = Records(count, **kwargs)
    return grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(count, shuffle=shuffle, num_epochs=epochs, seed=seed),
        operations=operations,
        worker_count=workers,
        shard_options=grain.sharding.ShardOptions(shard_index=shard, shard_count=shards, drop_remainder=True),
        read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=8),
    )


@contextlib.contextmanager
def closing(iterator):
    """Ends an iterator's workers and threads now: left to the garbage collector, they warn from wherever it runs."""
    try:
        yield iterator
    finally:
        getattr(iterator, "_iterator", iterator).close()  # a DataLoaderIterator has no close of its own


def contents(batch):
    """What a batch holds, to compare it: its labels, and the bytes of its images."""
    return np.asarray(batch["label"]).tolist(), np.asarray(batch["image"]).tobytes()


def pixels(batches):
    """The bytes of every record's image, by (label, how often it was seen before)."""
    seen, result = {}, {}
    with (
        closing(iter(batches))
        if not isinstance(batches, grain.MapDataset)
        else contextlib.nullcontext(batches) as iterator
    ):
        for batch in iterator:
            for label, image in zip(np.asarray(batch["label"]).tolist(), np.asarray(batch["image"]), strict=True):
                epoch = seen[label] = seen.get(label, -1) + 1
                result[label, epoch] = image.tobytes()
    return result


def assert_unpickling_starts_no_backend(augment, tmp_path):
    """In a process of its own: none is there before the first batch, and one behind it."""
    (tmp_path / "augment.pickle").write_bytes(cloudpickle.dumps(augment))
    code = f"""
import pathlib, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import cloudpickle
augment = cloudpickle.loads(pathlib.Path({str(tmp_path / "augment.pickle")!r}).read_bytes())
from jax._src import xla_bridge
assert not xla_bridge._backends
from helpers import seeded_batch
augment.map(seeded_batch(2))
assert xla_bridge._backends
"""
    subprocess.run([sys.executable, "-c", code], check=True)
