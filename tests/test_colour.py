"""Colours against the laws of torchvision and albumentations, written in NumPy, and against colorsys."""

import colorsys
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import chain, run, seeded_batch, seeds, thorough
from scipy import stats
from sources import images

import grain_datarax as gdx
from grain_datarax.colours import turned
from grain_datarax.images import UNIT, Scale

pytestmark = pytest.mark.once

NAMES = ("brightness", "contrast", "saturation", "hue")
ALL = gdx.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)
# Of steps in float32: each errs by a few roundings of numbers up to 2, and hue magnifies what came before by up to 7.
FOUR_STEPS = 1e-5


def jittered(image, drawn):
    """The law of torchvision in float64, in the order that was drawn."""
    for name in sorted(set(drawn) - {"order"}, key=lambda name: drawn["order"][NAMES.index(name)]):
        image = np.clip(STEPS[name](image, drawn[name]), 0, 1)
    return image


def grey(image):
    return (image @ [0.2989, 0.587, 0.114])[..., None] if image.shape[-1] == 3 else image


def hue(image, part):
    turn = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(-1, 3)]
    return np.array([colorsys.hsv_to_rgb((h + part) % 1, s, v) for h, s, v in turn]).reshape(image.shape)


STEPS = {
    "brightness": lambda image, factor: factor * image,
    "contrast": lambda image, factor: factor * image + (1 - factor) * grey(image).mean(),
    "saturation": lambda image, factor: factor * image + (1 - factor) * grey(image),
    "hue": hue,
}


def drawn_by(effect, count, shape=(1, 1, 3)):
    batch = {"image": np.full((count, *shape), 0.5, np.float32), "record_seed": seeds(count)}
    result = gdx.AugmentBatch(chain(effect, draws="drawn")).map(batch)["drawn"][type(effect).__name__]
    return {name: np.asarray(value) for name, value in result.items()}


def test_color_jitter_is_that_of_torchvision_in_every_order():
    image = images(1, shape=(16, 12, 3))[0]
    jitter = jax.jit(lambda drawn: ALL.pixels(jnp.asarray(image), drawn, UNIT))
    seen = set()
    for turn, order in enumerate(itertools.permutations(range(4))):
        numbers = np.random.default_rng(turn).random(4) * [1.6, 1.6, 1.6, 1] + [0.2, 0.2, 0.2, -0.5]
        drawn = {**dict(zip(NAMES, numbers.astype(np.float32), strict=True)), "order": np.array(order, np.int32)}
        result = np.asarray(jitter(drawn))
        np.testing.assert_allclose(result, jittered(image.astype(np.float64), drawn), atol=FOUR_STEPS)
        seen.add(result.tobytes())
    assert len(seen) == 24


@pytest.mark.parametrize("names", [names for k in (1, 2, 3) for names in itertools.combinations(NAMES, k)], ids=str)
def test_what_is_left_out_moves_nothing_else(names):
    settings = {name: getattr(ALL, name) for name in names}
    batch = {"image": images(4, shape=(8, 6, 3)), "record_seed": seeds(4)}
    result = gdx.AugmentBatch(chain(gdx.ColorJitter(**settings, name="a"), draws="drawn")).map(batch)
    whole = drawn_by(gdx.ColorJitter(**{name: getattr(ALL, name) for name in NAMES}), 1)
    told = {name: np.asarray(value) for name, value in result["drawn"]["a"].items()}
    assert set(told) == {*names, "applied", *(["order"] if len(names) > 1 else [])}
    assert set(whole) == {*NAMES, "applied", "order"}
    for record, image in enumerate(batch["image"]):
        drawn = {"order": range(4), **{name: value[record] for name, value in told.items() if name != "applied"}}
        expected = jittered(image.astype(np.float64), drawn)
        np.testing.assert_allclose(np.asarray(result["image"])[record], expected, atol=FOUR_STEPS)


def test_no_setting_moves_what_another_draws():
    told = drawn_by(gdx.ColorJitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5, name="ColorJitter"), 16)
    for name in NAMES:
        alone = drawn_by(gdx.ColorJitter(**{name: getattr(ALL, name)}, name="ColorJitter"), 16)
        np.testing.assert_array_equal(alone[name], told[name])


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"brightness": 0.4, "hue": 0.1}, [(0.6, 1.4), (-0.1, 0.1)]),
        ({"contrast": 1.5, "hue": (0.0, 0.5)}, [(0, 2.5), (0, 0.5)]),
        ({"saturation": (1.5, 2.0)}, [(1.5, 2.0)]),
    ],
)
def test_factors_are_uniform_in_their_ranges(settings, ends):
    told = drawn_by(gdx.ColorJitter(**settings), 10_000)
    for name, (low, high) in zip(settings, ends, strict=True):
        assert low <= told[name].min() <= told[name].max() <= np.float32(high)
        assert stats.kstest((told[name] - low) / (high - low), "uniform").pvalue > 1e-4


def test_all_orders_are_equally_likely_and_independent_of_the_factors():
    told = drawn_by(ALL, 24_000)
    orders, which, counts = np.unique(told["order"], axis=0, return_inverse=True, return_counts=True)
    assert {tuple(order) for order in orders} == set(itertools.permutations(range(4)))
    assert stats.chisquare(counts).pvalue > 1e-4
    for name in NAMES:
        assert stats.f_oneway(*(told[name][which.ravel() == order] for order in range(24))).pvalue > 1e-4


def test_hue_is_that_of_colorsys():
    levels = np.linspace(0, 1, 9)
    colours = np.array([*itertools.product(levels, repeat=3), *np.random.default_rng(0).random((1000, 3))])
    planes = list(colours.T.astype(np.float32))
    turn = jax.jit(lambda part: jnp.stack(turned(planes, part), axis=-1))
    for part in (-0.5, -1 / 3, -0.2, 0.0, 1e-3, 1 / 6, 0.31, 0.5):
        # A few roundings of numbers up to 6.
        np.testing.assert_allclose(np.asarray(turn(np.float32(part))), hue(colours, part), atol=4e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16", "float32"])
def test_settings_of_nothing_change_no_bit(dtype):
    batch = seeded_batch(4, dtype="uint8")
    scale = {"uint8": 1, "uint16": 257}.get(dtype, 1 / 255)
    batch["image"] = (batch["image"].astype(np.float64) * scale).astype(jnp.dtype(dtype))
    same = [
        gdx.ColorJitter(),
        gdx.ColorJitter(brightness=(1, 1), contrast=0, saturation=(1.0, 1.0), hue=(0, 0)),
        gdx.BrightnessContrast(brightness=0, contrast=0),
        gdx.BrightnessContrast(brightness=(0, 0), contrast=(0.0, 0.0)),
    ]
    for effect in same:
        np.testing.assert_array_equal(run(chain(effect), batch), batch["image"])


@pytest.mark.parametrize(
    ("dtype", "value_range"),
    [("float32", (-1, 1)), ("float32", (0, 255)), ("bfloat16", (-1, 1)), ("int16", (-1024, 3071)), ("float64", None)],
)
def test_images_for_which_nothing_is_drawn_keep_their_bits_in_any_range(dtype, value_range):
    low, high = value_range or (0, 1)
    with jax.enable_x64(dtype == "float64"):
        batch = seeded_batch(2)
        values = low + np.random.default_rng(0).random((2, 8, 6, 3)) * (high - low)
        batch["image"] = values.astype(jnp.dtype(dtype))
        grey = {**batch, "image": batch["image"][..., :1]}
        for effect, given in [
            (gdx.ColorJitter(), batch),
            (gdx.ColorJitter(saturation=0.5), grey),
            (gdx.ColorJitter(saturation=0.5, hue=0.5), grey),
        ]:
            result = run(chain(effect, value_range=value_range), given)
            np.testing.assert_array_equal(result, given["image"], strict=True)


def test_images_for_which_nothing_is_drawn_are_clipped_where_the_chain_clips():
    image = jnp.full((2, 2, 3), 1.5)
    assert (gdx.ColorJitter().pixels(image, {}, Scale(bounds=(0, 1))) == 1).all()
    assert (gdx.ColorJitter().pixels(image, {}, Scale()) == 1.5).all()


@pytest.mark.parametrize("dtype", ["float32", *thorough("uint8", "float16", "bfloat16")])
@pytest.mark.parametrize("effect", [ALL, gdx.BrightnessContrast()], ids=lambda effect: type(effect).__name__)
def test_batches_of_1_3_8_and_64_have_the_same_bits(effect, dtype):
    batch = seeded_batch(64, shape=(17, 12, 3), dtype=dtype)
    expected, augment = run(chain(effect), batch), gdx.AugmentBatch(chain(effect))
    for size in (1, 3, 8):
        for first in (0, 21, 55):
            part = {name: field[first : first + size] for name, field in batch.items()}
            np.testing.assert_array_equal(np.asarray(augment.map(part)["image"]), expected[first : first + size])


def test_two_in_a_row_are_one_behind_the_other():
    batch = seeded_batch(8)
    first, second = (gdx.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, name=name) for name in "ab")
    between = run(chain(first), batch)
    np.testing.assert_array_equal(run(chain(first, second), batch), run(chain(second), {**batch, "image": between}))


def test_bytes_are_rounded_once():
    batch = seeded_batch(8, dtype="uint8")
    result = gdx.AugmentBatch(chain(ALL, draws="drawn")).map(batch)
    told = {name: np.asarray(value) for name, value in result["drawn"]["ColorJitter"].items() if name != "applied"}
    for record, image in enumerate(batch["image"]):
        expected = 255 * jittered(image / 255, {name: value[record] for name, value in told.items()})
        assert np.abs(np.asarray(result["image"])[record] - expected).max() <= 0.5 + 255 * FOUR_STEPS


def test_grey_images_have_brightness_and_contrast_alone():
    batch = seeded_batch(8, shape=(16, 12, 1))
    both = gdx.ColorJitter(brightness=0.8, contrast=0.8)
    np.testing.assert_array_equal(run(chain(ALL), batch), run(chain(both), batch))
    only_colour = gdx.ColorJitter(saturation=0.8, hue=0.5)
    np.testing.assert_array_equal(run(chain(only_colour), batch), batch["image"])
    told = drawn_by(both, 8, shape=(1, 1, 1))
    drawn = {name: told[name][0] for name in ("brightness", "contrast", "order")}
    expected = jittered(batch["image"][0].astype(np.float64), drawn)
    np.testing.assert_allclose(run(chain(both), batch)[0], expected, atol=FOUR_STEPS)


def test_results_lie_in_the_range_and_what_arrives_outside_counts_as_its_end():
    batch = seeded_batch(8)
    outside = {**batch, "image": batch["image"] * 3 - 1}
    inside = {**batch, "image": np.clip(outside["image"], 0, 1)}
    links = chain(ALL, clip=False)
    result = run(links, outside)
    assert 0 <= result.min() < result.max() <= 1
    np.testing.assert_array_equal(result, run(links, inside))


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_are_refused(channels):
    jitter = gdx.ColorJitter(saturation=0.5)
    batch = seeded_batch(2, shape=(16, 12, channels))
    message = (
        rf"`channels` must name red, green and blue for ColorJitter: got {channels} channels .*channels=\(0, 1, 2\)"
    )
    with pytest.raises(ValueError, match=message):
        run(chain(jitter), batch)
    with pytest.raises(ValueError, match=message):
        gdx.color_jitter(jax.random.key(0), batch["image"][0], brightness=0.5)
    if channels == 4:
        result = run(chain(jitter, channels=(0, 1, 2)), batch)
        np.testing.assert_array_equal(result[..., :3], run(chain(jitter), {**batch, "image": batch["image"][..., :3]}))
        np.testing.assert_array_equal(result[..., 3], batch["image"][..., 3])


def test_padded_images_have_no_mean_to_contrast_with():
    with pytest.raises(ValueError, match="`size` must be None for ColorJitter"):
        chain(gdx.ColorJitter(contrast=0.1), size="size")
    chain(gdx.ColorJitter(brightness=0.1, contrast=(1, 1), saturation=0.1, hue=0.1), size="size")
    chain(gdx.BrightnessContrast(), size="size")


def test_pure_functions_are_the_effects():
    key, image = jax.random.key(3), jnp.asarray(images(1, dtype="uint8")[0])
    all_four = {name: getattr(ALL, name) for name in NAMES}
    result = jax.jit(lambda image: gdx.color_jitter(key, image, **all_four))(image)
    assert (result.dtype, result.shape) == (image.dtype, image.shape)
    assert (result != image).any()
    grey = jax.jit(lambda image: gdx.color_jitter(key, image, brightness=0.8, contrast=0.8))
    np.testing.assert_array_equal(grey(image[..., 0]), grey(image[..., :1])[..., 0])
    np.testing.assert_array_equal(
        np.asarray(gdx.brightness_contrast(image, brightness=0.2, contrast=0.5)),
        np.clip(np.round(np.asarray(image) * 1.5 + 51), 0, 255),
    )
    with pytest.raises(ValueError, match="`brightness` must be a fraction of full scale"):
        gdx.brightness_contrast(image, brightness=51, contrast=0.0)


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4, 3), ()])
def test_pure_functions_take_one_image(shape):
    image = jnp.zeros(shape)
    message = r"`image` must be one image, \(H, W\) or \(H, W, C\), .* got shape .*\. Use jax.vmap for a batch"
    with pytest.raises(ValueError, match=message):
        gdx.color_jitter(jax.random.key(0), image, brightness=0.5)
    with pytest.raises(ValueError, match=message):
        gdx.brightness_contrast(image, brightness=0.5, contrast=0.5)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"brightness": math.nan}, ValueError, "`brightness` must be finite: got nan"),
        ({"brightness": "a"}, TypeError, "`brightness` must be a number: got 'a'"),
        ({"contrast": -7.0}, ValueError, "`contrast` must be from -1 to 1000: got -7.0"),
        ({"contrast": (0.1, 0.2)}, TypeError, "`contrast` must be a number"),
    ],
)
def test_the_pure_function_keeps_the_rules_of_the_effect(dtype, settings, error, message):
    with pytest.raises(error, match=message):
        gdx.brightness_contrast(jnp.zeros((4, 4), dtype), **{"brightness": 0.0, "contrast": 0.0, **settings})


def test_brightness_and_contrast_may_be_traced_and_in_image_units():
    image = jnp.full((2, 2), 100.0)
    result = jax.jit(lambda number: gdx.brightness_contrast(image, brightness=number, contrast=number / 60))(30.0)
    np.testing.assert_allclose(result, 180)
    np.testing.assert_allclose(gdx.brightness_contrast(image, brightness=30, contrast=0.5), 180)


@pytest.mark.parametrize(("dtype", "value_range"), [("uint8", None), ("float32", None), ("int16", (-1024, 3071))])
def test_brightness_contrast_is_that_of_albumentations(dtype, value_range):
    low, high = value_range or {"uint8": (0, 255), "float32": (0, 1)}[dtype]
    batch = seeded_batch(16)
    batch["image"] = (batch["image"] * (high - low) + low).astype(dtype)
    links = chain(
        gdx.BrightnessContrast(brightness=(-0.3, 0.3), contrast=(-1, 0.5)), value_range=value_range, draws="d"
    )
    result = gdx.AugmentBatch(links).map(batch)
    told = {name: np.asarray(value) for name, value in result["d"]["BrightnessContrast"].items()}
    for record, image in enumerate(batch["image"]):
        fractions = (image.astype(np.float64) - low) / (high - low)
        changed = np.clip(fractions * (1 + told["contrast"][record]) + told["brightness"][record], 0, 1)
        rounding = 0 if dtype == "float32" else 0.5
        error = np.abs(np.asarray(result["image"])[record] - (changed * (high - low) + low)).max()
        assert error <= rounding + (high - low) * 2**-20  # a few roundings in float32


def test_brightness_and_contrast_work_in_float64():
    with jax.enable_x64(True):
        image = jnp.asarray(np.random.default_rng(0).random((4, 4, 3)))
        result = gdx.brightness_contrast(image, brightness=0.1, contrast=math.pi)
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, image * (1 + math.pi) + 0.1, rtol=1e-15)
        jitter = jax.eval_shape(lambda key: gdx.color_jitter(key, image, hue=0.5, contrast=0.5), jax.random.key(0))
        assert jitter.dtype == np.float64
