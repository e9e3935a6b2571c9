"""Bad input is refused with its name, what was seen and what to do instead."""

import dataclasses
import pickle

import grain
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from helpers import OPERATORS, every_operator, images, loader, noise, patch_dropout, seeded_batch, seeds

import grain_datarax as gdx

pytestmark = pytest.mark.once

NAN = float("nan")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"field_key": None}, TypeError, "`field_key` must be a str: got None"),
        ({"field_key": ""}, ValueError, "`field_key` must not be empty"),
        ({"field_key": 3}, TypeError, "`field_key` must be a str: got 3"),
        ({"target_key": ""}, ValueError, "`target_key` must not be empty"),
        ({"stream_name": 0}, TypeError, "`stream_name` must be a str: got 0"),
        ({"stochastic": 1}, TypeError, "`stochastic` must be a bool: got 1"),
        ({"cacheable": None}, TypeError, "`cacheable` must be a bool: got None"),
        ({"preserve_auxiliary": "yes"}, TypeError, "`preserve_auxiliary` must be a bool: got 'yes'"),
        ({"validate_domain_constraints": 0}, TypeError, "`validate_domain_constraints` must be a bool: got 0"),
        ({"batch_strategy": "loop"}, ValueError, '`batch_strategy` must be "vmap" or "scan": got \'loop\''),
        ({"auxiliary_fields": "mask"}, TypeError, "`auxiliary_fields` must be a list of field names: got 'mask'"),
        ({"auxiliary_fields": [1]}, TypeError, r"`auxiliary_fields` must be a list of field names: got \[1\]"),
        ({"clip_range": 1.0}, TypeError, "`clip_range` must be two numbers: got 1.0"),
        ({"clip_range": (0, 1, 2)}, ValueError, r"`clip_range` must be two numbers: got \(0, 1, 2\)"),
        ({"clip_range": (0, "a")}, TypeError, "`clip_range` must be two numbers"),
        ({"clip_range": (1.0, 1.0)}, ValueError, r"`clip_range` must have low < high: got \(1.0, 1.0\)"),
        ({"clip_range": (NAN, 1.0)}, ValueError, "`clip_range` must have low < high"),
        ({"batch_stats_fn": 3}, TypeError, "`batch_stats_fn` must be callable: got 3"),
        ({"precomputed_stats": 3}, TypeError, "`precomputed_stats` must be a mapping: got 3"),
        ({"batch_stats_fn": len, "precomputed_stats": {}}, ValueError, "`batch_stats_fn` must be None beside"),
    ],
)
@every_operator
def test_bad_settings_of_any_operator_are_refused(operator, settings, error, message):
    with pytest.raises(error, match=message):
        operator(**settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"num_patches": -1}, ValueError, "`num_patches` must be at least 0: got -1"),
        ({"num_patches": 2.0}, TypeError, "`num_patches` must be an integer: got 2.0"),
        ({"num_patches": True}, TypeError, "`num_patches` must be an integer: got True"),
        ({"patch_size": 8}, TypeError, "`patch_size` must be two integers: got 8"),
        ({"patch_size": (8,)}, ValueError, r"`patch_size` must be two integers: got \(8,\)"),
        ({"patch_size": (0, 8)}, ValueError, "`patch_size` must be at least 1: got 0"),
        ({"patch_size": (8, 1.5)}, TypeError, "`patch_size` must be an integer: got 1.5"),
        ({"drop_value": NAN}, ValueError, "`drop_value` must not be NaN: got nan"),
        ({"drop_value": "black"}, TypeError, "`drop_value` must be a number: got 'black'"),
        ({"drop_value": None}, TypeError, "`drop_value` must be a number: got None"),
    ],
)
def test_bad_settings_of_patch_dropout_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        patch_dropout(**settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"mode": "speckle"}, ValueError, "`mode` must be one of .*: got 'speckle'"),
        ({"noise_std": -0.1}, ValueError, "`noise_std` must be non-negative and finite: got -0.1"),
        ({"noise_std": NAN}, ValueError, "`noise_std` must be non-negative and finite: got nan"),
        ({"noise_std": None}, TypeError, "`noise_std` must be a number: got None"),
        ({"noise_mean": float("inf")}, ValueError, "`noise_mean` must be finite: got inf"),
        ({"salt_prob": 1.5}, ValueError, "`salt_prob` must be a probability from 0 to 1: got 1.5"),
        ({"pepper_prob": -0.5}, ValueError, "`pepper_prob` must be a probability from 0 to 1: got -0.5"),
        ({"salt_prob": 0.6, "pepper_prob": 0.6}, ValueError, "`salt_prob` and `pepper_prob` must add up to at most 1"),
        ({"salt_value": "white"}, TypeError, "`salt_value` must be a number: got 'white'"),
        ({"pepper_value": NAN}, ValueError, "`pepper_value` must be finite: got nan"),
        ({"lam_scale": 0}, ValueError, "`lam_scale` must be positive, from 1e-20 to 1e20: got 0"),
        ({"mode": "poisson", "clip_range": (1.0, 1e16)}, ValueError, "`clip_range` must be from 1e-15 to 1e15 wide"),
    ],
)
def test_bad_settings_of_noise_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        noise(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: patch_dropout(drop_value=128), r"`drop_value` must be a fraction of full scale, from 0 to 1, for integer images: got 128.0 for uint8\. Divide it by 255\."),
        (lambda: patch_dropout(drop_value=-0.1), "`drop_value` must be a fraction"),
        (lambda: patch_dropout(clip_range=(0, 255)), "`clip_range` must be a fraction of full scale.*got 255"),
        (lambda: noise(noise_std=12.75), "`noise_std` must be a fraction of full scale.*got 12.75"),
        (lambda: noise(noise_mean=-3.0), "`noise_mean` must be a fraction of full scale, from -1 to 1"),
        (lambda: noise("salt_pepper", salt_value=255), "`salt_value` must be a fraction of full scale.*got 255"),
        (lambda: noise("salt_pepper", pepper_value=-1), "`pepper_value` must be a fraction of full scale.*got -1"),
        (lambda: noise("poisson", clip_range=(0, 255)), "`clip_range` must be a fraction of full scale"),
    ],
)  # fmt: skip
def test_settings_that_are_no_fraction_are_refused_for_integer_images(make, message):
    with pytest.raises(ValueError, match=message):
        gdx.AugmentBatch(make()).map(seeded_batch(2, dtype="uint8"))
    with pytest.raises(ValueError, match=message):
        gdx.AugmentRecord(make()).random_map({"image": images(1, dtype="uint8")[0]}, np.random.default_rng(0))


@every_operator
def test_dtypes_that_cannot_be_treated_are_refused(operator):
    def run(image):
        gdx.AugmentBatch(operator()).map({"image": image, "record_seed": seeds(len(image))})

    with pytest.raises(TypeError, match="`image` must have a dtype of at most 32 bits: got float64"):
        run(np.zeros((2, 16, 12)))
    with pytest.raises(TypeError, match="`image` must be an image of .*U1"):
        run(np.full((2, 16, 12), "a"))
    with pytest.raises(TypeError, match="`image` must be an image of .*complex64"):
        run(np.zeros((2, 16, 12), np.complex64))
    with pytest.raises(TypeError, match='`image` must be an array: got list for field "image"'):
        run([[1], [2]])


@pytest.mark.parametrize("mode", ["gaussian", "salt_pepper", "poisson"])
@pytest.mark.parametrize("dtype", ["int32", "uint32", "bool"])
def test_noise_refuses_wide_integers(mode, dtype):
    with pytest.raises(TypeError, match=f"must be floating point or an integer of 8 or 16 bits: got {dtype}"):
        gdx.AugmentBatch(noise(mode)).map({"image": np.zeros((2, 16, 12), dtype), "record_seed": seeds(2)})


@every_operator
def test_float_images_of_0_to_255_are_refused_on_the_first_host_batch_alone(operator):
    bytes_as_floats = loader(
        [gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(operator(clip_range=(0.0, 1.0)))],
        count=8,
        dtype="uint8",
    )
    augment = gdx.AugmentBatch(operator(clip_range=(0.0, 1.0)))
    bad, good = seeded_batch(2), seeded_batch(2)
    bad["image"] = bad["image"] * 255
    message = r"`clip_range` must hold .* got \(0.0, 1.0\) for field \"image\" with values from .* to 25\d.*\. Scale the image"
    with pytest.raises(ValueError, match=message):
        augment.map(bad)
    with pytest.raises(ValueError, match=message):  # still the first
        augment.map(bad)
    augment.map(good)
    with pytest.warns(UserWarning, match="`clip_range` must hold the values of all images: got {'.*': [0-9]+} values"):
        augment.map(bad), augment.counts()
    with pytest.raises(ValueError, match=message):
        operator(clip_range=(0.0, 1.0)).apply_batch(gdx.Batch(bad))
    with pytest.raises(ValueError, match=message):
        gdx.AugmentRecord(operator(clip_range=(0.0, 1.0))).random_map(
            {"image": bad["image"][0]}, np.random.default_rng(0)
        )
    next(iter(bytes_as_floats))  # integers are in their range by nature


def test_values_are_checked_unless_an_earlier_operator_may_bring_them_to_scale():
    class ToUnit(gdx.ModalityOperator):
        def effect(self, image, params):
            return image / 255

    chain = [ToUnit(gdx.ModalityOperatorConfig(field_key="image")), noise()]
    batch = seeded_batch(2)
    batch["image"] *= 255
    assert np.asarray(gdx.AugmentBatch(chain).map(batch)["image"]).max() <= 1
    with pytest.raises(ValueError, match="`clip_range` must hold"):
        gdx.AugmentBatch(chain[::-1]).map(batch)
    with pytest.raises(ValueError, match="`clip_range` must hold"):  # patches do not bring 255 to 1
        gdx.AugmentBatch([patch_dropout(), noise()]).map(batch)


@every_operator
def test_missing_fields_are_named_with_those_there_are(operator):
    batch = {"picture": images(2), "nested": {"label": np.arange(2)}, "record_seed": seeds(2)}
    with pytest.raises(KeyError, match=r"`image` must be a field: got the fields nested.label, picture, record_seed\."):
        gdx.AugmentBatch(operator()).map(batch)
    with pytest.raises(KeyError, match="`nested.image` must be a field"):
        gdx.AugmentBatch(operator(field_key="nested.image")).map(batch)
    with pytest.raises(KeyError, match="`depth` must be a field"):
        gdx.AugmentBatch(operator(auxiliary_fields=["depth"])).map(seeded_batch(2))
    with pytest.raises(KeyError, match="`data_shapes` must hold `image`: got the fields label"):
        operator().generate_random_params(jax.random.key(0), {"label": (2,)})


@every_operator
def test_auxiliary_fields_of_another_size_are_refused(operator):
    batch = {**seeded_batch(2), "depth": np.zeros((2, 8, 12), np.float32)}
    with pytest.raises(
        ValueError, match=r"`auxiliary_fields` must share the image's height and width \(16, 12\): got shape \(8, 12\)"
    ):
        gdx.AugmentBatch(operator(auxiliary_fields=["depth"])).map(batch)


@pytest.mark.parametrize("mode", ["gaussian", "salt_pepper", "poisson"])
def test_noise_cannot_be_shared_by_more_channels_than_it_has(mode):
    batch = {**seeded_batch(2), "other": np.zeros((2, 16, 12, 4), np.float32)}
    with pytest.raises(ValueError, match="`auxiliary_fields` must have at most the image's 3 channels"):
        gdx.AugmentBatch(noise(mode, auxiliary_fields=["other"], preserve_auxiliary=False)).map(batch)


@every_operator
def test_seeds_are_asked_for_where_they_are_missing_or_misplaced(operator):
    augment = gdx.AugmentBatch(operator())
    with pytest.raises(
        KeyError,
        match=r"`record_seed` must be in the batch: got the fields image. Add grain_datarax.SeedRecords\(\) before Batch",
    ):
        augment.map({"image": images(2)})
    message = r"`record_seed` must be uint32 of shape \(2, 2\).* Place SeedRecords\(\) before Batch"
    for wrong in (seeds(1)[0], seeds(3), seeds(2).astype(np.int64), [1, 2]):
        with pytest.raises(ValueError, match=message):
            augment.map({"image": images(2), "record_seed": wrong})


def test_seed_records_behind_batch_is_refused_by_the_augmentation():
    with pytest.raises(ValueError, match="Place SeedRecords"):
        list(loader([grain.transforms.Batch(4), gdx.SeedRecords(), gdx.AugmentBatch(noise())], count=8))


def test_seed_records_refuses_what_it_cannot_seed():
    seed, rng = gdx.SeedRecords().random_map, np.random.default_rng(0)
    with pytest.raises(ValueError, match="`record_seed` must not be in the record before SeedRecords: got the fields"):
        seed(seed({"image": 1}, rng), rng)
    with pytest.raises(TypeError, match="`element` must be a mapping from field names, a tuple, .*: got ndarray"):
        seed(np.zeros(3), rng)
    for transform in (seed, gdx.AugmentRecord(noise()).random_map):
        with pytest.raises(
            ValueError, match="`rng` must be the record's generator: got None. Give the sampler or dataset a seed"
        ):
            transform({"image": images(1)[0]}, None)


def test_a_sampler_without_a_seed_is_told_of_by_the_loader():
    with pytest.raises(ValueError, match="Give the sampler or dataset a seed"):
        list(loader([gdx.SeedRecords()], seed=None, shuffle=False))


@every_operator
def test_apply_without_params_is_refused_for_a_stochastic_operator(operator):
    with pytest.raises(ValueError, match="`random_params` must be given to a stochastic operator: got None"):
        operator().apply({"image": images(1)[0]}, {}, {})


@every_operator
def test_a_wrong_number_of_keys_is_refused(operator):
    with pytest.raises(ValueError, match=r"`rng` must be one key or one for each record: got \(3,\) for 2 records"):
        operator().generate_random_params(jax.random.split(jax.random.key(0), 3), {"image": (2, 16, 12, 3)})


@pytest.mark.parametrize("transform", [gdx.AugmentBatch, gdx.AugmentRecord])
def test_transforms_refuse_what_is_no_operator(transform):
    with pytest.raises(TypeError, match="`operators` must be operators: got 3"):
        transform([noise(), 3])
    with pytest.raises(TypeError, match="`operators` must be operators: got 3"):
        transform(3)
    with pytest.raises(ValueError, match="`operators` must hold at least one operator"):
        transform([])


def test_batches_must_be_mappings_of_stacked_fields():
    with pytest.raises(TypeError, match="`element` must be a mapping from field names, a tuple, .*: got ndarray"):
        gdx.AugmentBatch(noise()).map(np.zeros((2, 16, 12)))
    with pytest.raises(TypeError, match="`batch` must be a Batch, or three mappings must be given: got ndarray"):
        noise().apply_batch(np.zeros((2, 16, 12)))
    with pytest.raises(ValueError, match=r"`data` must share the batch as axis 0: got lengths"):
        noise().apply_batch(gdx.Batch({"image": images(2)}, state={"step": np.zeros(3)}))
    with pytest.raises(ValueError, match="`elements` must hold at least one Element"):
        gdx.Batch.from_elements([])


def test_operators_refuse_wrong_arguments():
    config = noise().config
    with pytest.raises(TypeError, match="`config` must be a DataraxModuleConfig: got 3"):
        gdx.NoiseOperator(3, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match="`rngs` must be an nnx.Rngs: got 0"):
        gdx.NoiseOperator(config, rngs=0)
    with pytest.raises(TypeError, match="`name` must be a str: got 1"):
        gdx.NoiseOperator(config, rngs=nnx.Rngs(0), name=1)
    with pytest.raises(ValueError, match='`rngs` must have the stream "default": got'):
        gdx.NoiseOperator(config, rngs=nnx.Rngs(params=0))
    with pytest.raises(ValueError, match='`rngs` must have the stream "augment": got'):
        noise(stream_name="augment").copy(rngs=nnx.Rngs(params=0))


@every_operator
def test_an_error_leaves_the_loader_where_it_can_go_on(operator):
    class Spoil(grain.transforms.Map):
        def map(self, element):
            return {name: field for name, field in element.items() if name != "image" or 4 not in element["label"]}

    operations = [gdx.SeedRecords(), grain.transforms.Batch(4), Spoil(), gdx.AugmentBatch(operator())]
    iterator = iter(loader(operations, count=12, shuffle=False))
    next(iterator)
    with pytest.raises(KeyError, match="`image` must be a field"):
        next(iterator)
    assert next(iterator)["label"].tolist() == [8, 9, 10, 11]
    with pytest.raises(StopIteration):
        next(iterator)


def test_values_on_the_device_are_counted_and_said_once():
    batch = {name: jnp.asarray(field) for name, field in seeded_batch(2).items()}
    batch["image"] = batch["image"] * 255
    augment = gdx.AugmentBatch(noise())
    with pytest.warns(UserWarning, match="`clip_range` must hold the values of all images"):
        once = augment.map(batch) and augment.counts()
    augment.map(batch)
    outside = int((np.asarray(batch["image"]) > 1).sum())
    assert once == {"NoiseOperator/gaussian": {"applied": 2, "skipped": 0, "outside": outside}}
    assert augment.counts()["NoiseOperator/gaussian"]["outside"] == 2 * outside


def test_every_operator_of_the_table_is_public():
    assert {type(make()).__name__ for make in OPERATORS.values()} <= set(gdx.__all__)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auxiliary_fields": ["image"]}, "`auxiliary_fields` must not repeat"),
        ({"auxiliary_fields": ["depth", "depth"]}, "`auxiliary_fields` must not repeat"),
        ({"auxiliary_fields": ["out"], "target_key": "out"}, "`auxiliary_fields` must not repeat"),
        ({"target_key": "record_seed"}, "`target_key` must not be the field of the seeds"),
    ],
)
def test_a_field_has_one_part_to_play(settings, message):
    with pytest.raises(ValueError, match=message):
        noise(**settings)
    assert noise(target_key="image").writes == ("image",)


def test_a_chain_refuses_the_same_name_or_operator_twice():
    with pytest.raises(ValueError, match=r"`name` must be unique in a chain: got \['a', 'a'\]"):
        gdx.AugmentBatch([noise(name="a"), patch_dropout(name="a")])
    op = noise()
    with pytest.raises(ValueError, match="`operators` must be different objects"):
        gdx.AugmentBatch([op, op])
    gdx.AugmentBatch([op, op.copy()])


@every_operator
def test_params_of_another_shape_are_refused(operator):
    op = operator()
    batch = op.generate_random_params(jax.random.key(0), {"image": (1, 16, 12, 3)})
    for wrong in (batch, {"other": np.zeros(3)}):
        with pytest.raises(ValueError, match="`random_params` must hold `.*` of shape .* Pass a row of what"):
            op.apply({"image": images(1)[0]}, {}, {}, wrong)


@every_operator
def test_a_batch_without_seeds_is_refused_inside_jit(operator):
    op = operator()
    with pytest.raises(ValueError, match="`record_seed` must be in a batch inside jax.jit"):
        jax.jit(lambda image: op.apply_batch(gdx.Batch({"image": image})).data)(images(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda key, image: gdx.patch_dropout(key, image, num_patches=1, patch_size=(6, 6)),
            "`patch_size` must fit inside",
        ),
        (
            lambda key, image: gdx.patch_dropout(key, image, num_patches=1, patch_size=(2, 2), drop_value=128),
            "`drop_value` must",
        ),
        (lambda key, image: gdx.gaussian_noise(key, image, std=25.0), "`std` must be a fraction"),
        (lambda key, image: gdx.gaussian_noise(key, image, std=0.1, mean=25.0), "`mean` must be a fraction"),
        (
            lambda key, image: gdx.salt_pepper_noise(key, image, salt_prob=0.1, pepper_prob=0.1, salt_value=255),
            "`salt_value` must",
        ),
        (lambda key, image: gdx.poisson_noise(key, image, lam_scale=0.0), "`lam_scale` must be positive: got 0.0"),
    ],
)
def test_the_pure_functions_refuse_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0), np.zeros((4, 4), np.uint8))


def test_salt_needs_a_finite_value():
    with pytest.raises(ValueError, match="`clip_range` must be finite where salt and pepper take their values"):
        noise("salt_pepper", clip_range=(0.0, float("inf")))
    noise("salt_pepper", clip_range=(0.0, float("inf")), salt_value=1.0)


def test_an_effect_that_changes_dtype_or_shape_is_refused():
    class ToFloat(gdx.ModalityOperator):
        def effect(self, image, params):
            return image / 255

    with pytest.raises(TypeError, match=r"`effect` must keep shape and dtype: got float32\[4, 4\] for uint8\[4, 4\]"):
        gdx.AugmentBatch(ToFloat(gdx.ModalityOperatorConfig(field_key="image"))).map(
            {"image": np.zeros((2, 4, 4), np.uint8)}
        )


def test_a_target_inside_an_array_is_refused():
    with pytest.raises(TypeError, match="`image` must be a mapping to hold `noisy`: got ndarray"):
        gdx.AugmentBatch(noise(target_key="image.noisy")).map(seeded_batch(2))


def test_values_of_a_first_batch_on_the_device_leave_the_next_one_to_be_checked():
    augment = gdx.AugmentBatch(noise())
    augment.map({name: jnp.asarray(field) for name, field in seeded_batch(2).items()})
    bad = seeded_batch(2)
    bad["image"] *= 255
    with pytest.raises(ValueError, match="`clip_range` must hold"):
        augment.map(bad)


def test_state_refuses_statistics_that_are_no_mapping():
    op = noise()
    with pytest.raises(TypeError, match="`state` must hold a mapping at statistics: got 5"):
        op.set_state({**op.get_state(), "statistics": 5})


@every_operator
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int4", ">f4", ">u2"])
def test_types_too_narrow_or_of_foreign_byte_order_are_refused(operator, dtype):
    image = np.zeros((2, 16, 12), getattr(ml_dtypes, dtype, None) or dtype)
    with pytest.raises(TypeError, match="`image` must be an image of bools, integers or floats of 8 to 64 bits"):
        gdx.AugmentBatch(operator(clip_range=None)).map({"image": image, "record_seed": seeds(2)})


@every_operator
def test_a_clip_range_without_a_value_of_the_integer_type_is_refused(operator):
    with pytest.raises(ValueError, match=r"`clip_range` must hold a value of uint8: got \(0.001, 0.002\) of 255"):
        gdx.AugmentBatch(operator(clip_range=(0.001, 0.002))).map(seeded_batch(2, dtype="uint8"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: gdx.GaussianNoise(sdt=0.1),
            "`settings of GaussianNoise` must be among .*: got 'sdt'. Did you mean 'std'",
        ),
        (lambda: gdx.PatchDropout(patchsize=(8, 8)), "got 'patchsize'. Did you mean 'patch_size'"),
        (
            lambda: gdx.Chain([gdx.GaussianNoise()], axis="CHW"),
            "`settings of Chain` .*: got 'axis'. Did you mean 'axes'",
        ),
        (lambda: gdx.OneOf([gdx.GaussianNoise()], weight=[1]), "got 'weight'. Did you mean 'weights'"),
    ],
)
def test_a_mistyped_setting_is_told_with_the_nearest_that_there_is(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_class_with_arguments_of_its_own_is_left_to_python():
    @dataclasses.dataclass(frozen=True, init=False)
    class Fade(gdx.Effect):
        share: float

        def __init__(self, percent):
            object.__setattr__(self, "share", percent / 100)
            object.__setattr__(self, "p", 1.0)
            object.__setattr__(self, "name", None)
            object.__setattr__(self, "same_on_frame", False)
            self.__post_init__()

        def image(self, image, drawn):
            return image * self.share

    assert Fade(percent=50).share == 0.5


def test_a_missing_field_prints_its_words_as_they_are():
    with pytest.raises(KeyError) as caught:
        gdx.AugmentBatch(gdx.Chain([gdx.GaussianNoise()], seed=0, image="imge")).map(seeded_batch(2))
    assert str(caught.value).startswith("`imge` must be a field: got the fields ")
    assert "Did you mean 'image'?" in str(caught.value)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), KeyError)


@pytest.mark.parametrize(
    "function",
    [
        lambda key, image: gdx.gaussian_noise(key, image, std=0.1),
        lambda key, image: gdx.poisson_noise(key, image, lam_scale=10.0),
        lambda key, image: gdx.salt_pepper_noise(key, image, salt_prob=0.1, pepper_prob=0.1),
        lambda key, image: gdx.patch_dropout(key, image, num_patches=1, patch_size=(2, 2)),
    ],
)
def test_functions_of_one_image_refuse_a_batch(function):
    for shape in [(2, 8, 8, 3), (8,), (0, 8, 3)]:
        with pytest.raises(ValueError, match=r"`image` must be one image, \(H, W\) or \(H, W, C\), .* Use jax.vmap"):
            function(jax.random.key(0), jnp.zeros(shape))
    assert jax.vmap(function)(jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 8, 8, 3))).shape == (2, 8, 8, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_settings_of_numpy_are_numbers_like_others(dtype):
    effect = gdx.Normalize(mean=dtype(0.5), std=dtype(2.0))
    assert effect == gdx.Normalize(mean=0.5, std=2.0)
    with pytest.raises(ValueError, match="`std` must"):
        gdx.GaussianNoise(std=dtype(1.5))


def test_a_chain_may_have_a_plain_subclass_and_an_effect_is_told_of_its_decorator():
    class Own(gdx.Chain):
        pass

    class Dim(gdx.Effect):
        strength: float = 0.5

        def image(self, image, drawn):
            return image * self.strength

    assert Own(effects=[gdx.GaussianNoise()], seed=0).seed == 0
    with pytest.raises(TypeError, match="`Dim` must be a frozen dataclass, .* Put @dataclasses.dataclass"):
        Dim(strength=0.1)


def test_images_without_pixels_are_not_told_to_change_their_axes():
    augment = gdx.AugmentBatch(gdx.Chain([gdx.GaussianNoise()], seed=0))
    with pytest.raises(
        ValueError, match=r"got shape \(2, 0, 8, 3\) .* Leave out images without pixels, or name another"
    ):
        augment.map({"image": np.zeros((2, 0, 8, 3), np.uint8), "record_seed": seeds(2)})
