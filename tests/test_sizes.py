"""Images of many sizes in one batch, and one after the other: padding changes no record's pixels."""

import dataclasses
import pickle

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import EFFECTS, chain, every_effect_later_long, seeds, whole_table
from jax.sharding import NamedSharding, PartitionSpec
from sources import images

import grain_datarax as gdx
from grain_datarax.effects.effect import Effect
from grain_datarax.launch import compiled_count
from grain_datarax.random.bits import STREAM
from grain_datarax.random.rounding import rounded
from grain_datarax.random.sized import sized_key

SIZES = [(9, 17), (16, 12), (5, 6), (20, 20), (13, 11)]


def records(sizes, axes="HWC", dtype="float32"):
    every = {"T": 2, "C": 3}
    shapes = [tuple({**every, "H": height, "W": width}[axis] for axis in axes) for height, width in sizes]
    return [
        {"image": images(1, shape=shape, dtype=dtype, seed=place)[0], "record_seed": seeds(1, seed=place)[0]}
        for place, shape in enumerate(shapes)
    ]


def padded(field, axes, height, width, value):
    missing = {"H": height - field.shape[axes.index("H")], "W": width - field.shape[axes.index("W")]}
    return np.pad(field, [(0, missing.get(axis, 0)) for axis in axes], constant_values=value)


def padded_batch(given, height, width, axes="HWC", value=0, **masks):
    def stack(name, its_axes):
        return np.stack([padded(record[name], its_axes, height, width, value) for record in given])

    sizes = [[record["image"].shape[axes.index(axis)] for axis in "HW"] for record in given]
    same = {name: np.stack([record[name] for record in given]) for name in given[0] if name not in ("image", *masks)}
    return {
        **same,
        "image": stack("image", axes),
        **{name: stack(name, masks[name]) for name in masks},
        "size": np.array(sizes),
    }


def cut(field, axes, height, width):
    inside = {"H": slice(height), "W": slice(width)}
    return np.asarray(field)[tuple(inside.get(axis, slice(None)) for axis in axes)]


def alone(links, record):
    batch = gdx.AugmentBatch(links).map({name: field[None] for name, field in record.items()})
    return {name: np.asarray(field)[0] for name, field in batch.items()}


def require_equal(links, given, batches, axes="HWC", value=0, **masks):
    """Each record has the fields that it has alone, and padding is as it was."""
    expected = [alone(links, record) for record in given]
    of_sizes = dataclasses.replace(links, size="size")
    for batch_size, height, width in batches:
        for first in range(0, len(given), batch_size):
            part = given[first : first + batch_size]
            batch = padded_batch(part, height, width, axes, value, **masks)
            result = gdx.AugmentBatch(of_sizes).map(batch)
            for place, own in enumerate(expected[first : first + batch_size]):
                for name, its_axes in {"image": axes, **masks}.items():
                    field, before = np.asarray(result[name])[place], batch[name][place].copy()
                    size = batch["size"][place]
                    np.testing.assert_array_equal(cut(field, its_axes, *size), own[name], err_msg=f"{name} {size}")
                    cut(before, its_axes, *size)[...] = own[name]
                    np.testing.assert_array_equal(field, before)
                for name in own.keys() - {"image", "size", *masks}:
                    np.testing.assert_array_equal(np.asarray(result[name])[place], own[name])


@every_effect_later_long
def test_a_record_has_the_same_pixels_at_any_padding(effect):
    if not all(link.may_be_padded for link in chain(effect()).links):
        with pytest.raises(ValueError, match=f"`size` must be None for {type(effect()).__name__}"):
            chain(effect(), size="size")
        return
    require_equal(chain(effect()), records(SIZES[:3]), [(3, 20, 20), (1, 23, 32)], value=7)


@pytest.mark.once
@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16"])
def test_padding_changes_nothing_in_any_type(dtype):
    require_equal(whole_table(), records(SIZES[:3], dtype=dtype), [(3, 20, 20)], value=1)


@pytest.mark.long
@pytest.mark.thorough
def test_24_records_of_24_sizes_have_the_same_pixels_in_batches_of_1_4_and_24():
    rng = np.random.default_rng(0)
    sizes = [tuple(rng.integers(6, 40, 2).tolist()) for _ in range(24)]
    assert len(set(sizes)) == 24
    require_equal(whole_table(), records(sizes), [(1, 64, 40), (4, 41, 52), (24, 40, 40)])


@pytest.mark.thorough
@pytest.mark.parametrize("axes", ["HW", "CHW", "THW", "TCHW", "THWC"])
def test_padding_changes_nothing_in_any_axes(axes):
    require_equal(whole_table(axes=axes), records(SIZES[:3], axes), [(3, 24, 20)], axes)


def test_padding_changes_no_mask_box_or_keypoint():
    given = records(SIZES)
    rng = np.random.default_rng(1)
    for record in given:
        height, width = record["image"].shape[:2]
        record["mask"] = rng.integers(0, 5, (height, width, 1)).astype(np.int16)
        corners = np.sort(rng.uniform(0, 1.2, (6, 2, 2)), axis=1)  # also beyond the edge
        record["parts"] = corners.reshape(6, 4).astype(np.float32)
        record["boxes"] = (corners * (width, height)).reshape(6, 4).astype(np.float32)
        record["points"] = (rng.uniform(-0.1, 1.1, (20, 2)) * (width, height)).astype(np.float32)
        record["places"] = rng.uniform(-0.1, 1.1, (20, 2)).astype(np.float32)
    links = gdx.Chain(
        [
            gdx.PatchDropout(num_patches=3, patch_size=(0.4, (2, 5))),
            gdx.PatchDropout(num_patches=(0, 3), patch_size=(4, 3)),
        ],
        seed=0,
        masks={"mask": -1},
        boxes={"boxes": "xyxy", "parts": "rel_xyxy"},
        keypoints={"points": "xy", "places": "rel_xy"},
    )
    require_equal(links, given, [(5, 20, 20), (5, 40, 33)], mask="HWC")


@pytest.mark.parametrize("side", [0.1, 0.35, 0.5])
def test_sizes_of_patches_that_are_shares_are_those_of_the_image_itself(side):
    sizes = [(length, length + 1) for length in range(1, 31)]
    given = records(sizes)
    effect = gdx.PatchDropout(num_patches=1, patch_size=(side, side))
    batch = padded_batch(given, 31, 31)
    drawn = gdx.AugmentBatch(chain(effect, size="size", draws="draws")).map(batch)["draws"]
    expected = [[max(1, round(side * length)) for length in size] for size in sizes]
    np.testing.assert_array_equal(np.asarray(next(iter(drawn.values()))["positions"])[:, 0, 2:], expected)


def test_conversions_treat_the_padding_too():
    links = chain(gdx.GaussianNoise(), gdx.Normalize(mean=0.5, std=0.25, dtype="bfloat16"))
    given = records(SIZES)
    batch = padded_batch(given, 24, 24)
    result = np.asarray(gdx.AugmentBatch(dataclasses.replace(links, size="size")).map(batch)["image"])
    for field, record, (height, width) in zip(result, given, SIZES, strict=True):
        np.testing.assert_array_equal(field[:height, :width], alone(links, record)["image"])
        assert (field[height:] == -2).all()
        assert (field[:, width:] == -2).all()


def test_several_images_and_chosen_channels_have_their_padding_alone():
    links = gdx.Chain(
        [gdx.GaussianNoise(), gdx.PatchDropout(num_patches=2, patch_size=(2, 2))],
        seed=0,
        image=["image", "right"],
        channels=[0, 2],
    )
    given = records(SIZES[:3])
    for record in given:
        record["right"] = record["image"][::-1].copy()
    require_equal(links, given, [(3, 16, 18)], right="HWC")


@pytest.mark.once
def test_what_users_draw_in_the_images_shape_follows_the_size():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Grain(Effect):
        by_value = True

        def draw(self, key, shape):
            first, second = jax.random.split(jax.random.fold_in(key, 3))
            grey = jax.random.normal(first, shape[:2])
            return grey[..., None] + jax.random.uniform(second) + jax.random.laplace(key, shape)

        def image(self, image, drawn):
            return image + rounded(0.1 * drawn)

    require_equal(chain(Grain()), records(SIZES), [(5, 20, 20), (1, 30, 32)])


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (5, 7, 1), (4, 6, 3), (8, 8, 4), (3, 5, 3)])
def test_a_key_that_knows_the_size_draws_the_bits_of_the_image_itself(shape, bits):
    key = jax.random.wrap_key_data(jnp.uint32([1, 2]), impl=STREAM)
    dtype = jnp.dtype(f"uint{bits}")
    for derived in (lambda key: key, lambda key: jax.random.fold_in(key, 7), lambda key: jax.random.split(key, 3)[2]):
        expected = jax.random.bits(derived(key), shape, dtype)
        for height, width in ((8, 8), (9, 31)):
            of_size = derived(sized_key(key, jnp.array(shape[:2]), (height, width)))
            drawn = jax.random.bits(of_size, (height, width, *shape[2:]), dtype)
            np.testing.assert_array_equal(drawn[: shape[0], : shape[1]], expected)
            np.testing.assert_array_equal(
                jax.random.bits(of_size, (4, 2), dtype), jax.random.bits(derived(key), (4, 2), dtype)
            )


def test_padding_counts_for_nothing():
    links = chain(gdx.GaussianNoise(), value_range=(0.25, 1.0), size="size")
    given = records(SIZES)
    for record in given:
        record["image"] = record["image"] * 0.5 + 0.5
    augment = gdx.AugmentBatch(links)
    augment.map(padded_batch(given, 24, 24))  # of zeros, which the range does not hold
    assert augment.counts()["GaussianNoise"]["outside"] == 0
    given[0]["image"][0, 0, 0] = 0.0

    def outside():
        augment.map(padded_batch(given, 24, 24))
        return augment.counts()["GaussianNoise"]["outside"]

    with pytest.warns(UserWarning, match="values outside so far"):
        assert outside() == 1
    with pytest.raises(ValueError, match="`value_range` must hold the values"):
        gdx.AugmentBatch(links).map(padded_batch(given, 24, 24))


def test_a_sharded_batch_of_many_sizes_gets_the_pixels_of_one_device():
    batch = padded_batch(records(SIZES * 2)[:8], 20, 20)
    links = whole_table(size="size")
    expected = np.asarray(gdx.AugmentBatch(links).map(batch)["image"])
    for axis_type in (jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
        spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        np.testing.assert_array_equal(np.asarray(gdx.AugmentBatch(links).map(spread)["image"]), expected)


class WithSize(grain.transforms.Map):
    def map(self, element):
        return {**element, "size": np.array(element["image"].shape[:2])}


@pytest.mark.thorough
def test_batches_padded_to_their_longest_give_every_record_its_own_pixels():
    def pad(given):
        height, width = np.max([record["image"].shape[:2] for record in given], axis=0)
        return padded_batch([{k: v for k, v in record.items() if k != "size"} for record in given], height, width)

    given = [{"image": record["image"]} for record in records(SIZES)]
    seeded = grain.MapDataset.source(given).map(WithSize()).random_map(gdx.SeedRecords(), seed=3)
    links = whole_table(size="size")
    pixels = {}
    for size in (1, 2, 5):
        batches = seeded.batch(size, batch_fn=pad).map(gdx.AugmentBatch(links))
        cuts = [
            cut(field, "HWC", *own)
            for batch in batches
            for field, own in zip(batch["image"], batch["size"], strict=True)
        ]
        pixels[size] = [each.tobytes() for each in cuts]
    assert pixels[1] == pixels[2] == pixels[5]
    one_by_one = seeded.random_map(gdx.AugmentRecord(links), seed=0)
    assert pixels[1] == [record["image"].tobytes() for record in one_by_one]
    unpadded = seeded.random_map(gdx.AugmentRecord(whole_table()), seed=0)
    assert pixels[1] == [record["image"].tobytes() for record in unpadded]


@pytest.mark.parametrize("name", ["patch_dropout", "gaussian_noise", "sequential"])
def test_single_records_of_many_sizes_are_compiled_for_few(name):
    rng = np.random.default_rng(2)
    sizes = [tuple(rng.integers(33, 48, 2).tolist()) for _ in range(6)]
    given = records(sizes)
    for record in given:
        record["mask"] = np.zeros(record["image"].shape[:2], np.uint8)
    links = chain(EFFECTS[name](name=f"many sizes {name}" if name != "sequential" else None), masks={"mask": 9})
    expected = [alone(links, record) for record in given]
    augment, before = gdx.AugmentRecord(links), compiled_count()
    for record, wanted in zip(given, expected, strict=True):
        result = augment.random_map(record, None)
        for field in ("image", "mask"):
            np.testing.assert_array_equal(result[field], wanted[field])
            assert result[field].flags.writeable
    assert compiled_count() - before == 1  # of 48 x 48; the first was compiled before
    assert {sum(counts.values()) for counts in augment.counts().values()} == {6}


def test_a_record_that_is_too_small_is_refused_at_its_own_size():
    augment = gdx.AugmentRecord(chain(gdx.PatchDropout(num_patches=1, patch_size=(8, 8))))
    for size in ((16, 16), (12, 9)):
        augment.random_map(records([size])[0], None)
    with pytest.raises(ValueError, match=r"`patch_size` must fit inside the image: got \(8, 8\) .*\(7, 20, 3\)"):
        augment.random_map(records([(7, 20)])[0], None)


@pytest.mark.thorough
def test_draws_and_replay_know_the_size():
    links = chain(
        gdx.PatchDropout(num_patches=(1, 3), patch_size=((2, 4), 0.25)),
        gdx.GaussianNoise(std=(0.1, 0.2)),
        size="size",
        draws="drawn",
    )
    given = records(SIZES)
    result = gdx.AugmentBatch(links).map(padded_batch(given, 32, 24))
    for place, (record, size) in enumerate(zip(given, SIZES, strict=True)):
        told = gdx.draws(links, record["record_seed"], record["image"].shape)
        for name, drawn in told.items():
            for what, expected in drawn.items():
                np.testing.assert_array_equal(np.asarray(result["drawn"][name][what])[place], expected)
        again = gdx.replay({"image": record["image"], "size": np.array(size)}, record["record_seed"], links)
        np.testing.assert_array_equal(again["image"], cut(result["image"][place], "HWC", *size))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([[0, 4]], r"`size` must be the height and width of each record, from 1 to .*\(16, 12\): got from \(0, 4\)"),
        ([[17, 4]], r"got from \(17, 4\) to \(17, 4\)"),
        ([[4, 13]], r"Write them before images are padded"),
        ([4], r"`size` must hold the height and width of each record, integers \(2,\): got int64 of shape \(\)"),
        ([[4.0, 4.0]], r"`size` must hold the height and width of each record, integers \(2,\): got float64"),
        (np.ones((1, 2), jnp.int4), r"`size` must hold the height and width of each record, integers \(2,\): got int4"),
        (np.full((1, 2), 4, ">i4"), r"`size` must hold the height and width of each record, integers \(2,\): got >i4"),
        ([[2, 4]], r"`patch_size` must fit inside the image: got \(3, 4\) .*\(2, 4, 3\)"),
    ],
)
def test_sizes_that_are_none_are_refused(sizes, message):
    links = chain(EFFECTS["patch_dropout"](), size="size")
    batch = {"image": images(1), "record_seed": seeds(1), "size": np.array(sizes)}
    with pytest.raises(ValueError, match=message):
        gdx.AugmentBatch(links).map(batch)


def test_effects_that_look_beyond_a_pixel_take_no_padding():
    with pytest.raises(ValueError, match="`size` must be None for CutMix"):
        chain(gdx.Sequential([gdx.CutMix()]), size="size")
    with pytest.raises(ValueError, match="must name fields that play no other part"):
        chain(gdx.GaussianNoise(), size="image")
    with pytest.raises(KeyError, match="`size` must be a field"):
        gdx.AugmentBatch(chain(gdx.GaussianNoise(), size="size")).map({"image": images(1), "record_seed": seeds(1)})


def test_tuples_of_many_sizes_are_records_too():
    links = chain(gdx.GaussianNoise(), gdx.PatchDropout(num_patches=1, patch_size=(2, 2)), image=0)
    augment = gdx.AugmentRecord(links)
    for record in records(SIZES[:3]):
        image, label, _ = augment.random_map((record["image"], 3, record["record_seed"]), None)[:3]
        np.testing.assert_array_equal(image, alone(dataclasses.replace(links, image="image"), record)["image"])
        assert label == 3
    batch = padded_batch(records(SIZES[:3]), 20, 20)
    sized = gdx.AugmentBatch(chain(gdx.GaussianNoise(), image=0, size=2))
    result = sized.map((batch["image"], np.arange(3), batch["size"], batch["record_seed"]))
    expected = gdx.AugmentBatch(chain(gdx.GaussianNoise(), size="size")).map(batch)["image"]
    np.testing.assert_array_equal(np.asarray(result[0]), np.asarray(expected))


def test_what_is_not_treated_is_not_padded():
    augment = gdx.AugmentRecord(chain(EFFECTS["patch_dropout"](), masks={"depth": None}))
    for record in records(SIZES[:3]):
        depth = np.zeros(record["image"].shape[:2], np.float32)
        assert augment.random_map({**record, "depth": depth}, None)["depth"] is depth


@dataclasses.dataclass(frozen=True)
class TopLeft(gdx.PatchDropout):
    def draw(self, key, shape):
        return jnp.zeros((1, 2), jnp.int32)


@dataclasses.dataclass(frozen=True)
class Smeared(gdx.GaussianNoise):
    def pixels(self, image, drawn, scale):
        return super().pixels((image + jnp.roll(image, 1, axis=0)) / 2, drawn, scale)


@pytest.mark.parametrize("effect", [TopLeft(num_patches=1, patch_size=(2, 2)), Smeared()])
def test_what_a_subclass_says_otherwise_is_not_padded(effect):
    with pytest.raises(ValueError, match="`size` must be None for"):
        chain(effect, size="size")
    augment = gdx.AugmentRecord(chain(effect))
    for record in records(SIZES[:3]):
        np.testing.assert_array_equal(augment.random_map(record, None)["image"], alone(chain(effect), record)["image"])


@pytest.mark.parametrize("height", [7, 49, 224])
def test_keypoints_on_the_edges_of_pixels_are_where_they_are_without_padding(height):
    places = np.stack([np.full(height, 0.5, np.float32), (np.arange(height) / height).astype(np.float32)], axis=-1)
    record = {"image": np.zeros((height, 8, 3), np.uint8), "points": places, "record_seed": seeds(1)[0]}
    effect = gdx.PatchDropout(num_patches=max(1, height // 20), patch_size=(5, 8))
    require_equal(chain(effect, keypoints={"points": "rel_xy"}), [record], [(1, 300, 8)])


@pytest.mark.parametrize("sides", [(0.3, 2), (2, 0.3), (0.3, 0.3), (2, 2), ((1, 3), 0.3)])
def test_sides_of_all_kinds_work_on_explicit_meshes(sides):
    links = chain(gdx.PatchDropout(num_patches=2, patch_size=sides), size="size")
    batch = padded_batch(records(SIZES * 2)[:8], 20, 20)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    results = [np.asarray(gdx.AugmentBatch(links).map(each)["image"]) for each in (batch, spread)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_padding_is_converted_whatever_type_comes_in(dtype):
    batch = padded_batch(records(SIZES[:3], dtype=dtype), 24, 24)
    links = chain(gdx.Normalize(mean=0.5, std=0.5), size="size")
    assert (np.asarray(gdx.AugmentBatch(links).map(batch)["image"])[:, 20:, 20:] == -1).all()


def test_a_copy_counts_records_of_all_sizes():
    augment = pickle.loads(pickle.dumps(gdx.AugmentRecord(chain(gdx.GaussianNoise()))))
    for record in records(SIZES):
        augment.random_map(record, None)
    assert augment.counts()["GaussianNoise"]["applied"] == len(SIZES)
