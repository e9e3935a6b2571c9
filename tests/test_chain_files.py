"""Chains as text: in files, of other releases, made at random, and with what people write wrong."""

import json
import pathlib

import jax
import numpy as np
import pytest
from effect_table import EFFECTS, chain, run, seeded_batch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from speckle_noise import SpeckleNoise

import grain_datarax as gdx
from grain_datarax.augmenter import launcher_of
from grain_datarax.fingerprint import differences

KEPT = pathlib.Path(__file__).parent / "golden" / "chains_1"


def recipe():
    """Every effect of the package, and every setting of a chain."""
    inner = gdx.Sequential(
        [gdx.SaltPepperNoise(salt_prob=(0.0, 0.1)), gdx.PatchDropout(patch_size=(0.25, (2, 8)))], p=0.5
    )
    effects = [
        gdx.OneOf([gdx.GaussianNoise(std=(0.05, 0.2)), gdx.PoissonNoise(photons=30), inner], weights=[2, 1, 1]),
        gdx.SomeOf([gdx.GaussianNoise(name="more"), gdx.Function("numpy:add", {"x": 1})], count=(0, 1), name="some"),
        gdx.MixUp(p=0.25),
        gdx.CutMix(alpha=0.5),
    ]  # fmt: skip
    fields = {"masks": {"mask": -1, "other": None}, "boxes": {"box": "rel_xywh"}, "keypoints": {"point": "xy"}}
    return {
        "all": gdx.Chain(effects, seed=2**63, image=["left", "right"], labels="label", partner="other_one", **fields),
        "converted": gdx.Chain(
            [gdx.PatchDropout(), gdx.Normalize(mean=(0.5, 0.25), std=2, dtype="bfloat16")],
            seed=3, axes="TCHW", value_range=(-1, 1.5), clip=False, draws="draws",
        ),
        "colour": gdx.Chain(
            [gdx.BrightnessContrast(brightness=0.1), gdx.ColorJitter(brightness=0.4, saturation=(0.5, 1.5), hue=0.1)],
            seed=1,
        ),
        "occluded": gdx.Chain(
            [
                gdx.RandomErasing(scale=0.1, ratio=(0.5, 2), fill="noise"), gdx.Cutout(num_patches=2, fill="random"),
                gdx.GridMask(unit=(0.1, 0.5), keep_ratio=(0.3, 0.6), fill=(0.1, 0.2, 0.3), inverse=True),
                gdx.GridDropout(num_patches=(3, 7), same_on_channel=False), gdx.GridDropout(num_patches=0.25, name="b"),
                gdx.CoverageDropout(coverage=(0.1, 0.2), fill="mean"), gdx.PixelDropout(fill=((0.1, 0.2),)),
                gdx.ChannelDropout(num_channels=(1, 2), fill=(0.1, 0.2)),
            ],
            seed=5,
        ),
        "noisy": gdx.Chain(
            [
                gdx.SpeckleNoise(std=(0.1, 0.2), truncate=True), gdx.UniformNoise(same_on_channel=True),
                gdx.MultiplicativeNoise(multiplier=1.5, elementwise=False), gdx.SensorNoise(shot=(1e-4, 0.1), read=0),
                gdx.RicianNoise(), gdx.PatchGaussian(side=(0.1, 0.5), std=(0, 1)),
            ],
            seed=6,
        ),
        "moved": gdx.Chain(
            [
                gdx.HorizontalFlip(), gdx.VerticalFlip(p=0.25, name="turned"),
                gdx.PadCrop(padding=(4, 2), mode="reflect", size=(64, 48)), gdx.PadCrop(fill=(0.25, 0.5), name="again"),
                gdx.RandomResizedCrop(size=(32, 24), scale=(0.3, 1), ratio=1, same_on_frame=False),
            ],
            seed=1, axes="THWC", masks={"mask": 255}, boxes={"boxes": "cxcywh"}, keypoints={"points": "rel_xy"},
        ),
        "cast": gdx.Chain([gdx.Cast(scale=True, dtype="float16")], seed=0, channels=None),
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml", ".JSON"])
def test_chains_come_back_from_files(tmp_path, suffix):
    for name, links in recipe().items():
        path = tmp_path / f"{name}{suffix}"
        links.save(path)
        again = gdx.Chain.load(path, functions=["numpy:add"])
        assert (again, repr(again)) == (links, repr(links))
        assert launcher_of(again).fingerprint() == launcher_of(links).fingerprint()
    gdx.Chain([SpeckleNoise()], seed=0).save(str(path))
    assert gdx.Chain.load(str(path), effects=[SpeckleNoise]).effects == (SpeckleNoise(),)


def test_every_effect_of_the_package_is_in_the_recipe():
    from grain_datarax.effects import EFFECTS as PACKAGE

    assert {type(link) for links in recipe().values() for link in links.links} == set(PACKAGE.values())


@pytest.mark.parametrize("name", list(recipe()))
def test_chains_that_were_kept_are_read_as_they_were_meant(name):
    # The files are of version 1 and are never written again: later releases go on reading them.
    links = gdx.Chain.load(KEPT / f"{name}.json", functions=["numpy:add"])
    assert links == recipe()[name]
    saved = {"stream_version": gdx.STREAM_VERSION, "chain": json.loads((KEPT / f"{name}.json").read_text())}
    assert differences(saved, launcher_of(links).fingerprint()) == []


def test_a_checkpoint_without_the_settings_of_later_releases_is_that_of_their_defaults():
    links = chain(gdx.OneOf([gdx.GaussianNoise(), gdx.PatchDropout()]))
    current = launcher_of(links).fingerprint()
    saved = json.loads(json.dumps(current))
    del (
        saved["chain"]["partner"],
        saved["chain"]["effects"][0]["weights"],
        saved["chain"]["effects"][0]["effects"][0]["std"],
    )
    assert differences(saved, current) == []
    other = launcher_of(chain(gdx.OneOf([gdx.GaussianNoise(std=0.1), gdx.PatchDropout()]))).fingerprint()
    assert differences(saved, other) == ["`effects[0].std` 0.1 for 0.05 in OneOf"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "`path` must be a file of JSON: got .*chain.json, Expecting property name"),
        ("[]", "`description` must be a mapping: got list"),
        ('{"version": 2}', "`version` must be 1: got 2. Read it with the release that wrote it"),
        ('{"version": 1, "sede": 0}', "`settings of Chain` must be among .*: got 'sede'. Did you mean 'seed'"),
    ],
)
def test_files_that_hold_no_chain_are_refused(tmp_path, text, message):
    path = tmp_path / "chain.json"
    path.write_text(text)
    with pytest.raises((TypeError, ValueError), match=message):
        gdx.Chain.load(path)
    path = tmp_path / "chain.yaml"
    path.write_text("a: [")
    with pytest.raises(ValueError, match="`path` must be a file of YAML"):
        gdx.Chain.load(path)
    for use in (gdx.Chain.load, recipe()["cast"].save):
        with pytest.raises(
            ValueError, match=r"`path` must end in one of \['.json', '.yaml', '.yml'\]: got 'chain.txt'"
        ):
            use("chain.txt")
    with pytest.raises(FileNotFoundError):
        gdx.Chain.load(tmp_path / "none.json")


def broken(change):
    """The recipe's text with one part changed, at a path of keys."""
    text = json.loads(json.dumps(recipe()["all"].to_dict()))
    *path, last = change[0]
    node = text
    for key in path:
        node = node[key]
    node[last] = change[1]
    return text


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["effects", 0, "effects", 0, "sdt"], 1, "`settings of GaussianNoise` must be among .*: got 'sdt'. Did you mean 'std'.* In effects.0..effects.0..$"),
        (["effects", 0, "effects", 0, "effect"], "GausianNoise", "`effect` must be among .*Did you mean 'GaussianNoise'"),
        (["effects", 0, "effects", 0, "std"], "seven", r"`std` must be a number: got 'seven'. Pass an int or a float. In effects.0..effects.0..$"),
        (["effects", 0, "effects", 0, "std"], "1e-3", "`std` must be a number: got '1e-3'.* YAML .*: write 1.0e-3"),
        (["effects", 0, "effects", 0, "std"], [0.1], "`std` must be a number or two: got"),
        (["effects", 0, "effects", 2, "effects", 1, "patch_size"], [8, 1.5], "`patch_size` must be a share of the image"),
        (["effects", 0, "effects"], [], "`effects` must hold at least one effect"),
        (["effects", 0, "effects"], {"effect": "OneOf"}, "`effects` must be a list"),
        (["effects", 0, "effects"], [[]], '`effects` must hold mappings with an "effect"'),
        (["effects", 0, "weights"], [1], "`weights` must hold one for each effect: got 1 for 3 effects"),
        (["effects", 1, "count"], [0, 3], "`count` must be at most 2, the number of effects"),
        (["effects", 1, "effects", 1, "function"], "numpy:ad", "`function` must be a function that can be imported"),
        (["effects", 1, "effects", 1, "settings"], [1], "`settings` must be a mapping from names to values"),
        (["effects", 2, "p"], None, "`p` must be a number: got None"),
        (["masks"], [["mask", 1]], "`masks` must be a mapping"),
        (["boxes", "box"], "xyzw", "`boxes` must be of a format of .*: got 'xyzw'"),
        (["labels"], 3.5, "`labels` must be a field or several: got 3.5"),
        (["axes"], "HCW", "`axes` must be one of .*: got 'HCW'"),
        (["version"], 1.5, "`version` must be 1: got 1.5"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_in_a_text_is_told_by_its_name(where, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gdx.Chain.from_dict(broken((where, value)), functions=["numpy:add", "numpy:ad"])


fractions = st.floats(0, 1, width=32)
probabilities = st.one_of(st.just(1.0), fractions)
names = st.one_of(st.none(), st.uuids().map(str))


def ranged(values):
    return st.one_of(values, st.tuples(values, values).map(lambda pair: tuple(sorted(pair))))


sides = st.one_of(ranged(st.integers(1, 64)), ranged(st.floats(0.015625, 1, width=32)))
common = {"name": names, "p": probabilities}
leaves = st.one_of(
    st.builds(gdx.GaussianNoise, std=ranged(fractions), mean=ranged(st.floats(-1, 1)), same_on_frame=st.booleans(), **common),
    st.builds(gdx.PoissonNoise, photons=ranged(st.floats(1e-3, 1e3)), **common),
    st.builds(gdx.PatchDropout, num_patches=ranged(st.integers(0, 9)), patch_size=st.tuples(sides, sides), fill=ranged(fractions), **common),
    st.builds(
        gdx.SaltPepperNoise, salt_prob=ranged(st.floats(0, 0.5)), pepper_prob=ranged(st.floats(0, 0.5)), salt_value=ranged(fractions), **common
    ),
    st.builds(gdx.Function, st.just("numpy:add"), st.dictionaries(st.text(max_size=5), st.integers()), **common),
    st.builds(gdx.MixUp, alpha=st.floats(1e-3, 1e3), **common),
    st.builds(gdx.CutMix, alpha=st.floats(1e-3, 1e3), **common),
    st.builds(SpeckleNoise, std=ranged(fractions), **common),
)  # fmt: skip


def compositions(parts):
    held = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        st.builds(gdx.Sequential, held, **common),
        held.flatmap(lambda held: st.builds(gdx.OneOf, st.just(held), weights=st.lists(st.floats(0.125, 9), min_size=len(held), max_size=len(held)), **common)),
        held.flatmap(lambda held: st.builds(gdx.SomeOf, st.just(held), count=ranged(st.integers(0, len(held))), **common)),
    )  # fmt: skip


trees = st.recursive(leaves, compositions, max_leaves=5)
conversions = st.one_of(
    st.builds(gdx.Cast, scale=st.booleans()), st.builds(gdx.Normalize, mean=fractions, std=st.floats(0.125, 4))
)


@st.composite
def chains(draw):
    effects = draw(st.lists(trees, min_size=1, max_size=3)) + draw(st.lists(conversions, max_size=1))
    return gdx.Chain(
        effects,
        seed=draw(st.integers(0, 2**64 - 1)),
        axes=draw(st.sampled_from(["HWC", "CHW", "THWC"])),
        value_range=draw(st.one_of(st.none(), st.just((-1.0, 1.0)), st.just((0, 4095)))),
        clip=draw(st.booleans()),
        masks=draw(st.dictionaries(st.sampled_from(["m", "n.o"]), st.one_of(st.none(), st.integers(-100, 255)))),
        boxes=draw(st.dictionaries(st.sampled_from(["b"]), st.sampled_from(["xyxy", "rel_cxcywh"]))),
        draws=draw(st.one_of(st.none(), st.just("draws"))),
    )


@settings(suppress_health_check=list(HealthCheck))
@given(chains())
def test_chains_of_any_kind_come_back_from_their_text(links):
    text = json.dumps(links.to_dict(), allow_nan=False)
    again = gdx.Chain.from_dict(json.loads(text), effects=[SpeckleNoise], functions=["numpy:add"])
    assert again == links
    assert hash(again) == hash(links)
    assert json.dumps(again.to_dict()) == text


def test_a_chain_out_of_a_file_gives_the_same_pixels(tmp_path):
    links = chain(*(make(name=name) for name, make in list(EFFECTS.items())[:4]))
    links.save(tmp_path / "chain.yaml")
    batch = seeded_batch(4)
    np.testing.assert_array_equal(run(gdx.Chain.load(tmp_path / "chain.yaml"), batch), run(links, batch))
    assert jax.tree.leaves(links) == [links]  # a chain is a leaf, as a string is
