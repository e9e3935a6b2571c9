"""augment: the pixels of AugmentBatch inside functions of one's own, and nothing beside them."""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import OPERATORS, every_operator, noise, patch_dropout, seeded_batch
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sources import Records

import grain_datarax as gdx


def chain():
    return [OPERATORS[mode](name=mode) for mode in OPERATORS]


@pytest.fixture(scope="module")
def expected():
    return np.asarray(gdx.AugmentBatch(chain()).map(seeded_batch(16))["image"])


def on_device():
    return jax.tree.map(jnp.asarray, seeded_batch(16))


def test_under_jit_and_without_it(expected):
    operators, batch = chain(), on_device()
    for run in (lambda batch: gdx.augment(operators, batch), jax.jit(lambda batch: gdx.augment(operators, batch))):
        result = run(batch)
        np.testing.assert_array_equal(np.asarray(result["image"]), expected)
        assert "record_seed" not in result


def test_under_nnx_jit_with_the_operators_as_an_argument(expected):
    class Model(nnx.Module):
        def __init__(self):
            self.operators = nnx.List(chain())

        def __call__(self, batch):
            return gdx.augment(list(self.operators), batch)["image"]

    model = Model()
    np.testing.assert_array_equal(np.asarray(nnx.jit(lambda model, batch: model(batch))(model, on_device())), expected)
    stats = [operator.get_operation_stats() for operator in model.operators]
    assert stats == [{"applied_count": 0, "skipped_count": 0}] * 4


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_over_a_mesh_under_jit_and_shard_map(expected, axis_type):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    rows = PartitionSpec("data")
    batch = jax.device_put(seeded_batch(16), NamedSharding(mesh, rows))
    operators = chain()

    def run(batch):
        return gdx.augment(operators, batch)["image"]

    compiled = jax.jit(run).lower(batch).compile()
    assert "all-" not in compiled.as_text()
    np.testing.assert_array_equal(np.asarray(compiled(batch)), expected)
    by_device = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=rows, out_specs=rows))
    np.testing.assert_array_equal(np.asarray(by_device(batch)), expected)


def test_in_the_steps_of_a_scan_that_accumulates_gradients(expected):
    operators = chain()

    @jax.jit
    def gradients(scale, batch):
        steps = jax.tree.map(lambda field: field.reshape(4, 4, *field.shape[1:]), batch)

        def step(total, part):
            loss = lambda scale: (scale * gdx.augment(operators, part)["image"]).sum()  # noqa: E731
            return total + jax.grad(loss)(scale), gdx.augment(operators, part)["image"]

        return jax.lax.scan(step, 0.0, steps)

    total, images = gradients(2.0, on_device())
    np.testing.assert_array_equal(np.asarray(images).reshape(expected.shape), expected)
    np.testing.assert_allclose(float(total), expected.sum(), rtol=1e-5)


@every_operator
def test_gradients_reach_the_image(operator):
    batch = on_device()

    def loss(image):
        return gdx.augment(operator(clip_range=None), {**batch, "image": image})["image"].sum()

    assert jax.jit(jax.grad(loss))(batch["image"]).shape == batch["image"].shape


@every_operator
def test_the_operators_stay_as_they_are(operator):
    op = operator(validate_domain_constraints=False, stochastic=True)
    before = jax.tree.map(np.asarray, op.get_state())
    gdx.augment(op, on_device())
    jax.jit(lambda batch: gdx.augment(op, batch))(on_device())
    jax.tree.map(np.testing.assert_array_equal, op.get_state(), before)


def test_statistics_of_the_batch_are_taken_from_it_and_not_kept():
    seen = []

    def stats(data):
        seen.append(data["image"].shape)
        return {"mean": data["image"].mean()}

    op = noise(batch_stats_fn=stats)
    jax.jit(lambda batch: gdx.augment([patch_dropout(), op], batch))(on_device())
    assert seen == [(16, 16, 12, 3)]
    assert op.get_statistics() is None


def test_the_seeds_can_be_kept_and_must_be_there():
    batch = on_device()
    kept = gdx.augment(noise(), batch, keep_seed=True)
    np.testing.assert_array_equal(np.asarray(kept["record_seed"]), np.asarray(batch["record_seed"]))
    del batch["record_seed"]
    with pytest.raises(KeyError, match="`record_seed` must be in the batch"):
        jax.jit(lambda batch: gdx.augment(noise(), batch))(batch)
    with pytest.raises(ValueError, match="`operators` must hold at least one operator"):
        gdx.augment([], batch)


def test_a_device_loader_feeds_it():
    dataset = grain.MapDataset.source(Records(32)).random_map(gdx.SeedRecords(), seed=7).batch(16)
    step = jax.jit(lambda batch: gdx.augment(chain(), batch)["image"])
    augmented = gdx.DeviceLoader(dataset, chain())
    for batch, result in zip(gdx.DeviceLoader(dataset, keep_seed=True), augmented, strict=True):
        np.testing.assert_array_equal(np.asarray(step(batch)), np.asarray(result["image"]))
