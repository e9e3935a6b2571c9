"""Geometric effects: pixels, masks, boxes and keypoints go to one place, against NumPy."""

import dataclasses
import warnings

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import chain, run, seeds, thorough
from helpers import closing
from scipy import stats
from sources import images

import grain_datarax as gdx
from grain_datarax.resampling import nearest, resampled
from grain_datarax.visibility import BOX_FORMATS, KEYPOINT_FORMATS, covered_share

pytestmark = pytest.mark.once

HEIGHT, WIDTH = 16, 12
AXES = ["HW", "HWC", "CHW", "THW", "THWC", "TCHW"]
SIZES = {"T": 3, "C": 4, "H": HEIGHT, "W": WIDTH}
FLIP, SHIFT = gdx.HorizontalFlip(p=1), gdx.PadCrop(padding=20)
BOXES = np.array([[0, 0, 12, 16], [2, 3, 7, 9], [1, 5, 2, 6], [8, 11, 12, 16], [0, 0, 0, 0], [5, 5, 2, 2]])
POINTS = np.array([[0, 0], [11, 15], [5, 7], [3, 2]])
FLIPS = {
    "across": (gdx.HorizontalFlip(p=1), "W"),
    "down": (gdx.VerticalFlip(p=1), "H"),
}
every_flip = pytest.mark.parametrize(("flip", "axis"), FLIPS.values(), ids=FLIPS)
every_format = pytest.mark.parametrize("form", BOX_FORMATS)


def places(axes, dtype=np.int32):
    """An image in which every value is another."""
    shape = tuple(SIZES[axis] for axis in axes)
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def batch(count=8, image=None, **fields):
    image = places("HWC", np.float32) / 1024 if image is None else image
    repeated = {name: np.repeat(field[None], count, axis=0) for name, field in {"image": image, **fields}.items()}
    return {**repeated, "record_seed": seeds(count)}


def augmented(links, data):
    return jax.device_get(gdx.AugmentBatch(links).map(data))


def as_format(corners, form, size=(HEIGHT, WIDTH), dtype=np.float32):
    left, top, right, bottom = np.moveaxis(np.asarray(corners, np.float64), -1, 0)
    columns = {
        "xyxy": (left, top, right, bottom),
        "xywh": (left, top, right - left, bottom - top),
        "cxcywh": ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top),
    }[form.removeprefix("rel_")]
    unit = np.array([size[1], size[0]] * 2) if form.startswith("rel_") else 1
    return (np.stack(columns, axis=-1) / unit).astype(dtype)


def moved_corners(corners, origin, scale):
    """Corners `(..., 4)` behind `(place - origin) * scale`, for (x, y)."""
    moved = (np.asarray(corners, np.float64) - np.tile(origin, 2)) * np.tile(scale, 2)
    return np.concatenate([np.minimum(moved[..., :2], moved[..., 2:]), np.maximum(moved[..., :2], moved[..., 2:])], -1)


def has_extent(corners):
    return (corners[..., 2:] > corners[..., :2]).all(axis=-1)


# Flips


@every_flip
@pytest.mark.parametrize("axes", AXES)
def test_flips_mirror_images_and_masks_of_any_axes(flip, axis, axes):
    flat = axes.replace("C", "")
    data = batch(image=places(axes), mask=places(axes), flat=places(flat, np.uint16), other=places(flat, np.float16))
    links = chain(flip, axes=axes, value_range=(0, 1 << 20), masks={"mask": 7, "flat": 255, "other": None})
    result = augmented(links, data)
    for name, its_axes in {"image": axes, "mask": axes, "flat": flat, "other": flat}.items():
        expected = np.flip(data[name], 1 + its_axes.index(axis))
        np.testing.assert_array_equal(result[name], expected)
        assert result[name].dtype == data[name].dtype


@every_flip
@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        (form, dtype)
        for form in BOX_FORMATS
        for dtype in ([np.float32] if form.startswith("rel_") else [np.float32, np.int32, np.uint8])
    ],
)
def test_flips_mirror_boxes_in_their_format(flip, axis, form, dtype):
    corners = BOXES[:-1] if dtype == np.uint8 else BOXES  # the last has a width below 0
    if dtype != np.float32 and form == "cxcywh":
        corners = 2 * (corners // 2)  # so that centres are whole
    data = batch(boxes=as_format(corners, form, dtype=dtype))
    result = augmented(chain(flip, boxes={"boxes": form}), data)
    length, scale = np.array([WIDTH, HEIGHT]), np.where(np.array(["W", "H"]) == axis, -1, 1)
    moved = moved_corners(corners, np.where(scale < 0, length, 0), scale)
    expected = as_format(np.where(has_extent(corners)[:, None], moved, corners), form, dtype=dtype)
    assert result["boxes"].dtype == dtype
    (np.testing.assert_allclose if form.startswith("rel_") else np.testing.assert_array_equal)(
        result["boxes"], np.repeat(expected[None], 8, axis=0), **({"atol": 1e-7} if form.startswith("rel_") else {})
    )
    assert not result["boxes_covered"].any()


def test_a_flip_of_fractions_is_one_minus_them():
    points = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    result = augmented(chain(gdx.HorizontalFlip(p=1), keypoints={"points": "rel_xy"}), batch(points=points))
    np.testing.assert_array_equal(result["points"][0], np.stack([1 - points[:, 0], points[:, 1]], axis=-1))


@pytest.mark.parametrize("flip", [flip for flip, _ in FLIPS.values()], ids=FLIPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8])
def test_flips_mirror_keypoints_which_stay_on_their_pixels(flip, dtype):
    centre = 0 if np.issubdtype(dtype, np.integer) else 0.5
    data = batch(points=(POINTS + centre).astype(dtype))
    result = augmented(chain(flip, keypoints={"points": "xy"}), data)
    assert result["points"].dtype == dtype
    x, y = np.floor(result["points"][0].astype(np.float64)).astype(int).T
    np.testing.assert_array_equal(result["image"][0][y, x], data["image"][0][POINTS[:, 1], POINTS[:, 0]])
    assert (result["points"][0] % 1 == centre).all()
    assert result["points_visible"].all()


def test_a_flip_turned_twice_is_none_and_flips_alone_clip_nothing():
    boxes = np.array([[-3, 2, 30, 9], [20, 20, 30, 30]], np.float32)
    twice = chain(gdx.HorizontalFlip(p=1, name="a"), gdx.HorizontalFlip(p=1, name="b"), boxes={"boxes": "xyxy"})
    data = batch(boxes=boxes)
    result = augmented(twice, data)
    for name in ("image", "boxes"):
        np.testing.assert_array_equal(result[name], data[name])


def test_half_of_the_records_are_flipped_and_all_that_belongs_to_them():
    data = batch(256, mask=places("HW"), boxes=BOXES.astype(np.float32), points=POINTS.astype(np.float32))
    links = chain(
        gdx.HorizontalFlip(),
        masks={"mask": None},
        boxes={"boxes": "xyxy"},
        keypoints={"points": "xy"},
        draws="draws",
    )
    result = augmented(links, data)
    applied = result["draws"]["HorizontalFlip"]["applied"]
    assert abs(applied.sum() - 128) < 5 * 8  # five standard errors of a binomial
    assert set(result["draws"]["HorizontalFlip"]) == {"applied"}
    always = augmented(chain(*(dataclasses.replace(each, p=1) for each in links.effects), masks={"mask": None},
        boxes={"boxes": "xyxy"}, keypoints={"points": "xy"}), data)  # fmt: skip
    for name in ("image", "mask", "boxes", "points"):
        np.testing.assert_array_equal(result[name][applied], always[name][applied])
        np.testing.assert_array_equal(result[name][~applied], data[name][~applied])


def test_functions_do_what_their_effects_do():
    image = jnp.asarray(places("HWC", np.float32))
    np.testing.assert_array_equal(gdx.horizontal_flip(image), image[:, ::-1])
    np.testing.assert_array_equal(gdx.vertical_flip(image[..., 0]), image[::-1, :, 0])
    key = jax.random.key(3)
    flat = gdx.pad_crop(key, image[..., 0], padding=(3, 2), size=(9, 20 - 4), mode="edge")
    np.testing.assert_array_equal(gdx.pad_crop(key, image, padding=(3, 2), size=(9, 16), mode="edge")[..., 0], flat)
    assert gdx.random_resized_crop(key, image[..., 0], size=(5, 6)).shape == (5, 6)
    with pytest.raises(ValueError, match="`size` must fit inside the padded image"):
        gdx.pad_crop(key, image, padding=1, size=(64, 64))
    with pytest.raises(ValueError, match="`fill` must be a fraction of full scale"):
        gdx.pad_crop(key, image.astype(jnp.uint8), padding=1, fill=255)


@pytest.mark.parametrize("shape", [(7,), (5, 16, 12, 3), (0, 12), ()], ids=str)
def test_functions_refuse_what_is_not_one_image(shape):
    image, key = np.zeros(shape, np.float32), jax.random.key(0)
    for function in (
        gdx.horizontal_flip,
        gdx.vertical_flip,
        lambda image: gdx.pad_crop(key, image, padding=1),
        lambda image: gdx.random_resized_crop(key, image),
    ):
        with pytest.raises(ValueError, match=r"`image` must be one image, \(H, W\) or .* got shape .* Use jax.vmap"):
            function(image)
    with pytest.raises(TypeError, match="`fill` must be a number"):
        gdx.pad_crop(key, np.zeros((4, 4), np.float32), padding=1, fill="a")


# Padding and cropping


@pytest.mark.parametrize(
    ("axes", "mode", "size"),
    [
        *((axes, "constant", (20, 7)) for axes in AXES),
        *(("HWC", mode, size) for mode in ("reflect", "edge") for size in (None, (20, 7))),
    ],
)
def test_pad_crop_is_a_crop_of_a_padded_image(axes, mode, size):
    flat = axes.replace("C", "")
    data = batch(image=places(axes), mask=places(axes), flat=places(flat, np.uint16))
    links = chain(
        gdx.PadCrop(padding=(5, 3), size=size, mode=mode, fill=0.25 if mode == "constant" else 0.0),
        axes=axes,
        value_range=(0, 4096),
        masks={"mask": 7, "flat": 255},
        draws="draws",
    )
    result = augmented(links, data)
    boxes = result["draws"]["PadCrop"]["box"]
    assert len({tuple(box) for box in boxes}) > 4
    for name, its_axes, fill in (("image", axes, 1024), ("mask", axes, 7), ("flat", flat, 255)):
        wide = [{"H": (5, 5), "W": (3, 3)}.get(axis, (0, 0)) for axis in its_axes]
        settings = {"constant_values": fill} if mode == "constant" else {}
        for before, after, (top, left, height, width) in zip(data[name], result[name], boxes, strict=True):
            padded = np.pad(before, wide, mode=mode, **settings)
            cut = {"H": slice(top + 5, top + 5 + height), "W": slice(left + 3, left + 3 + width)}
            np.testing.assert_array_equal(after, padded[tuple(cut.get(axis, slice(None)) for axis in its_axes)])
            assert (height, width) == (size or (HEIGHT, WIDTH))


def test_corners_are_uniform_over_all_places():
    told = gdx.draws(chain(gdx.PadCrop(padding=(1, 2), size=(HEIGHT, 10))), seeds(15_000), (HEIGHT, WIDTH, 3))
    box = told["PadCrop"]["box"]
    counts = np.zeros((3, 7))
    np.add.at(counts, (box[:, 0] + 1, box[:, 1] + 2), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_a_draw_knows_height_and_width_alone():
    crops = (gdx.PadCrop(), gdx.RandomResizedCrop())
    for effect in crops:
        data = {**batch(), "grey": batch()["image"][..., :1]}
        result = augmented(chain(effect, image=["image", "grey"], value_range=(0, 1000)), data)
        np.testing.assert_array_equal(result["image"][..., :1], result["grey"])


def test_geometric_effects_move_all_channels():
    for effect in (gdx.HorizontalFlip(p=1), gdx.PadCrop(), gdx.RandomResizedCrop(size=(8, 8))):
        settings = {"value_range": (0, 1000), "axes": "CHW"}
        data = batch(image=places("CHW", np.float32))
        expected = run(chain(effect, **settings), data)
        np.testing.assert_array_equal(run(chain(effect, channels=[0, 2], **settings), data), expected)


# Boxes and keypoints that are cropped


def crops_of(size, down=0, across=0):
    return gdx.PadCrop(padding=(down, across), size=size)


@every_format
def test_cropped_boxes_are_moved_and_clipped_in_their_format(form):
    size = (9, 7)
    data = batch(64, boxes=as_format(BOXES, form), points=POINTS.astype(np.float32))
    links = chain(crops_of(size, 2, 2), boxes={"boxes": form}, keypoints={"points": "xy"}, draws="draws")
    result = augmented(links, data)
    for boxes, points, covered, visible, (top, left, *_) in zip(
        result["boxes"],
        result["points"],
        result["boxes_covered"],
        result["points_visible"],
        result["draws"]["PadCrop"]["box"],
        strict=True,
    ):
        moved = BOXES - np.array([left, top] * 2)
        cut = np.clip(moved, 0, np.array([7, 9] * 2))
        extent = has_extent(BOXES)
        np.testing.assert_allclose(boxes[extent], as_format(cut, form, size)[extent], atol=2e-6)
        np.testing.assert_array_equal(boxes[~extent], data["boxes"][0][~extent])
        inside = extent & (moved == cut).all(axis=1)
        if not form.startswith("rel_"):
            np.testing.assert_array_equal(boxes[inside], as_format(moved, form, size)[inside])
        sides = [(each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (moved, cut)]
        np.testing.assert_allclose(covered[extent], 1 - (sides[1] / np.maximum(sides[0], 1))[extent], atol=1e-6)
        assert not covered[~extent].any()
        np.testing.assert_array_equal(points, POINTS - np.array([left, top]))
        np.testing.assert_array_equal(visible, ((points >= 0) & (points < [7, 9])).all(axis=1))


def hidden_reference(box, hidden, moved):
    """The share of a box that was cut away, by its area, and what is hidden of the pixels in the rest."""
    if not has_extent(box):
        return 0.0
    left, top, right, bottom = moved
    y, x = np.mgrid[: hidden.shape[0], : hidden.shape[1]] + 0.5
    inside = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    share = hidden[inside].mean() if inside.any() else 0.0
    cut = np.clip(moved, 0, np.tile(hidden.shape[::-1], 2))
    kept = np.prod(cut[2:] - cut[:2]) / np.prod(moved[2:] - moved[:2])
    return 1 - kept * (1 - share)


@pytest.mark.parametrize("form", ["rel_cxcywh", *thorough("xyxy")])
@pytest.mark.parametrize("size", [None, (32, 20)])
def test_what_is_covered_or_cut_away_is_counted_of_the_whole_box(form, size):
    patches = gdx.PatchDropout(num_patches=2, patch_size=(5, 4), fill=1.0)
    crop = gdx.RandomResizedCrop(size=size, scale=(0.3, 1))
    small = [[0.1, 0.2, 0.4, 0.4], [5.6, 7.6, 5.9, 7.9], [11.2, 15.1, 11.4, 15.9]]
    boxes = np.concatenate([BOXES, [[-4, -4, 3, 3], [9.3, 1.1, 15.2, 8]], small])
    links = chain(patches, gdx.PadCrop(), crop, masks={"mask": 9}, boxes={"boxes": form}, draws="draws")
    data = batch(32, np.zeros((HEIGHT, WIDTH, 3), np.float32), mask=places("HW"), boxes=as_format(boxes, form))
    result = augmented(links, data)
    shift, box = (result["draws"][name]["box"] for name in ("PadCrop", "RandomResizedCrop"))
    for number in range(32):
        first, second = shift[number], box[number]
        scale = np.array(result["image"].shape[1:3]) / second[2:]
        moved = moved_corners(moved_corners(boxes, first[1::-1], (1, 1)), second[1::-1], scale[::-1])
        hidden = result["mask"][number] == 9  # also what was padded
        expected = [hidden_reference(own, hidden, each) for own, each in zip(boxes, moved, strict=True)]
        np.testing.assert_allclose(result["boxes_covered"][number], expected, atol=2e-2)
        close = np.abs(result["boxes_covered"][number] - expected) < 1e-5
        assert close.mean() > 0.6  # the others have an edge on a pixel's centre, which rounding may put on either side


@pytest.mark.parametrize("frames", [False, True])
def test_records_that_no_crop_takes_keep_their_boxes_and_what_is_covered_of_them(frames):
    boxes = np.array([[-3, 2, 5, 9], [20, 20, 30, 30], [10, 1, 13, 4]], np.float32)
    image = places("THWC" if frames else "HWC", np.float32)
    data = batch(64, image, boxes=np.repeat(boxes[None], 3, axis=0) if frames else boxes)
    settings = {
        "axes": "THWC" if frames else "HWC",
        "boxes": {"boxes": "xyxy"},
        "value_range": (0, 4096),
        "draws": "draws",
    }
    patches = gdx.PatchDropout(num_patches=2, patch_size=(5, 4), same_on_frame=True)
    links = chain(
        patches, gdx.PadCrop(p=0.3), gdx.OneOf([gdx.RandomResizedCrop(), gdx.HorizontalFlip(p=0)]), **settings
    )
    result, without = augmented(links, data), augmented(chain(patches, **settings), data)
    drawn = result["draws"]
    taken = drawn["PadCrop"]["applied"] | drawn["RandomResizedCrop"]["applied"]
    assert 0 < taken.sum() < 64
    for name in ("image", "boxes", "boxes_covered"):
        np.testing.assert_array_equal(result[name][~taken], without[name][~taken])
    assert (result["boxes"][taken][..., [0, 2]] <= WIDTH).all()
    assert (result["boxes_covered"][taken][..., 1] == 1).all()


def test_what_lies_in_the_padding_is_not_seen():
    points = np.array([[-0.5, 3.0], [3.0, 3.0]], np.float32)
    for mode in ("constant", "reflect", "edge"):
        links = chain(gdx.PadCrop(padding=2, mode=mode), keypoints={"points": "xy"})
        result = augmented(links, batch(64, points=points))
        assert not result["points_visible"][:, 0].any()
        assert result["points_visible"][:, 1].all()


def test_integer_coordinates_are_cropped_exactly():
    data = batch(16, boxes=BOXES.astype(np.int16), points=POINTS.astype(np.int32))
    links = chain(crops_of((9, 7)), boxes={"boxes": "xywh"}, keypoints={"points": "xy"}, draws="draws")
    result = augmented(links, {**data, "boxes": np.repeat(as_format(BOXES, "xywh", dtype=np.int16)[None], 16, axis=0)})
    for boxes, points, (top, left, *_) in zip(
        result["boxes"], result["points"], result["draws"]["PadCrop"]["box"], strict=True
    ):
        cut = as_format(np.clip(BOXES - np.array([left, top] * 2), 0, [7, 9, 7, 9]), "xywh", dtype=np.int16)
        np.testing.assert_array_equal(boxes[has_extent(BOXES)], cut[has_extent(BOXES)])
        np.testing.assert_array_equal(points, POINTS - [left, top])
    assert (result["boxes"].dtype, result["points"].dtype) == (np.int16, np.int32)


def test_a_box_outside_has_no_size_and_counts_as_cut_away():
    boxes = np.array([[1, 1, 3, 3]], np.float32)
    for form in BOX_FORMATS:
        links = chain(crops_of((4, 4)), boxes={"boxes": form}, draws="draws")
        result = augmented(links, batch(64, boxes=as_format(boxes, form)))
        gone = (result["draws"]["PadCrop"]["box"][:, :2] >= 3).any(axis=1)
        assert 0 < gone.sum() < 64
        last = result["boxes"][:, 0, 2:] - (result["boxes"][:, 0, :2] if form.endswith("xyxy") else 0)
        least = 1e-7 if form.startswith("rel_") else 0  # where edges that meet may be off by a rounding
        np.testing.assert_array_equal((last <= least).any(axis=1), gone)
        np.testing.assert_array_equal(result["boxes_covered"][:, 0] > 1 - 1e-6, gone)


@every_format
def test_the_cut_away_share_of_a_box_is_that_of_its_area_however_small_it_is(form):
    inside = jnp.zeros((4, 8), bool)
    corners = [[-0.4, 1, -0.1, 2], [8.1, 1, 8.3, 2], [-0.1, 1.6, 0.3, 1.9], [2.6, 3.9, 2.9, 4.3], [-2, -2, 2, 2]]
    share = covered_share(jnp.asarray(as_format(corners, form, (4, 8))), inside, form, beyond=True)
    np.testing.assert_allclose(share, [1, 1, 0.25, 0.75, 0.75], atol=1e-5)
    np.testing.assert_array_equal(share[:2], 1)
    hidden = inside.at[0, 0].set(True)  # a quarter of the pixels in the quarter that stays
    share = covered_share(jnp.asarray(as_format(corners, form, (4, 8))), hidden, form, beyond=True)
    np.testing.assert_allclose(share[-1], 1 - 3 / 16, atol=1e-6)


@pytest.mark.parametrize("form", KEYPOINT_FORMATS)
def test_keypoints_of_a_resized_crop(form):
    unit = np.array([WIDTH, HEIGHT]) if form == "rel_xy" else 1
    links = chain(gdx.RandomResizedCrop(size=(40, 30)), keypoints={"points": form}, draws="draws")
    result = augmented(links, batch(32, points=(POINTS / unit).astype(np.float32)))
    for points, (top, left, height, width) in zip(
        result["points"], result["draws"]["RandomResizedCrop"]["box"], strict=True
    ):
        expected = (POINTS - [left, top]) * np.array([30 / width, 40 / height]) / (
            np.array([30, 40]) if form == "rel_xy" else 1
        )  # fmt: skip
        np.testing.assert_allclose(points, expected, rtol=1e-5, atol=1e-5)


# Random resized crops


def torchvision_box(rng, height, width, scale, ratio):
    """`RandomResizedCrop.get_params` of torchvision, in NumPy."""
    area = height * width
    low, high = np.log(ratio)
    for _ in range(10):
        target = area * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(low, high))
        wide, high_ = round(np.sqrt(target * aspect)), round(np.sqrt(target / aspect))
        if 0 < wide <= width and 0 < high_ <= height:
            return rng.integers(0, height - high_ + 1), rng.integers(0, width - wide + 1), high_, wide
    if width / height < ratio[0]:
        wide, high_ = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        wide, high_ = round(height * ratio[1]), height
    else:
        wide, high_ = width, height
    return (height - high_) // 2, (width - wide) // 2, high_, wide


def boxes_of(effect, count, shape):
    return gdx.draws(chain(effect), seeds(count), shape)["RandomResizedCrop"]["box"]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((224, 300, 3), {}),
        ((300, 100, 3), {"scale": (0.3, 1.0)}),
        ((97, 101, 1), {"scale": (0.2, 0.4), "ratio": (0.5, 3.0)}),
    ],
    ids=str,
)
def test_rectangles_follow_the_law_of_torchvision(shape, settings):
    count, rng = 10_000, np.random.default_rng(5)
    own = boxes_of(gdx.RandomResizedCrop(**settings), count, shape)
    law = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), **settings}
    theirs = np.array([torchvision_box(rng, *shape[:2], **law) for _ in range(count)])
    assert (own[:, :2] >= 0).all()
    assert (own[:, :2] + own[:, 2:] <= shape[:2]).all()
    measures = (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 2],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
    )
    for measure in measures:
        assert stats.ks_2samp(measure(own), measure(theirs)).pvalue > 1e-4
    sizes, often = np.unique(own[:, 2:], axis=0, return_counts=True)
    placed = own[(own[:, 2:] != sizes[often.argmax()]).any(axis=1)]  # but for the one in the middle, where nothing fits
    for axis in (0, 1):  # where it lies is independent of its size
        room = shape[axis] - placed[:, 2 + axis]
        place = (placed[:, axis] + rng.random(len(placed))) / (room + 1)
        assert stats.kstest(place, "uniform").pvalue > 1e-4
        for length in placed[:, 2:].T:
            assert abs(np.corrcoef(place, length)[0, 1]) < 5 / np.sqrt(len(placed))  # five standard errors


def test_area_is_uniform_and_aspect_is_in_its_logarithm():
    box = boxes_of(gdx.RandomResizedCrop(scale=(0.1, 0.4), ratio=(0.5, 2.0)), 10_000, (2000, 2000, 3)).astype(float)
    area, aspect = box[:, 2] * box[:, 3] / 4e6, np.log(box[:, 3] / box[:, 2])
    assert stats.kstest(area, "uniform", (0.1, 0.3)).pvalue > 1e-4
    assert stats.kstest(aspect, "uniform", (-np.log(2), np.log(4))).pvalue > 1e-4
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 5 / np.sqrt(10_000)  # five standard errors


@pytest.mark.parametrize(
    ("shape", "ratio", "expected"),
    [
        ((30, 30, 3), (3, 4), (10, 0, 10, 30)),
        ((30, 30, 3), (1 / 4, 1 / 3), (0, 10, 30, 10)),
        ((30, 40, 3), (1.0, 1.25), (0, 1, 30, 38)),
    ],
    ids=str,
)
def test_where_nothing_fits_the_middle_is_taken(shape, ratio, expected):
    boxes = boxes_of(gdx.RandomResizedCrop(scale=1.0, ratio=ratio), 64, shape)
    assert {tuple(box.tolist()) for box in boxes} == {expected}
    assert torchvision_box(np.random.default_rng(0), *shape[:2], (1.0, 1.0), ratio) == expected


def test_the_whole_image_at_its_own_size_keeps_its_bits():
    data = batch(4, images(1, (33, 33, 3), "uint8")[0], points=np.array([[3, 4]], np.float32))
    links = chain(gdx.RandomResizedCrop(scale=1.0, ratio=1.0), keypoints={"points": "xy"})
    result = augmented(links, data)
    for name in ("image", "points"):
        np.testing.assert_array_equal(result[name], data[name])


@pytest.mark.parametrize("size", [(40, 5), *thorough((8, 8), (64, 64), (1, 1))], ids=str)
def test_resizing_is_that_of_jax_within_the_rectangle(size):
    image = images(1, (50, 37, 3))[0]
    rng = np.random.default_rng(1)
    resize = jax.jit(lambda image, box: resampled(image, box, size))
    for _ in range(12):
        height, width = rng.integers(1, 51), rng.integers(1, 38)
        top, left = rng.integers(0, 51 - height), rng.integers(0, 38 - width)
        part = image[top : top + height, left : left + width]
        expected = jax.image.scale_and_translate(
            part, (*size, 3), (0, 1), jnp.array(size) / jnp.array([height, width]), jnp.zeros(2), "linear"
        )
        alone = np.full_like(image, 1e9)  # what lies outside has no part in it
        alone[top : top + height, left : left + width] = part
        result = np.asarray(resize(alone, np.array([top, left, height, width], np.int32)))
        np.testing.assert_allclose(result, expected, atol=3e-6)


def triangle(length, after):
    """The weights of one axis, by NumPy: `(after, length)`."""
    scale = length / after
    centre = (np.arange(after)[:, None] + 0.5) * scale - 0.5
    weight = np.maximum(1 - np.abs(centre - np.arange(length)) / max(scale, 1), 0)
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
def test_a_resized_crop_in_any_type_is_that_of_numpy(dtype):
    image = images(1, (48, 40, 3), dtype)[0]
    links = chain(gdx.RandomResizedCrop(size=(12, 20)), draws="draws")
    result = augmented(links, batch(16, image))
    assert result["image"].dtype == image.dtype
    for pixels, (top, left, height, width) in zip(
        result["image"], result["draws"]["RandomResizedCrop"]["box"], strict=True
    ):
        part = image[top : top + height, left : left + width].astype(np.float64)
        exact = np.einsum("ij,jkc,lk->ilc", triangle(height, 12), part, triangle(width, 20))
        step = {"uint8": 0.5 + 1e-4, "float16": 5e-4, "bfloat16": 4e-3, "float32": 2e-6}[dtype]  # half a step, rounding
        assert np.abs(pixels.astype(np.float64) - exact).max() < step


def test_masks_take_the_pixel_that_their_centres_lie_in():
    mask = places("HWC")
    rng = np.random.default_rng(2)
    for size in ((5, 7), (HEIGHT, WIDTH), (40, 31)):
        for _ in range(8):
            height, width = rng.integers(1, HEIGHT + 1), rng.integers(1, WIDTH + 1)
            top, left = rng.integers(0, HEIGHT + 1 - height), rng.integers(0, WIDTH + 1 - width)
            found = nearest(jnp.asarray(mask), jnp.array([top, left, height, width], jnp.int32), size)
            rows, columns = (
                start + [(2 * place + 1) * part // (2 * length) for place in range(length)]
                for start, part, length in zip((top, left), (height, width), size, strict=True)
            )
            np.testing.assert_array_equal(found, mask[np.ix_(rows, columns)])


@pytest.mark.parametrize("dtype", ["float32", *thorough("uint8")])
def test_a_record_has_the_same_bits_in_a_batch_of_any_size(dtype):
    links = chain(
        gdx.HorizontalFlip(),
        gdx.PadCrop(mode="reflect"),
        gdx.RandomResizedCrop(size=(13, 17)),
        masks={"mask": 0},
        boxes={"boxes": "rel_xywh"},
        keypoints={"points": "xy"},
    )
    image = images(64, (40, 37, 3), dtype)
    boxes = np.random.default_rng(0).random((64, 5, 4)).astype(np.float32)
    data = {
        "image": image,
        "mask": image.copy(),
        "boxes": boxes,
        "points": 40 * boxes[..., :2],
        "record_seed": seeds(64),
    }
    whole = augmented(links, data)
    scanned = jax.jit(
        lambda data: jax.lax.map(
            lambda record: jax.tree.map(
                lambda field: field[0], gdx.augment(links, jax.tree.map(lambda field: field[None], record))
            ),
            data,
        )
    )(data)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(scanned), whole)
    for size in (1, 3, 8):
        part = augmented(links, {name: field[5 : 5 + size] for name, field in data.items()})
        jax.tree.map(lambda one, all: np.testing.assert_array_equal(one, all[5 : 5 + len(one)]), part, whole)


# What belongs to them


def test_frames_are_cropped_as_one_or_each_for_itself():
    image = places("THWC", np.float32)
    fields = {"mask": places("THW"), "boxes": np.repeat(BOXES[None].astype(np.float32), 3, axis=0)}
    settings = {
        "axes": "THWC",
        "boxes": {"boxes": "xyxy"},
        "masks": {"mask": 0},
        "draws": "draws",
        "value_range": (0, 4096),
    }
    for effect in (gdx.PadCrop(), gdx.RandomResizedCrop(size=(10, 9))):
        name = type(effect).__name__
        shared = augmented(chain(effect, **settings), batch(4, image, **fields))
        assert shared["draws"][name]["box"].shape == (4, 4)
        apart = augmented(
            chain(dataclasses.replace(effect, same_on_frame=False), **settings), batch(4, image, **fields)
        )
        assert apart["draws"][name]["box"].shape == (4, 3, 4)
        for result, boxes in (
            (shared, np.repeat(shared["draws"][name]["box"][:, None], 3, axis=1)),
            (apart, apart["draws"][name]["box"]),
        ):
            size = np.array(result["image"].shape[2:4])
            for clip, frame in np.ndindex(4, 3):
                top, left, height, width = boxes[clip, frame]
                scale = size / (height, width)
                moved = moved_corners(BOXES, (left, top), scale[::-1])
                cut = np.where(has_extent(BOXES)[:, None], np.clip(moved, 0, np.tile(size[::-1], 2)), BOXES)
                np.testing.assert_allclose(result["boxes"][clip, frame], cut, atol=1e-5)
            assert result["mask"].shape == (4, 3, *size)
            assert result["boxes_covered"].shape == (4, 3, len(BOXES))


def test_the_spec_is_that_of_what_comes_out():
    links = chain(
        gdx.HorizontalFlip(),
        gdx.PadCrop(size=(20, 10)),
        gdx.RandomResizedCrop(size=(8, 6)),
        gdx.Normalize(mean=0.5, std=0.5, dtype="bfloat16"),
        axes="CHW",
        masks={"mask": 0, "flat": 1},
        boxes={"boxes": "xyxy"},
        keypoints={"points": "xy"},
        draws="draws",
    )
    data = batch(image=places("CHW", np.uint8), mask=places("CHW"), flat=places("HW"), boxes=BOXES.astype(np.float32))
    data["points"] = np.zeros((8, 2, 2), np.float32)
    result = augmented(links, data)
    spec = grain.experimental.ShapeDtypeStruct
    for transform, given, came in (
        (gdx.AugmentBatch(links), data, result),
        (gdx.AugmentRecord(links), {name: field[0] for name, field in data.items()}, None),
    ):
        given = jax.tree.map(lambda field: spec(shape=field.shape, dtype=field.dtype), given)
        told = transform.output_spec(given)
        if came is None:
            came = transform.random_map({name: field[0] for name, field in data.items()}, None)
            told, came = ({name: each[name] for name in result} for each in (told, came))
        jax.tree.map(
            lambda one, other: np.testing.assert_equal((one.shape, one.dtype), (other.shape, other.dtype)), told, came
        )
    assert result["image"].shape == (8, 4, 8, 6)
    assert result["flat"].shape == (8, 8, 6)


def test_the_spec_of_coordinates_in_float64_is_what_comes_out_with_and_without_x64():
    links = chain(FLIP, gdx.PadCrop(), boxes={"boxes": "xyxy"}, keypoints={"points": "xy"}, draws="draws")
    data = batch(boxes=BOXES.astype(np.float64), points=POINTS.astype(np.int32))
    spec = grain.experimental.ShapeDtypeStruct
    given = jax.tree.map(lambda field: spec(shape=field.shape, dtype=field.dtype), data)
    for x64 in (False, True):
        with jax.enable_x64(x64):
            told = gdx.AugmentBatch(links).output_spec(given)
            result = augmented(links, data)
        assert told["boxes"].dtype == result["boxes"].dtype == (np.float64 if x64 else np.float32)
        assert told["points"].dtype == result["points"].dtype == np.int32
    still = gdx.AugmentBatch(chain(gdx.PatchDropout(), boxes={"boxes": "xyxy"}, draws="draws")).output_spec(given)
    assert still["boxes"].dtype == np.float64


def test_records_of_many_sizes_are_cropped_one_by_one():
    links = chain(gdx.HorizontalFlip(), gdx.RandomResizedCrop(size=(8, 8)), masks={"mask": 0})
    augment = gdx.AugmentRecord(links)
    source = []
    for number, (height, width) in enumerate([(9, 17), (16, 12), (30, 5)]):
        image = images(1, (height, width, 3), seed=number)[0]
        record = {"image": image, "mask": image[..., 0], "record_seed": seeds(3)[number]}
        expected = augmented(links, {name: field[None] for name, field in record.items()})
        result = augment.random_map(record, None)
        for name in ("image", "mask"):
            np.testing.assert_array_equal(result[name], expected[name][0])
        source.append(result["image"])
    assert {image.shape for image in source} == {(8, 8, 3)}
    with pytest.raises(ValueError, match="`size` must be None for HorizontalFlip, which may look beyond"):
        chain(gdx.HorizontalFlip(), size="size")


def test_what_a_caller_gave_stays_and_what_fits_is_given_away():
    links = chain(gdx.HorizontalFlip(p=1), gdx.PadCrop(), boxes={"boxes": "xyxy"})
    before = batch(boxes=BOXES.astype(np.float32))
    data = jax.tree.map(lambda field: jnp.array(field, copy=True), before)
    expected = augmented(links, data)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(data), before)
    assert (expected["boxes"] != before["boxes"]).any()
    given = gdx.AugmentBatch(links, donate=True).map(data)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(given), expected)
    assert data["image"].is_deleted()
    assert data["boxes"].is_deleted()
    resized = jax.tree.map(lambda field: jnp.array(field, copy=True), batch(mask=places("HW")))
    links = chain(gdx.RandomResizedCrop(size=(4, 4)), masks={"mask": 0}, boxes={})
    assert gdx.AugmentBatch(links, donate=True).map(resized)["image"].shape == (8, 4, 4, 4)
    assert not resized["image"].is_deleted()  # whose memory does not fit what comes out


def test_draws_and_replay_know_the_rectangle():
    links = chain(gdx.PadCrop(p=0.5), gdx.RandomResizedCrop(size=(8, 8)), draws="draws", value_range=(0, 1000))
    data = batch(4)
    result = augmented(links, data)
    for place in range(4):
        told = gdx.draws(links, data["record_seed"][place], data["image"].shape[1:])
        jax.tree.map(
            lambda one, all, place=place: np.testing.assert_array_equal(one, all[place]), told, result["draws"]
        )
        again = gdx.replay({"image": data["image"][place]}, data["record_seed"][place], links)
        np.testing.assert_array_equal(again["image"], result["image"][place])


def test_chains_without_geometric_effects_leave_boxes_where_they_are():
    data = batch(boxes=BOXES.astype(np.float32), points=POINTS.astype(np.float32), mask=places("HW"))
    links = chain(
        gdx.PatchDropout(),
        boxes={"boxes": "xyxy"},
        keypoints={"points": "xy"},
        masks={"mask": None},
        value_range=(0, 1000),
    )
    result = gdx.AugmentBatch(links).map(data)
    assert all(result[name] is data[name] for name in ("boxes", "points", "mask"))


def test_compositions_hold_effects_that_keep_the_size():
    links = chain(
        gdx.OneOf([gdx.HorizontalFlip(p=1), gdx.PadCrop(), gdx.RandomResizedCrop()]),
        boxes={"boxes": "xyxy"},
        value_range=(0, 1000),
        draws="draws",
    )
    data = batch(64, boxes=BOXES.astype(np.float32))
    result = augmented(links, data)
    flipped = result["draws"]["HorizontalFlip"]["applied"]
    np.testing.assert_array_equal(result["image"][flipped], data["image"][flipped][:, :, ::-1])
    np.testing.assert_array_equal(result["boxes"][flipped][:, 1], np.tile([5, 3, 10, 9], (flipped.sum(), 1)))


# Errors

CROP = gdx.RandomResizedCrop(size=(8, 8))


@pytest.mark.parametrize(
    ("effects", "settings", "error", "message"),
    [
        (
            [gdx.PadCrop(size=(30, 8))],
            {},
            ValueError,
            r"`size` must fit inside the padded image: got \(30, 8\) .* Use a",
        ),
        ([gdx.PadCrop(padding=12, mode="reflect")], {}, ValueError, '`padding` must be smaller .* or mode="edge"'),
        ([gdx.RandomResizedCrop(size=(4, 4), p=0.5)], {}, ValueError, "`effects` must treat all records .* with p=1"),
        (
            [gdx.OneOf([CROP, gdx.HorizontalFlip()])],
            {},
            ValueError,
            "`effects` must treat all records where they change",
        ),
        (
            [gdx.Sequential([CROP], p=0.5), CROP],
            {},
            ValueError,
            "`effects` must treat all records where they change",
        ),
        ([CROP, gdx.PatchDropout(patch_size=(9, 4))], {}, ValueError, r"`patch_size` must fit inside .*\(8, 8, 4\)"),
        ([CROP, gdx.PadCrop(size=(17, 8))], {}, ValueError, r"`size` must fit inside the padded image: .*\(8, 8, 4\)"),
        (
            [gdx.PadCrop()],
            {"boxes": {"boxes": "xyxy"}, "dtype": "uint8"},
            TypeError,
            "`boxes` must be signed for PadCrop",
        ),
        (
            [CROP],
            {"boxes": {"boxes": "xyxy"}, "dtype": "int32"},
            TypeError,
            "`boxes` must be floating point for Random",
        ),
        (
            [CROP],
            {"keypoints": {"boxes": "xy"}, "dtype": "int32"},
            TypeError,
            "`keypoints` must be floating point for R",
        ),
        (
            [gdx.PadCrop()],
            {"boxes": {"boxes": "rel_xywh"}, "dtype": "int32"},
            TypeError,
            "`boxes` must be floating point",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(effects, settings, error, message):
    settings, dtype = dict(settings), settings.get("dtype", "float32")
    settings.pop("dtype", None)
    length = 2 if "keypoints" in settings else 4
    with pytest.raises(error, match=message):
        gdx.AugmentBatch(chain(*effects, **settings)).map(batch(boxes=np.ones((3, length), dtype)))


@pytest.mark.parametrize(
    ("effects", "width", "dtype", "what", "reach"),
    [
        ([FLIP], 256, "uint8", "boxes", "0 to 256"),
        ([FLIP], 257, "uint8", "keypoints", "0 to 256"),
        ([FLIP], 128, "int8", "boxes", "0 to 128"),
        ([SHIFT], 108, "int8", "boxes", "-20 to 128"),
        ([SHIFT, FLIP, dataclasses.replace(SHIFT, name="two")], 88, "int8", "boxes", "-40 to 128"),
        ([gdx.PadCrop(padding=0, size=(8, 8))], 137, "int8", "boxes", "-129 to 137"),
    ],
    ids=str,
)
def test_integers_that_may_not_hold_what_they_become_are_refused(effects, width, dtype, what, reach):
    form, length = {"boxes": ("xyxy", 4), "keypoints": ("xy", 2)}[what]
    transform = gdx.AugmentBatch(chain(*effects, **{what: {"places": form}}))
    wide = batch(image=np.zeros((16, width, 1), np.float32), places=np.zeros((3, length), dtype))
    with pytest.raises(
        TypeError, match=f"`{what}` must have a type that holds all places .* from {reach}: got {dtype}"
    ):
        transform.map(wide)
    less = 10 if reach == "-129 to 137" else 1
    transform.map({**wide, "image": wide["image"][:, :, less:]})


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_integers_of_64_bits_are_refused_where_they_would_be_cut_off(dtype):
    data = batch(points=POINTS.astype(dtype))
    with pytest.raises(
        TypeError, match="`keypoints` must be integers of at most 32 bits to be moved: got .* or enable"
    ):
        augmented(chain(FLIP, keypoints={"points": "xy"}), data)
    still = gdx.AugmentBatch(chain(gdx.GaussianNoise(), keypoints={"points": "xy"}, value_range=(0, 1))).map(data)
    assert still["points"] is data["points"]


def test_lengths_whose_places_would_overflow_are_refused():
    crop, spec = gdx.RandomResizedCrop(size=(20_000, 8)), jax.ShapeDtypeStruct
    with pytest.raises(ValueError, match="`size` must be smaller .* the product of the two below .* Use a smaller one"):
        augmented(chain(crop), batch(1, np.zeros((70_000, 1, 1), np.float32)))
    with pytest.raises(ValueError, match="`size` must be smaller"):
        jax.eval_shape(gdx.random_resized_crop, jax.random.key(0), spec((40_000, 1), np.float32))
    for shape in ((50_000, 8), (2**15 - 1, 8)):  # the longest that fit
        jax.eval_shape(
            lambda key, image: gdx.random_resized_crop(key, image, size=(min(20_000, len(image)), 8)),
            jax.random.key(0),
            spec(shape, np.float32),
        )
    for padding in (2**30, (4, 2**15 + 1)):
        with pytest.raises(ValueError, match="`padding` must be at most 32768: got .* Pass a smaller number"):
            gdx.PadCrop(padding=padding)
    assert gdx.PadCrop(padding=2**15).padding == 2**15


def test_partners_are_mixed_before_the_size_changes():
    data = batch(value=np.zeros(3, np.float32))
    data = {**data, "partner": {"image": data["image"]}}
    settings = {"value_range": (0, 1000)}
    assert run(chain(gdx.MixUp(), CROP, **settings), data).shape == (8, 8, 8, 4)
    assert run(chain(gdx.HorizontalFlip(), gdx.CutMix(), **settings), data).shape == data["image"].shape
    with pytest.raises(ValueError, match="`effects` must mix before RandomResizedCrop changes the size.*Put it first"):
        run(chain(CROP, gdx.MixUp(), **settings), data)


def test_a_fill_that_nothing_is_padded_with_is_refused():
    message = '`fill` must be left out where nothing is padded with it: got .* for mode="edge". Leave it out, or use'
    for fill in (0.5, (0.0, 1.0)):
        with pytest.raises(ValueError, match=message):
            gdx.PadCrop(mode="edge", fill=fill)
    with pytest.raises(ValueError, match=message):
        gdx.pad_crop(jax.random.key(0), jnp.ones((4, 4)), padding=1, mode="edge", fill=0.5)


def test_masks_say_what_they_are_in_a_constant_padding():
    with pytest.raises(ValueError, match="`masks` must say what is behind the edge of the image, where PadCrop pads"):
        chain(gdx.Sequential([gdx.PadCrop()]), masks={"mask": None})
    for effect in (gdx.PadCrop(mode="edge"), gdx.PadCrop(padding=0, size=(8, 8)), CROP):
        links = chain(effect, masks={"mask": None}, value_range=(0, 1000))
        result = augmented(links, batch(mask=places("HW")))
        assert result["mask"].shape == result["image"].shape[:3]
        assert np.isin(result["mask"], places("HW")).all()


def test_a_loader_gives_batches_of_the_size_that_comes_out():
    records = [{"image": image, "boxes": BOXES.astype(np.float32)} for image in images(20, (24, 20, 3), "uint8")]
    seeded = grain.MapDataset.source(records).random_map(gdx.SeedRecords(), seed=3).batch(8).to_iter_dataset()
    links = chain(gdx.HorizontalFlip(), gdx.RandomResizedCrop(size=(8, 6)), boxes={"boxes": "xyxy"})
    expected = [augmented(links, {**batch}) for batch in seeded]
    with closing(iter(gdx.DeviceLoader(seeded, links, pad_last_batch=True))) as batches:
        result = [jax.device_get(batch) for batch in batches]
    assert [batch["image"].shape for batch in result] == [(8, 8, 6, 3)] * 3
    for one, other in zip(result, expected, strict=True):
        for name in ("image", "boxes", "boxes_covered"):
            np.testing.assert_array_equal(one[name][: len(other[name])], other[name])


every_axis_type = pytest.mark.parametrize(
    "axis_type", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit], ids=str
)


@every_axis_type
@pytest.mark.parametrize("spec", [jax.P("data", "model"), *thorough(jax.P(None, "model"))], ids=str)
def test_images_whose_height_is_spread_are_moved_by_devices_that_hold_them_whole(axis_type, spec):
    links = chain(gdx.HorizontalFlip(), gdx.RandomResizedCrop(size=(9, 7)), masks={"mask": 0}, boxes={"boxes": "xywh"})
    data = batch(mask=places("HW"), boxes=as_format(BOXES, "xywh"))
    expected = augmented(links, data)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    rows = {"mask": spec, "image": spec, "boxes": jax.P(*spec[:1]), "record_seed": jax.P()}
    spread = {name: jax.device_put(field, jax.NamedSharding(mesh, rows[name])) for name, field in data.items()}
    jax.tree.map(np.testing.assert_array_equal, augmented(links, spread), expected)
    compiled = jax.jit(lambda data: gdx.augment(links, data))(spread)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(compiled), expected)


@every_axis_type
def test_devices_move_what_belongs_to_their_own_records(axis_type):
    fields = {"masks": {"mask": 0}, "boxes": {"boxes": "xywh"}, "keypoints": {"points": "rel_xy"}}
    links = chain(gdx.HorizontalFlip(), gdx.RandomResizedCrop(size=(9, 7)), **fields)
    data = batch(mask=places("HW"), boxes=as_format(BOXES, "xywh"), points=POINTS.astype(np.float32) / 16)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    spread = jax.device_put(data, jax.NamedSharding(mesh, jax.P("data")))
    jax.tree.map(np.testing.assert_array_equal, augmented(links, spread), augmented(links, data))


@pytest.mark.parametrize("axes", ["HWC", "CHW", "HW", "THWC"])
def test_a_mask_that_was_forgotten_is_told_once(axes):
    lengths = {"T": 2, "H": 6, "W": 5, "C": 3}
    shape = tuple(lengths[axis] for axis in axes)
    without_channels = tuple(lengths[axis] for axis in axes if axis != "C")
    batch = {
        "image": np.zeros((4, *shape), np.uint8),
        "mask": np.zeros((4, *without_channels), np.uint8),
        "label": np.zeros(4, np.int32),
        "boxes": np.zeros((4, 6, 4), np.float32),
        "record_seed": np.zeros((4, 2), np.uint32) + np.arange(4, dtype=np.uint32)[:, None],
    }
    flip = gdx.AugmentBatch(gdx.Chain([gdx.HorizontalFlip()], seed=0, axes=axes))
    for other in (np.zeros(4), np.zeros((4, 6, 5, 3, 1, 1)), np.zeros((4, 0, *shape[1:]))):
        with pytest.raises(ValueError, match="`image` must hold a batch of images"):
            flip.map({**batch, "image": other.astype(np.uint8)})
        record = {**batch, "image": other[0].astype(np.uint8), "record_seed": batch["record_seed"][0]}
        with pytest.raises(ValueError, match="`image` must hold a batch of images"):
            gdx.AugmentRecord(gdx.Chain([gdx.HorizontalFlip()], seed=0, axes=axes)).random_map(record, None)
    with pytest.warns(
        UserWarning, match=r"`masks` must name .* got the fields \['mask'\] .* HorizontalFlip would leave"
    ):
        flip.map(batch)
    for quiet in (
        flip,
        gdx.AugmentBatch(gdx.Chain([gdx.HorizontalFlip()], seed=0, axes=axes, masks={"mask": None})),
        gdx.AugmentBatch(gdx.Chain([gdx.GaussianNoise()], seed=0, axes=axes)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quiet.map(batch)
