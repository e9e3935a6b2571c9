"""The names, signatures and defaults that are promised to users."""

import dataclasses
import inspect
import pydoc

import grain
import jax
import numpy as np
import pytest
from flax import nnx
from helpers import images, loader, seeded_batch
from sources import Records

import grain_datarax as gdx
from grain_datarax.checkpoint import CheckpointHandler, CheckpointRestore, CheckpointSave, Elastic
from grain_datarax.iterators import DeviceDatasetIterator, DeviceIterator

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


ITERATORS = [DeviceIterator, DeviceDatasetIterator, CheckpointHandler, CheckpointSave, CheckpointRestore, Elastic]
CLASSES = [each for name in gdx.__all__ if inspect.isclass(each := getattr(gdx, name))]


@pytest.mark.parametrize("cls", [*CLASSES, *ITERATORS])
def test_every_public_method_says_what_it_does(cls):
    methods = [
        (name, each)
        for base in cls.__mro__
        if base.__module__.startswith("grain_datarax")
        for name, each in vars(base).items()
        if not name.startswith("_") and (callable(each) or isinstance(each, property | classmethod))
    ]
    assert [name for name, _ in methods if not inspect.getdoc(getattr(cls, name))] == []


def test_device_loader_has_the_promised_arguments_with_their_defaults():
    parameters = inspect.signature(gdx.DeviceLoader).parameters
    assert {name: each.default for name, each in parameters.items()} == {
        "source": inspect.Parameter.empty, "operators": (), "sharding": None, "buffer_size": 2, "keep_seed": False,
        "pad_last_batch": False, "fingerprint": True, "strict": True, "equalize": None,
    }  # fmt: skip
    assert list(inspect.signature(gdx.augment).parameters) == ["operators", "batch", "keep_seed", "counts"]


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


class Gamma(gdx.ModalityOperator):
    """A user's own, with the arguments of every operator."""

    def effect(self, image, params):
        return image**2


class Blur(gdx.ModalityOperator):
    """Another one, with an argument of its own."""

    def __init__(self, config: gdx.ModalityOperatorConfig, *, width: int, rngs: nnx.Rngs):
        self.width = width
        super().__init__(config, rngs=rngs)

    def effect(self, image, params):
        return image


@pytest.mark.parametrize(
    ("operator", "config"),
    [
        (gdx.NoiseOperator, gdx.NoiseOperatorConfig),
        (gdx.PatchDropoutOperator, gdx.PatchDropoutOperatorConfig),
        (gdx.ModalityOperator, gdx.ModalityOperatorConfig),
        (gdx.DataraxModule, gdx.DataraxModuleConfig),
        (Gamma, gdx.ModalityOperatorConfig),
    ],
)
def test_operators_show_their_arguments(operator, config):
    parameters = inspect.signature(operator).parameters
    assert list(parameters) == ["config", "rngs", "name"]
    assert parameters["config"].annotation is config
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("rngs", "name"))
    assert f"{operator.__name__}(" in pydoc.render_doc(operator)
    assert "*args: 'Any'" not in pydoc.render_doc(operator).partition("Methods defined here")[0]


def test_an_operator_shows_arguments_of_its_own_and_called_those_of_its_call():
    assert list(inspect.signature(Blur).parameters) == ["config", "width", "rngs"]
    operator = Blur(gdx.ModalityOperatorConfig(field_key="image"), width=3, rngs=nnx.Rngs(0))
    assert next(iter(inspect.signature(operator).parameters)) == "batch"


def test_effects_and_chains_show_their_arguments():
    parameters = inspect.signature(gdx.GaussianNoise).parameters
    assert {name: each.default for name, each in parameters.items()} == {
        "name": None, "p": 1.0, "same_on_frame": False, "same_on_channel": False, "truncate": False, "std": 0.05,
        "mean": 0.0,
    }  # fmt: skip
    assert (
        inspect.formatannotation(parameters["std"].annotation)
        .removeprefix("typing.")
        .startswith("Annotated[float | tuple[float, float]")
    )
    assert list(inspect.signature(gdx.Chain).parameters) == [
        "effects", "seed", "image", "axes", "value_range", "clip", "channels", "masks", "boxes",
        "keypoints", "labels", "partner", "draws", "size",
    ]  # fmt: skip


def test_operators_are_told_in_a_line_by_their_names_and_changed_settings():
    config = gdx.NoiseOperatorConfig(field_key="image", mode="poisson", lam_scale=30.0)
    rngs = nnx.Rngs(0)
    assert repr(gdx.NoiseOperator(config, rngs=rngs)) == (
        "NoiseOperator(namespace='NoiseOperator/poisson', field_key='image', mode='poisson', lam_scale=30.0)"
    )
    config = gdx.ModalityOperatorConfig(field_key="image", precomputed_stats={"mean": np.zeros((64, 64))})
    assert repr(Gamma(config, rngs=rngs, name="gamma")).startswith("Gamma(name='gamma', precomputed_stats={'mean': ")
    assert len(repr(Gamma(config, rngs=rngs))) < 120
    assert repr(gdx.DataraxModule(gdx.DataraxModuleConfig())) == "DataraxModule(namespace='DataraxModule')"


@pytest.mark.parametrize("kind", ["loader", "dataset"])
def test_all_that_users_hold_is_told_in_two_lines(kind):
    effects = [gdx.PatchDropout(patch_size=(16, 16)), gdx.GaussianNoise(std=0.1, p=0.5), gdx.PoissonNoise(photons=30)]
    chain = gdx.Chain(effects, seed=0, masks={"mask": 255})
    noise = gdx.NoiseOperator(gdx.NoiseOperatorConfig(field_key="image"), rngs=nnx.Rngs(0))
    source = loader([gdx.SeedRecords(), grain.transforms.Batch(8)])
    if kind == "dataset":
        source = grain.MapDataset.source(Records(32)).random_map(gdx.SeedRecords(), seed=0).batch(8)
    with gdx.DeviceLoader(source, chain) as batches:
        told = [chain, gdx.SeedRecords(), gdx.AugmentBatch(chain), gdx.AugmentRecord(chain), batches, iter(batches)]
        told += [noise, gdx.AugmentBatch(noise), gdx.AugmentRecord([noise])]
        for each in told:
            text = repr(each)
            assert type(each).__name__ in text
            assert " at 0x" not in text
            assert len(text) < 2 * 120
            assert text.count("\n") < 2


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
