"""The laws of occlusions, and what fills them; against NumPy and closed forms.

Tolerances are five standard errors or p > 1e-4; seeds are fixed, so a test that passes always passes.
"""

import dataclasses
import math

import jax
import numpy as np
import pytest
from effect_table import chain, run, seeded_batch, seeds
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

import grain_datarax as gdx
from grain_datarax.means import exact_mean

pytestmark = pytest.mark.once

SHAPE = (16, 12, 3)
OCCLUSIONS = {
    "patch_dropout": gdx.PatchDropout(num_patches=(1, 3), patch_size=(4, 3)),
    "random_erasing": gdx.RandomErasing(p=1.0, scale=(0.1, 0.33)),
    "cutout": gdx.Cutout(patch_size=(7, 6), num_patches=2),
    "grid_mask": gdx.GridMask(unit=(4, 8)),
    "grid_dropout": gdx.GridDropout(patch_size=(3, 5)),
    "coverage_dropout": gdx.CoverageDropout(patch_size=(3, 5)),
    "pixel_dropout": gdx.PixelDropout(drop_prob=0.3),
}
every_occlusion = pytest.mark.parametrize("effect", OCCLUSIONS.values(), ids=OCCLUSIONS)


def told(effect, count, shape=SHAPE):
    """What so many records draw."""
    (drawn,) = gdx.draws(chain(effect), seeds(count), shape).values()
    return drawn


def covered(effect, count=16, shape=SHAPE, **settings):
    """Which values of an image become another: `bool (count, H, W, C)`."""
    batch = {"image": np.full((count, *shape), 0.25, np.float32), "record_seed": seeds(count)}
    return run(chain(dataclasses.replace(effect, fill=1.0), **settings), batch) != 0.25


def assert_equally_likely(values, outcomes):
    counts = np.bincount(np.asarray(values).ravel(), minlength=outcomes)
    assert len(counts) == outcomes
    assert stats.chisquare(counts).pvalue > 1e-4


def erased_by_torchvision(rng, height, width, scale, ratio):
    """The height and width that torchvision's RandomErasing takes, or zeros."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        size = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if size[0] < height and size[1] < width:
            return size
    return 0, 0


@pytest.mark.parametrize(
    ("shape", "scale", "ratio"),
    [
        ((64, 48, 3), (0.02, 0.33), (0.3, 3.3)),
        ((40, 64, 1), (0.3, 0.9), (0.3, 1 / 0.3)),
        ((32, 32, 3), (0.1, 0.1), (1, 1)),
    ],
)
def test_random_erasing_has_the_areas_and_aspects_of_torchvision(shape, scale, ratio):
    drawn = told(gdx.RandomErasing(p=1.0, scale=scale, ratio=ratio), 20_000, shape)["positions"][:, 0]
    rng = np.random.default_rng(0)
    expected = np.array([erased_by_torchvision(rng, *shape[:2], scale, ratio) for _ in range(20_000)])
    if scale[0] == scale[1]:
        assert (drawn[:, 2:] == 10).all()
        return
    for ours, theirs in (
        (drawn[:, 2:].prod(axis=1), expected.prod(axis=1)),
        (drawn[:, 2] / np.maximum(drawn[:, 3], 1), expected[:, 0] / np.maximum(expected[:, 1], 1)),
    ):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
    some = drawn[drawn[:, 2] > 0]
    for axis in (0, 1):  # where they lie, in thirds of the room there is
        room = shape[axis] - some[:, axis + 2] + 1
        assert (some[:, axis] >= 0).all()
        assert (some[:, axis] < room).all()
        wide = room % 3 == 0
        assert_equally_likely(some[wide, axis] * 3 // room[wide], 3)


def test_random_erasing_fills_nothing_where_nothing_fits():
    effect = gdx.RandomErasing(p=1.0, scale=(1.0, 1.0))
    batch = seeded_batch(4)
    np.testing.assert_array_equal(run(chain(effect), batch), batch["image"])


@pytest.mark.parametrize("sides", [(16, 16), (5, 8), (1, 1), (40, 3)])
def test_cutout_has_its_clipped_areas_in_closed_form(sides):
    shape, count = (24, 18, 1), 20_000
    corners = told(gdx.Cutout(patch_size=sides), count, shape)["positions"][:, 0]
    lengths = []
    for axis, (length, side) in enumerate(zip(shape[:2], sides, strict=True)):
        centres = corners[:, axis] + side // 2
        assert_equally_likely(centres, length)
        ends = (
            np.clip(np.arange(length) - side // 2 + side, 0, length),
            np.clip(np.arange(length) - side // 2, 0, length),
        )
        inside = ends[0] - ends[1]  # of each centre, all equally likely
        drawn = np.minimum(corners[:, axis] + side, length) - np.maximum(corners[:, axis], 0)
        assert abs(drawn.mean() - inside.mean()) <= 5 * inside.std() / np.sqrt(count)
        lengths.append(drawn)
    expected = np.minimum(corners + sides, shape[:2]).clip(0) - np.maximum(corners, 0)
    some = covered(gdx.Cutout(patch_size=sides), 64, shape)[..., 0]
    np.testing.assert_array_equal(some.sum(axis=(1, 2)), expected.prod(axis=1)[:64])


@pytest.mark.parametrize("size", [(3, 4), (4, 5)])
def test_grid_dropout_fills_exactly_so_many_cells(size):
    rows, columns = -(-16 // size[0]), -(-12 // size[1])
    cells = rows * columns
    for number in range(cells + 1):
        drawn = told(gdx.GridDropout(patch_size=size, num_patches=number), 8)["cells"]
        assert drawn.shape == (8, rows, columns)
        assert (drawn.sum(axis=(1, 2)) == number).all()
    whole = covered(gdx.GridDropout(patch_size=size, num_patches=5), 8)
    drawn = told(gdx.GridDropout(patch_size=size, num_patches=5), 8)["cells"]
    expected = np.kron(drawn, np.ones(size, bool))[:, :16, :12]
    np.testing.assert_array_equal(whole, np.repeat(expected[..., None], 3, axis=-1))


def test_grid_dropout_chooses_all_cells_equally_often_and_shares_round_to_the_nearest():
    drawn = told(gdx.GridDropout(patch_size=(4, 4), num_patches=0.25), 10_000)["cells"]
    assert (drawn.sum(axis=(1, 2)) == 3).all()
    which = drawn.reshape(-1, 12)
    assert stats.chisquare(which.sum(axis=0), which.sum() / 12 * np.ones(12), ddof=0).pvalue > 1e-4
    pairs = np.array([np.flatnonzero(row)[:2] @ (12, 1) for row in which])
    assert len(np.unique(pairs)) == 55  # any two may be the first
    many = told(gdx.GridDropout(patch_size=(2, 2), num_patches=(10, 90)), 4000, (20, 20, 1))["cells"].sum(axis=(1, 2))
    assert_equally_likely(many - 10, 81)


@pytest.mark.parametrize("coverage", [0.0, 0.1, 0.37, 0.5, 0.99, 1.0])
@pytest.mark.parametrize(("size", "shape"), [((4, 3), SHAPE), ((5, 7), (23, 31, 1)), ((30, 40), SHAPE)])
def test_coverage_is_met_within_a_row_of_a_patch(coverage, size, shape):
    effect = gdx.CoverageDropout(coverage=coverage, patch_size=size)
    pixels = covered(effect, 64, shape)[..., 0].sum(axis=(1, 2))
    wanted = round(coverage * shape[0] * shape[1])
    assert (pixels <= wanted).all()
    assert (pixels > wanted - min(size[1], shape[1])).all()
    drawn = told(effect, 64, shape)
    if 0 < coverage < 1:
        assert len({record.tobytes() for record in drawn["rows"]}) > 8
        assert len({record.tobytes() for record in drawn["shift"]}) > 8


def test_coverage_patches_lie_on_the_shifted_grid():
    effect = gdx.CoverageDropout(coverage=0.4, patch_size=(4, 3))
    drawn, whole = told(effect, 32), covered(effect, 32)[..., 0]
    for rows, shift, image in zip(drawn["rows"], drawn["shift"], whole, strict=True):
        expected = np.zeros(SHAPE[:2], bool)
        for row, column in np.ndindex(rows.shape):
            top, left = max(row * 4 - shift[0], 0), column * 3 - shift[1]
            expected[top : top + rows[row, column], max(left, 0) : max(left + 3, 0)] = True
        np.testing.assert_array_equal(image, expected)
    assert_equally_likely(told(effect, 4000)["shift"] @ (3, 1), 12)


@pytest.mark.parametrize(("unit", "keep"), [((3, 8), 0.6), ((0.25, 0.9), 0.5), (4, (0.2, 0.8)), (30, 0.9)])
def test_grid_mask_covers_a_square_of_each_unit(unit, keep):
    effect = gdx.GridMask(unit=unit, keep_ratio=keep)
    drawn, whole = told(effect, 64), covered(effect, 64)[..., 0]
    for record, (grid, image) in enumerate(zip(drawn["grid"], whole, strict=True)):
        dy, dx, period, side = grid
        kept = drawn["keep_ratio"][record] if isinstance(keep, tuple) else keep
        assert abs(side - period * (1 - kept)) <= 0.5 + 1e-4
        rows, columns = ((np.arange(length) + d) % period < side for length, d in zip(SHAPE, (dy, dx), strict=False))
        np.testing.assert_array_equal(image, rows[:, None] & columns[None])
    many = told(effect, 6000)["grid"]
    low, high = {(3, 8): (3, 8), (0.25, 0.9): (3, 11), 4: (4, 4), 30: (30, 30)}[unit]
    assert (many[:, 2].min(), many[:, 2].max()) == (low, high)
    if unit == (3, 8):
        assert_equally_likely(many[:, 2] - 3, 6)
    assert_equally_likely(many[many[:, 2] == low][:, :2] @ (low, 1), low * low)


def test_pixels_are_dropped_with_their_probability_together_or_apart():
    for same in (True, False):
        whole = covered(gdx.PixelDropout(drop_prob=0.2, same_on_channel=same), 64, (32, 32, 3))
        draws = whole[..., 0] if same else whole
        assert abs(draws.mean() - 0.2) < 5 * np.sqrt(0.2 * 0.8 / draws.size)
        assert (whole == whole[..., :1]).all() == same
    together = (whole[..., 0] & whole[..., 1]).mean()
    assert abs(together - 0.04) < 5 * np.sqrt(0.04 * 0.96 / (64 * 32 * 32))


def test_channels_are_dropped_as_many_as_said_and_equally_often():
    drawn = told(gdx.ChannelDropout(num_channels=2), 4000, (4, 4, 4))["channels"]
    assert (drawn.sum(axis=1) == 2).all()
    patterns = drawn @ (1, 2, 4, 8)
    assert_equally_likely(np.unique(patterns, return_inverse=True)[1], 6)
    some = told(gdx.ChannelDropout(num_channels=(1, 2)), 4000)["channels"].sum(axis=1)
    assert_equally_likely(some - 1, 2)
    batch = seeded_batch(8, dtype="uint8")
    result = run(chain(gdx.ChannelDropout(fill=0.5), draws="drawn"), batch)
    lost = told(gdx.ChannelDropout(fill=0.5), 8)["channels"]
    np.testing.assert_array_equal(result, np.where(lost[:, None, None], 128, batch["image"]))
    with pytest.raises(ValueError, match="`num_channels` must be below 3, the number of channels: got 3"):
        run(chain(gdx.ChannelDropout(num_channels=3)), batch)


@every_occlusion
def test_the_inverse_keeps_what_would_be_covered_in_images_and_masks(effect):
    batch = {**seeded_batch(8), "mask": np.ones((8, 16, 12), np.uint8)}
    results = [
        gdx.AugmentBatch(chain(dataclasses.replace(effect, inverse=inverse, fill=0.5), masks={"mask": 7})).map(batch)
        for inverse in (False, True)
    ]
    masks = [np.asarray(result["mask"]) == 7 for result in results]
    np.testing.assert_array_equal(masks[0], ~masks[1])
    assert 0 < masks[0].mean() < 1
    for result, mask in zip(results, masks, strict=True):
        np.testing.assert_array_equal(result["image"], np.where(mask[..., None], np.float32(0.5), batch["image"]))


@every_occlusion
def test_what_fills_moves_no_draw(effect):
    batch = seeded_batch(8, dtype="uint8")
    expected = covered(effect, 8)
    for fill in (0.5, (0.1, 0.9), (0.1, 0.5, 0.9), "mean", "random", "noise"):
        result = run(chain(dataclasses.replace(effect, fill=fill)), batch)
        changed = result != batch["image"]
        assert not (changed & ~expected).any()
        assert changed.sum() > 0.9 * expected.sum()


@every_occlusion
def test_channels_apart_draw_what_grey_images_draw_and_masks_lose_what_all_have_lost(effect):
    apart = dataclasses.replace(effect, same_on_channel=False, fill=1.0)
    batch = {"image": np.full((16, *SHAPE), 0.25, np.float32), "record_seed": seeds(16)}
    batch["mask"] = np.zeros((16, 16, 12, 1), np.uint8)
    links = chain(apart, masks={"mask": 9})
    result = {name: np.asarray(field) for name, field in gdx.AugmentBatch(links).map(batch).items()}
    lost = result["image"] != 0.25
    assert (lost[..., 0] != lost[..., 1]).any()
    np.testing.assert_array_equal(result["mask"][..., 0] == 9, lost.all(axis=-1))
    shared = covered(effect, 256).mean()
    many = covered(apart, 256)
    assert abs(many.mean() - shared) < 0.05
    with_one = run(chain(apart), {**batch, "image": batch["image"][..., :1]}) != 0.25
    np.testing.assert_array_equal(with_one[..., 0], lost[..., 0])  # more channels move none before


def test_a_fill_of_each_channel_is_theirs():
    batch = seeded_batch(8, dtype="uint8")
    mask = covered(OCCLUSIONS["cutout"], 8)
    filled = run(chain(dataclasses.replace(OCCLUSIONS["cutout"], fill=(0.0, 0.5, 1.0))), batch)
    np.testing.assert_array_equal(filled, np.where(mask, np.uint8([0, 128, 255]), batch["image"]))
    two = {**batch, "image": batch["image"][..., :2]}
    filled = run(chain(dataclasses.replace(OCCLUSIONS["cutout"], fill=((0.2, 0.4),))), two)
    np.testing.assert_array_equal(filled, np.where(mask[..., :2], np.uint8([51, 102]), two["image"]))
    scaled = run(
        chain(dataclasses.replace(OCCLUSIONS["cutout"], fill=(0.0, 0.5, 1.0)), value_range=(-1, 1)),
        {**batch, "image": np.zeros((8, *SHAPE), np.float32)},
    )
    np.testing.assert_array_equal(scaled, np.where(mask, np.float32([-1, 0, 1]), 0))
    with pytest.raises(ValueError, match="`fill` must be one value, or one for each channel: got 3 .* of 2 channels"):
        run(chain(dataclasses.replace(OCCLUSIONS["cutout"], fill=(0.0, 0.5, 1.0))), two)
    assert gdx.Cutout(fill=((0.1, 0.2),)) != gdx.Cutout(fill=(0.1, 0.2))
    assert gdx.Cutout(fill=[[0.1, 0.2, 0.3]]) == gdx.Cutout(fill=(0.1, 0.2, 0.3))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
def test_a_fill_of_the_mean_is_the_records_own(dtype):
    batch = seeded_batch(8, dtype=dtype)
    mask = covered(OCCLUSIONS["cutout"], 8)
    filled = run(chain(dataclasses.replace(OCCLUSIONS["cutout"], fill="mean")), batch)
    mean = batch["image"].astype(np.float64).mean(axis=(1, 2), keepdims=True)
    expected = np.where(mask, np.rint(mean) if dtype == "uint8" else mean, batch["image"])
    np.testing.assert_allclose(filled.astype(np.float64), expected, rtol=1e-6 if dtype != "bfloat16" else 2**-8)


def test_a_fill_of_the_mean_is_in_the_units_of_the_range():
    batch = seeded_batch(8)
    batch["image"] = batch["image"] * 4 - 1
    mask = covered(OCCLUSIONS["cutout"], 8)
    filled = run(chain(dataclasses.replace(OCCLUSIONS["cutout"], fill="mean"), value_range=(-1, 3)), batch)
    mean = batch["image"].astype(np.float64).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(filled, np.where(mask, mean, batch["image"]), atol=2e-6)
    with pytest.raises(ValueError, match="`fill` must be numbers, .random. or .noise. where results are not clipped"):
        run(chain(dataclasses.replace(OCCLUSIONS["cutout"], fill="mean"), clip=False), batch)


@pytest.mark.parametrize("shape", [(33, 65536, 1), (65536, 3, 1), (1, 1, 2), (4099, 7, 3)])
def test_the_mean_of_any_size_is_exact(shape):
    rng = np.random.default_rng(0)
    for image in (np.full(shape, 0.3, np.float32), rng.random(shape, np.float32), rng.integers(-(2**24), 2**24, shape)):
        expected = image.astype(np.float64).mean(axis=(0, 1))
        mean = exact_mean(image.astype(np.int32) if image.dtype == np.int64 else image)
        np.testing.assert_allclose(mean, expected, rtol=2e-7, atol=1 if image.dtype == np.int64 else 3e-8)


def test_what_is_filled_around_patches_that_are_kept_has_one_random_colour():
    effect = gdx.PatchDropout(num_patches=3, patch_size=(3, 3), fill="random", inverse=True)
    batch = {"image": np.zeros((16, *SHAPE), np.uint8), "record_seed": seeds(16)}
    mask = covered(effect, 16)
    for image, hidden in zip(run(chain(effect), batch), mask, strict=True):
        assert len(np.unique(image[hidden[..., 0]], axis=0)) == 1


def test_random_colours_are_one_for_each_patch_and_noise_one_for_each_value():
    effect = gdx.GridDropout(patch_size=(4, 4), num_patches=12, fill="random")
    black = {"image": np.zeros((256, *SHAPE), np.uint8), "record_seed": seeds(256)}
    cells = run(chain(effect), black).reshape(256, 4, 4, 3, 4, 3)
    assert (cells == cells[:, :, :1, :, :1]).all()
    assert_equally_likely(cells[:, :, 0, :, 0], 256)
    noise = run(chain(dataclasses.replace(effect, fill="noise")), black)
    assert_equally_likely(noise, 256)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 5 / np.sqrt(256 * 16 * 12)
    floats = run(
        chain(dataclasses.replace(effect, fill="noise"), value_range=(-1, 3)),
        {**black, "image": np.float32(black["image"])},
    )
    assert stats.kstest(floats.ravel(), stats.uniform(-1, 4).cdf).pvalue > 1e-4


def test_of_patches_that_overlap_the_last_one_shows():
    effect = gdx.PatchDropout(num_patches=3, patch_size=(9, 7), fill="random")
    batch = {"image": np.zeros((32, *SHAPE), np.float32), "record_seed": seeds(32)}
    drawn = told(effect, 32)
    expected = np.zeros((32, *SHAPE), np.float32)
    for record in range(32):
        for (y, x), colour in zip(drawn["positions"][record], drawn["fill"][record], strict=True):
            expected[record, y : y + 9, x : x + 7] = colour
    np.testing.assert_allclose(run(chain(effect), batch), expected, atol=1e-6)


def test_what_fills_is_told_where_it_is_small():
    drawn = {
        fill: set(told(dataclasses.replace(OCCLUSIONS["cutout"], fill=fill), 4))
        for fill in ("mean", "random", "noise", (0.1, 0.9))
    }
    assert drawn == {
        "mean": {"applied", "positions"},
        "random": {"applied", "positions", "fill"},
        "noise": {"applied", "positions"},
        (0.1, 0.9): {"applied", "positions", "fill"},
    }


def test_large_integers_are_filled_by_numbers_alone():
    batch = {"image": np.zeros((2, 16, 12, 3), np.uint32), "record_seed": seeds(2)}
    run(chain(gdx.Cutout(fill=0.5)), batch)
    for fill in ("mean", "random", "noise"):
        with pytest.raises(TypeError, match=r"`image` must be floating point or integers up to 2\*\*24 for Cutout"):
            run(chain(gdx.Cutout(fill=fill)), batch)


def test_cells_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="`num_patches` must be at most 12, the number of cells: got 13"):
        run(chain(gdx.GridDropout(patch_size=(4, 4), num_patches=13)), seeded_batch(2))


def test_no_patch_is_filled_with_no_colour():
    batch = seeded_batch(4)
    for number in (0, (0, 0)):
        effect = gdx.PatchDropout(num_patches=number, patch_size=(3, 4), fill="random")
        np.testing.assert_array_equal(run(chain(effect), batch), batch["image"])


def test_shares_are_other_values_than_numbers():
    for number, share in [((0, 1), (0.0, 1.0)), (1, 1.0), ((1, 1), (1.0, 1.0))]:
        assert gdx.GridDropout(num_patches=number) != gdx.GridDropout(num_patches=share)
    cells = told(gdx.GridDropout(patch_size=(4, 4), num_patches=(0.0, 1.0)), 512)["cells"].sum(axis=(1, 2))
    assert (cells.min(), cells.max()) == (0, 12)
    assert gdx.Chain.from_dict(chain(gdx.GridDropout(num_patches=1.0)).to_dict()).effects[0].num_patches < 1


def test_all_is_covered_by_a_coverage_of_one_and_rows_outside_are_none():
    assert covered(gdx.CoverageDropout(coverage=1.0, patch_size=(100, 100)), 1, (2897, 2899, 1)).all()
    drawn = told(gdx.CoverageDropout(coverage=0.9, patch_size=(4, 3)), 64)
    beyond = drawn["shift"][:, 1] == 0  # then the last column of cells lies outside
    assert beyond.any()
    assert (drawn["rows"][beyond, :, -1] == 0).all()
    assert drawn["rows"].dtype == np.int32


@pytest.mark.parametrize("spec", [("data", "model"), ("data", None, "model")])
@pytest.mark.parametrize("name", ["pixel_dropout", "cutout", "grid_dropout"])
def test_parts_of_images_lose_the_pixels_of_whole_ones(name, spec):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    batch = seeded_batch(4, dtype="uint8")
    spread = {
        "image": jax.device_put(batch["image"], NamedSharding(mesh, PartitionSpec(*spec))),
        "record_seed": jax.device_put(batch["record_seed"], NamedSharding(mesh, PartitionSpec("data"))),
    }
    for fill in ("random", "noise"):
        links = chain(dataclasses.replace(OCCLUSIONS[name], fill=fill, same_on_channel=False))
        np.testing.assert_array_equal(run(links, spread), run(links, batch))


def test_what_can_not_be_computed_with_is_refused():
    for settings in ({"patch_size": (3 * 10**9, 1)}, {"num_patches": 2**32}, {"fill": ((),)}):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must"):
            gdx.Cutout(**settings)
    with pytest.raises(ValueError, match="`unit` must be at most 16777216"):
        gdx.GridMask(unit=2**31)
    assert gdx.Cutout(fill=np.array([0.1, 0.2, 0.3])) == gdx.Cutout(fill=(0.1, 0.2, 0.3))
