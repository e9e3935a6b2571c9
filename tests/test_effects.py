"""What every effect promises, on the table of effects; what is said of one holds for a newcomer as it joins."""

import copy
import dataclasses
import hashlib
import json
import pathlib
import pickle
import random
from typing import Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import (
    COLOURED,
    EFFECTS,
    FEW_DRAWS,
    LATER,
    chain,
    dimmed,
    every_effect,
    every_effect_and_dtype,
    every_effect_and_dtype_later_too,
    every_effect_later_long,
    every_effect_some_long,
    every_effect_with_a_draw,
    run,
    seeded_batch,
    seeds,
    thorough,
    whole_table,
)
from helpers import assert_unpickling_starts_no_backend, closing, contents, loader, pixels
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sources import images
from speckle_noise import SpeckleNoise

import grain_datarax as gdx
from grain_datarax.augmenter import launcher_of
from grain_datarax.effects.composition import Composition
from grain_datarax.effects.flip import Flip
from grain_datarax.effects.geometric import Geometric
from grain_datarax.effects.occlusion import Occlusion
from grain_datarax.random.rounding import rounded

GOLDEN = pathlib.Path(__file__).parent / "golden" / "effects_1.json"


@every_effect_and_dtype
@pytest.mark.parametrize("axes", ["HW", "HWC"])
def test_keeps_dtype_and_shape_and_changes_pixels(effect, dtype, axes):
    if axes == "HW" and isinstance(effect(), COLOURED):
        return
    batch = seeded_batch(8, shape=(16, 12, 3)[: len(axes)], dtype=dtype)
    result = gdx.AugmentBatch(chain(effect(), axes=axes)).map(batch)["image"]
    assert (result.dtype, result.shape) == (batch["image"].dtype, batch["image"].shape)
    assert (np.asarray(result) != batch["image"]).reshape(8, -1).any(axis=1).all()


@pytest.mark.whole
@every_effect_and_dtype_later_too
def test_record_and_batch_paths_agree_bit_for_bit(effect, dtype):
    source = grain.MapDataset.source([{"image": image} for image in images(16, dtype=dtype)])
    expected = [record["image"] for record in source.random_map(gdx.AugmentRecord(chain(effect())), seed=7)]
    seeded = source.random_map(gdx.SeedRecords(), seed=7)
    for batch_size in (1, 3, 8):
        for first in range(0, batch_size, 3):  # records take several positions in the batch
            batches = seeded[first:].batch(batch_size, drop_remainder=True).map(gdx.AugmentBatch(chain(effect())))
            result = np.concatenate([np.asarray(batch["image"]) for batch in batches])
            np.testing.assert_array_equal(result, expected[first:][: len(result)], err_msg=f"batches of {batch_size}")


@every_effect_some_long
@pytest.mark.parametrize("axes", ["HW", "CHW", "THW", "TCHW", "THWC"])
def test_records_of_any_axes_get_the_pixels_of_batches(effect, axes):
    if "C" not in axes and isinstance(effect(), COLOURED):
        return
    sizes = {"T": 2, "C": 3, "H": 16, "W": 12}
    batch = seeded_batch(3, shape=tuple(sizes[axis] for axis in axes))
    expected = run(chain(effect(), axes=axes), batch)
    record = {name: field[1] for name, field in batch.items()}
    result = gdx.AugmentRecord(chain(effect(), axes=axes)).random_map(record, None)
    np.testing.assert_array_equal(result["image"], expected[1])


@every_effect_and_dtype
def test_vmapped_and_scanned_records_agree_bit_for_bit(effect, dtype):
    batch, links = seeded_batch(8, dtype=dtype), chain(effect())

    def one(record):
        return gdx.augment(links, jax.tree.map(lambda field: field[None], record))["image"][0]

    scanned = jax.jit(lambda batch: jax.lax.map(one, batch))(batch)
    vmapped = jax.jit(jax.vmap(one))(batch)
    np.testing.assert_array_equal(np.asarray(scanned), run(links, batch))
    np.testing.assert_array_equal(np.asarray(vmapped), run(links, batch))


@every_effect_and_dtype
def test_channels_first_and_grey_images_get_the_pixels_of_channels_last(effect, dtype):
    batch = seeded_batch(4, dtype=dtype)
    expected = run(chain(effect()), batch)
    first = {**batch, "image": np.moveaxis(batch["image"], -1, 1)}
    np.testing.assert_array_equal(np.moveaxis(run(chain(effect(), axes="CHW"), first), 1, -1), expected)
    if isinstance(effect(), COLOURED):
        return
    grey = {**batch, "image": batch["image"][..., :1]}
    flat = {**batch, "image": batch["image"][..., 0]}
    np.testing.assert_array_equal(run(chain(effect(), axes="HW"), flat), run(chain(effect()), grey)[..., 0])


@every_effect_and_dtype
def test_frames_share_a_draw_or_have_their_own(effect, dtype):
    batch = seeded_batch(3, shape=(5, 16, 12, 3), dtype=dtype)
    shared = run(chain(effect(same_on_frame=True), axes="THWC"), batch)
    for frame in range(5):
        still = run(chain(effect()), {**batch, "image": batch["image"][:, frame]})
        np.testing.assert_array_equal(shared[:, frame], still)
    if isinstance(effect(), Flip):  # which draw nothing
        return
    own = chain(effect(same_on_frame=False), axes="THWC")
    apart = run(own, {**batch, "image": np.repeat(batch["image"][:, :1], 5, axis=1)})
    different = [len({frame.tobytes() for frame in clip}) for clip in apart]
    assert min(different) == 5 or (isinstance(effect(), FEW_DRAWS) and max(different) > 1)


@every_effect_some_long
@pytest.mark.parametrize("same_on_frame", [False, True])
def test_frames_may_have_their_channels_first_and_a_clip_any_length(effect, same_on_frame):
    if isinstance(effect(), Flip) and not same_on_frame:
        return
    batch = seeded_batch(3, shape=(5, 16, 12, 3))
    last, first = (chain(effect(same_on_frame=same_on_frame), axes=axes) for axes in ("THWC", "TCHW"))
    expected = run(last, batch)
    moved = run(first, {**batch, "image": np.moveaxis(batch["image"], -1, 2)})
    np.testing.assert_array_equal(np.moveaxis(moved, 2, -1), expected)
    np.testing.assert_array_equal(run(last, {**batch, "image": batch["image"][:, :2]}), expected[:, :2])
    if isinstance(effect(), COLOURED):
        return
    grey = run(dataclasses.replace(last, axes="THW"), {**batch, "image": batch["image"][..., 0]})
    with_channel = run(last, {**batch, "image": batch["image"][..., :1]})
    np.testing.assert_array_equal(grey, with_channel[..., 0])


def test_frames_share_the_draws_of_all_but_noise():
    sharing = Occlusion | Geometric | gdx.ChannelDropout | gdx.BrightnessContrast | gdx.ColorJitter
    leaves = {name: make() for name, make in EFFECTS.items() if not isinstance(make(), Composition)}
    assert {name: effect.same_on_frame for name, effect in leaves.items()} == {
        name: isinstance(effect, sharing) for name, effect in leaves.items()
    }


@every_effect_some_long
def test_works_under_jit_vmap_and_grad(effect):
    link = effect()
    if getattr(link, "fill", None) == "mean":  # which is refused without clipping
        link = dataclasses.replace(link, fill=0.5)
    links, batch = chain(link, clip=False), seeded_batch(8)
    expected = run(links, batch)
    nested = jax.tree.map(lambda leaf: leaf[None], batch)
    for result in (
        jax.jit(lambda batch: gdx.augment(links, batch)["image"])(batch),
        jax.jit(jax.vmap(lambda batch: gdx.augment(links, batch)["image"]))(nested)[0],
        gdx.augment(links, jax.tree.map(jnp.asarray, batch))["image"],
    ):
        np.testing.assert_array_equal(np.asarray(result), expected)
    total = jax.jit(jax.grad(lambda image: gdx.augment(links, {**batch, "image": image})["image"].sum()))
    gradient = np.asarray(total(jnp.asarray(batch["image"])))
    assert np.isfinite(gradient).all()
    if isinstance(links.effects[0], gdx.GaussianNoise):
        assert (gradient == 1).all()
    elif links.effects[0].replaces and not isinstance(links.effects[0], Composition):
        np.testing.assert_array_equal(gradient, expected == batch["image"])


def test_gradients_reach_through_what_effects_compute():
    batch = seeded_batch(8)
    batch["image"] = batch["image"] * 0.5 + 0.25

    def gradient(effect, **settings):
        width = np.ptp(settings.get("value_range", (0, 1)))
        links = chain(effect, clip=False, **settings)
        total = jax.grad(lambda image: gdx.augment(links, {**batch, "image": image})["image"].sum())
        return np.asarray(total(jnp.asarray(batch["image"] * width)))

    dim = odd(
        draw=lambda self, key, shape: jax.random.uniform(key), image=lambda self, image, drawn: rounded(image * drawn)
    )
    expected = gradient(dim)
    assert 0 < expected.min() < expected.max() < 1
    assert (expected == expected[:, :1, :1, :1]).all()  # what the record drew
    np.testing.assert_allclose(gradient(dim, value_range=(0, 255)), expected, rtol=1e-6)
    assert (gradient(gdx.PoissonNoise(photons=30.0), value_range=(-1.0, 1.0)) == 0).all()  # steps


@every_effect_later_long
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_a_sharded_batch_gets_the_pixels_of_one_device_and_no_collective(effect, axis_type):
    batch, links = seeded_batch(16), chain(effect(p=0.5))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    augment = gdx.AugmentBatch(links)
    result = augment.map(spread)["image"]
    np.testing.assert_array_equal(np.asarray(result), run(links, batch))
    assert result.sharding.is_equivalent_to(spread["image"].sharding, result.ndim)
    assert sum(augment.counts()[links.names[0]].values()) == 16
    text = jax.jit(lambda batch: gdx.augment(links, batch)["image"]).lower(spread).compile().as_text()
    assert not [name for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute") if name in text]


@pytest.mark.thorough
@pytest.mark.long
@pytest.mark.parametrize("axis_type", [AxisType.Explicit, *thorough(AxisType.Auto)], ids=str)
def test_later_effects_in_one_chain_do_so_on_a_mesh(axis_type):
    batch, links = seeded_batch(16), chain(*(EFFECTS[name](name=name, p=0.5) for name in LATER))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    spread = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    result = gdx.AugmentBatch(links).map(spread)["image"]
    np.testing.assert_array_equal(np.asarray(result), run(links, batch))
    assert result.sharding.is_equivalent_to(spread["image"].sharding, result.ndim)


@every_effect_with_a_draw
def test_the_name_and_the_seed_decide_the_draw(effect):
    batch = seeded_batch(4)
    assert run(chain(effect()), batch).tobytes() == run(chain(effect()), batch).tobytes()
    others = [chain(effect(), seed=1), chain(effect(), seed=2**32), chain(effect(name="other"))]
    assert len({run(links, batch).tobytes() for links in (chain(effect()), *others)}) == 4


@every_effect_with_a_draw
def test_neighbours_do_not_move_a_draw(effect):
    batch = {"image": np.full((8, 16, 12, 3), 0.5, np.float32), "record_seed": seeds(8)}
    for before in (EFFECTS["patch_dropout"], EFFECTS["gaussian_noise"]):
        first = before(name="before")
        between = {**batch, "image": run(chain(first), batch)}
        np.testing.assert_array_equal(run(chain(first, effect()), batch), run(chain(effect()), between))
    named = [effect(name=str(index)) for index in range(2)]
    first, second = (run(chain(link), batch) for link in named)
    np.testing.assert_array_equal(run(chain(*named), batch), run(chain(named[1]), {**batch, "image": first}))
    np.testing.assert_array_equal(run(chain(*named[::-1]), batch), run(chain(named[0]), {**batch, "image": second}))


@every_effect_with_a_draw
def test_equal_unnamed_effects_of_a_chain_draw_independently(effect):
    flat = {"image": np.full((16, 16, 12, 3), 0.5, np.float32), "record_seed": seeds(16)}
    first, second = (run(chain(effect(name=name)), flat) for name in chain(effect(), effect()).names)
    different = [bool((one != other).any()) for one, other in zip(first, second, strict=True)]
    assert all(different) or (isinstance(effect(), FEW_DRAWS) and any(different))
    if isinstance(effect(), gdx.GaussianNoise | gdx.SaltPepperNoise | gdx.PoissonNoise | SpeckleNoise):  # by value
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / np.sqrt(first.size)  # five standard errors
    with pytest.raises(ValueError, match="`name` must be unique in a chain"):
        chain(effect(name="a"), effect(name="a"))


@every_effect_later_long
def test_p_decides_for_each_record_and_leaves_draws_and_other_records(effect):
    batch = seeded_batch(64)
    always, sometimes = run(chain(effect()), batch), run(chain(effect(p=0.5)), batch)
    applied = (sometimes != batch["image"]).reshape(64, -1).any(axis=1)
    assert 32 - 5 * 4 < applied.sum() < 32 + 5 * 4  # five standard errors of a binomial
    np.testing.assert_array_equal(sometimes[applied], always[applied])
    np.testing.assert_array_equal(sometimes[~applied], batch["image"][~applied])
    augment = gdx.AugmentBatch(chain(effect(p=0.5)))
    for _ in range(3):
        augment.map(batch)
    counts = next(iter(augment.counts().values()))
    assert (counts["applied"], counts["skipped"]) == (3 * applied.sum(), 3 * (~applied).sum())
    np.testing.assert_array_equal(run(chain(effect(p=0.0)), batch), batch["image"])


@every_effect
def test_effects_are_values(effect):
    assert effect() == effect()
    assert hash(effect()) == hash(effect())
    assert effect() != effect(name="other") != effect(p=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        effect().p = 0.5
    for same in (copy.deepcopy(effect()), pickle.loads(pickle.dumps(effect()))):
        assert same == effect()
    named = effect(name="a", p=0.25)
    text = json.dumps(named.to_dict())
    again = gdx.Chain.from_dict(json.loads(json.dumps(chain(named).to_dict())), [SpeckleNoise], [dimmed])
    assert again.effects == (named,)
    assert json.dumps(again.effects[0].to_dict()) == text
    assert len(repr(named)) < 240
    assert "p=0.25" in repr(named)


@every_effect
def test_chains_are_values(effect):
    links = chain(effect(p=0.5), seed=7, masks={"mask": 255}, value_range=(0, 255), axes="CHW", channels=[0, 2])
    again = gdx.Chain.from_dict(json.loads(json.dumps(links.to_dict())), [SpeckleNoise], [dimmed])
    assert (again, hash(again), repr(again)) == (links, hash(links), repr(links))
    assert pickle.loads(pickle.dumps(links)) == links
    assert links != dataclasses.replace(links, seed=8)


@every_effect
def test_what_changes_pixels_is_in_the_fingerprint(effect):
    def fingerprint(*effects, **settings):
        return launcher_of(chain(*effects, **settings)).fingerprint()

    base = fingerprint(effect())
    turned = isinstance(effect(), Composition) or not effect().same_on_frame  # of what a composition holds
    other = {"p": 0.25} if isinstance(effect(), Flip) else {"same_on_frame": turned}
    assert json.loads(json.dumps(base)) == base == fingerprint(effect())
    others = [
        fingerprint(effect(name="a")),
        fingerprint(effect(p=0.5)),
        fingerprint(effect(**other)),
        fingerprint(effect(), seed=1),
        fingerprint(effect(), clip=False),
        fingerprint(effect(), effect()),
        fingerprint(effect(), image="picture"),
        fingerprint(effect(), value_range=(0, 2)),
    ]
    assert base not in others
    assert len({json.dumps(each) for each in others}) == len(others)


@every_effect_some_long
def test_one_compilation_for_each_shape_and_none_for_an_equal_chain(effect):
    from grain_datarax.launch import compiled_count

    name = f"compiled {effect}"  # of no other test
    before = compiled_count()
    for count in (8, 8, 5, 8, 5):
        run(chain(effect(name=name)), seeded_batch(count))
    assert compiled_count() == before + 2


@every_effect_some_long
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_of_the_caller_stay_unless_they_are_given_away(effect, dtype):
    batch = seeded_batch(8, dtype=dtype)
    before = batch["image"].copy()
    expected = run(chain(effect()), batch)
    np.testing.assert_array_equal(batch["image"], before)
    on_device = jax.tree.map(jnp.asarray, batch)
    np.testing.assert_array_equal(run(chain(effect()), on_device), expected)
    np.testing.assert_array_equal(np.asarray(on_device["image"]), before)
    given = gdx.AugmentBatch(chain(effect()), donate=True).map(on_device)
    np.testing.assert_array_equal(np.asarray(given["image"]), expected)
    assert on_device["image"].is_deleted()


def test_every_effect_of_the_package_is_in_the_table():
    from grain_datarax.effects import EFFECTS as PACKAGE

    others = {gdx.MixUp, gdx.CutMix, gdx.Cast, gdx.Normalize}  # which need or give other fields: tests/test_recipes.py
    assert set(PACKAGE.values()) - others <= {type(make()) for make in EFFECTS.values()}
    assert all(vars(gdx)[name] is effect for name, effect in PACKAGE.items() if getattr(gdx, name))


BAD = {
    "patch_dropout": [
        {"num_patches": -1},
        {"num_patches": 1.5},
        {"patch_size": 3},
        {"patch_size": (0, 3)},
        {"fill": 2},
    ],
    "gaussian_noise": [{"std": -0.1}, {"std": 12.75}, {"mean": -2}, {"std": "a"}],
    "salt_pepper_noise": [{"salt_value": 255}, {"pepper_value": -1}],
    "poisson_noise": [{"p": 2}],
    "speckle_noise": [
        *({"std": std} for std in (1.5, None, (0.1, 1.5), (0.2, 0.1), ("a", 1), (0.1,), (0.1, float("nan"))))
    ],
    "patches of ranges": [
        {"num_patches": (3, 1)},
        {"num_patches": (1, 2, 3)},
        {"num_patches": (-1, 2)},
        {"num_patches": (1.0, 2.0)},
        {"patch_size": (1.5, 8)},
        {"patch_size": (0.0, 8)},
        {"patch_size": ((2, 0.5), 8)},
        {"patch_size": ((8, 2), 8)},
        {"patch_size": (8, (1, 2, 3))},
        {"patch_size": (1, 2, 3)},
        {"fill": (0.5, 0.25)},
    ],
    "gaussian of ranges": [{"p": (0.1, 0.2)}],
    "salt and pepper of ranges": [{"p": (0.1, 0.2)}],
    "poisson of ranges": [{"name": ("a", "b")}],
    "brightness_contrast": [{"brightness": 1.5}, {"brightness": (0.2, -0.2)}, {"contrast": -1.5}, {"contrast": "a"}],
    "color_jitter": [
        *({"brightness": value} for value in (-0.1, (-0.5, 0.5), (1.5, 0.5), (1, 1, 1), None, float("nan"))),
        *({"hue": value} for value in (0.6, -0.1, (-0.6, 0), (0.1, -0.1), "a")),
        {"contrast": -1},
        {"saturation": (0.5,)},
    ],
    "function": [{"p": (0.5, 1)}],
    "one of": [{"weights": [1, 2]}, {"weights": [1, -1, 1]}, {"weights": [0, 0, 0]}, {"weights": 3}],
    "some of": [{"count": 4}, {"count": -1}, {"count": (2, 1)}, {"count": 1.5}],
    "sequential": [{"p": -1}],
    "speckle": [{"std": 1.5}, {"same_on_channel": 1}],
    "uniform": [{"amplitude": -0.1}, {"truncate": "yes"}],
    "multiplicative": [{"multiplier": (1.1, 0.9)}, {"multiplier": -1}, {"elementwise": 3}],
    "sensor": [{"shot": (0.0, 0.1)}, {"read": (0, 0.5)}, {"shot": 2}],
    "rician": [{"std": float("nan")}],
    "patch gaussian": [{"side": 0}, {"side": 1.5}, {"std": 2}],
    "random erasing": [{"scale": (0.02, 1.33)}, {"ratio": 0}, {"ratio": (3, 0.3)}, {"fill": "colour"}],
    "cutout": [{"patch_size": 16}, {"patch_size": (0, 4)}, {"num_patches": 0}, {"fill": (0.1,)}],
    "grid mask": [{"unit": 0}, {"unit": (8, 0.5)}, {"keep_ratio": 1.5}, {"fill": ((0.1, 2.0),)}],
    "grid dropout": [{"num_patches": -1}, {"num_patches": 1.5}, {"num_patches": (3, 1)}, {"fill": (0.1, 0.2, 7)}],
    "coverage dropout": [{"coverage": 1.5}, {"patch_size": (3, 4, 5)}, {"inverse": 1}],
    "pixel dropout": [{"drop_prob": -0.1}, {"same_on_channel": None}],
    "channel dropout": [{"num_channels": 0}, {"num_channels": 1.5}, {"num_channels": (2, 1)}, {"fill": "mean"}],
    "horizontal_flip": [{"same_on_frame": False}, {"p": 2}],
    "vertical_flip": [{"same_on_frame": False}],
    "pad_crop": [
        *({"padding": padding} for padding in (-1, 1.5, (1, 2, 3), (1, -1), "4")),
        *({"size": size} for size in (32, (32,), (0, 8))),
        {"mode": "wrap"},
        {"fill": 255},
    ],
    "random_resized_crop": [
        *({"scale": scale} for scale in (0, 1.5, (0.5, 0.1), (0.1, 0.2, 0.3), "a")),
        *({"ratio": ratio} for ratio in (0, (4 / 3, 3 / 4), -1)),
        {"size": 224},
    ],
}


@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name in EFFECTS for settings in BAD[name]], ids=str
)
def test_bad_settings_are_refused(name, settings):
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(settings))}` must"):
        EFFECTS[name](**settings)


def test_the_rules_of_annotations():
    @dataclasses.dataclass(frozen=True)
    class Annotated(gdx.GaussianNoise):
        mode: Literal["a", "b"] = "a"
        shift: float | None = None
        steps: "int | None" = None
        local: "tuple[int, ...]" = (3,)
        pair: tuple = (1, (2.5, "x"))

    good = Annotated(mode="b", shift=np.float64(0.5), steps=np.int64(3), local=[1, 2], pair=[1, [2]])
    assert (good.shift, good.steps, good.local, good.pair) == (0.5, 3, (1, 2), (1, (2,)))
    assert Annotated.from_dict(json.loads(json.dumps(good.to_dict()))) == good
    unheard = dataclasses.dataclass(frozen=True)(
        type("Odd", (gdx.GaussianNoise,), {"__annotations__": {"by": "Unheard"}, "by": 1.0})
    )
    with pytest.raises(TypeError, match="`by` of Odd must have an annotation that can be read: got 'Unheard'"):
        unheard()
    for settings in ({"mode": "c"}, {"shift": "a"}, {"steps": 1.5}, {"local": object()}, {"p": 7.0}, {"pair": {1: 2}}):
        with pytest.raises((TypeError, ValueError), match=f"`{next(iter(settings))}` must"):
            Annotated(**settings)


def test_classes_of_one_name_are_told_apart_in_text():
    other = dataclasses.dataclass(frozen=True)(type("GaussianNoise", (gdx.GaussianNoise,), {}))
    texts = [json.dumps(chain(cls()).to_dict()) for cls in (gdx.GaussianNoise, other)]
    assert texts[0] != texts[1]
    assert type(gdx.Chain.from_dict(json.loads(texts[1]), effects=[other]).effects[0]) is other
    with pytest.raises(ValueError, match="for classes of your own"):
        gdx.Chain.from_dict(json.loads(texts[1]))


def test_whether_an_effect_applies_is_independent_of_what_a_user_draws():
    for number in (0x70, 0, 1, 2):
        effect = odd(
            draw=lambda self, key, shape, number=number: jax.random.uniform(jax.random.fold_in(key, number)),
            image=lambda self, image, drawn: image * 0 + drawn,
        )
        batch = {"image": np.full((256, 1, 1, 1), -1, np.float32), "record_seed": seeds(256)}
        drawn = run(chain(dataclasses.replace(effect, p=0.5), clip=False), batch).ravel()
        assert abs(drawn[drawn >= 0].mean() - 0.5) < 5 / np.sqrt(12 * 128)  # five standard errors


def test_inside_jit_nothing_is_counted():
    for links in (chain(gdx.PatchDropout(patch_size=(3, 4))), chain(gdx.GaussianNoise())):
        augment = gdx.AugmentBatch(links)
        compiled = jax.jit(augment.map)
        for _ in range(3):
            compiled(seeded_batch(4))
        assert augment.counts()[links.names[0]] == {"applied": 0, "skipped": 0, "outside": 0}


@every_effect
def test_settings_are_declared_with_their_rules(effect):
    cls = type(effect())
    for field in dataclasses.fields(cls):
        with pytest.raises((TypeError, ValueError), match=f"`{field.name}` must be"):
            dataclasses.replace(effect(), **{field.name: object()})
    with pytest.raises(ValueError, match="`p` must be a probability from 0 to 1: got nan"):
        effect(p=float("nan"))
    with pytest.raises(
        ValueError, match=f"`settings of {cls.__name__}` must be among .*: got 'nmae'. Did you mean 'name'"
    ):
        cls.from_dict({"effect": cls.__name__, "nmae": "a"})


def odd(**methods):
    cls = type("Odd", (gdx.Effect,), {"image": lambda self, image, drawn: image, **methods})
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (lambda *_: None, "`image` of Odd must return an array: got NoneType"),
        (lambda self, image, drawn: [image], "`image` of Odd must return an array: got list"),
        (
            lambda self, image, drawn: (image * 255).astype("uint8"),
            "`image` of Odd must return fractions of the range, floating point: got uint8. Return values from 0 to 1",
        ),
        (
            lambda self, image, drawn: image[0],
            r"`Odd` must make an array of float32\[16, 12, 3\] of its image: got",
        ),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(TypeError, match=message):
        run(chain(odd(image=image)), seeded_batch(2))


def test_a_draw_of_the_global_generators_is_refused():
    for draw in (lambda *_: np.random.normal(), lambda self, key, shape: random.random()):
        effect = odd(draw=draw, image=lambda self, image, drawn: image + drawn)
        with pytest.raises(ValueError, match="must draw from its key alone: got numbers of NumPy's or Python's global"):
            run(chain(effect), seeded_batch(2))


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (lambda self, mask, drawn, fill: mask * 0.5, "float"),
        (lambda *_: None, "NoneType"),
        (lambda self, mask, *_: mask[0], "uint8"),
    ],
)
def test_a_mask_keeps_shape_and_dtype(mask, got):
    batch = {**seeded_batch(2), "mask": np.zeros((2, 16, 12), np.uint8)}
    with pytest.raises(TypeError, match=rf"`Odd` must make an array of uint8\[16, 12, 1\] of its mask: got {got}"):
        run(chain(odd(mask=mask), masks={"mask": 255}), batch)


def test_settings_that_are_equal_and_yet_another_are_compiled_apart():
    kinds = dataclasses.dataclass(frozen=True)(
        type("Odd", (gdx.Effect,), {
            "__annotations__": {"by": object}, "by": 0, "image": lambda self, image, drawn: image * 0 + (0.5 if type(self.by) is float else 0.25 if self.by is True else 0)
        })
    )  # fmt: skip
    values = [float(run(chain(kinds(by=by)), seeded_batch(2)).max()) for by in (1, 1.0, True, (1,))]
    assert values == [0, 0.5, 0.25, 0]


def test_stop_iteration_ends_no_data():
    def stop(*_):
        return next(iter([]))

    class Stops(gdx.ModalityOperator):
        effect = stop

    for links in (chain(odd(image=stop)), Stops(gdx.ModalityOperatorConfig(field_key="image"))):
        source = grain.MapDataset.source([{"image": image} for image in images(4)])
        batches = source.random_map(gdx.SeedRecords(), seed=7).batch(2).to_iter_dataset().map(gdx.AugmentBatch(links))
        with pytest.raises(RuntimeError, match="`operators` must not raise StopIteration"):
            list(batches)
        records = source.to_iter_dataset().seed(7).random_map(gdx.AugmentRecord(links))
        with pytest.raises(RuntimeError, match="`operators` must not raise StopIteration"):
            list(records)


def test_an_effect_must_be_a_frozen_dataclass():
    class Plain(gdx.GaussianNoise):
        std: float = 0.5

    with pytest.raises(TypeError, match="`Plain` must be a frozen dataclass"):
        Plain()
    for wrong in ({"eq": False}, {}):
        with pytest.raises(TypeError, match="must compare by all its settings"):
            dataclasses.dataclass(frozen=True, **wrong)(
                type(
                    "Odd",
                    (gdx.GaussianNoise,),
                    {"__annotations__": {"by": float}, "by": dataclasses.field(default=1.0, compare=bool(wrong))},
                )
            )()
    with pytest.raises(TypeError, match="cannot inherit non-frozen"):
        dataclasses.dataclass(type("Thawed", (gdx.GaussianNoise,), {}))


def test_chains_refuse_what_is_none_and_effects_that_are_not_in_one():
    with pytest.raises(TypeError, match="`effects` must be effects: got"):
        gdx.Chain([3], seed=0)
    with pytest.raises(ValueError, match="`effects` must hold at least one effect"):
        gdx.Chain([], seed=0)
    with pytest.raises(
        TypeError, match=r"`operators` must be operators or a Chain: got .*Pass Chain\(\[...\], seed=0\)"
    ):
        gdx.AugmentBatch([gdx.GaussianNoise()])
    for seed, error in ((-1, ValueError), (2**64, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="`seed` must be"):
            chain(gdx.GaussianNoise(), seed=seed)
    one = gdx.Chain(gdx.GaussianNoise(), seed=np.int64(3), image=["image"])
    assert one == chain(gdx.GaussianNoise(), seed=3)
    for fields in (
        {"image": "a", "masks": {"a": 1}},
        {"image": ["a", "a"]},
        {"image": "record_seed"},
        {"image": "record_draws"},
    ):
        with pytest.raises(ValueError, match="must name fields that play no other part, nor hold or mark a seed"):
            chain(gdx.GaussianNoise(), **fields)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": 2}, ValueError, "`version` must be 1: got 2"),
        ({"sead": 1}, ValueError, "`settings of Chain` must be among .*: got 'sead'. Did you mean 'seed'"),
        (
            {"effects": [{"effect": "GausianNoise"}]},
            ValueError,
            "`effect` must be among .* Did you mean 'GaussianNoise'",
        ),
        ({"effects": [{"effect": "Unheard"}]}, ValueError, "Pass effects=.* for classes of your own"),
        ({"version": True}, ValueError, "`version` must be 1: got True"),
        ({"effects": None}, TypeError, "`effects` must be a list: got None"),
        ({"effects": ["GaussianNoise"]}, TypeError, '`effects` must hold mappings with an "effect"'),
        ({"effects": [{"effect": "PoissonNoise"}]}, ValueError, "`photons` must be given to PoissonNoise"),
    ],
)
def test_a_text_that_is_no_chain_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        gdx.Chain.from_dict({**chain(gdx.GaussianNoise()).to_dict(), **change})
    with pytest.raises(TypeError, match="`description` must be a mapping"):
        gdx.Chain.from_dict([])


# The whole table in one chain: workers, resumption, and the bits themselves.


@pytest.fixture(scope="module")
def expected():
    stages = [gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(whole_table())]
    return pixels(loader(stages))


@pytest.mark.long
def test_pixels_do_not_depend_on_workers(expected):
    stages = [gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(whole_table())]
    assert pixels(loader(stages, workers=2)) == expected


def test_pixels_do_not_depend_on_shards_or_records(expected):
    by_record = [gdx.AugmentRecord(whole_table()), grain.transforms.Batch(4)]
    assert pixels(loader(by_record)) == expected
    stages = [gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(whole_table())]
    parts = [pixels(loader(stages, shard=shard, shards=2)) for shard in (0, 1)]
    assert {**parts[0], **parts[1]} == expected


def test_resuming_at_every_step_gives_the_remaining_batches():
    def start():
        seeded = loader([gdx.SeedRecords(), grain.transforms.Batch(8)])
        return iter(gdx.DeviceLoader(seeded, whole_table()))

    with closing(start()) as iterator:
        states, whole = [], []
        for _ in range(4):
            states.append(iterator.get_state())
            whole.append(contents(next(iterator)))
    for step, state in enumerate(states):
        with closing(start()) as iterator:
            iterator.set_state(state)
            assert [contents(batch) for batch in iterator] == whole[step:]


def test_a_worker_that_unpickles_a_chain_starts_no_backend_before_its_first_batch(tmp_path):
    assert_unpickling_starts_no_backend(gdx.AugmentBatch(whole_table()), tmp_path)


def golden():
    image = (np.arange(2 * 8 * 6 * 3) // 2).reshape(2, 8, 6, 3).astype(np.uint8)
    batch = {"image": image, "record_seed": np.array([[0x01234567, 0x89ABCDEF], [0xFEDCBA98, 0x76543210]], np.uint32)}
    vectors = {}
    for name, effect in EFFECTS.items():
        result = run(chain(effect()), batch)
        vectors[name] = {"pixels": result.reshape(2, -1)[:, :12].tolist(), "sha256": digest(result)}
    vectors["p"] = gdx.augment(
        chain(gdx.GaussianNoise(p=0.5)),
        {**batch, "image": np.zeros((64, 4, 4, 1), np.uint8), "record_seed": seeds(64)},
        counts=True,
    )[1]["GaussianNoise"]["applied"].tolist()
    clips = {**batch, "image": np.stack([image, image], axis=1)}
    vectors["frames"] = digest(run(chain(gdx.GaussianNoise(), axes="THWC"), clips))
    vectors["whole_table"] = digest(run(whole_table(), batch))
    pairs = {**batch, "label": np.eye(2, dtype=np.float32)}
    pairs["partner"] = {"image": image[::-1].copy(), "label": pairs["label"][::-1].copy()}
    for name, effect in (("mix_up", gdx.MixUp(alpha=0.4)), ("cut_mix", gdx.CutMix())):
        mixed = gdx.augment(chain(effect, labels="label"), pairs)
        vectors[name] = {"label": np.asarray(mixed["label"]).tolist(), "sha256": digest(np.asarray(mixed["image"]))}
    for dtype in ("float32", "bfloat16"):
        last = gdx.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), dtype=dtype)
        vectors[f"normalize {dtype}"] = digest(run(chain(gdx.GaussianNoise(), last), batch))
    return vectors


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_the_stream_of_effects_is_pinned():
    assert golden() == json.loads(GOLDEN.read_text())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
