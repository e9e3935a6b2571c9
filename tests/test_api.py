"""The names, signatures and defaults that are promised to users."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest
from flax import nnx
from helpers import images, seeded_batch

import grain_datarax as gdx

REQUIRED = dataclasses.MISSING
SHARED = {
    "cacheable": False, "batch_stats_fn": None, "precomputed_stats": None, "stochastic": False, "stream_name": None,
    "batch_strategy": "vmap", "field_key": REQUIRED, "target_key": None, "auxiliary_fields": None, "clip_range": None,
    "preserve_auxiliary": True, "validate_domain_constraints": True,
}  # fmt: skip
PATCHES = {**SHARED, "num_patches": 4, "patch_size": (8, 8), "drop_value": 0.0}
NOISE = {
    **SHARED, "clip_range": (0.0, 1.0), "mode": "gaussian", "noise_std": 0.05, "noise_mean": 0.0, "salt_prob": 0.01,
    "pepper_prob": 0.01, "salt_value": None, "pepper_value": None, "lam_scale": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (gdx.ModalityOperatorConfig, SHARED),
        (gdx.PatchDropoutOperatorConfig, PATCHES),
        (gdx.NoiseOperatorConfig, NOISE),
        (gdx.DataraxModuleConfig, dict(list(SHARED.items())[:5])),
    ],
)
def test_configs_have_the_promised_fields_in_order_with_their_defaults(config, expected):
    assert {field.name: field.default for field in dataclasses.fields(config) if field.init} == expected
    positional = [
        name for name, each in inspect.signature(config).parameters.items() if each.kind is not each.KEYWORD_ONLY
    ]
    assert positional == list(SHARED)[: len(positional)]
    assert len(positional) == (5 if config is gdx.DataraxModuleConfig else 6)


def test_device_loader_has_the_promised_arguments_with_their_defaults():
    parameters = inspect.signature(gdx.DeviceLoader).parameters
    assert {name: each.default for name, each in parameters.items()} == {
        "source": inspect.Parameter.empty, "operators": (), "sharding": None, "buffer_size": 2, "keep_seed": False,
        "pad_last_batch": False, "fingerprint": True, "strict": True,
    }  # fmt: skip
    assert list(inspect.signature(gdx.augment).parameters) == ["operators", "batch", "keep_seed"]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("generate_random_params", ["rng", "data_shapes"]),
        ("apply", ["data", "state", "metadata", "random_params", "stats"]),
        ("apply_batch", ["batch", "stats"]),
        ("get_operation_stats", []),
        ("reset_operation_stats", []),
        ("compute_statistics", ["data"]),
        ("get_statistics", []),
        ("set_statistics", ["stats"]),
        ("reset_statistics", []),
        ("reset_cache", []),
        ("copy", ["config", "rngs", "name"]),
        ("get_state", []),
        ("set_state", ["state"]),
        ("clone", []),
        ("requires_rng_streams", []),
        ("ensure_rng_streams", ["stream_names"]),
        ("get_output_structure", ["sample_data", "sample_state"]),
        ("output_spec", ["input_spec"]),
    ],
)
@pytest.mark.parametrize("operator", [gdx.PatchDropoutOperator, gdx.NoiseOperator])
def test_operators_have_the_promised_methods(operator, method, parameters):
    given = list(inspect.signature(getattr(operator, method)).parameters)[1:]
    assert given[: len(parameters)] == parameters
    assert getattr(operator, method).__doc__


def test_operators_have_the_promised_attributes():
    config = gdx.NoiseOperatorConfig(field_key="image", stochastic=True, stream_name="noise")
    rngs = nnx.Rngs(noise=0)
    operator = gdx.NoiseOperator(config, rngs=rngs, name="n")
    assert (operator.config, operator.rngs, operator.name) == (config, rngs, "n")
    assert (operator.stochastic, operator.stream_name) == (True, "noise")


@pytest.mark.parametrize("function", [gdx.patch_dropout, gdx.gaussian_noise, gdx.salt_pepper_noise, gdx.poisson_noise])
def test_effects_are_pure_functions_of_key_and_image(function):
    parameters = list(inspect.signature(function).parameters.values())
    assert [each.name for each in parameters[:2]] == ["key", "image"]
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters[2:])
    given = {
        "num_patches": 2,
        "patch_size": (3, 3),
        "std": 0.1,
        "salt_prob": 0.1,
        "pepper_prob": 0.1,
        "lam_scale": 30.0,
    }
    settings = {each.name: given[each.name] for each in parameters[2:] if each.default is each.empty}
    image = jax.numpy.asarray(images(1)[0])
    run = jax.jit(lambda key, image: function(key, image, **settings))
    first, again, other = (run(jax.random.key(seed), image) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


# The examples of the operators' pages, as they stand there.


def test_the_deterministic_examples_run():
    data, state, metadata = {"image": images(1)[0]}, {"step": 1}, {"name": "a"}
    config = gdx.PatchDropoutOperatorConfig(
        field_key="image", num_patches=4, patch_size=(8, 8), drop_value=0.0, stochastic=False
    )
    operator = gdx.PatchDropoutOperator(config, rngs=nnx.Rngs(0))
    result, kept_state, kept_metadata = operator.apply(data, state, metadata)
    assert (np.asarray(result["image"]) != data["image"]).any()
    assert kept_state is state
    assert kept_metadata is metadata
    config = gdx.NoiseOperatorConfig(
        field_key="image", mode="gaussian", noise_std=0.1, noise_mean=0.0, stochastic=False
    )
    operator = gdx.NoiseOperator(config, rngs=nnx.Rngs(0))
    result, state, metadata = operator.apply(data, state, metadata)
    assert (np.asarray(result["image"]) != data["image"]).any()


def test_the_stochastic_examples_run_without_a_stream_name_and_with_three_arguments():
    batch_data, state, metadata = {"image": seeded_batch(3)["image"]}, {}, {}
    config = gdx.PatchDropoutOperatorConfig(
        field_key="image", num_patches=8, patch_size=(8, 8), drop_value=0.5, stochastic=True
    )
    operator = gdx.PatchDropoutOperator(config, rngs=nnx.Rngs(0))
    result, state, metadata = operator.apply_batch(batch_data, state, metadata)
    assert (np.asarray(result["image"]) == 0.5).any()
    config = gdx.NoiseOperatorConfig(
        field_key="image", mode="salt_pepper", salt_prob=0.02, pepper_prob=0.02, stochastic=True
    )
    operator = gdx.NoiseOperator(config, rngs=nnx.Rngs(0))
    result, state, metadata = operator.apply_batch(batch_data, state, metadata)
    assert {0.0, 1.0} <= set(np.unique(result["image"]))
    assert (state, metadata) == ({}, {})
