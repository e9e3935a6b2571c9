"""Every option changes what it says, in the direction it says; each test fails if the option is ignored."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import OPERATORS, every_operator, images, noise, patch_dropout, seeded_batch, seeds

import grain_datarax as gdx
from grain_datarax.launch import compiled_count

pytestmark = pytest.mark.once


def run(operator, batch):
    return np.asarray(gdx.AugmentBatch(operator).map(batch)["image"])


@every_operator
def test_a_deterministic_operator_gives_every_record_one_pattern_whatever_params_are_passed(operator):
    op = operator(stochastic=False)
    batch = {"image": np.full((3, 16, 12, 3), 0.5, np.float32)}
    result = run(op, batch)  # needs no seeds
    assert (result == result[0]).all()
    assert (result != 0.5).any()
    np.testing.assert_array_equal(result, run(op.copy(rngs=nnx.Rngs(9)), {**batch, "record_seed": seeds(3)}))
    params = operator().generate_random_params(jax.random.key(1), {"image": (1, 16, 12, 3)})
    params = jax.tree.map(lambda row: row[0], params)
    apply = jax.jit(lambda params: op.apply({"image": batch["image"][0]}, {}, {}, params)[0]["image"])
    np.testing.assert_array_equal(np.asarray(apply(params)), np.asarray(apply(None)))
    np.testing.assert_array_equal(np.asarray(apply(None)), result[0])


@every_operator
def test_a_stochastic_operator_uses_the_params_passed_in(operator):
    op, image = operator(), images(1)[0]
    params = op.generate_random_params(jax.random.key(1), {"image": (2, 16, 12, 3)})
    first, second = (
        op.apply({"image": image}, {}, {}, jax.tree.map(lambda row, i=i: row[i], params))[0]["image"] for i in (0, 1)
    )
    assert (first != second).any()


@pytest.mark.parametrize(
    ("operator", "name", "shape", "dtype"),
    [
        (patch_dropout(), "patch_positions", (5, 2, 2), "int32"),
        (noise(), "noise", (5, 16, 12, 3), "float32"),
        (noise("salt_pepper"), "noise_mask", (5, 16, 12, 3), "int8"),
        (noise("poisson"), "poisson_samples", (5, 16, 12, 3), "float32"),
    ],
    ids=OPERATORS,
)
def test_params_have_the_documented_names_and_shapes(operator, name, shape, dtype):
    shapes = {"image": (5, 16, 12, 3), "label": (5,)}
    one_key = operator.generate_random_params(jax.random.key(1), shapes)
    assert {key: (value.shape, value.dtype) for key, value in one_key.items()} == {name: (shape, dtype)}
    keys = jax.random.split(jax.random.key(1), 5)
    per_record = operator.generate_random_params(keys, shapes)[name]
    alone = operator.generate_random_params(keys[2:3], {"image": (1, 16, 12, 3)})[name]
    np.testing.assert_array_equal(np.asarray(per_record[2:3]), np.asarray(alone))


def test_batch_strategy_scan_treats_one_record_at_a_time():
    def scratch(strategy):
        op = noise("poisson", batch_strategy=strategy)
        batch = {"image": jnp.zeros((64, 64, 64, 3)), "record_seed": jnp.asarray(seeds(64))}
        compiled = jax.jit(lambda data: op.apply_batch(gdx.Batch(data)).data).lower(batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert scratch("scan") < scratch("vmap") / 16


@every_operator
def test_cacheable_keeps_the_pattern_until_reset(operator):
    class Counting(type(operator())):
        draws = 0

        def draw(self, key, shape):
            type(self).draws += 1
            return super().draw(key, shape)

    def run_twice(cacheable):
        op = Counting(dataclasses.replace(operator().config, stochastic=False, cacheable=cacheable), rngs=nnx.Rngs(0))
        Counting.draws = 0
        first = run(op, seeded_batch(3))
        draws = Counting.draws
        # A batch of another size is traced anew: the pattern is drawn again unless it is kept.
        np.testing.assert_array_equal(run(op, seeded_batch(4))[:3], first)
        return op, first, draws, Counting.draws

    op, kept, first, second = run_twice(cacheable=True)
    assert first == second > 0
    run(op, seeded_batch(3, shape=(8, 8, 3)))
    assert Counting.draws > second  # another shape has another pattern
    op.reset_cache()
    before = Counting.draws
    np.testing.assert_array_equal(run(op, seeded_batch(5))[:3], kept)
    assert Counting.draws > before
    _, fresh, first, second = run_twice(cacheable=False)
    assert second > first
    np.testing.assert_array_equal(fresh, kept)


@every_operator
def test_a_kept_pattern_has_the_bits_of_a_fresh_one_wherever_it_is_drawn(operator):
    batch = seeded_batch(3, shape=(33, 17, 3))
    settings = {"stochastic": False, "clip_range": (0.0, 1.0)}
    expected = run(operator(**settings), batch)
    for op in (operator(cacheable=True, **settings), operator(**settings)):
        for _ in range(2):
            np.testing.assert_array_equal(run(op, batch), expected)
            inside = jax.jit(lambda data, op=op: op.apply_batch(gdx.Batch(data)).data["image"])
            np.testing.assert_array_equal(np.asarray(inside(batch)), expected)
            np.testing.assert_array_equal(
                np.asarray(jax.jit(lambda data, op=op: gdx.augment(op, data))(batch)["image"]), expected
            )


@every_operator
def test_a_cacheable_operator_compiles_once_for_each_shape(operator):
    op = operator(stochastic=False, cacheable=True, name=f"compiled {operator}")  # of no other test
    before = compiled_count()
    for _ in range(2):
        for height in range(8, 14):
            run(op, seeded_batch(2, shape=(height, 12, 3)))
    assert compiled_count() == before + 6


class Shift(gdx.ModalityOperator):
    """Subtracts the mean that its statistics hold."""

    def effect(self, image, params):
        return image

    def apply(self, data, state, metadata, random_params=None, stats=None):
        shifted = data["image"] - (0.0 if stats is None else stats["mean"])
        return {**data, "image": shifted}, state, metadata


def shift(**settings):
    return Shift(gdx.ModalityOperatorConfig(field_key="image", **settings))


def test_batch_stats_fn_is_called_on_each_batch_unless_stats_are_given():
    op = shift(batch_stats_fn=lambda data: {"mean": data["image"].mean()})
    image = np.full((2, 4, 4), 0.75, np.float32)
    assert op.get_statistics() is None
    assert not np.asarray(op.apply_batch(gdx.Batch({"image": image})).data["image"]).any()
    assert op.get_statistics()["mean"] == 0.75
    given = op.apply_batch(gdx.Batch({"image": image}), {"mean": np.float32(0.5)})
    assert (np.asarray(given.data["image"]) == 0.25).all()
    assert op.get_statistics()["mean"] == 0.75
    assert not run(op, {"image": image / 3}).any()  # in a chain too
    assert float(op.get_statistics()["mean"]) == 0.25


def test_batch_stats_fn_sees_the_whole_batch_that_reaches_its_operator():
    seen = []

    def mean(data):
        seen.append(data["label"].tolist())
        return {"mean": data["image"].mean()}

    chain = [noise(noise_std=0.0, noise_mean=0.25), shift(batch_stats_fn=mean)]
    batch = {"image": np.full((2, 16, 12, 3), 0.5, np.float32), "label": np.arange(2), "record_seed": seeds(2)}
    assert not run(chain, batch).any()
    assert float(chain[1].get_statistics()["mean"]) == 0.75
    assert seen == [[0, 1]]
    jitted = jax.jit(lambda data: chain[1].apply_batch(gdx.Batch(data)).data["image"])
    chain[1] = shift(batch_stats_fn=lambda data: {"mean": data["image"].mean()})
    assert not np.asarray(jitted({"image": batch["image"]})).any()


def test_a_module_can_compute_the_statistics():
    class Mean(nnx.Module):
        def __init__(self):
            self.factor = nnx.Param(jnp.float32(2.0))

        def __call__(self, data):
            return {"mean": data["image"].mean() * self.factor[...]}

    op = shift(batch_stats_fn=Mean())
    assert (run(op, {"image": np.ones((2, 4, 4), np.float32)}) == -1).all()
    op.batch_stats_fn.factor.set_value(jnp.float32(3.0))
    assert (run(op, {"image": np.ones((2, 4, 4), np.float32)}) == -2).all()


def test_precomputed_stats_are_the_statistics_until_reset():
    op = shift(precomputed_stats={"mean": np.float32(0.5)})
    batch = {"image": np.ones((2, 4, 4), np.float32)}
    assert op.get_statistics() == {"mean": 0.5}
    assert op.compute_statistics(batch) is None
    assert (run(op, batch) == 0.5).all()
    op.reset_statistics()
    assert op.get_statistics() is None
    assert (run(op, batch) == 1).all()
    op.set_statistics({"mean": np.float32(0.25)})
    assert (run(op, batch) == 0.75).all()


@every_operator
def test_dotted_paths_reach_into_nested_mappings(operator):
    batch = seeded_batch(3)
    expected = run(operator(), batch)
    nested = {"inputs": {"view": {"image": batch["image"]}, "other": 1}, "record_seed": batch["record_seed"]}
    settings = {"field_key": "inputs.view.image", "target_key": "outputs.image"}
    result = gdx.AugmentBatch(operator(**settings)).map(nested)
    np.testing.assert_array_equal(np.asarray(result["outputs"]["image"]), expected)
    assert result["inputs"]["view"]["image"] is batch["image"]
    in_place = gdx.AugmentBatch(operator(field_key="inputs.view.image")).map(nested)
    np.testing.assert_array_equal(np.asarray(in_place["inputs"]["view"]["image"]), expected)
    assert in_place["inputs"]["other"] == 1
    assert nested["inputs"]["view"]["image"] is batch["image"]


@every_operator
def test_with_a_target_key_the_source_stays(operator):
    batch = seeded_batch(3)
    result = gdx.AugmentBatch(operator(target_key="augmented")).map(batch)
    assert result["image"] is batch["image"]
    np.testing.assert_array_equal(np.asarray(result["augmented"]), run(operator(), batch))


def test_a_later_operator_reads_what_an_earlier_one_put_into_its_target():
    batch = seeded_batch(3)
    chain = [noise(target_key="noisy"), patch_dropout(field_key="noisy", target_key="both")]
    result = gdx.AugmentBatch(chain).map(batch)
    expected = run([noise(), patch_dropout()], batch)
    np.testing.assert_array_equal(np.asarray(result["both"]), expected)


@every_operator
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_clip_range_bounds_the_result(operator, dtype):
    settings = {"drop_value": 1.0} if operator is patch_dropout else {}
    batch = seeded_batch(3, dtype=dtype)
    full_scale = 255 if dtype == "uint8" else 1
    bounded = run(
        operator(clip_range=(0.3, 0.6), validate_domain_constraints=True, **settings),
        {**batch, "image": np.full_like(batch["image"], full_scale // 2 if dtype == "uint8" else 0.5)},
    )
    free = run(
        operator(clip_range=None, **settings),
        {**batch, "image": np.full_like(batch["image"], full_scale // 2 if dtype == "uint8" else 0.5)},
    )
    assert 0.3 * full_scale <= bounded.min()
    assert bounded.max() <= 0.6 * full_scale
    assert free.max() > 0.6 * full_scale


@every_operator
def test_auxiliary_fields_stay_untouched_or_get_the_same_draw(operator):
    batch = seeded_batch(3)
    batch |= {"image": np.full_like(batch["image"], 0.5), "depth": np.full((3, 16, 12), 0.5, np.float32)}
    kept = gdx.AugmentBatch(operator(auxiliary_fields=["depth"])).map(batch)
    assert kept["depth"] is batch["depth"]
    shared = gdx.AugmentBatch(operator(auxiliary_fields=["depth"], preserve_auxiliary=False)).map(batch)
    image, depth = np.asarray(shared["image"]), np.asarray(shared["depth"])
    np.testing.assert_array_equal(depth, image[..., 0])
    assert (depth != 0.5).any()
    np.testing.assert_array_equal(image, np.asarray(kept["image"]))


def test_auxiliary_fields_have_units_of_their_own():
    batch = seeded_batch(3)
    batch["depth"] = np.full((3, 16, 12), 9, np.uint32)
    settings = {"auxiliary_fields": ["depth"], "preserve_auxiliary": False, "drop_value": 1.0}
    result = gdx.AugmentBatch(patch_dropout(**settings)).map(batch)
    image, depth = np.asarray(result["image"]), np.asarray(result["depth"])
    np.testing.assert_array_equal((image == 1).all(axis=-1), depth == np.iinfo(np.uint32).max)
    assert set(np.unique(depth)) == {9, np.iinfo(np.uint32).max}
    with pytest.raises(ValueError, match="`clip_range` must say what the values of signed integers mean"):
        gdx.AugmentBatch(patch_dropout(**settings)).map({**batch, "depth": batch["depth"].astype(np.int32)})
    zero = patch_dropout(**{**settings, "drop_value": 0.0})  # which is 0 on any scale
    depth = gdx.AugmentBatch(zero).map({**batch, "depth": batch["depth"].astype(np.int32)})["depth"]
    assert set(np.unique(depth)) == {0, 9}


@pytest.mark.parametrize("validate", [True, False])
def test_an_oversized_patch_is_an_error_or_passes_the_record_through(validate):
    op = patch_dropout(patch_size=(64, 64), validate_domain_constraints=validate)
    batch = seeded_batch(3)
    if validate:
        message = (
            r"`patch_size` must fit inside the image: got \(64, 64\) for field \"image\" of shape \(16, 12, 3\)\. Use a"
        )
        with pytest.raises(ValueError, match=message):
            run(op, batch)
        assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 0}
    else:
        np.testing.assert_array_equal(run(op, batch), batch["image"])
        assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 3}


@every_operator
@pytest.mark.parametrize("validate", [True, False])
def test_a_wrong_rank_is_an_error_or_passes_the_record_through(operator, validate):
    op = operator(validate_domain_constraints=validate, target_key="out")
    batch = {"image": np.zeros((3, 2, 16, 12, 3), np.float32), "record_seed": seeds(3)}
    if validate:
        with pytest.raises(ValueError, match=r"must be an image \(H, W\) or \(H, W, C\): got shape \(2, 16, 12, 3\)"):
            run(op, batch)
    else:
        assert (np.asarray(gdx.AugmentBatch(op).map(batch)["out"]) == 0).all()
        assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 3}


@every_operator
@pytest.mark.parametrize("validate", [True, False])
def test_values_outside_clip_range_are_an_error_or_pass_their_record_through(operator, validate):
    op = operator(validate_domain_constraints=validate, clip_range=(0.0, 1.0))
    batch = seeded_batch(8)
    batch["image"][1, 0, 0, 0] = 1.5
    batch["image"][3, 0, 0, 0] = np.nan
    if validate:
        with pytest.raises(
            ValueError, match=r"`clip_range` must hold the values .* got \(0.0, 1.0\) for field \"image\""
        ):
            run(op, batch)
    else:
        result = run(op, batch)
        np.testing.assert_array_equal(result[[1, 3]], batch["image"][[1, 3]])
        others = [0, 2, 4, 5, 6, 7]
        assert (result[others] != batch["image"][others]).reshape(-1, 16 * 12 * 3).any(axis=1).all()
        assert op.get_operation_stats() == {"applied_count": 6, "skipped_count": 2}


@pytest.mark.parametrize(
    ("changed", "statistic"),
    [
        ({"noise_std": 0.2}, lambda values: values.std()),
        ({"noise_mean": 0.2}, lambda values: values.mean()),
        ({"mode": "salt_pepper", "salt_prob": 0.5}, lambda values: (values == 1).mean()),
        ({"mode": "salt_pepper", "pepper_prob": 0.5}, lambda values: (values == 0).mean()),
        ({"mode": "salt_pepper", "salt_value": 0.75}, lambda values: (values == 0.75).mean()),
        ({"mode": "salt_pepper", "pepper_value": 0.25}, lambda values: (values == 0.25).mean()),
        ({"mode": "poisson", "lam_scale": 3.0}, lambda values: values.std()),
    ],
)
def test_each_noise_setting_raises_its_statistic(changed, statistic):
    batch = {"image": np.full((4, 32, 32, 3), 0.5, np.float32), "record_seed": seeds(4)}
    before, after = (run(noise(**settings), batch) for settings in ({"mode": changed.get("mode", "gaussian")}, changed))
    assert statistic(after) > statistic(before) + 0.04


@pytest.mark.parametrize(
    ("setting", "more", "less"), [("num_patches", 6, 1), ("patch_size", (6, 4), (2, 4)), ("patch_size", (3, 8), (3, 2))]
)
def test_more_and_larger_patches_drop_more(setting, more, less):
    batch = {"image": np.ones((32, 16, 12, 3), np.float32), "record_seed": seeds(32)}
    dropped = [(run(patch_dropout(**{setting: value}), batch) == 0).sum() for value in (more, less)]
    assert dropped[0] > dropped[1] > 0


def test_zero_patches_and_zero_strength_change_nothing():
    batch = seeded_batch(3)
    for op in (
        patch_dropout(num_patches=0),
        noise(noise_std=0.0),
        noise("salt_pepper", salt_prob=0.0, pepper_prob=0.0),
    ):
        np.testing.assert_array_equal(run(op, batch), batch["image"])


def test_a_mean_without_a_deviation_still_shifts():
    batch = {"image": np.full((2, 4, 4), 0.25, np.float32), "record_seed": seeds(2)}
    assert (run(noise(noise_std=0.0, noise_mean=0.5), batch) == 0.75).all()
    batch["image"] = np.full((2, 4, 4), 100, np.uint8)
    assert (run(noise(noise_std=0.0, noise_mean=0.2), batch) == 151).all()
    assert (run(noise(noise_std=0.0, noise_mean=-0.2), batch) == 49).all()
    assert (run(noise(noise_std=0.0, noise_mean=-1.0), batch) == 0).all()  # saturates


@pytest.mark.parametrize(
    ("drop_value", "dtype", "filled"),
    [(1.0, "uint8", 255), (0.5, "uint8", 128), (1.0, "uint16", 65535), (0.5, "float32", 0.5), (-3.0, "bfloat16", -3.0)],
)
def test_drop_value_is_in_the_units_of_the_image(drop_value, dtype, filled):
    batch = {"image": np.zeros((2, 16, 12), jnp.dtype(dtype)), "record_seed": seeds(2)}
    result = run(patch_dropout(drop_value=drop_value), batch)
    assert set(np.unique(result.astype(np.float64))) == {0.0, float(filled)}


@pytest.mark.parametrize(
    ("settings", "image", "salt", "pepper"),
    [
        ({"clip_range": (-1.0, 2.0)}, np.full((4, 16, 12), 0.5, np.float32), 2.0, -1.0),
        ({"clip_range": None}, np.full((4, 16, 12), 0.5, np.float32), 1.0, 0.0),
        ({"clip_range": None}, np.full((4, 16, 12), 100.0, np.float32), 255.0, 0.0),
        ({"clip_range": None}, np.full((4, 16, 12), 100, np.uint8), 255, 0),
        ({"clip_range": (0.0, 1.0)}, np.full((4, 16, 12), 100, np.uint16), 65535, 0),
        ({"salt_value": 0.75, "pepper_value": 0.25}, np.full((4, 16, 12), 100, np.uint8), 191, 64),
    ],
)
def test_salt_and_pepper_find_full_scale(settings, image, salt, pepper):
    result = run(noise("salt_pepper", **settings), {"image": image, "record_seed": seeds(4)})
    assert set(np.unique(result)) == {salt, pepper, image[0, 0, 0]}


def test_poisson_finds_full_scale_for_each_record():
    image = np.stack([np.full((64, 64, 3), value, np.float32) for value in (0.5, 127.5)])
    result = run(noise("poisson", lam_scale=100, clip_range=None), {"image": image, "record_seed": seeds(2)})
    for record, full_scale in zip(result, (1.0, 255.0), strict=True):
        expected = full_scale * np.sqrt(0.5 / 100)
        assert record.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * record.size) * 1.1)


def test_clones_and_copies():
    op = noise(noise_std=0.2, name="a")
    op.apply_batch(gdx.Batch({"image": images(2)}))
    clone, renamed, rebuilt = (
        op.clone(),
        op.copy(name="b"),
        op.copy(config=dataclasses.replace(op.config, noise_std=0.3)),
    )
    assert clone.get_operation_stats() == op.get_operation_stats() == {"applied_count": 2, "skipped_count": 0}
    assert clone.rngs is not op.rngs
    assert (renamed.name, renamed.config) == ("b", op.config)
    assert (rebuilt.name, rebuilt.config.noise_std) == ("a", 0.3)
    batch = seeded_batch(3)
    assert run(clone, batch).tobytes() == run(op, batch).tobytes() != run(renamed, batch).tobytes()
    clone.reset_operation_stats()
    assert op.get_operation_stats()["applied_count"] == 5


def test_configs_are_equal_hashable_values():
    first, second = (noise(auxiliary_fields=["depth"], clip_range=[0, 1]).config for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != dataclasses.replace(first, auxiliary_fields=None)


def test_operators_with_other_precomputed_stats_are_compiled_apart():
    class FromConfig(gdx.ModalityOperator):
        def effect(self, image, params):
            return image + self.config.precomputed_stats["mean"]

    configs = [
        gdx.ModalityOperatorConfig(field_key="image", precomputed_stats={"mean": np.float32(mean)}) for mean in (1, 2)
    ]
    assert configs[0] != configs[1]
    for mean, config in enumerate(configs, 1):
        assert (run(FromConfig(config), {"image": np.zeros((2, 4, 4), np.float32)}) == mean).all()


@every_operator
def test_deterministic_operators_of_one_chain_have_patterns_of_their_own(operator):
    batch = {"image": np.full((1, 16, 12, 3), 0.5, np.float32)}
    for cacheable in (False, True):
        settings = {"stochastic": False, "cacheable": cacheable}
        chain = [operator(target_key=f"out{index}", **settings) for index in (0, 1)]
        result = gdx.AugmentBatch(chain).map(batch)
        assert (np.asarray(result["out0"]) != np.asarray(result["out1"])).any()
        np.testing.assert_array_equal(np.asarray(result["out0"]), run(operator(**settings), batch))


@every_operator
def test_untreatable_records_pass_through_whatever_their_rank(operator):
    for settings in ({}, {"stochastic": False, "cacheable": True}):
        op = operator(validate_domain_constraints=False, **settings)
        batch = {"image": np.arange(3, dtype=np.float32), "record_seed": seeds(3)}
        np.testing.assert_array_equal(run(op, batch), batch["image"])


def test_records_come_out_writable():
    record = gdx.AugmentRecord(noise()).random_map({"image": images(1)[0]}, np.random.default_rng(0))
    record["image"][0] = 0


@every_operator
def test_a_deterministic_operator_needs_no_generator(operator):
    record = gdx.AugmentRecord(operator(stochastic=False)).random_map({"image": images(1)[0]}, None)
    assert (record["image"] != images(1)[0]).any()


@pytest.mark.parametrize(
    ("make", "plain", "other"),
    [
        (noise, {"noise_std": 0.05, "noise_mean": 0.1}, {"noise_std": np.float64(0.05), "noise_mean": np.float64(0.1)}),
        (OPERATORS["poisson"], {"lam_scale": 7.5}, {"lam_scale": np.float32(7.5)}),
        (patch_dropout, {"drop_value": 0.0, "num_patches": 3}, {"drop_value": -0.0, "num_patches": np.int64(3)}),
    ],
)
def test_equal_settings_give_equal_bits_whatever_number_they_are(make, plain, other):
    assert make(**plain).config == make(**other).config
    with jax.enable_x64(True):
        result = run(make(**other), seeded_batch(3))
    # A batch of another size, since for the compiler equal settings are the same ones.
    assert run(make(**plain), seeded_batch(4))[:3].tobytes() == result.tobytes()


def test_bounds_are_compared_in_the_type_of_the_image():
    image = np.full((2, 4, 4), 0.3, jnp.bfloat16)  # 0.30078 there
    run(noise(clip_range=(0.0, 0.3)), {"image": image, "record_seed": seeds(2)})


def test_one_array_in_two_fields_is_not_donated():
    image = jnp.asarray(images(2, shape=(16, 12)))
    batch = {"image": image, "depth": image, "record_seed": jnp.asarray(seeds(2))}
    settings = {"auxiliary_fields": ["depth"], "preserve_auxiliary": False}
    result = gdx.AugmentBatch(patch_dropout(**settings), donate=True).map(batch)
    assert not image.is_deleted()
    np.testing.assert_array_equal(np.asarray(result["image"]), np.asarray(result["depth"]))
