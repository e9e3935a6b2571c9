"""What a preview shows is what records become."""

import collections
import dataclasses
import io
import json
import pathlib
import subprocess
import sys

import grain
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import grain_datarax as gdx
from grain_datarax.__main__ import main, read_image
from grain_datarax.drawing import outline
from grain_datarax.sample import as_taken, sample_picture

pytestmark = pytest.mark.once
THOROUGH = (pytest.mark.long, pytest.mark.thorough)

ROOT = pathlib.Path(__file__).parent.parent
PATCHES = gdx.PatchDropout(num_patches=2, patch_size=(3, 4), fill=0.5, p=0.5)
NOISE = gdx.GaussianNoise(std=0.2, p=0.5)


def photographs(*shapes, seed=3):
    rng = np.random.default_rng(seed)
    return [rng.integers(40, 200, shape, np.uint8) for shape in shapes]


def shown(figure, row, columns):
    """The pixels of a row's panels, column by column, as matplotlib has them."""
    panels = figure.axes[row * columns : (row + 1) * columns]
    return [np.asarray(axes.images[0].get_array()) for axes in panels]


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def record_seed(place, seed=0):
    return gdx.child_seed(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32), place)


def in_fractions(image):
    return (np.asarray(image) / 255).astype(np.float32)


def enclosed(axes):
    """The pixels inside a panel's outlines, `bool (H, W)`: those behind an odd number of vertical edges of their row."""
    height, width = axes.images[0].get_array().shape[:2]
    inside = np.zeros((height, width), bool)
    if not axes.collections:
        return inside
    for (x0, y0), (x1, y1) in axes.collections[0].get_segments():
        if x0 == x1:
            inside[int(min(y0, y1) + 0.5), int(x0 + 0.5) :] ^= True
    return inside


@pytest.mark.thorough
@pytest.mark.long
def test_an_effect_alone_draws_what_it_draws_in_the_chain_and_the_whole_is_a_replay():
    # Two of one class and settings, whose numbers alone tell them apart, and two of one class in a composition.
    composed = gdx.OneOf([gdx.PatchDropout(fill=(0.5, 1.0)), gdx.SaltPepperNoise(salt_prob=0.1, name="salt")], p=0.5)
    chain = gdx.Chain([PATCHES, PATCHES, composed], seed=5, masks={"mask": 255})
    images = photographs((24, 20, 3), (24, 20, 3), (24, 20, 3))
    figure = gdx.preview(chain, images, seed=2**40 + 1)
    assert titles(figure) == ["original", "PatchDropout", "PatchDropout#2", "OneOf", "whole chain"]
    only = [
        dataclasses.replace(
            chain,
            effects=[
                dataclasses.replace(effect, p=float(effect_place == place))
                for effect_place, effect in enumerate(chain.effects)
            ],
        )
        for place in range(3)
    ]  # the chain itself, in which the others never apply
    for row, image in enumerate(images):
        seed, record = record_seed(row, 2**40 + 1), {"image": image, "mask": image[..., 0]}
        original, *panels = shown(figure, row, 5)
        np.testing.assert_array_equal(original, in_fractions(image))
        for panel, own in zip(panels, [*only, chain], strict=True):
            np.testing.assert_array_equal(panel, in_fractions(gdx.replay(record, seed, own)["image"]))
        assert all((panel != original).any() for panel in panels[:3])
        assert (panels[0] != panels[1]).any()


@pytest.mark.long
@pytest.mark.thorough
def test_an_effect_behind_crops_to_a_size_is_shown_behind_them():
    crops = [gdx.RandomResizedCrop(size=(32, 32), scale=0.5), gdx.PadCrop(padding=2, size=(20, 32), mode="edge")]
    patches = gdx.PatchDropout(num_patches=3, patch_size=(4, 5), p=0.5)
    chain = gdx.Chain([NOISE, *crops, patches, gdx.Cast(scale=True)], seed=3)
    (image,) = photographs((64, 48, 3))
    figure = gdx.preview(chain, image, outlines=True)
    assert titles(figure) == [
        "original",
        "GaussianNoise",
        "RandomResizedCrop",
        "PadCrop",
        "PatchDropout",
        "whole chain",
    ]
    panels = shown(figure, 0, 6)
    assert [panel.shape[:2] for panel in panels] == [(64, 48), (64, 48), (32, 32), (20, 32), (20, 32), (20, 32)]
    # The chain itself, in which the noise never applies.
    of_patches = dataclasses.replace(
        chain,
        effects=[dataclasses.replace(NOISE, p=0.0), *crops, dataclasses.replace(patches, p=1.0)],
        masks={"mask": 9},
        draws="draws",
    )
    record = gdx.replay({"image": image, "mask": np.zeros((64, 48), np.uint8)}, record_seed(0), of_patches)
    np.testing.assert_array_equal(panels[4], in_fractions(record["image"]))
    np.testing.assert_array_equal(enclosed(figure.axes[4]), record["mask"] == 9)
    captions = [axes.texts[-1].get_text().replace("\n", " ") for axes in figure.axes]
    assert "behind" not in captions[1] + captions[2]
    assert captions[4].endswith("behind RandomResizedCrop, behind PadCrop")


@pytest.mark.long
@pytest.mark.thorough
def test_patches_of_a_size_need_room_behind_the_crop_alone():
    chain = gdx.Chain([gdx.RandomResizedCrop(size=(32, 32)), gdx.PatchDropout(patch_size=(30, 30))], seed=0)
    original, _, dropped, whole = shown(gdx.preview(chain, photographs((16, 48, 3))), 0, 4)
    assert (original.shape, dropped.shape) == ((16, 48, 3), (32, 32, 3))
    np.testing.assert_array_equal(dropped, whole)


def test_a_row_is_as_high_as_its_highest_picture():
    figure = gdx.preview(
        gdx.Chain([gdx.PadCrop(padding=8, size=(32, 16))], seed=0), photographs((16, 32, 3), (32, 32, 3))
    )
    tops = [axes.get_position().y1 for axes in figure.axes]
    bottoms = [axes.get_position().y0 for axes in figure.axes]
    assert min(bottoms[:3]) > max(tops[3:])


def test_patches_lie_where_draws_says():
    chain = gdx.Chain([gdx.GaussianNoise(), gdx.PatchDropout(num_patches=3, patch_size=(4, 5), p=0.1)], seed=1)
    figure = gdx.preview(chain, np.full((32, 30, 3), 200, np.uint8), outlines=True)
    drawn = gdx.draws(chain, record_seed(0), (32, 30, 3))["PatchDropout/3x4x5"]
    expected = np.zeros((32, 30), bool)
    for y, x in drawn["positions"]:
        expected[y : y + 4, x : x + 5] = True
    np.testing.assert_array_equal(enclosed(figure.axes[2]), expected)
    np.testing.assert_array_equal((shown(figure, 0, 4)[2] == 0).all(axis=-1), expected)
    assert not enclosed(figure.axes[0]).any()
    assert not enclosed(figure.axes[1]).any()
    assert enclosed(figure.axes[3]).any() == drawn["applied"]


def notes(figure, columns):
    """The notes in a figure's panels, row by row, without the captions above the first."""
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    texts = [own[:-1] if place < columns else own for place, own in enumerate(texts)]
    return [texts[start : start + columns] for start in range(0, len(texts), columns)]


def test_a_note_says_what_the_whole_chain_skips():
    held = gdx.OneOf([gdx.PatchDropout(), gdx.SpeckleNoise()], p=0.5, name="a.b")
    shares = gdx.PatchDropout(num_patches=1, patch_size=(0.25, 0.25), p=0.5)
    chain = gdx.Chain([gdx.UniformNoise(), held, shares, NOISE], seed=3)
    images = photographs(*[(16, 16, 3)] * 8)
    seeds = np.stack([record_seed(place) for place in range(8)])
    drawn = gdx.draws(chain, seeds, (16, 16, 3))
    told = [drawn[name]["applied"] for name in ("UniformNoise", "a_b", "PatchDropout/1x0_25x0_25", "GaussianNoise")]
    found = notes(gdx.preview(chain, images), 6)
    skipped = np.array([[own == ["skipped in the whole chain"] for own in row] for row in found])
    np.testing.assert_array_equal(skipped[:, 1:5], ~np.stack(told, axis=1))
    assert skipped[:, 1].sum() == 0 < skipped.sum()
    assert not skipped[:, [0, 5]].any()


@pytest.mark.parametrize("axes", ["HWC", "TCHW"])
def test_masks_of_records_stand_below_their_image_in_colours(axes):
    effects = [gdx.HorizontalFlip(p=1.0), gdx.PatchDropout(num_patches=1, patch_size=(4, 4))]
    chain = gdx.Chain(effects, seed=1, axes=axes, masks={"classes": 255, "depth": None, "absent": 0})
    shape = {"HWC": (16, 12, 3), "TCHW": (2, 3, 16, 12)}[axes]
    (image,) = photographs(shape)
    plain = {"HWC": (16, 12), "TCHW": (2, 16, 12)}[axes]
    classes = np.zeros(plain, np.uint8)
    classes[..., :4] = 1
    depth = np.broadcast_to(np.linspace(2, 6, 12, dtype=np.float32), plain)
    depth = depth[..., None] if axes == "HWC" else depth[:, None]
    record = {"image": image, "classes": classes, "depth": depth}
    figure = gdx.preview(chain, [record, {"image": image}], outlines=True)
    assert [text.get_text() for text in figure.texts] == ["image", "classes", "depth", "image"]
    last = gdx.replay(record, record_seed(0), dataclasses.replace(chain, masks={"classes": 255, "depth": None}))
    colours = {0: (0, 0, 0), 1: (128, 0, 0), 255: (224, 224, 192)}
    frames = [each["classes"][0] if axes == "TCHW" else each["classes"] for each in (record, last)]
    for panel, frame in zip(shown(figure, 1, 4)[::3], frames, strict=True):
        expected = np.array([[colours[int(value)] for value in line] for line in frame]) / 255
        np.testing.assert_array_equal(panel, expected.astype(np.float32))
    assert (shown(figure, 1, 4)[3] == np.float32(224 / 255)).any()
    ramp = np.broadcast_to(np.linspace(0, 1, 12), (16, 12))
    for panel, expected in zip(shown(figure, 2, 4), (ramp, ramp[:, ::-1], ramp, ramp[:, ::-1]), strict=True):
        np.testing.assert_allclose(panel, expected, atol=1e-6)
    np.testing.assert_array_equal(
        enclosed(figure.axes[6]), (shown(figure, 1, 4)[2] == np.float32([224 / 255, 224 / 255, 192 / 255])).all(axis=-1)
    )


@pytest.mark.parametrize(("dtype", "value"), [("int16", -1), ("int32", 255), ("uint16", 1023), ("bool", 1)])
def test_masks_are_coloured_by_their_low_8_bits(dtype, value):
    chain = gdx.Chain([gdx.HorizontalFlip()], seed=0, masks={"mask": None})
    record = {"image": np.zeros((4, 4, 3), np.uint8), "mask": np.full((4, 4), value, dtype)}
    expected = (128, 0, 0) if dtype == "bool" else (224, 224, 192)
    for panel in shown(gdx.preview(chain, record), 1, 3):
        np.testing.assert_array_equal(panel, np.broadcast_to(np.float32(expected) / np.float32(255), (4, 4, 3)))


def test_masks_that_are_mixed_come_from_the_partner_that_the_image_has():
    chain = gdx.Chain([gdx.CutMix(p=1.0)], seed=0, masks={"mask": 7})
    images = photographs((16, 16, 3), (16, 16, 3), (16, 16, 3))
    records = [{"image": image, "mask": np.full((16, 16), place, np.uint8)} for place, image in enumerate(images)]
    del records[2]["mask"]
    figure = gdx.preview(chain, records)
    assert [text.get_text() for text in figure.texts] == ["image", "mask", "image", "image"]
    alone, whole = shown(figure, 1, 3)[1:]
    partner = np.float32([128 / 255, 0, 0])
    np.testing.assert_array_equal(alone, whole)
    assert {tuple(pixel) for pixel in alone.reshape(-1, 3)} == {(0, 0, 0), tuple(partner)}
    changed = (shown(figure, 0, 3)[1] != shown(figure, 0, 3)[0]).any(axis=-1)
    assert ((alone == partner).all(axis=-1) >= changed).all()
    own = {**records[0], "partner": {"image": images[2], "mask": np.full((16, 16), 2, np.uint8)}}
    (pasted,) = {tuple(pixel) for pixel in shown(gdx.preview(chain, own), 1, 3)[1].reshape(-1, 3)} - {(0, 0, 0)}
    assert pasted == tuple(np.float32([0, 128 / 255, 0]))


def test_a_preview_is_the_same_again_and_another_seed_another():
    chain = gdx.Chain([NOISE], seed=0)
    images = photographs((16, 16, 3), (16, 16, 3))
    first, again, other = (shown(gdx.preview(chain, images, seed=seed), 1, 3) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first[1] != other[1]).any()
    assert (first[1] - first[0] != (lambda row: row[1] - row[0])(shown(gdx.preview(chain, images, seed=4), 0, 3))).any()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("axes", "dtype", "value_range"),
    [
        ("HWC", "bfloat16", (-1.0, 1.0)),
        ("CHW", "int16", (-1024, 3071)),
        ("THWC", "uint8", None),
        pytest.param("HW", "uint8", None, marks=THOROUGH),
        pytest.param("THW", "float32", None, marks=THOROUGH),
        pytest.param("TCHW", "float16", (0.0, 255.0), marks=THOROUGH),
    ],
)
def test_any_axes_and_types_are_shown_in_fractions_of_their_range(axes, dtype, value_range):
    sizes = {"T": 2, "H": 12, "W": 10, "C": 4}
    low, high = value_range or ((0, 255) if dtype == "uint8" else (0.0, 1.0))
    fractions = np.random.default_rng(0).uniform(0.2, 0.8, [sizes[axis] for axis in axes])
    image = np.asarray(jnp.asarray(low + fractions * (high - low)).astype(dtype))
    chain = gdx.Chain(
        [gdx.PatchDropout(num_patches=1, patch_size=(3, 3)), gdx.GaussianNoise()],
        seed=0,
        axes=axes,
        value_range=value_range,
    )
    figure = gdx.preview(chain, image, outlines=True)
    replayed = gdx.replay({"image": image}, record_seed(0), chain)["image"]
    for panel, values in zip(shown(figure, 0, 4)[::3], (image, replayed), strict=True):
        frame = values[0] if axes.startswith("T") else values
        frame = frame[:3].transpose(1, 2, 0) if "CHW" in axes else frame[..., :3] if "C" in axes else frame
        expected = (frame.astype(np.float64) - low) / (high - low)
        np.testing.assert_array_equal(panel, np.clip(expected, 0, 1).astype(np.float32))
    assert enclosed(figure.axes[1]).sum() == 9
    assert (shown(figure, 0, 4)[1][enclosed(figure.axes[1])] == 0).all()


@pytest.mark.parametrize(
    "conversion",
    [
        gdx.Normalize(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1)),
        gdx.Normalize(mean=0.5, std=(0.25, 0.5, 1)),
        gdx.Cast(),
        gdx.Cast(scale=True),
    ],
)
@pytest.mark.parametrize("value_range", [None, (-1.0, 3.0)])
def test_converted_images_are_shown_as_what_they_stand_for(conversion, value_range):
    image = photographs((16, 16, 3))[0]
    image = image if value_range is None else as_taken(image, gdx.Chain([NOISE], seed=0, value_range=value_range))
    figure = gdx.preview(gdx.Chain([PATCHES, conversion], seed=0, value_range=value_range), image)
    plain = gdx.preview(gdx.Chain([PATCHES], seed=0, value_range=value_range), image)
    assert titles(figure) == titles(plain) == ["original", "PatchDropout", "whole chain"]
    for panel, expected in zip(shown(figure, 0, 3), shown(plain, 0, 3), strict=True):
        np.testing.assert_allclose(panel, expected, atol=1e-6)


@pytest.mark.long
@pytest.mark.thorough
def test_few_channels_are_grey_and_many_are_the_first_three():
    chain = gdx.Chain([PATCHES], seed=0, channels=(0,))
    image = photographs((8, 8, 5))[0]
    for channels, expected in [(1, image[..., 0]), (2, image[..., 0]), (3, image[..., :3]), (5, image[..., :3])]:
        original, noisy, _ = shown(gdx.preview(chain, image[..., :channels]), 0, 3)
        np.testing.assert_array_equal(original, in_fractions(expected))
        assert noisy.shape == original.shape


@dataclasses.dataclass
class Sample:
    image: np.ndarray
    record_seed: np.ndarray | None = None


@pytest.mark.long
@pytest.mark.thorough
def test_images_may_be_any_records_that_hold_them():
    images = photographs((12, 12, 3), (12, 12, 3))
    seeds = np.stack([record_seed(0), record_seed(1)])
    chain = gdx.Chain([NOISE], seed=0)
    expected = [shown(gdx.preview(chain, images), row, 3) for row in range(2)]
    nested = gdx.Chain([NOISE], seed=0, image="inputs.image")
    first = gdx.Chain([NOISE], seed=0, image=0)
    named = collections.namedtuple("Named", ["image", "label"])
    for own, given in [
        (chain, tuple(images)),
        (chain, np.stack(images)),
        (chain, jnp.stack(images)),
        (chain, [Image.fromarray(image) for image in images]),
        (chain, [{"image": image, "label": "cat"} for image in images]),
        (chain, [named(image, 3) for image in images]),
        (chain, {"image": np.stack(images), "record_seed": seeds, "label": np.arange(2)}),
        (chain, [Sample(images[0]), Sample(images[1], record_seed(1))]),
        (nested, [{"inputs": {"image": image}} for image in images]),
        (first, [(image, 3) for image in images]),
        (first, (np.stack(images), np.arange(2), seeds)),
        (chain, list(grain.MapDataset.source([{"image": image} for image in images]))),
    ]:
        figure = gdx.preview(own, given)
        np.testing.assert_array_equal([shown(figure, row, 3) for row in range(2)], expected)
    figure = gdx.preview(first, (images[0], 3))
    np.testing.assert_array_equal(shown(figure, 0, 3), expected[0])
    # A record's own seed is what it draws from.
    (alone,) = [shown(gdx.preview(chain, {"image": images[1], "record_seed": seeds[1]}), 0, 3)]
    np.testing.assert_array_equal(alone, expected[1])


@pytest.mark.long
@pytest.mark.thorough
def test_a_pair_of_images_has_a_row_each_with_its_name():
    chain = gdx.Chain([PATCHES], seed=0, image=["left", "right"])
    left, right = photographs((16, 16, 3), (16, 16, 3))
    figure = gdx.preview(chain, [{"left": left, "right": right}], outlines=True)
    assert [text.get_text() for text in figure.texts] == ["left", "right"]
    assert len(figure.axes) == 2 * 3
    np.testing.assert_array_equal(enclosed(figure.axes[1]), enclosed(figure.axes[4]))
    replayed = gdx.replay({"left": left, "right": right}, record_seed(0), chain)
    np.testing.assert_array_equal(shown(figure, 1, 3)[2], in_fractions(replayed["right"]))


def test_padded_images_are_shown_without_their_padding():
    image = photographs((16, 12, 3))[0]
    padded = np.pad(image, [(0, 8), (0, 4), (0, 0)])
    chain = gdx.Chain([PATCHES, NOISE], seed=0, size="size")
    figure = gdx.preview(chain, {"image": padded, "size": np.array([16, 12])})
    replayed = gdx.replay({"image": padded, "size": np.array([16, 12])}, record_seed(0), chain)["image"]
    np.testing.assert_array_equal(shown(figure, 0, 4)[3], in_fractions(replayed[:16, :12]))


@pytest.mark.long
@pytest.mark.thorough
def test_records_are_mixed_with_their_partner_or_the_next_image_of_their_size():
    chain = gdx.Chain([gdx.MixUp(alpha=1.0), gdx.CutMix()], seed=0, labels="label")
    first, small, second, last = photographs((20, 20, 3), (8, 8, 3), (20, 20, 3), (20, 20, 3))
    figure = gdx.preview(chain, [first, small, second, last], outlines=True)
    label = np.float32([1])
    for row, image, partner in [(0, first, second), (1, small, small), (2, second, last), (3, last, first)]:
        record = {"image": image, "label": label, "partner": {"image": partner, "label": label}}
        replayed = gdx.replay(record, record_seed(row), chain)["image"]
        np.testing.assert_array_equal(shown(figure, row, 4)[3], in_fractions(replayed))
    own = gdx.preview(chain, {"image": first, "partner": {"image": second}})
    np.testing.assert_array_equal(shown(own, 0, 4), shown(figure, 0, 4))
    top, left, bottom, right = gdx.draws(chain, record_seed(0), (20, 20, 3))["CutMix"]["box"]
    inside = np.zeros((20, 20), bool)
    inside[top:bottom, left:right] = True
    assert inside.any()
    np.testing.assert_array_equal(enclosed(figure.axes[2]), inside)
    np.testing.assert_array_equal(enclosed(figure.axes[3]), inside)
    assert not figure.axes[1].collections


@pytest.mark.parametrize("shape", [(1, 1), (5, 7)])
def test_an_outline_encloses_exactly_its_pixels(shape):
    pixels = np.random.default_rng(0).random(shape) < 0.6
    edges = outline(pixels)
    assert len(np.unique(edges, axis=0)) == len(edges)
    np.testing.assert_array_equal(np.abs(edges[:, 1] - edges[:, 0]).sum(axis=1), 1)
    inside = np.zeros(shape, bool)
    for (x, y), (end, _) in edges:
        if x == end:
            inside[int(y + 0.5), int(x + 0.5) :] ^= True
    np.testing.assert_array_equal(inside, pixels)
    across = np.zeros(shape, bool)
    for (x, y), (_, end) in edges:
        if y == end:
            across[int(y + 0.5) :, int(x + 0.5)] ^= True
    np.testing.assert_array_equal(across, pixels)


@pytest.mark.long
@pytest.mark.thorough
def test_a_figure_is_as_large_as_its_grid_and_shows_itself():
    chain = gdx.Chain(
        [PATCHES, gdx.PatchDropout(patch_size=(2, 2), name="an effect with a name that is far too long")], seed=0
    )
    figure = gdx.preview(chain, photographs((16, 16, 3), (8, 16, 3)))
    width, height = figure.get_size_inches()
    assert 4 * 2 < width < 4 * 2 + 0.5
    assert 2 + 1 < height < 2 + 1 + 0.6
    assert titles(figure)[2] == "an effect with a name th…"
    picture = Image.open(io.BytesIO(figure._repr_png_()))
    np.testing.assert_allclose(picture.size, 100 * figure.get_size_inches(), atol=1)
    assert "matplotlib.pyplot" not in subprocess.run(
        [sys.executable, "-c", "import sys, grain_datarax as gdx, numpy as np\ngdx.preview(gdx.Chain([gdx.GaussianNoise()], seed=0), np.zeros((8, 8, 3)).astype('f'))\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "`images` must be 1 to 64, of axes 'HWC' each: got 0. Pass a few"),
        (np.zeros((65, 8, 8, 3), np.uint8), ValueError, "`images` must be 1 to 64, .*: got 65"),
        ("photograph.png", TypeError, "`images` must be an image, an array of axes 'HWC', .*: got str. Pass np.asarray"),
        (["photograph.png"], TypeError, r"`images\[0\]` must be an image, .*: got str"),
        ([np.zeros((8, 8, 3), np.uint8), None], TypeError, r"`images\[1\]` must be an image, .*: got NoneType"),
        ([[[0, 1], [2, 3]]], TypeError, r"`images\[0\]` must be an image, .*: got list"),
        (np.zeros((8, 8), np.uint8), ValueError, r"`images` must be of axes 'HWC' each, .*: got shape \(8, 8\). Pass"),
        ([np.zeros((2, 8, 8, 3), np.uint8)], ValueError, r"`images` must be of axes 'HWC' each, .*: got shape \(2, 8"),
        (np.zeros((0, 8, 3), np.uint8), ValueError, r"`images` must be of axes .*: got shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), "a"), TypeError, "`image` must be an image of bools, integers or floats"),
        ({"picture": np.zeros((8, 8, 3), np.uint8)}, KeyError, r"`image` must be a field: got the fields picture. Correct"),
        (np.full((8, 8, 3), 3.0, np.float32), ValueError, "`value_range` must hold the values of the images: got"),
        (np.zeros((8, 2, 3), np.uint8), ValueError, r"`patch_size` must fit inside the image: got \(3, 4\)"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_refused(given, error, message):
    chain = gdx.Chain([gdx.PatchDropout(patch_size=(3, 4)), gdx.GaussianNoise()], seed=0)
    with pytest.raises(error, match=message):
        gdx.preview(chain, given)


@pytest.mark.parametrize("fill", [0, None])
def test_masks_that_are_none_are_refused(fill):
    chain = gdx.Chain([gdx.PatchDropout(patch_size=(3, 4))], seed=0, masks={"mask": fill})
    image = np.zeros((8, 8, 3), np.uint8)
    for mask in (np.zeros((4, 8), np.uint8), np.zeros(8, np.float32), np.zeros((0, 8), np.float32)):
        with pytest.raises(
            ValueError, match=r"`masks` must share the image's size, .* got shape .* for field \"mask\""
        ):
            gdx.preview(chain, {"image": image, "mask": mask})
    with pytest.raises(TypeError, match="`mask` must be an image of bools, integers or floats"):
        gdx.preview(chain, {"image": image, "mask": np.full((8, 8), "a")})


def test_bad_chains_and_seeds_are_refused():
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(TypeError, match="`chain` must be a Chain: got list. Pass Chain"):
        gdx.preview([gdx.GaussianNoise()], image)
    with pytest.raises(ValueError, match="`seed` must be from 0 to 2..64 - 1: got -1"):
        gdx.preview(gdx.Chain([gdx.GaussianNoise()], seed=0), image, seed=-1)


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("matplotlib", "PIL"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import numpy as np
import grain_datarax as gdx
chain = gdx.Chain([gdx.GaussianNoise()], seed=0)
assert chain._repr_png_() is None
try:
    gdx.preview(chain, np.zeros((8, 8, 3), np.uint8))
except ImportError as error:
    print(error)
"""


def test_without_matplotlib_it_is_said_how_to_get_it():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True, cwd=ROOT)
    assert (
        done.stdout == "`preview` must have matplotlib to draw with: got none. Run pip install 'grain-datarax[plot]'.\n"
    )


def test_chains_import_no_matplotlib_until_they_are_drawn():
    code = """
import sys, grain_datarax as gdx
repr(gdx.Chain([gdx.GaussianNoise()], seed=0)), gdx.preview
from jax._src import xla_bridge
assert "matplotlib" not in sys.modules and not xla_bridge._backends
assert callable(gdx.preview)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"image": ["left", "right"], "axes": "TCHW", "value_range": (-1024, 3071), "channels": (1, 4)},
        {"masks": {"mask": 255}, "boxes": {"boxes": "xyxy"}, "keypoints": {"joints": "xy"}, "size": "size"},
        {"axes": "HW", "draws": "draws"},
    ],
)
def test_a_chain_shows_itself_in_notebooks(settings):
    chain = gdx.Chain([PATCHES, NOISE], seed=0, **settings)
    picture = np.asarray(Image.open(io.BytesIO(chain._repr_png_())).convert("RGB"))
    assert picture.shape[1] == 825  # one row without a label
    panels = [picture[-195:-10, 5 + 205 * column :][:, :200] for column in range(4)]
    assert all((panel != panels[0]).any() for panel in panels[1:])


def test_a_chain_that_mixes_shows_itself_with_another_picture():
    pictures = [
        gdx.Chain([gdx.CutMix(), *more], seed=1)._repr_png_() for more in ([], [gdx.Normalize(mean=[0.5] * 4, std=1)])
    ]
    for png in pictures:
        picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        panels = [picture[-195:-10, 5 + 205 * column :][:, :200] for column in range(3)]
        assert np.abs(panels[1] - panels[0]).max() > 100


def test_a_chain_that_the_sample_is_too_small_for_is_shown_by_its_text_alone():
    chain = gdx.Chain([gdx.PatchDropout(patch_size=(500, 500))], seed=0)
    assert chain._repr_png_() is None
    assert repr(chain) == "Chain([PatchDropout(patch_size=(500, 500))], seed=0)"


def test_pictures_come_in_the_axes_channels_and_values_of_a_chain():
    picture = sample_picture()
    for settings, shape in [
        ({"axes": "HW"}, (224, 224)),
        ({"axes": "CHW"}, (3, 224, 224)),
        ({"channels": [4]}, (224, 224, 5)),
    ]:
        taken = as_taken(picture, gdx.Chain([NOISE], seed=0, **settings))
        assert (taken.shape, taken.dtype) == (shape, np.uint8)
    scaled = as_taken(picture, gdx.Chain([NOISE], seed=0, value_range=(-1, 1)))
    np.testing.assert_allclose(scaled, picture / 255 * 2 - 1, atol=1e-6)
    assert scaled.dtype == np.float32
    assert as_taken(picture[..., 0], gdx.Chain([gdx.Normalize(mean=[0.5] * 3, std=1)], seed=0)).shape == (224, 224, 3)
    same = as_taken(picture, gdx.Chain([NOISE], seed=0, value_range=(0, 255)))
    np.testing.assert_array_equal(same, picture, strict=True)


@pytest.fixture
def files(tmp_path):
    colour, grey = photographs((32, 48, 3), (20, 20))
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 250).save(tmp_path / "deep.png")
    gdx.Chain([gdx.PatchDropout(num_patches=2)], seed=0).save(tmp_path / "chain.yaml")
    return tmp_path


@pytest.mark.long
def test_the_command_writes_what_preview_draws(files):
    inputs = [files / name for name in ("colour.png", "grey.png", "deep.png")]
    command = [sys.executable, "-m", "grain_datarax", "preview", *inputs, "--chain", files / "chain.yaml"]
    command += ["-o", files / "out.png", "--seed", "3", "--outlines"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Wrote {files / 'out.png'}.\n", "")
    images = [np.asarray(Image.open(path)) for path in inputs]
    images = [image if image.ndim == 3 else image[..., None] for image in images]
    figure = gdx.preview(gdx.Chain.load(files / "chain.yaml"), images, seed=3, outlines=True)
    expected = np.asarray(Image.open(io.BytesIO(figure._repr_png_())))
    np.testing.assert_array_equal(np.asarray(Image.open(files / "out.png")), expected)
    assert expected.shape[1] == 5 + 3 * 205
    command[-2] = "-1"
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("python -m grain_datarax preview: error: `seed` must be from 0 to 2**64 - 1: got -1.")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": "missing.png"}, "`IMAGE` must be a picture that Pillow reads: got"),
        ({"image": "text.png"}, "`IMAGE` must be a picture that Pillow reads: got"),
        ({"image": "."}, "`IMAGE` must be a picture that Pillow reads: got"),
        ({"image": "huge.pgm"}, "exceeds limit of"),
        ({"image": "damaged.png"}, "broken PNG file"),
        (
            {"image": "depth.tiff"},
            "must be of whole values from 0 to 65535 where it is grey with more than 8 bits: got",
        ),
        ({"image": "small.png"}, "`patch_size` must fit inside the image: got (8, 8)"),
        ({"chain": "missing.yaml"}, "`--chain` must be a file that can be read: got"),
        ({"chain": "colour.png"}, "`path` must end in one of ['.json', '.yaml', '.yml']"),
        ({"chain": "broken.yaml"}, "`path` must be a file of YAML"),
        ({"chain": "own.json"}, "Classes of your own can't be named to this command"),
        (
            {"chain": "function.json"},
            "`functions` must have what a text names, since it is imported and called: got 'a:b'",
        ),
        ({"chain": "function.json"}, "To this command pass --function MODULE:NAME."),
        ({"chain": "list.json"}, "`description` must be a mapping: got list. Write what chain.save writes: "),
        ({"chain": "number.json"}, "`effects` must be a list: got 3. Write each as `- effect: GaussianNoise`. In "),
        ({"out": "out.text"}, "`--output` must end in one of ["),
        ({"out": "nowhere/out.png"}, "No such file or directory"),
    ],
)
def test_the_command_ends_with_one_line_where_something_is_wrong(files, capsys, wrong, message):
    (files / "text.png").write_text("no image")
    (files / "own.json").write_text('{"version": 1, "seed": 0, "effects": [{"effect": "mine:Blur"}]}')
    (files / "list.json").write_text("[]")
    function = {"effect": "Function", "function": "a:b"}
    (files / "function.json").write_text(json.dumps({"version": 1, "seed": 0, "effects": [function]}))
    (files / "broken.yaml").write_text("effects: [\n")
    (files / "number.json").write_text('{"version": 1, "seed": 0, "effects": 3}')
    Image.new("L", (4, 4)).save(files / "small.png")
    (files / "huge.pgm").write_bytes(b"P5 20000 18000 255\n")
    whole = (files / "colour.png").read_bytes()
    data = whole.index(b"IDAT")
    (files / "damaged.png").write_bytes(whole[: data - 4] + b"\0\0\0\x09" + whole[data:])  # its length
    Image.fromarray(np.float32([[0.25, 1.0]])).save(files / "depth.tiff")
    names = {"image": "colour.png", "chain": "chain.yaml", "out": "out.png", **wrong}
    image, chain, out = (str(files / name) for name in names.values())
    with pytest.raises(SystemExit) as ended:
        main(["preview", image, "--chain", chain, "-o", out])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err.startswith("python -m grain_datarax preview: error: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (files / "out.png").exists()


def test_the_command_reads_images_as_cameras_held_them(tmp_path):
    image = photographs((6, 4, 3))[0]
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter
    Image.fromarray(image).save(tmp_path / "turned.png", exif=turned)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(image, -1))
    for mode, shape in [("1", (6, 4)), ("LA", (6, 4)), ("RGBA", (6, 4, 3)), ("P", (6, 4, 3))]:
        Image.fromarray(image).convert("L" if mode == "LA" else "RGB").convert(mode).save(tmp_path / "image.png")
        read = read_image(tmp_path / "image.png")
        assert (read.shape, read.dtype) == (shape, np.uint8)


def test_the_command_reads_deep_grey_images_as_16_bits(tmp_path):
    values = np.array([[0, 300, 65535]], np.uint16)
    (tmp_path / "deep.pgm").write_bytes(b"P5 3 1 65535\n" + values.astype(">u2").tobytes())
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "wide.tiff")
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    for name in ("deep.pgm", "wide.tiff", "deep.tiff"):
        np.testing.assert_array_equal(read_image(tmp_path / name), values, strict=True)


@pytest.mark.parametrize("values", [np.int32([[0, 65536]]), np.int32([[-1, 5]]), np.float32([[0, 0.5, np.nan]])])
def test_deep_grey_images_of_other_values_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    with pytest.raises(ValueError, match=r"must be of whole values from 0 to 65535 .*, in '.*deep.tiff'. Draw it in"):
        read_image(tmp_path / "deep.tiff")
