"""Chains as recipes have them: strengths of ranges, effects of which a record takes some, partners, what comes out."""

import collections
import dataclasses
import functools
import itertools
import json
import sys
import warnings

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from effect_table import chain, run, seeded_batch, seeds
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sources import images

import grain_datarax as gdx
from grain_datarax.augmenter import launcher_of
from grain_datarax.fingerprint import differences

pytestmark = pytest.mark.once

SHAPE = (16, 12, 3)
MANY = 20_000


def drawn(links, count=MANY, shape=SHAPE, seed=5):
    return gdx.draws(links, seeds(count, seed), shape)


@pytest.mark.parametrize(
    ("effect", "name", "low", "high"),
    [
        (gdx.GaussianNoise(std=(0.1, 0.3), mean=(-0.5, 0.5)), "std", 0.1, 0.3),
        (gdx.GaussianNoise(std=(0.1, 0.3), mean=(-0.5, 0.5)), "mean", -0.5, 0.5),
        (gdx.SaltPepperNoise(salt_prob=(0, 0.2), pepper_prob=(0.1, 0.4)), "pepper_prob", 0.1, 0.4),
        (gdx.PoissonNoise(photons=(5, 60)), "photons", 5, 60),
        (gdx.PatchDropout(fill=(0.25, 1.0)), "fill", 0.25, 1.0),
    ],
)
def test_strengths_are_uniform_and_stay_within_their_range(effect, name, low, high):
    told = drawn(chain(effect))
    values = next(iter(told.values()))[name]
    assert values.dtype == np.float32
    assert low <= values.min() <= values.max() <= np.float32(high)
    # Of a true law one test in 10,000 fails; the seed is fixed.
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-4


def test_strengths_of_one_effect_are_independent_of_each_other_and_of_its_noise():
    links = chain(gdx.GaussianNoise(std=(0.1, 0.3), mean=(-0.5, 0.5), p=0.5), gdx.PoissonNoise(photons=(5, 60)))
    told = drawn(links)
    columns = [told["GaussianNoise"][name] for name in ("std", "mean", "applied")] + [told["PoissonNoise"]["photons"]]
    for first, second in itertools.combinations(columns, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(MANY)  # four standard errors


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    ("plain", "ranged"),
    [
        (gdx.GaussianNoise(std=0.25, mean=0.125), {"std": (0.25, 0.25), "mean": (0.125, 0.125)}),
        (gdx.PoissonNoise(photons=32.0), {"photons": (32.0, 32.0)}),
        (gdx.PatchDropout(num_patches=3, name="patches"), {"num_patches": (3, 3), "fill": (0.0, 0.0)}),
    ],
)
def test_a_range_of_one_number_gives_the_pixels_of_the_number(plain, ranged, dtype):
    batch = seeded_batch(8, dtype=dtype)
    np.testing.assert_array_equal(run(chain(dataclasses.replace(plain, **ranged)), batch), run(chain(plain), batch))


def test_each_record_gets_the_noise_of_the_strength_that_it_drew():
    links = chain(gdx.GaussianNoise(std=(0.05, 0.4)), clip=False)
    batch = {"image": np.zeros((64, 64, 64, 3), np.float32), "record_seed": seeds(64)}
    noise = run(links, batch).reshape(64, -1)
    std = gdx.draws(links, batch["record_seed"], (64, 64, 3))["GaussianNoise"]["std"]
    assert np.abs(noise.std(axis=1) / std - 1).max() < 6 / np.sqrt(2 * noise.shape[1])
    counts = chain(gdx.SaltPepperNoise(salt_prob=(0.0, 0.5), pepper_prob=(0.0, 0.5)))
    half = run(counts, {**batch, "image": batch["image"] + 0.5}).reshape(64, -1)
    told = gdx.draws(counts, batch["record_seed"], (64, 64, 3))["SaltPepperNoise"]
    for value, name in ((1.0, "salt_prob"), (0.0, "pepper_prob")):
        error = (half == value).mean(axis=1) - told[name]
        assert np.abs(error).max() < 6 * 0.5 / np.sqrt(half.shape[1])


def test_numbers_and_sizes_of_patches_are_uniform():
    told = drawn(chain(gdx.PatchDropout(num_patches=(2, 5), patch_size=((3, 7), (0.25, 0.75)))))
    positions = told["PatchDropout/2-5x3-7x0_25-0_75"]["positions"]
    there = positions[..., 2] > 0
    counts = np.bincount(there.sum(axis=1), minlength=6)
    assert counts[:2].sum() == 0
    assert scipy.stats.chisquare(counts[2:]).pvalue > 1e-4
    top, left, height, width = positions[there].T
    assert scipy.stats.chisquare(np.bincount(height)[3:]).pvalue > 1e-4
    # Widths are shares of 12 pixels, rounded: half as often at the ends, as these get half an interval.
    expected = np.array([0.5, *[1] * 5, 0.5])
    found = np.bincount(width)[3:]
    assert scipy.stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4
    assert min(top.min(), left.min()) >= 0
    assert ((top + height).max(), (left + width).max()) == (16, 12)
    for size in (3, 7):  # each place where a patch lies inside is equally likely
        assert scipy.stats.chisquare(np.bincount(top[height == size], minlength=17 - size)).pvalue > 1e-4


@pytest.mark.parametrize("frames", [(), (2,)])
@pytest.mark.parametrize("fill", [255, -1, -100])
@pytest.mark.parametrize(
    "effect",
    [
        gdx.PatchDropout(num_patches=3, patch_size=(5, 4), name="patches"),
        gdx.PatchDropout(num_patches=(0, 4), patch_size=((1, 16), (0.05, 1.0)), fill=(0.0, 1.0), name="patches"),
        gdx.PatchDropout(num_patches=(0, 40), patch_size=(2, 3), fill=1.0, p=0.5, name="patches"),
        gdx.PatchDropout(num_patches=2, patch_size=(16, 12), p=0.5, name="patches"),
    ],
    ids=["plain", "ranges", "many", "whole"],
)
def test_all_fields_of_a_record_agree_with_the_patches_that_it_drew(effect, fill, frames):
    height, width = SHAPE[:2]
    generator = np.random.default_rng(3)
    images = generator.integers(0, 256, (6, *frames, *SHAPE), dtype=np.uint8)
    masks = generator.integers(0, 9, (6, *frames, height, width)).astype(np.int32)
    corners = np.sort(generator.uniform(-2, 18, (6, *frames, 5, 2, 2)), axis=-2)  # over the edges, too
    boxes = np.concatenate([corners[..., 0, :], corners[..., 1, :]], axis=-1).astype(np.float32)
    points = generator.uniform(-2, 18, (6, *frames, 7, 2)).astype(np.float32)
    links = chain(
        effect,
        axes="T" * len(frames) + "HWC",
        masks={"mask": fill},
        boxes={"box": "xyxy"},
        keypoints={"point": "xy"},
        draws="draws",
    )
    batch = {"image": images, "mask": masks, "box": boxes, "point": points, "record_seed": seeds(6)}
    result = jax.tree.map(np.asarray, gdx.AugmentBatch(links).map(batch))
    told = result["draws"]["patches"]
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    for record in range(6):
        covered = np.zeros((height, width), bool)
        for top, left, *size in told["positions"][record] if told["applied"][record] else ():
            tall, wide = size or effect.patch_size
            covered[max(top, 0) : max(top + tall, 0), max(left, 0) : max(left + wide, 0)] = True
        value = np.round(255 * told["fill"][record]) if "fill" in told else 255 * effect.fill
        for frame in np.ndindex(*frames):
            at = (record, *frame)
            np.testing.assert_array_equal(result["image"][at], np.where(covered[..., None], value, images[at]))
            np.testing.assert_array_equal(result["mask"][at], np.where(covered, fill, masks[at]))
            for (x1, y1, x2, y2), share in zip(boxes[at], result["box_covered"][at], strict=True):
                inside = (y1 <= rows) & (rows < y2) & (x1 <= columns) & (columns < x2)
                expected = (covered & inside).sum() / inside.sum() if inside.any() else 0
                assert share == np.float32(expected)
            for (x, y), visible in zip(points[at], result["point_visible"][at], strict=True):
                within = 0 <= x < width and 0 <= y < height
                assert visible == (within and not covered[int(y), int(x)])
    assert told["applied"].any()


def test_as_many_records_are_counted_as_an_effect_applied_to():
    links = chain(gdx.GaussianNoise(p=0.3, name="a"), gdx.PatchDropout(p=0.8, name="b"), draws="draws")
    augment, applied = gdx.AugmentBatch(links), collections.Counter()
    for first in range(0, MANY, 4000):
        batch = {"image": np.full((4000, 8, 8, 1), 128, np.uint8), "record_seed": seeds(MANY)[first : first + 4000]}
        result = augment.map(batch)
        for name, told in result["draws"].items():
            applied[name] += int(told["applied"].sum())
        noisy = (np.asarray(result["image"]) % 128 != 0).any(axis=(1, 2, 3))  # patches are black
        assert (noisy <= np.asarray(result["draws"]["a"]["applied"])).all()
    counts = augment.counts()
    for name, p in (("a", 0.3), ("b", 0.8)):
        assert counts[name]["applied"] == applied[name]
        assert counts[name]["applied"] + counts[name]["skipped"] == MANY
        assert abs(applied[name] - p * MANY) < 4 * np.sqrt(p * (1 - p) * MANY)  # four standard errors


def parts(*names, **settings):
    """Effects that leave a mark each: which record took which is seen from its draws."""
    return [gdx.GaussianNoise(name=name, **settings) for name in names]


@pytest.mark.parametrize("weights", [None, [3, 1, 0, 4]])
def test_one_of_its_effects_is_taken_as_often_as_its_weight_says(weights):
    told = drawn(chain(gdx.OneOf(parts("a", "b", "c", "d"), weights=weights)))
    taken = np.stack([told[name]["applied"] for name in "abcd"], axis=1)
    assert (taken.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(taken, told["OneOf"]["chosen"])
    expected = MANY * np.array(weights or [1] * 4) / sum(weights or [1] * 4)
    found = taken.sum(axis=0)
    assert (found[expected == 0] == 0).all()
    assert scipy.stats.chisquare(found[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_all_choices_of_as_many_effects_are_equally_likely():
    told = drawn(chain(gdx.SomeOf(parts("a", "b", "c", "d"), count=(1, 3))))
    taken = np.stack([told[name]["applied"] for name in "abcd"], axis=1)
    sizes = np.bincount(taken.sum(axis=1), minlength=5)
    assert sizes[0] == sizes[4] == 0
    assert scipy.stats.chisquare(sizes[1:4]).pvalue > 1e-4
    pairs = collections.Counter(map(tuple, taken[taken.sum(axis=1) == 2]))
    assert len(pairs) == 6
    assert scipy.stats.chisquare(list(pairs.values())).pvalue > 1e-4
    fixed = drawn(chain(gdx.SomeOf(parts("a", "b", "c"), count=2)), 100)
    assert (sum(fixed[name]["applied"].astype(int) for name in "abc") == 2).all()


def test_what_a_record_takes_is_independent_of_what_stands_beside():
    links = chain(
        gdx.OneOf(parts("a", "b"), p=0.5), gdx.SomeOf(parts("c", "d"), count=1), gdx.Sequential(parts("e"), p=0.5)
    )
    told = drawn(links)
    columns = [told[name]["applied"] for name in ("OneOf", "c", "e")] + [told["OneOf"]["chosen"][:, 0]]
    for first, second in itertools.combinations(columns, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(MANY)  # four standard errors


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_effect_draws_the_same_wherever_it_stands(dtype):
    batch = seeded_batch(16, dtype=dtype)
    noise = gdx.GaussianNoise(std=(0.1, 0.3), name="noise")
    alone, other = run(chain(noise), batch), gdx.SaltPepperNoise(salt_prob=0.5, pepper_prob=0.5)
    for links in (
        chain(gdx.Sequential([noise])),
        chain(gdx.Sequential([gdx.Sequential([noise], name="inner")])),
        chain(gdx.SomeOf([noise], count=1)),
        chain(gdx.OneOf([other, noise], weights=[0, 1])),
        chain(gdx.SomeOf([noise, gdx.PatchDropout(p=0.0)], count=2)),
    ):
        np.testing.assert_array_equal(run(links, batch), alone)
    some = chain(gdx.OneOf([noise, other]), draws="draws")
    result = gdx.AugmentBatch(some).map(batch)
    took = np.asarray(result["draws"]["noise"]["applied"])
    assert 0 < took.sum() < 16
    np.testing.assert_array_equal(np.asarray(result["image"])[took], alone[took])
    np.testing.assert_array_equal(np.asarray(result["image"])[~took], run(chain(other), batch)[~took])


def test_values_outside_are_counted_once_by_the_effect_that_clipped_them():
    batch = {"image": np.full((64, 4, 4, 1), 2.0, np.float32), "record_seed": seeds(64)}
    links = chain(gdx.OneOf(parts("a", "b")), gdx.GaussianNoise(name="c"), gdx.OneOf(parts("d", "e")))
    augment = gdx.AugmentBatch(links)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        augment.map(jax.device_put(batch))
        counts = augment.counts()
    assert "`value_range` must hold the values of all images" in str(said[0].message)
    assert {name: count["outside"] for name, count in counts.items() if count["outside"]} == {
        name: 16 * counts[name]["applied"] for name in "ab"
    }


def test_a_composition_of_compositions_is_counted_by_each():
    inner = gdx.Sequential(parts("a", p=0.5), p=0.5, name="inner")
    augment = gdx.AugmentBatch(chain(gdx.OneOf([inner, *parts("b")], p=0.5)))
    for first in range(0, 4000, 1000):
        augment.map({"image": np.zeros((1000, 2, 2, 1), np.uint8), "record_seed": seeds(4000)[first : first + 1000]})
    counts = augment.counts()
    for name, expected in {"OneOf": 2000, "inner": 500, "a": 250, "b": 1000}.items():
        share = expected / 4000
        assert abs(counts[name]["applied"] - expected) < 4 * np.sqrt(4000 * share * (1 - share))
        assert counts[name]["applied"] + counts[name]["skipped"] == 4000


def mixed_batch(count=8, dtype="uint8", frames=()):
    fields = {}
    for number, prefix in enumerate(("own", "partner")):
        generator = np.random.default_rng(number)
        image = generator.integers(0, 256, (count, *frames, *SHAPE), dtype=np.uint8)
        fields[prefix] = {
            "image": image if dtype == "uint8" else (image / 255).astype(dtype),
            "mask": generator.integers(0, 9, (count, *frames, *SHAPE[:2])).astype(np.int16),
            "label": np.eye(10, dtype=np.float32)[generator.integers(0, 10, count)],
        }
    return {**fields["own"], "partner": fields["partner"], "record_seed": seeds(count)}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mixup_is_the_mean_by_the_share_that_was_drawn(dtype):
    batch = mixed_batch(32, dtype)
    links = chain(gdx.MixUp(alpha=0.4, p=0.75), labels="label", draws="draws", masks={"mask": 255})
    result = jax.tree.map(np.asarray, gdx.AugmentBatch(links).map(batch))
    told = result["draws"]["MixUp"]
    share = np.where(told["applied"], told["share"], 1).astype(np.float64)
    assert 0 < told["applied"].sum() < 32
    partner = batch["partner"]
    wide = share[:, None, None, None]
    expected = wide * batch["image"] + (1 - wide) * partner["image"]
    np.testing.assert_allclose(result["image"], expected, atol=0.501 if dtype == "uint8" else 1e-6)
    wide = share[:, None]
    np.testing.assert_allclose(result["label"], wide * batch["label"] + (1 - wide) * partner["label"], atol=1e-6)
    np.testing.assert_array_equal(result["mask"], batch["mask"])
    skipped = ~told["applied"]
    np.testing.assert_array_equal(result["image"][skipped], batch["image"][skipped])


@pytest.mark.parametrize("frames", [(), (2,)])
def test_cutmix_pastes_the_rectangle_that_was_drawn_and_mixes_labels_by_area(frames):
    batch = mixed_batch(64, frames=frames)
    links = chain(
        gdx.CutMix(p=0.75), axes="T" * len(frames) + "HWC", labels=["label"], draws="draws", masks={"mask": 255}
    )
    result = jax.tree.map(np.asarray, gdx.AugmentBatch(links).map(batch))
    told = result["draws"]["CutMix"]
    for record in range(64):
        top, left, bottom, right = told["box"][record] if told["applied"][record] else (0, 0, 0, 0)
        inside = np.zeros(SHAPE[:2], bool)
        inside[top:bottom, left:right] = True
        partner = {name: field[record] for name, field in batch["partner"].items()}
        own = {name: field[record] for name, field in batch.items() if name != "partner"}
        image = np.where(inside[..., None], partner["image"], own["image"])
        np.testing.assert_array_equal(result["image"][record], image)
        np.testing.assert_array_equal(result["mask"][record], np.where(inside, partner["mask"], own["mask"]))
        share = 1 - inside.mean()
        label = share * own["label"] + (1 - share) * partner["label"]
        np.testing.assert_allclose(result["label"][record], label, atol=1e-6)
    assert 0 < told["applied"].sum() < 64


def test_shares_follow_the_beta_law():
    for alpha in (0.05, 0.2, 1.0, 1.5, 8.0, 30.0, 200.0, 1000.0):
        share = drawn(chain(gdx.MixUp(alpha=alpha)))["MixUp"]["share"].astype(np.float64)
        law = scipy.stats.beta(alpha, alpha)
        assert abs((share < 0.5).mean() - 0.5) < 4 * 0.5 / np.sqrt(MANY)  # four standard errors
        # Each half from its own end: near 1 float32 is too coarse for Beta(0.2, 0.2).
        assert scipy.stats.kstest(share[share < 0.5], lambda x, law=law: 2 * law.cdf(x)).pvalue > 1e-4
        assert abs(share.var() / law.var() - 1) < 0.05
    box = drawn(chain(gdx.CutMix()), shape=(200, 300, 1))["CutMix"]["box"].astype(np.int64)
    whole = (box[:, 0] > 0) & (box[:, 1] > 0) & (box[:, 2] < 200) & (box[:, 3] < 300)
    height, width = (box[:, 2:] - box[:, :2]).T[:, whole]
    assert np.abs(height / 200 - width / 300).max() < 0.02  # of the image's own form


@pytest.mark.parametrize("effect", [gdx.MixUp(alpha=0.4), gdx.CutMix(alpha=0.4), gdx.MixUp(p=0.5)], ids=str)
def test_partners_travel_with_their_records_through_a_loader(effect):
    records = [{"image": image, "label": np.eye(4, dtype=np.float32)[i % 4]} for i, image in enumerate(images(24))]
    source = grain.MapDataset.source(records)
    pairs = grain.experimental.ZipMapDataset([source, source.shuffle(seed=3)])
    seeded = pairs.map(lambda pair: {**pair[0], "partner": pair[1]}).random_map(gdx.SeedRecords(), seed=7)
    links = chain(effect, gdx.GaussianNoise(), labels="label")
    results = []
    for size in (1, 3, 8):
        batches = [gdx.AugmentBatch(links).map(batch) for batch in seeded.batch(size)]
        results.append(
            {name: np.concatenate([np.asarray(batch[name]) for batch in batches]) for name in ("image", "label")}
        )
    for result in results[1:]:
        for name, field in result.items():
            np.testing.assert_array_equal(field, results[0][name])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"label": np.arange(8)}, TypeError, "`labels` must be floating point to be mixed: got int64 for field"),
        ({"partner": {}}, KeyError, "`partner.image` must be a field"),
        ({"partner": {"image": np.zeros((8, 2, 2, 3), np.uint8)}}, KeyError, "`partner.label` must be a field"),
        (
            {"partner": {"image": np.zeros((8, *SHAPE), np.float32), "label": np.zeros((8, 10), np.float32)}},
            ValueError,
            "`partner` must hold fields of the record's shapes and types: got float32",
        ),
    ],
)
def test_records_that_do_not_go_together_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        gdx.AugmentBatch(chain(gdx.MixUp(), labels="label")).map({**mixed_batch(), **change})


def _spec_of(dataset):
    spec = grain.experimental.get_element_spec(dataset)
    return jax.tree.map(lambda leaf: leaf, spec, is_leaf=lambda leaf: hasattr(leaf, "dtype"))


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("out", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int16"])
@pytest.mark.parametrize("axes", ["HWC", "CHW", "THWC"])
def test_normalised_images_are_those_of_numpy(dtype, out, axes):
    value_range = {"int16": (-1000, 1000)}.get(dtype)
    image = images(6, dtype="uint8").astype(np.float64) / 255
    low, high = value_range or ((0, 255) if dtype == "uint8" else (0, 1))
    given = low + image * (high - low)
    given = given.astype(dtype) if dtype == "float32" else np.round(given).astype(dtype)
    expected = ((given.astype(np.float64) - low) / (high - low) - MEAN) / STD
    if axes == "CHW":
        given, expected = np.moveaxis(given, -1, 1), np.moveaxis(expected, -1, 1)
    if axes == "THWC":
        given, expected = given[:, None], expected[:, None]
    links = chain(gdx.Normalize(mean=MEAN, std=STD, dtype=out), axes=axes, value_range=value_range)
    result = run(links, {"image": given, "record_seed": seeds(6)})
    assert result.dtype == jnp.dtype(out)
    ulp = float(jnp.finfo(out).eps)
    np.testing.assert_allclose(
        result.astype(np.float64), expected, rtol=ulp, atol=16 * ulp if out == "float32" else ulp
    )


@pytest.mark.parametrize(
    ("settings", "factor"), [({}, 1), ({"scale": True}, 1 / 255), ({"scale": True, "dtype": jnp.float16}, 1 / 255)]
)
def test_cast_converts_and_scales_if_it_is_to(settings, factor):
    batch = seeded_batch(4, dtype="uint8")
    result = run(chain(gdx.Cast(**settings)), batch)
    assert result.dtype == settings.get("dtype", np.float32)
    np.testing.assert_allclose(result, batch["image"].astype(np.float32) * factor, rtol=1e-3)


class Images(grain.transforms.Map):
    """From a number to a record, of which Grain can tell the spec."""

    def map(self, element):
        return {"image": images(16)[element], "label": element}

    def output_spec(self, input_spec):
        return {"image": grain.experimental.ShapeDtypeStruct(shape=SHAPE, dtype=np.float32), "label": input_spec}


def test_what_comes_out_of_a_conversion_is_known_to_specs_loaders_and_donation():
    links = chain(gdx.GaussianNoise(), gdx.Normalize(mean=0.5, std=0.25, dtype=jnp.bfloat16), draws="draws")
    source = grain.MapDataset.range(16).map(Images()).random_map(gdx.SeedRecords(), seed=7)
    batches = source.batch(8, drop_remainder=True)
    for dataset in (
        batches.map(gdx.AugmentBatch(links)),
        grain.MapDataset.range(16).map(Images()).random_map(gdx.AugmentRecord(links), seed=7),
    ):
        expected = jax.tree.map(np.asarray, dataset[0])
        spec = jax.tree.map(lambda leaf: (tuple(leaf.shape), np.dtype(leaf.dtype)), _spec_of(dataset))
        assert spec == jax.tree.map(lambda field: (field.shape, field.dtype), expected)
        assert expected["image"].dtype == jnp.bfloat16
    expected, batches = batches.map(gdx.AugmentBatch(links))[0], batches.to_iter_dataset()
    with gdx.DeviceLoader(batches, links) as loader:
        first = next(iter(loader))
    np.testing.assert_array_equal(np.asarray(first["image"]), np.asarray(expected["image"]))
    on_device = jax.device_put(next(iter(batches)))
    donated = gdx.AugmentBatch(links, donate=True).map(on_device)
    np.testing.assert_array_equal(np.asarray(donated["image"]), np.asarray(expected["image"]))
    assert not on_device["image"].is_deleted()  # no buffer of that size is asked for
    alone = gdx.AugmentRecord(links).random_map(source[0], None)
    np.testing.assert_array_equal(alone["image"], np.asarray(expected["image"])[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain(gdx.Normalize(mean=0, std=1), gdx.GaussianNoise()), "must convert types at their end"),
        (lambda: chain(gdx.Cast(), gdx.Cast()), "must convert types at their end"),
        (lambda: chain(gdx.Sequential([gdx.Cast()])), "must convert types at their end"),
        (lambda: chain(gdx.Cast(), channels=[0]), "`channels` must be None where Cast converts"),
        (lambda: gdx.Normalize(mean=0.5, std=0.5, p=0.5), "`p` must be 1 for Normalize"),
        (lambda: gdx.Normalize(mean=0.5, std=0.0), "`std` must be positive"),
        (lambda: gdx.Cast(dtype="uint8"), "`dtype` must be one of"),
        (lambda: run(chain(gdx.Normalize(mean=(0.5,) * 4, std=1)), seeded_batch(2)), "`mean` must be one number, or one"),
        (lambda: chain(gdx.GaussianNoise(), labels="label"), "`labels` must be left out where no effect mixes them"),
        (lambda: chain(gdx.MixUp(), labels="image"), "`labels` must name fields that play no other part"),
        (lambda: chain(gdx.GaussianNoise(), draws="image"), "`draws` must name fields that play no other part"),
        (lambda: run(chain(gdx.GaussianNoise(), draws="x"), {**seeded_batch(2), "x": 1}), "`x` must not be in the batch"),
        (lambda: gdx.OneOf([gdx.GaussianNoise()], same_on_frame=False), "`same_on_frame` must be True for OneOf"),
        (lambda: gdx.OneOf([]), "`effects` must hold at least one effect"),
    ],
)  # fmt: skip
def test_what_makes_no_recipe_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def first_row(key, image):
    del key
    return image[:1]


def brighter(key, image, most=0.2):
    return image + most * jax.random.uniform(key)


def test_a_function_draws_from_its_own_key_and_is_told_by_its_name():
    batch = {**seeded_batch(8), "image": np.full((8, *SHAPE), 51, np.uint8)}
    effect = gdx.Function(functools.partial(brighter, most=0.5), p=0.5)
    assert effect == gdx.Function(f"{__name__}:brighter", {"most": 0.5}, p=0.5)
    links = chain(effect, draws="draws")
    result = gdx.AugmentBatch(links).map(batch)
    added = (np.asarray(result["image"], np.float32) - batch["image"]).max(axis=(1, 2, 3)) / 255
    applied = np.asarray(next(iter(result["draws"].values()))["applied"])
    assert len(set(added[applied])) == applied.sum() > 1
    assert (added[~applied] == 0).all()
    assert gdx.Chain.from_dict(links.to_dict(), functions=[brighter]) == links
    with pytest.raises(ValueError, match="`function` must be a function that can be imported by its name"):
        gdx.Function(lambda key, image: image)
    with pytest.raises(ValueError, match="`function` must be given its settings by name"):
        gdx.Function(functools.partial(brighter, 3))
    with pytest.raises(TypeError, match=r"`Function` must make an array of uint8\[16, 12, 3\] of its image"):
        run(chain(gdx.Function(first_row)), batch)


class Drawn(grain.transforms.Map):
    """Images by number; the number stays with them."""

    def map(self, element):
        generator = np.random.default_rng(int(element))
        return {"image": generator.integers(0, 256, SHAPE, dtype=np.uint8), "number": np.int64(element)}


REPLAYED = gdx.Chain(
    [
        gdx.OneOf([gdx.GaussianNoise(std=(0.05, 0.3)), gdx.PoissonNoise(photons=(5, 60))], p=0.8),
        gdx.PatchDropout(num_patches=(0, 3), patch_size=((2, 6), (2, 6))),
        gdx.SaltPepperNoise(salt_prob=(0.0, 0.1), p=0.5),
    ],
    seed=3,
    draws="draws",
)


@pytest.mark.thorough
@pytest.mark.long
def test_a_thousand_records_of_workers_and_shards_are_made_again_from_their_seeds():
    records, seen = {}, 0
    for shard in range(2):
        options = grain.sharding.ShardOptions(shard_index=shard, shard_count=2)
        sampler = grain.samplers.IndexSampler(1000, shard_options=options, shuffle=True, num_epochs=1, seed=5)
        batches = grain.DataLoader(
            data_source=grain.sources.RangeDataSource(0, 1000, 1),
            sampler=sampler,
            operations=[Drawn(), gdx.SeedRecords(), grain.transforms.Batch(25)],
            worker_count=2,
        )
        mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
        whole = NamedSharding(mesh, PartitionSpec("data"))
        with gdx.DeviceLoader(batches, REPLAYED, keep_seed=True, sharding=whole) as loader:
            for batch in loader:
                batch = jax.tree.map(np.asarray, dict(batch))
                told = gdx.draws(REPLAYED, batch["record_seed"], SHAPE)
                jax.tree.map(np.testing.assert_array_equal, told, batch["draws"])
                for row, number in enumerate(batch["number"]):
                    records[int(number)] = batch["record_seed"][row], batch["image"][row]
                seen += len(batch["number"])
    assert seen == len(records) == 1000
    for number, (seed, image) in records.items():
        again = gdx.replay(Drawn().map(number), seed, REPLAYED)
        np.testing.assert_array_equal(again["image"], image)
        assert set(again) == {"image", "number", "draws"}


def test_draws_are_those_of_one_record_or_of_several():
    many = drawn(REPLAYED, 5)
    for row, seed in enumerate(seeds(5, 5)):
        one = gdx.draws(REPLAYED, seed, SHAPE)
        jax.tree.map(np.testing.assert_array_equal, one, jax.tree.map(lambda leaf, row=row: leaf[row], many))
    first = gdx.draws(chain(gdx.GaussianNoise(std=(0.1, 0.2)), axes="TCHW"), seeds(3), (4, 3, 16, 12))
    assert first["GaussianNoise"]["std"].shape == (3, 4)  # by frame
    for wrong, shape, message in (
        (seeds(2).astype(np.int32), SHAPE, "`record_seed` must be uint32 of shape"),
        (seeds(2)[:, :1], SHAPE, "`record_seed` must be uint32 of shape"),
        (seeds(2), SHAPE[:2], "`shape` must be of the axes 'HWC': got"),
    ):
        with pytest.raises(ValueError, match=message):
            gdx.draws(REPLAYED, wrong, shape)
    with pytest.raises(ValueError, match=r"`record_seed` must be uint32 of shape \(2,\)"):
        gdx.replay({"image": images(1, dtype="uint8")[0]}, seeds(2), REPLAYED)


def test_another_function_or_class_of_the_same_name_is_compiled_anew(monkeypatch):
    # As where a cell of a notebook is run again.
    batch = {"image": np.full((2, 4, 4, 1), 0.5, np.float32), "record_seed": seeds(2)}
    this, effect = sys.modules[__name__], gdx.Function(brighter)
    for value in (0.25, 0.75):
        monkeypatch.setattr(this, "brighter", lambda key, image, most=0.2, value=value: image * 0 + value)
        assert (run(chain(effect), batch) == value).all()
        cls = dataclasses.dataclass(frozen=True)(
            type("Level", (gdx.Effect,), {"image": lambda self, image, drawn, value=value: image * 0 + value})
        )
        assert (run(chain(cls()), batch) == value).all()


def test_values_of_partners_that_are_clipped_are_counted():
    batch = {"image": np.full((8, 4, 4, 1), 0.5, np.float32), "record_seed": seeds(8)}
    outside = jnp.full((8, 4, 4, 1), 3.0)
    for effect, expected in ((gdx.MixUp(), 8 * 16), (gdx.MixUp(p=0.0), 0), (gdx.CutMix(), 0)):
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            augment = gdx.AugmentBatch(chain(effect))
            augment.map({**batch, "partner": {"image": outside}})
            assert augment.counts()[type(effect).__name__]["outside"] == expected
    with pytest.raises(ValueError, match='`value_range` must hold the values .* for field "partner.image"'):
        gdx.AugmentBatch(chain(gdx.MixUp())).map({**batch, "partner": {"image": np.asarray(outside)}})
    with pytest.raises(ValueError, match="`same_on_frame` must be True for MixUp"):
        gdx.MixUp(same_on_frame=False)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_draws_and_partners_of_a_sharded_batch_are_spread_as_it_is(axis_type):
    links = chain(gdx.MixUp(p=0.5), *REPLAYED.effects, gdx.Normalize(mean=MEAN, std=STD), labels="label", draws="draws")
    batch = {name: field for name, field in mixed_batch(16).items() if name != "mask"}
    expected = gdx.AugmentBatch(links).map(batch)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    result = gdx.AugmentBatch(links).map(jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data"))))
    for name in ("image", "label", "draws"):
        jax.tree.map(
            np.testing.assert_array_equal, *(jax.tree.map(np.asarray, each[name]) for each in (result, expected))
        )
        for leaf in jax.tree.leaves(result[name]):
            assert leaf.sharding.is_equivalent_to(result["image"].sharding, 1) or leaf.ndim > 1
            assert len(leaf.sharding.device_set) == 8


def test_what_cutmix_pastes_is_counted_where_it_is_clipped():
    batch = {"image": np.full((8, 8, 8, 1), 0.5, np.float32), "record_seed": seeds(8)}
    batch["partner"] = {"image": jnp.full((8, 8, 8, 1), 7.0)}
    pasted = run(chain(gdx.CutMix(), clip=False), batch) == 7
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        augment = gdx.AugmentBatch(chain(gdx.CutMix(), gdx.GaussianNoise(std=0.0)))
        result = np.asarray(augment.map(batch)["image"])
        counts = augment.counts()
    assert result.max() == 1
    assert counts["GaussianNoise"]["outside"] == pasted.sum() > 0


def test_settings_that_python_takes_for_equal_are_told_apart():
    pixel, whole = (gdx.PatchDropout(num_patches=1, patch_size=size) for size in ((1, 1), (1.0, 1.0)))
    assert pixel != whole
    assert run(chain(whole), seeded_batch(2)).max() == 0
    first, second = (launcher_of(chain(gdx.Function(brighter, {"most": most}))).fingerprint() for most in (1, 1.0))
    assert len(differences(first, second)) == 1
    listed = launcher_of(chain(gdx.Function(brighter, {"most": (1.0, 2.0)}))).fingerprint()
    assert differences(json.loads(json.dumps(listed)), listed) == []
    told, silent = (launcher_of(chain(gdx.GaussianNoise(), draws=draws)).fingerprint() for draws in ("draws", None))
    assert differences(told, silent) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gdx.draws(chain(gdx.PatchDropout()), seeds(2), (4, 4, 3)), "`patch_size` must fit inside the image"),
        (lambda: gdx.draws(chain(gdx.PatchDropout(), channels=[5]), seeds(2), SHAPE), "`channels` must be below 3"),
        (lambda: run(chain(gdx.Cast(dtype="float16")), {**seeded_batch(2), "image": np.ones((2, *SHAPE), np.uint16)}), "`dtype` must hold what images become: got float16"),
        (lambda: run(chain(gdx.Normalize(mean=0, std=1e-6, dtype="float16")), seeded_batch(2)), "`dtype` must hold what images become"),
        (lambda: run(chain(gdx.GaussianNoise(), image=["a", "b"], axes="THWC"), {"a": np.zeros((2, 2, *SHAPE), np.uint8), "b": np.zeros((2, 3, *SHAPE), np.uint8), "record_seed": seeds(2)}), "`image` must name fields of one height, width and number of frames"),
        (lambda: chain(gdx.GaussianNoise(name="a.b"), gdx.GaussianNoise(name="a_b")), "`name` must be unique"),
        (lambda: chain(gdx.MixUp(), draws="partner"), "`draws` must name fields that play no other part"),
        (lambda: chain(gdx.MixUp(), draws="image.d"), "`draws` must name a field of its own, not one in another"),
        (lambda: gdx.OneOf([gdx.GaussianNoise()] * 2, weights=[1e308, 1e308]), "`weights` must have a positive and finite sum"),
        (lambda: gdx.Cast(dtype=None), "`dtype` must be one of .*: got None"),
        (lambda: gdx.Function(".x:y"), "`function` must be a function that can be imported"),
    ],
)  # fmt: skip
def test_what_would_give_no_pixels_or_others_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    labels = {name: np.float64(field) if name == "label" else field for name, field in mixed_batch().items()}
    labels["partner"] = {**labels["partner"], "label": np.float64(labels["partner"]["label"])}
    with pytest.raises(TypeError, match='`label` must have a dtype of at most 32 bits: got float64 for field "label"'):
        gdx.AugmentBatch(chain(gdx.MixUp(), labels="label")).map(labels)
