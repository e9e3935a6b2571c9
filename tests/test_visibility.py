"""Boxes and keypoints: what occluding effects leave to be seen of them, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import chain, run, seeds

import grain_datarax as gdx
from grain_datarax.visibility import is_visible

pytestmark = pytest.mark.once

HEIGHT, WIDTH = 16, 12
BOXES = np.array(
    [[0, 0, 12, 16], [2, 3, 7, 9], [5.5, 1.2, 8.7, 4.4], [-3, -3, 4, 4], [3, 3, 3, 9], [9, 9, 30, 30], [5, 5, 2, 2]]
)
POINTS = np.array([[0, 0], [11.9, 15.9], [12, 3], [5.5, 7.5], [-0.1, 4], [3, 16], [6, 6]])


def batch(count=8, **fields):
    image = np.full((count, HEIGHT, WIDTH, 3), 0.5, np.float32)
    repeated = {name: np.repeat(field[None], count, axis=0) for name, field in fields.items()}
    return {"image": image, "record_seed": seeds(count), **repeated}


def reference_share(hidden, corners):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    left, top, right, bottom = corners
    inside = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return (hidden & inside).sum() / inside.sum() if inside.any() else 0.0


def as_format(corners, form):
    left, top, right, bottom = corners.T
    scale = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]) if form.startswith("rel_") else 1
    columns = {
        "xyxy": (left, top, right, bottom),
        "xywh": (left, top, right - left, bottom - top),
        "cxcywh": ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top),
    }[form.removeprefix("rel_")]
    return (np.stack(columns, axis=-1) / scale).astype(np.float32)


def hidden_in(links, data):
    return run(gdx.Chain(links, seed=0), data)[..., 0] == 1


@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh", "rel_xyxy", "rel_xywh", "rel_cxcywh"])
def test_the_covered_share_of_boxes(form):
    patches = [gdx.PatchDropout(num_patches=2, patch_size=(5, 4), fill=1.0), gdx.PatchDropout(num_patches=1, fill=1.0)]
    data = batch(boxes=as_format(BOXES, form))
    result = gdx.AugmentBatch(chain(*patches, boxes={"boxes": form})).map(data)
    assert result["boxes"] is data["boxes"]
    expected = [[reference_share(hidden, box) for box in BOXES] for hidden in hidden_in(patches, data)]
    np.testing.assert_allclose(np.asarray(result["boxes_covered"]), expected, atol=1e-6)
    assert result["boxes_covered"].dtype == np.float32


@pytest.mark.parametrize("form", ["xy", "rel_xy"])
def test_the_visibility_of_keypoints(form):
    patches = [gdx.PatchDropout(num_patches=3, patch_size=(5, 4), fill=1.0)]
    points = POINTS / (np.array([WIDTH, HEIGHT]) if form == "rel_xy" else 1)
    data = batch(points=points.astype(np.float32)[None])
    result = gdx.AugmentBatch(chain(*patches, keypoints={"points": form})).map(data)
    assert result["points"] is data["points"]
    for hidden, seen in zip(hidden_in(patches, data), np.asarray(result["points_visible"]), strict=True):
        inside = [0 <= x < WIDTH and 0 <= y < HEIGHT for x, y in POINTS]
        expected = [ok and not hidden[int(y), int(x)] for ok, (x, y) in zip(inside, POINTS, strict=True)]
        assert seen.tolist() == [expected]


def test_keypoints_at_the_edges_of_pixels_are_in_them_in_fractions_too():
    for width in (22, 25, 47, 50, 100, 299):
        hidden = np.zeros((1, width), bool)
        hidden[0, ::2] = True
        x = np.arange(width)
        for points, form in ((x, "xy"), (x / width, "rel_xy")):
            both = jnp.asarray(np.stack([points, np.zeros(width)], axis=-1), jnp.float32)
            np.testing.assert_array_equal(np.asarray(is_visible(both, jnp.asarray(hidden), form)), ~hidden[0])


def test_noise_covers_nothing_and_skipped_records_are_not_covered():
    noise = chain(gdx.GaussianNoise(), gdx.SaltPepperNoise(), boxes={"boxes": "xyxy"}, keypoints={"points": "xy"})
    data = batch(boxes=BOXES, points=POINTS)
    result = gdx.AugmentBatch(noise).map(data)
    assert not np.asarray(result["boxes_covered"]).any()
    inside = [0 <= x < WIDTH and 0 <= y < HEIGHT for x, y in POINTS]
    assert (np.asarray(result["points_visible"]) == inside).all()
    sometimes = chain(gdx.PatchDropout(patch_size=(8, 8), p=0.5), boxes={"boxes": "xyxy"})
    result = gdx.AugmentBatch(sometimes).map(data)
    changed = (np.asarray(result["image"]) != data["image"]).reshape(8, -1).any(axis=1)
    np.testing.assert_array_equal(np.asarray(result["boxes_covered"])[:, 0] > 0, changed)
    assert 0 < changed.sum() < 8


def test_frames_records_and_devices_see_the_same():
    patches = gdx.PatchDropout(num_patches=2, patch_size=(5, 4), fill=1.0, same_on_frame=False)
    settings = {"axes": "TCHW", "boxes": {"a.boxes": "xyxy"}, "keypoints": {"points": "xy"}}
    image = np.full((8, 4, 3, HEIGHT, WIDTH), 0.5, np.float32)
    boxes, points = (np.broadcast_to(each.astype(np.float32), (8, 4, *each.shape)) for each in (BOXES, POINTS))
    data = {"image": image, "a": {"boxes": boxes}, "points": points, "record_seed": seeds(8)}
    links = chain(patches, **settings)
    result = gdx.AugmentBatch(links).map(data)
    hidden = np.asarray(result["image"])[:, :, 0] == 1
    expected = [[[reference_share(frame, box) for box in BOXES] for frame in clip] for clip in hidden]
    np.testing.assert_allclose(np.asarray(result["a"]["boxes_covered"]), expected, atol=1e-6)
    assert result["points_visible"].shape == (8, 4, len(POINTS))
    record = jax.tree.map(lambda field: field[3], data)
    alone = gdx.AugmentRecord(links).random_map(record, np.random.default_rng(0))
    np.testing.assert_array_equal(alone["a"]["boxes_covered"], np.asarray(result["a"]["boxes_covered"])[3])
    for axis_type in jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit:
        mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
        spread = jax.device_put(data, jax.NamedSharding(mesh, jax.P("data")))
        sharded = gdx.AugmentBatch(links).map(spread)
        np.testing.assert_array_equal(np.asarray(sharded["points_visible"]), np.asarray(result["points_visible"]))


def test_their_specs_and_errors():
    import grain

    links = chain(gdx.PatchDropout(), boxes={"boxes": "xyxy"}, keypoints={"points": "xy"})
    assert gdx.Chain.from_dict(links.to_dict()) == links
    assert "boxes={'boxes': 'xyxy'}" in repr(links)
    spec = grain.experimental.ShapeDtypeStruct
    given = {"image": spec(shape=(8, 16, 12, 3), dtype=np.uint8), "record_seed": spec(shape=(8, 2), dtype=np.uint32)}
    given |= {"boxes": spec(shape=(8, 7, 4), dtype=np.float32), "points": spec(shape=(8, 5, 2), dtype=np.int32)}
    out = gdx.AugmentBatch(links).output_spec(given)
    assert (out["boxes_covered"].shape, out["boxes_covered"].dtype) == ((8, 7), np.float32)
    assert (out["points_visible"].shape, out["points_visible"].dtype) == ((8, 5), bool)
    for wrong in (BOXES[:, :3], BOXES.astype("U4"), BOXES.astype(jnp.int4), BOXES[0, 0]):
        with pytest.raises(ValueError, match="`boxes` must hold numbers of shape"):
            gdx.AugmentBatch(links).map(batch(boxes=np.asarray(wrong), points=POINTS))
    with pytest.raises(ValueError, match="`boxes` must be of a format of"):
        chain(gdx.PatchDropout(), boxes={"boxes": "yxyx"})
    with pytest.raises(TypeError, match="`keypoints` must be a mapping"):
        chain(gdx.PatchDropout(), keypoints="points")
