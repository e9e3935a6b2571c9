"""Operators' state: counters, statistics, rng streams, checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from helpers import every_operator, images, noise, seeded_batch, seeds

import grain_datarax as gdx


def advanced(operator):
    op = operator().copy(rngs=nnx.Rngs(3, other=4))
    op.apply_batch(gdx.Batch({"image": images(5)}))  # draws a fresh key and counts
    op.set_statistics({"mean": np.float32(0.25)})
    return op


@every_operator
def test_state_round_trips(operator):
    op, fresh = advanced(operator), operator().copy(rngs=nnx.Rngs(0, other=0))
    fresh.set_state(op.get_state())
    assert fresh.get_operation_stats() == {"applied_count": 5, "skipped_count": 0}
    assert fresh.get_statistics() == {"mean": 0.25}
    assert jax.tree.map(np.array_equal, fresh.get_state(), op.get_state()) == jax.tree.map(
        lambda _: True, op.get_state()
    )
    for batch in (gdx.Batch(seeded_batch(3)), gdx.Batch({"image": images(3)})):
        expected, result = (np.asarray(each.apply_batch(batch).data["image"]) for each in (op, fresh))
        np.testing.assert_array_equal(result, expected)


@every_operator
def test_state_round_trips_through_orbax(operator, tmp_path):
    op, fresh = advanced(operator), operator().copy(rngs=nnx.Rngs(0, other=0))
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.StandardSave(op.get_state()))
        manager.wait_until_finished()
        fresh.set_state(manager.restore(1, args=ocp.args.StandardRestore(op.get_state())))
    batch = gdx.Batch({"image": images(3)})
    expected, result = (np.asarray(each.apply_batch(batch).data["image"]) for each in (op, fresh))
    np.testing.assert_array_equal(result, expected)
    assert fresh.get_operation_stats() == op.get_operation_stats()


@every_operator
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [state], "`state` must be a mapping: got list"),
        (lambda state: {**state, "more": np.ones(2)}, r"got f\[2\] for nothing at more"),
        (lambda state: {"rngs": state["rngs"]}, r"got nothing for i\[\] at applied_count"),
        (
            lambda state: {**state, "rngs": {"default": {"count": np.uint32(0)}}},
            r"got nothing for u\[2\] at rngs.default.key",
        ),
        (lambda state: {**state, "applied_count": np.zeros(2, np.int64)}, r"got i\[2\] for i\[\] at applied_count"),
        (lambda state: {**state, "applied_count": np.float32(0)}, r"got f\[\] for i\[\] at applied_count"),
    ],
)
def test_a_state_of_another_structure_is_refused_with_its_path_and_changes_nothing(operator, change, message):
    op = operator()
    before = op.get_state()
    with pytest.raises((TypeError, ValueError), match=message):
        op.set_state(change(operator().get_state()))
    assert jax.tree.map(np.array_equal, op.get_state(), before) == jax.tree.map(lambda _: True, before)


def test_variables_of_a_subclass_are_part_of_the_state():
    class Learned(gdx.ModalityOperator):
        def __init__(self, config):
            super().__init__(config)
            self.gain = nnx.Param(jnp.float32(2.0))

        def effect(self, image, params):
            return image * self.gain[...]

    config = gdx.ModalityOperatorConfig(field_key="image")
    op, fresh = Learned(config), Learned(config)
    op.gain.set_value(jnp.float32(3.0))
    fresh.set_state(op.get_state())
    augment = gdx.AugmentBatch(fresh)
    assert (np.asarray(augment.map({"image": np.ones((2, 4, 4), np.float32)})["image"]) == 3).all()
    fresh.gain.set_value(jnp.float32(4.0))  # the compiled function sees what is learned later
    assert (np.asarray(augment.map({"image": np.ones((2, 4, 4), np.float32)})["image"]) == 4).all()


@every_operator
def test_counts_are_true_in_every_way_of_applying(operator):
    op = operator()
    gdx.AugmentBatch([op, noise(name="other")]).map(seeded_batch(3))
    op.apply_batch(gdx.Batch(seeded_batch(8)))
    gdx.AugmentRecord(op).random_map({"image": images(1)[0]}, np.random.default_rng(0))
    nnx.jit(lambda op, data: op.apply_batch(gdx.Batch(data)).data)(op, seeded_batch(8))
    assert op.get_operation_stats() == {"applied_count": 20, "skipped_count": 0}
    jax.jit(lambda data: op.apply_batch(gdx.Batch(data)).data)(seeded_batch(8))  # a constant there
    assert op.get_operation_stats() == {"applied_count": 20, "skipped_count": 0}
    op.reset_operation_stats()
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 0}


@every_operator
def test_counts_by_value_are_true_under_nnx_jit_and_over_many_batches(operator):
    op = operator(validate_domain_constraints=False, clip_range=(0.0, 1.0))
    batch = seeded_batch(8)
    batch["image"][1] = 2.0
    augment = gdx.AugmentBatch(op)
    for _ in range(10):
        augment.map(batch)
    nnx.jit(lambda op, data: op.apply_batch(gdx.Batch(data)).data)(op, batch)
    assert op.get_operation_stats() == {"applied_count": 77, "skipped_count": 11}
    augment.map(batch)
    assert op.get_state()["skipped_count"] == 12  # the state waits for counts that are under way
    augment.map(batch)
    op.reset_operation_stats()
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 0}


def test_counting_does_not_wait_for_the_device():
    class Slow(gdx.ModalityOperator):
        def effect(self, image, params):
            return jax.lax.fori_loop(0, 300, lambda _, x: x @ x * 1e-3, image)

    config = gdx.ModalityOperatorConfig(field_key="image", validate_domain_constraints=False, clip_range=(0.0, 1.0))
    op = Slow(config)
    augment = gdx.AugmentBatch(op)
    batch = {"image": np.ones((1, 512, 512), np.float32)}
    augment.map(batch)["image"].block_until_ready()
    assert not augment.map(batch)["image"].is_ready()
    assert op.get_operation_stats()["applied_count"] == 2


def test_streams_are_required_by_stochastic_operators_alone():
    assert noise().requires_rng_streams() == ["default"]
    assert noise(stream_name="noise").requires_rng_streams() == ["noise"]
    assert noise(stochastic=False).requires_rng_streams() is None
    noise(stream_name="noise").ensure_rng_streams(["noise", "params"])
    noise(stochastic=False).ensure_rng_streams([])
    with pytest.raises(ValueError, match='must have the stream "noise"'):
        noise(stream_name="noise").ensure_rng_streams(["params"])
    assert gdx.NoiseOperator(noise(stochastic=False).config, rngs=None).rngs is None


def test_output_structure_and_spec():
    op = noise(target_key="views.noisy")
    data, state = op.get_output_structure({"image": images(1)[0], "label": 3}, {"score": np.zeros(2)})
    assert data == {"image": None, "label": None, "views": {"noisy": None}}
    assert state == {"score": None}
    spec = {"image": jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8)}
    assert op.output_spec(spec) == {**spec, "views": {"noisy": spec["image"]}}
    assert noise().output_spec(spec) is spec


def test_batches_hold_elements():
    elements = [
        gdx.Element({"image": image}, {"step": np.int32(step)}, {"name": f"{step}"})
        for step, image in enumerate(images(3))
    ]
    batch = gdx.Batch.from_elements(elements)
    assert (batch.batch_size, len(batch)) == (3, 3)
    np.testing.assert_array_equal(batch[-1].data["image"], elements[2].data["image"])
    assert [element.metadata["name"] for element in batch] == ["0", "1", "2"]
    leaves = jax.tree.leaves(gdx.Batch({"image": jnp.ones((2, 4, 4))}))
    assert leaves[0].shape == (2, 4, 4)
    on_device = gdx.Batch.from_elements([gdx.Element({"image": jnp.ones((4, 4))})] * 2)
    assert isinstance(on_device.data["image"], jax.Array)


def test_an_operator_may_change_the_state_of_its_records():
    class Score(gdx.ModalityOperator):
        def effect(self, image, params):
            return image

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {**data, "score": data["image"].mean()}, {"seen": state["seen"] + 1}, metadata

    op = Score(gdx.ModalityOperatorConfig(field_key="image"))
    batch = gdx.Batch(
        {"image": np.ones((2, 4, 4), np.float32), "record_seed": seeds(2)},
        {"seen": np.zeros(2, np.int32)},
        {"split": "a"},
    )
    result = op.apply_batch(batch)
    assert np.asarray(result.state["seen"]).tolist() == [1, 1]
    assert np.asarray(result.data["score"]).tolist() == [1, 1]
    assert result.metadata == {"split": "a"}
