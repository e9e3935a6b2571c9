"""What values mean: ranges, units and saturation; of images, and of the masks beside them."""

import warnings

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import EFFECTS, FIRST, chain, every_effect, every_effect_later_long, run, seeded_batch, seeds
from helpers import noise, patch_dropout
from scipy import stats

import grain_datarax as gdx
from grain_datarax.augmenter import Augmenter
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.salt_pepper_noise import impulse_mask
from grain_datarax.images import Scale, scale_of
from grain_datarax.pages.units import level_bounds
from grain_datarax.random.bits import STREAM

CT = (-1024, 3071)  # computed tomography in Hounsfield units
OPERATORS = {
    "patch_dropout": lambda **settings: patch_dropout(**settings),
    "gaussian_noise": lambda **settings: noise("gaussian", **settings),
    "salt_pepper_noise": lambda **settings: noise("salt_pepper", **settings),
    "poisson_noise": lambda **settings: noise("poisson", **settings),
}
every_pair = pytest.mark.parametrize("name", OPERATORS)


def constant(value, dtype="float32", count=32, shape=(64, 64, 3)):
    return {"image": np.full((count, *shape), value, dtype), "record_seed": seeds(count)}


# A page's operator and its effect.


@every_pair
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "bfloat16", "float32"])
def test_an_operator_and_its_effect_of_one_name_and_seed_give_the_same_pixels(name, dtype):
    batch = seeded_batch(64, shape=(32, 32, 3), dtype="float32")
    full = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    batch["image"] = (batch["image"] * full).astype(jnp.dtype(dtype))
    operator = run(OPERATORS[name](name="a", clip_range=(0.0, 1.0)), batch)
    np.testing.assert_array_equal(run(chain(EFFECTS[name](name="a")), batch), operator)


@every_pair
def test_they_agree_for_signed_images_and_declared_ranges(name):
    batch = constant(-1000, "int16", count=8)
    expected = run(OPERATORS[name](name="a", clip_range=CT), batch)
    np.testing.assert_array_equal(run(chain(EFFECTS[name](name="a"), value_range=CT), batch), expected)


# Signed integers.


@every_effect
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_signed_images_must_declare_their_range(effect, dtype):
    batch = constant(-100, dtype, count=2)
    with pytest.raises(ValueError, match=r"`value_range` must be given for signed integers.*such as \(-1024, 3071\)"):
        run(chain(effect()), batch)
    assert run(chain(effect(), value_range=(-128, 127)), batch).dtype == dtype


@every_pair
@pytest.mark.parametrize("settings", [{}, {"clip_range": None}, {"clip_range": (0.0, 1.0)}], ids=str)
def test_signed_images_of_operators_must_declare_their_range(name, settings):
    settings = settings | ({"drop_value": 0.5} if name == "patch_dropout" else {})  # 0 is 0 on any scale
    with pytest.raises(
        ValueError, match=r"`clip_range` must say what .* signed integers mean.*such as \(-1024, 3071\)"
    ):
        run(OPERATORS[name](**settings), constant(-1000, "int16", count=2))


@pytest.mark.parametrize("value", [-1024, -1000, 0, 1500, 3071])
def test_every_value_of_a_signed_range_works(value):
    batch = constant(value, "int16")
    values = run(chain(gdx.GaussianNoise(std=0.01), value_range=CT, clip=False), batch).astype(np.float64)
    std = 0.01 * 4095
    assert abs(values.mean() - value) < 5 * std / np.sqrt(values.size)
    assert abs(values.std() - np.sqrt(std**2 + 1 / 12)) < 5 * std / np.sqrt(2 * values.size)
    clipped = run(chain(gdx.GaussianNoise(std=0.1), value_range=CT), batch)
    assert -1024 <= clipped.min() < clipped.max() <= 3071
    filled = run(chain(gdx.PatchDropout(patch_size=(8, 8), fill=0.0), value_range=CT), batch)
    assert set(np.unique(filled)) == {-1024, value}


# Light is counted from the lower end of the range.


@pytest.mark.parametrize("level", [0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("low_high", [(-1.0, 1.0), (0.0, 1.0), (-3.0, 1.0), (0.25, 0.75), (0.0, 255.0)], ids=str)
def test_poisson_has_its_moments_on_any_range(low_high, level):
    low, high = low_high
    x, photons = low + level * (high - low), 50.0
    batch = constant(x)
    variance = (x - low) * (high - low) / photons
    results = [
        run(chain(gdx.PoissonNoise(photons=photons), value_range=low_high, clip=False), batch),
        run(noise("poisson", lam_scale=photons, clip_range=low_high), batch),
    ]
    for values, clipped in zip(results, (False, True), strict=True):
        if clipped and level == 0.9:
            continue  # the upper end is reached
        values = values.astype(np.float64)
        assert abs(values.mean() - x) < 5 * np.sqrt(variance / values.size) + 1e-6 * (high - low)
        # The fourth moment of Poisson counts: 3 variance**2 + variance * unit**2.
        unit = (high - low) / photons
        error = np.sqrt((2 * variance**2 + variance * unit**2) / values.size)
        assert abs(values.var() - variance) < 5 * error


def test_poisson_on_minus_one_to_one_keeps_dark_values():
    values = run(noise("poisson", lam_scale=50.0, clip_range=(-1.0, 1.0)), constant(-0.5))
    assert (values == 0).mean() < 0.05  # they were all 0
    assert values.min() >= -1


# Full scale is said, or guessed with a word about it.


@pytest.mark.parametrize("mode", ["salt_pepper", "poisson"])
def test_a_guess_of_full_scale_is_said_once_and_effects_need_none(mode):
    batch = constant(0.5, count=2, shape=(8, 8))
    operator = noise(mode, clip_range=None, field_key="image", name=f"said once {mode}")
    from grain_datarax.pages import noise_operator

    noise_operator._say_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            run(operator, batch)
        run(noise(mode, clip_range=None), {**batch, "image": batch["image"] * 0 + 7})
        run(noise(mode, clip_range=None), constant(7, "uint8", count=2))
        run(noise("salt_pepper", salt_value=1.0, clip_range=None), batch)
    assert [
        str(each.message) for each in caught if "`clip_range` should say what full scale is" in str(each.message)
    ] == [str(caught[0].message)]
    effect = gdx.PoissonNoise(photons=30.0) if mode == "poisson" else gdx.SaltPepperNoise(salt_prob=0.5)
    with pytest.raises(ValueError, match=r"`value_range` must hold the values of the images: got \(0.0, 1.0\).* to 7"):
        run(chain(effect, axes="HW"), {**batch, "image": batch["image"] * 0 + 7})


@pytest.mark.parametrize("mode", ["salt_pepper", "poisson"])
@pytest.mark.parametrize("bright", [0.5, 7.0])
def test_a_nan_does_not_make_a_record_depend_on_its_batch(mode, bright):
    batch = {"image": np.full((7, 33, 17, 3), bright, np.float32), "record_seed": seeds(7)}
    for record, place in enumerate([(0, 0, 0), (0, 0, 1), (5, 3, 2), (32, 16, 2), (16, 0, 0), (31, 8, 1), (1, 1, 1)]):
        batch["image"][record][place] = np.nan
    operator = noise(mode, clip_range=None)
    whole = run(operator, batch)
    for size in (1, 2, 3):
        for first in range(0, 7 - size + 1):
            part = {name: field[first : first + size] for name, field in batch.items()}
            np.testing.assert_array_equal(run(operator, part), whole[first : first + size])
    full = 1.0 if bright < 1.5 else 255.0
    if mode == "salt_pepper":
        assert np.nanmax(whole) == full


# Values outside the range.


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("make", [gdx.GaussianNoise, EFFECTS["poisson_noise"], EFFECTS["speckle_noise"]])
def test_values_outside_are_counted_and_said_once(make, on_device):
    augment, good, bad = gdx.AugmentBatch(chain(make())), seeded_batch(4), seeded_batch(4)
    bad["image"][1] = 3.0
    bad["image"][2, 0, 0, 0] = np.nan
    bad["image"][3, 0, 0, 1] = -0.5
    outside = 16 * 12 * 3 + 2
    augment.map(good)
    if on_device:
        bad = jax.tree.map(jnp.asarray, bad)
    with pytest.warns(
        UserWarning, match=r"`value_range` must hold the values of all images: got {'.*': [0-9]+} values"
    ):
        counts = augment.map(bad) and augment.counts()
    (name,) = counts
    assert counts[name] == {"applied": 8, "skipped": 0, "outside": outside}
    augment.map(bad)  # is not said again
    assert augment.counts()[name]["outside"] == 2 * outside
    _, counted = jax.jit(lambda batch: gdx.augment(chain(make()), batch, counts=True))(bad)
    assert np.asarray(counted[name]["outside"]).tolist() == [0, 16 * 12 * 3, 1, 1]


def test_counting_is_right_for_padding_skipped_records_and_several_images():
    links = chain(gdx.GaussianNoise(p=0.5), gdx.GaussianNoise(name="second"), image=["left", "right"])
    batch = {"left": images_of(2.0), "right": images_of(0.5), "record_seed": seeds(64)}
    batch["right"][:, 0] = -1.0
    augment = Augmenter(links)
    device = jax.tree.map(jnp.asarray, batch)
    with pytest.warns(UserWarning, match="values outside so far"):
        counts = augment(device, counted=50) and augment.launcher.counts()
    applied = np.asarray(gdx.augment(links, device, counts=True)[1]["GaussianNoise"]["applied"])[:50]
    each = 4 * 4 * 3 + 4 * 3
    assert counts["GaussianNoise"] == {
        "applied": applied.sum(),
        "skipped": (applied == 0).sum(),
        "outside": each * applied.sum(),
    }
    assert counts["second"]["outside"] == each * (applied == 0).sum()  # the others are inside by then


def images_of(value):
    return np.full((64, 4, 4, 3), value, np.float32)


def test_occlusion_and_impulses_leave_values_outside_as_they_are():
    batch = jax.tree.map(jnp.asarray, constant(7.0, count=4, shape=(16, 12, 3)))
    links = chain(gdx.PatchDropout(num_patches=1, patch_size=(2, 2)), gdx.SaltPepperNoise())
    augment = gdx.AugmentBatch(links)
    assert set(np.unique(np.asarray(augment.map(batch)["image"]))) == {0.0, 1.0, 7.0}
    assert all(counts["outside"] == 0 for counts in augment.counts().values())


def test_without_clipping_nothing_is_looked_at():
    augment = gdx.AugmentBatch(chain(gdx.GaussianNoise(std=0.0, mean=0.5), clip=False))
    assert (np.asarray(augment.map(constant(7.0, count=2))["image"]) == 7.5).all()
    assert augment.counts()["GaussianNoise"]["outside"] == 0


def test_a_device_loader_counts_over_its_iterators_and_devices():
    bad = [{"image": np.full((8, 4, 4, 3), 2.0, np.float32), "record_seed": seeds(8)}] * 3
    good = {"image": np.zeros((8, 4, 4, 3), np.float32), "record_seed": seeds(8)}
    loader = gdx.DeviceLoader(grain.MapDataset.source([good, *bad]), chain(gdx.GaussianNoise(p=0.5)))
    with pytest.warns(UserWarning, match="values outside so far"):
        counts = len(list(loader)) and loader.counts()
    applied = np.asarray(gdx.augment(chain(gdx.GaussianNoise(p=0.5)), good, counts=True)[1]["GaussianNoise"]["applied"])
    assert counts == {
        "GaussianNoise": {
            "applied": 4 * applied.sum(),
            "skipped": 4 * (8 - applied.sum()),
            "outside": 3 * 48 * applied.sum(),
        }
    }
    assert gdx.DeviceLoader(grain.MapDataset.source([good])).counts() == {}


@pytest.mark.parametrize("make", [lambda: chain(gdx.GaussianNoise()), noise], ids=["chain", "operator"])
def test_each_dtype_has_its_first_batch_looked_at(make):
    augment = gdx.AugmentBatch(make())
    augment.map(seeded_batch(2, dtype="uint8"))
    bad = seeded_batch(2)
    bad["image"] *= 255
    with pytest.raises(ValueError, match="must hold the values of the images"):
        augment.map(bad)
    by_record = gdx.AugmentRecord(make())
    by_record.random_map({"image": seeded_batch(1, dtype="uint8")["image"][0]}, np.random.default_rng(0))
    with pytest.raises(ValueError, match="must hold the values of the images"):
        by_record.random_map({"image": bad["image"][0]}, np.random.default_rng(0))


# Ranges of integers and their levels.


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bounds_in_float32_lose_no_level(kind):
    for dtype, full in ((np.uint8, 255), (np.uint16, 65535)):
        for whole in range(0, full + 1, full // 255):
            assert level_bounds((float(kind(whole / full)), 1.0), dtype)[0] == whole
            assert level_bounds((0.0, float(kind(whole / full))), dtype)[1] == whole


def test_bounds_between_levels_are_rounded_inwards():
    assert level_bounds((0.3, 0.6), np.uint8) == (77, 153)
    assert level_bounds((0.301, 0.599), np.uint8) == (77, 152)


def test_a_range_of_unsigned_integers_may_be_declared():
    batch = {"image": np.full((8, 64, 64, 1), 1000, np.uint16), "record_seed": seeds(8)}
    values = run(chain(gdx.GaussianNoise(std=0.5), value_range=(0, 4095)), batch)
    assert set(np.unique(values)) >= {0, 4095}
    assert values.max() == 4095
    with pytest.raises(ValueError, match="`value_range` must be of integers from 0 to 65535: got"):
        run(chain(gdx.GaussianNoise(), value_range=(-1, 1)), batch)
    with pytest.raises(ValueError, match="`value_range` must be of integers"):
        run(chain(gdx.GaussianNoise(), value_range=(0, 0.5)), batch)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "uint32"])
@pytest.mark.parametrize("fill", [0.0, 0.5, 1.0])
def test_wide_integers_are_filled_exactly(dtype, fill):
    limits = np.iinfo(dtype)
    with jax.enable_x64("64" in dtype):
        links = chain(gdx.PatchDropout(num_patches=1, patch_size=(2, 2), fill=fill), value_range=(0, int(limits.max)))
        result = run(links, {"image": np.full((2, 8, 8, 1), 7, dtype), "record_seed": seeds(2)})
        assert result.dtype == dtype
        filled = int(result[result != 7][0])
    assert filled == {0.0: 0, 1.0: int(limits.max)}.get(fill, filled)
    assert abs(filled - fill * int(limits.max)) <= 1 + int(limits.max) * 2**-53


@pytest.mark.parametrize("make", [gdx.GaussianNoise, EFFECTS["poisson_noise"], EFFECTS["speckle_noise"]])
def test_what_computes_refuses_integers_that_float32_does_not_hold(make):
    batch = constant(7, "uint32", count=2, shape=(8, 8, 1))
    with pytest.raises(TypeError, match=r"`image` must be floating point or integers up to 2\*\*24"):
        run(chain(make()), batch)
    assert run(chain(make(), value_range=(0, 4095)), batch).max() <= 4095


def test_values_beyond_the_type_are_refused():
    batch = constant(0.5, "float16", count=2, shape=(16, 12, 3))
    with pytest.raises(ValueError, match="`drop_value` must fit into the type of the image: got 100000.0 for float16"):
        run(patch_dropout(drop_value=1e5), batch)
    for setting in ("salt_value", "pepper_value"):
        with pytest.raises(
            ValueError, match=f"`{setting}` must fit into the type of the image: got 1000000.0 for float16"
        ):
            run(noise("salt_pepper", **{setting: 1e6, "clip_range": None}), batch)


@pytest.mark.thorough
def test_ranges_of_any_size_work_or_are_refused():
    batch = constant(1e9, count=2, shape=(8, 8, 1))
    for make in (EFFECTS[name] for name in FIRST):
        assert run(chain(make(), value_range=(0, 5_000_000_000)), batch).max() <= 5e9
    for dtype, value_range in (("float16", (0, 1e-9)), (jnp.bfloat16, (1000, 1001)), ("float16", (0, 1e6))):
        with pytest.raises(
            ValueError, match="`value_range` must be two values that the type of the images tells apart"
        ):
            run(chain(gdx.GaussianNoise(), value_range=value_range), constant(0.0, dtype, count=2, shape=(8, 8, 1)))
    for photons, value_range in ((1e-10, (-1e30, 1e30)), (1e10, (0, 1e-29))):
        with pytest.raises(ValueError, match="`photons` must be from 1e-30 to 1e30 for each unit of the value range"):
            run(
                chain(gdx.PoissonNoise(photons=photons), value_range=value_range),
                constant(0.0, count=2, shape=(8, 8, 1)),
            )


def test_an_empty_batch_leaves_the_next_one_to_be_looked_at():
    augment = gdx.AugmentBatch(chain(gdx.GaussianNoise()))
    augment.map(seeded_batch(0))
    with pytest.raises(ValueError, match="must hold the values of the images"):
        augment.map(constant(7.0, count=2))


@pytest.mark.parametrize("shape", [(2, 8), (2, 3, 8, 8, 3)], ids=str)
def test_a_batch_that_is_refused_leaves_the_next_one_to_be_looked_at(shape):
    augment = gdx.AugmentBatch(chain(gdx.GaussianNoise()))
    with pytest.raises(ValueError, match="`image` must hold a batch of images"):
        augment.map({"image": np.zeros(shape, np.float32), "record_seed": seeds(2)})
    with pytest.raises(ValueError, match="must hold the values of the images"):
        augment.map(constant(7.0, count=2))


def test_scales_turn_fractions_into_values_and_back():
    assert scale_of(np.int16, CT, clip=True, field="image") == Scale(-1024, 3071, CT)
    scale = Scale(-2.0, 6.0, (-2.0, 6.0))
    image = jnp.linspace(-2, 6, 9, dtype=jnp.float32)
    fractions = np.asarray(scale.to_fractions(image))
    np.testing.assert_allclose(fractions, np.linspace(0, 1, 9), atol=2e-7)
    np.testing.assert_allclose(np.asarray(scale.from_fractions(jnp.asarray(fractions), jnp.float32)), image, atol=2e-6)
    every = jnp.arange(256).astype(jnp.uint8)
    scale = scale_of(np.uint8, None, clip=True, field="image")
    np.testing.assert_array_equal(
        np.asarray(scale.from_fractions(scale.to_fractions(every), jnp.uint8)), np.asarray(every)
    )


# Masks.


@pytest.mark.parametrize(
    ("dtype", "ignore"),
    [("uint8", 255), ("int32", -1), ("int16", -100), ("int32", 255), ("float32", -100.0), ("bool", 1)],
)
@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 1)], ids=str)
def test_a_mask_loses_what_the_image_loses_to_its_own_fill(dtype, ignore, shape):
    batch = {**constant(0.5, count=16, shape=(16, 12, 3)), "mask": np.zeros((16, *shape), dtype)}
    links = chain(gdx.PatchDropout(num_patches=2, patch_size=(3, 4)), gdx.GaussianNoise(), masks={"mask": ignore})
    patches = chain(gdx.PatchDropout(num_patches=2, patch_size=(3, 4), fill=1.0))
    dropped = run(patches, batch)[..., 0] == 1
    result = gdx.AugmentBatch(links).map(batch)
    mask = np.asarray(result["mask"])
    assert mask.dtype == dtype
    np.testing.assert_array_equal(
        mask.reshape(16, 16, 12), np.where(dropped, np.array(ignore, dtype), np.zeros((), dtype))
    )
    kept = gdx.AugmentBatch(chain(gdx.PatchDropout(), masks={"mask": None})).map(batch)
    assert kept["mask"] is batch["mask"]


@pytest.mark.parametrize("axes", ["CHW", "TCHW", "THW"])
def test_masks_follow_any_axes(axes):
    sizes = {"T": 4, "C": 3, "H": 16, "W": 12}
    image = np.full((2, *(sizes[axis] for axis in axes)), 0.5, np.float32)
    mask = np.zeros((2, *(sizes[axis] for axis in axes if axis != "C")), np.uint8)
    batch = {"image": image, "mask": mask, "record_seed": seeds(2)}
    for same_on_frame in (True, False):
        effect = gdx.PatchDropout(num_patches=2, patch_size=(3, 4), same_on_frame=same_on_frame)
        result = gdx.AugmentBatch(chain(effect, axes=axes, masks={"mask": 255})).map(batch)
        image_lost = np.asarray(result["image"]) == 0
        if "C" in axes:
            image_lost = image_lost.all(axis=1 + axes.index("C"))
        np.testing.assert_array_equal(np.asarray(result["mask"]) == 255, image_lost)


def test_noise_never_touches_a_mask_and_skipped_records_keep_theirs():
    batch = {
        **constant(0.5, count=16, shape=(16, 12, 3)),
        "mask": np.arange(16 * 16 * 12, dtype=np.uint16).reshape(16, 16, 12),
    }
    names = [name for name in FIRST if name not in ("patch_dropout", "patches of ranges")]
    links = chain(*(EFFECTS[name]() for name in names), masks={"mask": 255})
    np.testing.assert_array_equal(np.asarray(gdx.AugmentBatch(links).map(batch)["mask"]), batch["mask"])
    links = chain(gdx.PatchDropout(p=0.5, patch_size=(3, 4)), masks={"mask": 255})
    result = gdx.AugmentBatch(links).map(batch)
    changed = [(np.asarray(result[name]) != batch[name]).reshape(16, -1).any(axis=1) for name in ("image", "mask")]
    np.testing.assert_array_equal(*changed)
    assert 0 < changed[0].sum() < 16


def test_masks_are_checked():
    batch = {**constant(0.5, count=2, shape=(16, 12, 3)), "mask": np.zeros((2, 16, 12), np.uint8)}
    for ignore in (-1, 256, 0.5):
        with pytest.raises(
            ValueError, match="`masks` must be filled with a value of their type, an integer from 0 to 255"
        ):
            run(chain(gdx.PatchDropout(), masks={"mask": ignore}), batch)
    with pytest.raises(
        ValueError, match=r"`masks` must share the image's size, \(2, 16, 12\) without channels: got shape"
    ):
        run(chain(gdx.PatchDropout(), masks={"mask": 255}), {**batch, "mask": batch["mask"][:, 1:]})
    for dtype, fill in (("float16", 1e6), ("float16", 2049), ("float32", 2**24 + 1)):
        with pytest.raises(ValueError, match="`masks` must be filled with a value of their type: got"):
            run(chain(gdx.PatchDropout(), masks={"mask": fill}), {**batch, "mask": batch["mask"].astype(dtype)})
    with pytest.raises(KeyError, match="`labels` must be a field"):
        run(chain(gdx.PatchDropout(), masks={"labels": 255}), batch)
    with pytest.raises(TypeError, match="`masks` must be a number: got 'white'"):
        chain(gdx.PatchDropout(), masks={"mask": "white"})
    with pytest.raises(TypeError, match="`masks` must be a mapping from fields to fills"):
        chain(gdx.PatchDropout(), masks=["mask"])


# Images that share a draw, and channels that are left alone.


def test_several_images_share_the_draws():
    left, right = seeded_batch(4)["image"], seeded_batch(4, seed=9)["image"]
    batch = {"pair": {"left": left, "right": right}, "depth": left[..., :1], "record_seed": seeds(4)}
    links = chain(gdx.PatchDropout(patch_size=(3, 4)), gdx.GaussianNoise(), image=["pair.left", "pair.right"])
    result = gdx.AugmentBatch(links).map(batch)
    for side, image in (("left", left), ("right", right)):
        alone = run(
            chain(gdx.PatchDropout(patch_size=(3, 4)), gdx.GaussianNoise()), {"image": image, "record_seed": seeds(4)}
        )
        np.testing.assert_array_equal(np.asarray(result["pair"][side]), alone)
    with_depth = chain(gdx.PatchDropout(patch_size=(3, 4)), image=["pair.left", "depth"])
    result = gdx.AugmentBatch(with_depth).map(batch)
    np.testing.assert_array_equal(
        np.asarray(result["pair"]["left"])[..., 0] == 0, np.asarray(result["depth"])[..., 0] == 0
    )
    with pytest.raises(ValueError, match="`image` must name fields of one height, width and number of frames"):
        gdx.AugmentBatch(with_depth).map({**batch, "depth": batch["depth"][:, 1:]})


@every_effect_later_long
@pytest.mark.parametrize("axes", ["HWC", "CHW"])
def test_channels_that_are_not_named_keep_their_bits(effect, axes):
    if isinstance(effect(), Geometric):  # which move all
        return
    batch = seeded_batch(4, shape=(16, 12, 4))
    colours = {**batch, "image": batch["image"][..., [0, 2, 3]]}
    expected = run(chain(effect()), colours)
    image = batch["image"] if axes == "HWC" else np.moveaxis(batch["image"], -1, 1)
    result = run(chain(effect(), channels=[0, 2, 3], axes=axes), {**batch, "image": image})
    result = result if axes == "HWC" else np.moveaxis(result, 1, -1)
    np.testing.assert_array_equal(result[..., [0, 2, 3]], expected)
    np.testing.assert_array_equal(result[..., 1], batch["image"][..., 1])
    depth = {**batch, "image": image.copy()}
    depth["image"][(..., 1) if axes == "HWC" else (slice(None), 1)] = 100.0
    augment = gdx.AugmentBatch(chain(effect(), channels=[0, 2, 3], axes=axes))
    augment.map(depth)
    assert augment.counts()[chain(effect()).names[0]]["outside"] == 0
    with pytest.raises(ValueError, match="`channels` must be below 4"):
        run(chain(effect(), channels=[4], axes=axes), {**batch, "image": image})


# Axes that are declared wrongly.


@pytest.mark.parametrize("shape", [(3, 16, 12), (1, 16, 12), (8, 16, 12)], ids=str)
def test_channels_first_are_told_of_where_patches_cut_across_them(shape):
    batch = {"image": np.full((2, *shape), 0.5, np.float32), "record_seed": seeds(2)}
    for make in (lambda size: chain(gdx.PatchDropout(patch_size=size)), lambda size: patch_dropout(patch_size=size)):
        with pytest.raises(
            ValueError, match=r"`patch_size` must fit inside .* looks like channels first \(CHW\) or grey video"
        ):
            run(make((9, 9)), batch)
        from grain_datarax.images import warn_of_layout

        warn_of_layout.cache_clear()
        with pytest.warns(UserWarning, match=r'patches are cut from axes 0 and 1.*axes="CHW"'):
            run(make((1, 4)), batch)
    warn_of_layout.cache_clear()
    crops = chain(gdx.HorizontalFlip(), gdx.PadCrop(padding=8, size=(6, 6)))
    with pytest.warns(UserWarning, match=r'axes 0 and 1, and pixels move along them.*axes="CHW"') as told:
        run(crops, batch)
    assert len(told) == 1
    declared = run(chain(gdx.PatchDropout(patch_size=(9, 9)), axes="CHW" if shape[0] < 8 else "THW"), batch)
    assert (declared == 0).any()


def test_axes_that_do_not_fit_the_shape_say_which_would():
    with pytest.raises(ValueError, match=r"must hold a batch of images \(H, W, C\).*pass axes='HW'"):
        run(chain(gdx.GaussianNoise()), constant(0.5, count=2, shape=(16, 12)))
    with pytest.raises(ValueError, match="Pass axes='THWC' or 'TCHW' to Chain"):
        run(chain(gdx.GaussianNoise()), constant(0.5, count=2, shape=(4, 16, 12, 3)))
    with pytest.raises(ValueError, match="`axes` must be one of"):
        chain(gdx.GaussianNoise(), axes="WHC")


# Probabilities.


@pytest.mark.parametrize(
    ("salt", "pepper"), [(1 - 1e-7, 0.0), (0.0, 1 - 1e-6), (0.5, 0.5 - 1e-7), (1 - 2e-5, 1e-5), (0.9999, 0.0)]
)
def test_probabilities_near_one_are_held_to_one_part_in_ten_thousand(salt, pepper):
    key, shape = jax.random.key(3, impl=STREAM), (2**22,)
    mask = np.asarray(impulse_mask(key, shape, salt_prob=salt, pepper_prob=pepper))
    neither = 1 - (salt + pepper)
    expected = neither * mask.size
    assert abs((mask == 0).sum() - expected) < 5 * np.sqrt(expected) + 1
    assert (mask == 0).sum() > 0 or expected < 12
    assert stats.binomtest(int((mask == 1).sum()), mask.size, salt).pvalue > 1e-6


# Two stages.


STAGES = {
    "chains": lambda: (chain(gdx.GaussianNoise()), chain(gdx.GaussianNoise())),
    "operators": lambda: (noise(), noise()),
    "chain and one of more": lambda: (chain(gdx.GaussianNoise()), chain(gdx.PatchDropout(), gdx.GaussianNoise())),
}


@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
def test_two_stages_of_one_name_on_the_same_seeds_are_refused(stages):
    first, second = stages()
    message = r"`name` must not be that of an effect that drew from the same seeds before: got \['.*aussian.*'\]"
    batch = seeded_batch(8)
    once = gdx.AugmentBatch(first, keep_seed=True).map(batch)
    with pytest.raises(ValueError, match=message):
        gdx.AugmentBatch(second).map(once)
    with pytest.raises(ValueError, match=message):  # under jit, where no value is known
        jax.jit(lambda batch: gdx.augment(second, gdx.augment(first, batch, keep_seed=True)))(seeded_batch(8))
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda batch: gdx.augment(second, batch))(jax.tree.map(jnp.asarray, once))
    source = grain.MapDataset.source([{"image": image} for image in batch["image"]])
    records = source.random_map(gdx.SeedRecords(), seed=7).random_map(gdx.AugmentRecord(first), seed=8)
    with pytest.raises(ValueError, match=message):
        records.batch(4).map(gdx.AugmentBatch(second))[0]
    with pytest.raises(ValueError, match=message):
        next(iter(gdx.DeviceLoader(records.batch(8), second)))
    with pytest.raises(ValueError, match=message):
        records.random_map(gdx.AugmentRecord(second), seed=9)[0]


def test_stages_of_other_names_or_seeds_draw_apart_and_leave_no_trace():
    batch = seeded_batch(8)
    once = gdx.AugmentBatch(chain(gdx.GaussianNoise()), keep_seed=True).map(batch)
    assert once["record_draws"].keys() == {next(iter(once["record_draws"]))}
    for second in (chain(gdx.GaussianNoise(name="b")), chain(gdx.GaussianNoise(), seed=1)):
        twice = gdx.AugmentBatch(second).map(once)
        assert twice.keys() == {"image"}
        np.testing.assert_array_equal(
            np.asarray(twice["image"]), run(second, {**batch, "image": np.asarray(once["image"])})
        )
    names = chain(gdx.GaussianNoise(), gdx.GaussianNoise()).names
    assert run(chain(gdx.GaussianNoise(name=names[1])), batch).tobytes() != np.asarray(once["image"]).tobytes()


def test_a_draw_from_a_generator_of_its_own_is_no_second_draw():
    source = grain.MapDataset.source([{"image": image} for image in seeded_batch(8)["image"]])
    records = source.random_map(gdx.AugmentRecord(chain(gdx.GaussianNoise())), seed=7)
    seeded = records.random_map(gdx.SeedRecords(), seed=8)
    assert gdx.AugmentBatch(chain(gdx.GaussianNoise())).map(seeded.batch(4)[0]).keys() == {"image"}


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("uint32", 0, 2**32 - 1),
        ("uint32", 2**32 - 10, 2**32 - 1),
        ("int32", -(2**31), 2**31 - 1),
        ("int32", 2**30 + 1, 2**30 + 9),
        ("int32", -5, 2**25 + 1),
    ],
)
def test_drawn_fills_of_large_integers_lie_where_they_should(dtype, low, high):
    # The fraction that is told is met to half a value, or to two bits of float32.
    batch = {"image": np.full((16, 6, 6, 1), low, dtype), "record_seed": seeds(16)}
    for effect, fraction, value in [
        (gdx.PatchDropout(patch_size=(6, 6), fill=(0.1, 0.5), name="a"), "fill", None),
        (gdx.SaltPepperNoise(salt_prob=1, pepper_prob=0, salt_value=(0.6, 1), name="a"), "salt_value", None),
        (gdx.SaltPepperNoise(salt_prob=0, pepper_prob=1, pepper_value=(0.1, 0.3), name="a"), "pepper_value", None),
        (gdx.PatchDropout(patch_size=(6, 6), fill=(1, 1), name="a"), "fill", high),
        (gdx.PatchDropout(patch_size=(6, 6), fill=(0, 0), name="a"), "fill", low),
    ]:
        result = gdx.AugmentBatch(gdx.Chain([effect], seed=0, value_range=(low, high), draws="drawn")).map(batch)
        got = np.asarray(result["image"]).astype(np.int64)[:, 0, 0, 0]
        assert result["image"].dtype == dtype
        assert (np.asarray(result["image"]) == np.asarray(result["image"])[:, :1, :1]).all()
        assert ((low <= got) & (got <= high)).all()
        drawn = np.asarray(result["drawn"]["a"][fraction]).astype(np.float64)
        expected = low + drawn * (high - low) if value is None else value
        assert np.abs(got - expected).max() <= max(0.5, (high - low) * 2**-22)
        assert value is None or (got == value).all()
