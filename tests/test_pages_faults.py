"""Faults of the operators' own pages that were once seen: each is refused, or right, in every way of applying."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import OPERATORS, every_operator, images, noise, patch_dropout, seeded_batch, seeds

import grain_datarax as gdx
from grain_datarax.augmenter import launcher_of
from grain_datarax.images import looks_channels_first

pytestmark = pytest.mark.once


def fingerprint(operators):
    return launcher_of(operators).fingerprint()


class Keeps(gdx.ModalityOperator):
    """Leaves images as they are, and keeps variables."""

    def __init__(self, *values, rngs=None):
        super().__init__(gdx.ModalityOperatorConfig(field_key="image"), rngs=rngs)
        for index, value in enumerate(values):
            setattr(self, f"v{index}", nnx.Variable(value))

    def effect(self, image, params):
        return image


VALUES = {
    "int": 5, "float": 2.5, "bool": True, "str": "x", "none": None, "list": [1, 2.5], "tuple": (1, (2, 3)),
    "nested": {"a": {"b": [1, None]}}, "array": np.ones(2), "arrays": [np.zeros(2), np.float32(3)],
}  # fmt: skip


def values_of(op):
    return jax.tree.map(np.asarray, [each.get_value() for each in op._checkpointed().values()])


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_variables_that_hold_no_array_are_restored_as_they_were(value):
    op, fresh = Keeps(value), Keeps(jax.tree.map(lambda leaf: False if leaf is True else leaf * 0, value))
    fresh.set_state(op.get_state())
    restored = fresh.v0.get_value()
    assert jax.tree.structure(restored) == jax.tree.structure(value)
    for ours, theirs in zip(jax.tree.leaves(restored), jax.tree.leaves(value), strict=True):
        assert type(ours) is type(theirs) or isinstance(ours, np.ndarray)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("v0", None, r"got None for f\[2\] at v0"),
        ("v0", [1.0, 2.0], r"got nothing for f\[2\] at v0"),
        ("v0", "x", r"got U\[\] for f\[2\] at v0"),
        ("v1", None, r"got None for i\[\] at v1"),
        ("v1", 5.0, r"got f\[\] for i\[\] at v1"),
        ("v1", True, r"got b\[\] for i\[\] at v1"),
        ("v1", 2**40, r"must hold numbers that fit: got array\(1099511627776\) for int32 at v1"),
        ("v1", object(), r"got O\[\] for i\[\] at v1"),
        ("v2", -1, r"got i\[\] for u\[\] at v2"),
        ("v3", [1], r"got nothing for i\[\] at v3.1"),
        ("v3", 1, r"got i\[\] for nothing at v3"),
        ("v4", 3, r"got i\[\] for None at v4"),
        (7, 3, "got 7 for a name"),
        ("statistics", {"mean": "x"}, "`statistics` must hold arrays: got str at mean"),
        ("statistics", {"mean": object()}, "`statistics` must hold arrays: got object at mean"),
    ],
)
def test_a_state_that_is_refused_changes_nothing(name, wrong, message):
    op = Keeps(np.zeros(2), np.int32(0), np.uint32(0), [1, 2], None)
    op.set_statistics({"mean": np.float32(1)})
    before = values_of(op)
    state = Keeps(np.ones(2), np.int32(1), np.uint32(1), [3, 4], None).get_state()
    with pytest.raises((TypeError, ValueError), match=message):
        op.set_state({**state, name: wrong})
    jax.tree.map(np.testing.assert_array_equal, values_of(op), before)
    assert op.get_statistics() == {"mean": 1}


def test_numbers_of_python_restore_arrays_without_axes_and_lists_restore_tuples():
    op = Keeps(np.float32(0), jnp.bfloat16(0), np.uint32(0), (1, np.zeros(2)))
    op.set_state({**op.get_state(), "applied_count": 5, "v0": 2, "v1": 2.5, "v2": 3, "v3": [4, np.ones(2)]})
    assert op.get_operation_stats()["applied_count"] == 5
    assert [getattr(op, name).get_value().dtype for name in ("v0", "v1", "v2")] == [np.float32, jnp.bfloat16, np.uint32]
    assert [float(getattr(op, name).get_value()) for name in ("v0", "v1", "v2")] == [2, 2.5, 3]
    number, array = op.v3.get_value()
    assert (number, array.tolist()) == (4, [1, 1])


@every_operator
def test_a_restored_module_shares_no_array_with_the_state(operator):
    op, mean = operator(), np.ones(2)
    state = {**op.get_state(), "statistics": {"mean": mean}}
    op.set_state(state)
    mean[:] = 7
    state["statistics"]["more"] = mean
    assert op.get_statistics().keys() == {"mean"}
    assert op.get_statistics()["mean"].tolist() == [1, 1]


@pytest.mark.parametrize("set_stats", [lambda stats: noise(precomputed_stats=stats), noise().set_statistics])
def test_statistics_hold_arrays(set_stats):
    with pytest.raises(TypeError, match="must hold arrays: got str at by.0"):
        set_stats({"by": ["mean"]})
    set_stats({"by": [1.0, np.ones(2), None]})


class NeedsDropout(Keeps):
    def requires_rng_streams(self):
        return ["dropout"]


class NeedsLater(gdx.ModalityOperator):
    def __init__(self, config, *, rngs, first):
        if first:
            self.streams = ("dropout",)
        super().__init__(config, rngs=rngs)
        self.streams = ("dropout",)

    def requires_rng_streams(self):
        return list(self.streams)

    def effect(self, image, params):
        return image


def test_streams_that_a_subclass_requires_are_looked_for_by_the_constructor():
    with pytest.raises(ValueError, match=r'`rngs` must have the stream "dropout": got \[\'params\'\]'):
        NeedsDropout(rngs=nnx.Rngs(params=0))
    NeedsDropout(rngs=nnx.Rngs(dropout=0))
    config = gdx.ModalityOperatorConfig(field_key="image", stochastic=True)
    with pytest.raises(ValueError, match='must have the stream "dropout"'):
        NeedsLater(config, rngs=nnx.Rngs(params=0), first=True)
    late = NeedsLater(config, rngs=nnx.Rngs(params=0), first=False)
    with pytest.raises(ValueError, match='must have the stream "dropout"'):
        late.apply_batch(gdx.Batch({"image": np.zeros((2, 4, 4), np.float32)}))
    with pytest.raises(ValueError, match='must have the stream "dropout"'):
        late.ensure_rng_streams(["params"])


@pytest.mark.parametrize("rngs", [None, nnx.Rngs(dropout=0)])
def test_a_stream_that_is_drawn_from_but_not_required_is_named(rngs):
    class Wrong(gdx.ModalityOperator):
        def effect(self, image, params):
            return image

        def requires_rng_streams(self):
            return None

    op = Wrong(gdx.ModalityOperatorConfig(field_key="image", stochastic=True), rngs=rngs)
    with pytest.raises(ValueError, match='`rngs` must have the stream "default": got'):
        op.apply_batch(gdx.Batch({"image": np.zeros((2, 4, 4), np.float32)}))


def test_names_of_streams_come_in_a_list():
    class Wrong(NeedsDropout):
        def requires_rng_streams(self):
            return "dropout"

    with pytest.raises(TypeError, match="`requires_rng_streams` must be a list of names: got 'dropout'"):
        Wrong(rngs=nnx.Rngs(dropout=0))
    for names in ("default", None):
        with pytest.raises(TypeError, match="`stream_names` must be a list of names: got"):
            noise().ensure_rng_streams(names)


@dataclasses.dataclass
class Curve:
    gain: float
    table: np.ndarray


class Mean(nnx.Module):
    def __init__(self, gain):
        self.gain = gain
        self.learned = nnx.Param(jnp.ones(2))

    def __call__(self, data):
        return {"mean": data["image"].mean()}


def scaled(by, power=2, *, offset=0):
    return lambda image: image * by**power + offset


def default(image, gain=2):
    return image * gain


def other_default(image, gain=3):
    return image * gain


other_default.__qualname__ = "default"

PAIRS = {
    "float": (2.0, 3.0),
    "none": (None, 0),
    "static": (nnx.static(2), nnx.static(3)),
    "numpy scalar": (np.float32(2), np.float32(3)),
    "numpy array": (np.arange(3), np.arange(3) + 1),
    "jax array": (jnp.arange(3), jnp.arange(3.0)),
    "key": (jax.random.key(0), jax.random.key(1)),
    "object array": (np.array(["a", None]), np.array(["b", None])),
    "nested": ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}),
    "set": (nnx.static({"a", "b", "c"}), nnx.static({"a", "b", "d"})),
    "bytes": (b"a", b"b"),
    "complex": (1j, 2j),
    "type": (np.float32, np.float64),
    "dataclass": (Curve(1.0, np.ones(2)), Curve(1.0, np.zeros(2))),
    "code": (lambda image: image + 1, lambda image: image + 2),
    "global function": (jnp.sin, jnp.cos),
    "builtin": (math.sin, math.cos),
    "closure": (scaled(2), scaled(3)),
    "array in a closure": (scaled(np.ones(2)), scaled(np.zeros(2))),
    "keyword in a closure": (scaled(2), scaled(2, offset=1)),
    "default": (default, other_default),
    "partial": (functools.partial(default, gain=2), functools.partial(default, gain=3)),
    "jitted": (jax.jit(scaled(2)), jax.jit(scaled(3))),
    "method": (Mean(2).__call__, Mean(3).__call__),
    "operators": (nnx.List([noise(noise_std=0.1)]), nnx.List([noise(noise_std=0.2)])),
    "module": (Mean(2), Mean(3)),
}


class Holds(Keeps):
    def __init__(self, value):
        super().__init__(jnp.ones(2))
        self.held = value


def attributes(value):
    told = fingerprint([Holds(value)])
    assert json.loads(json.dumps(told)) == told
    return told["operators"][0]["attributes"]


@pytest.mark.parametrize(("first", "second"), PAIRS.values(), ids=PAIRS)
def test_a_fingerprint_tells_operators_with_other_attributes_apart(first, second):
    assert attributes(first) == attributes(first)
    assert attributes(first) != attributes(second)
    assert "cannot be told" not in json.dumps(attributes(first))


def test_a_fingerprint_says_what_it_cannot_tell():
    class Opaque:
        pass

    name = f"{__name__}.test_a_fingerprint_says_what_it_cannot_tell.<locals>.Opaque"
    assert attributes(Opaque()) == {"held": f"cannot be told: {name}"}
    assert f"cannot be told: {name}" in json.dumps(attributes(scaled(Opaque())))  # not lost in a digest
    assert attributes([np.random.default_rng(0)]) == {"held": ["cannot be told: numpy.random._generator.Generator"]}
    assert attributes(float("nan")) == {"held": "nan"}


def test_a_fingerprint_ends_where_an_attribute_holds_its_operator():
    op = Holds(1.0)
    op.held = lambda image: image * op.v0
    assert fingerprint([op])["operators"][0]["attributes"]["held"]["encloses"] == {"op": "as 0 above"}


def test_a_fingerprint_holds_the_content_of_batch_stats_fn():
    def told(function):
        return fingerprint([noise(batch_stats_fn=function)])["operators"][0]["batch_stats_fn"]

    assert told(scaled(2)) != told(scaled(3))
    assert told(Mean(2)) != told(Mean(3))
    assert told(dict) == "builtins.dict"


def test_learned_parameters_are_left_out_of_a_fingerprint():
    first, second = Keeps(jnp.ones(2)), Keeps(jnp.zeros(2))
    assert fingerprint([first]) == fingerprint([second])
    assert "attributes" not in fingerprint([first])["operators"][0]


# That of version 0.1.0. It may change with a Breaking line in the changelog alone: checkpoints hold it.
GOLDEN = {
    "name": "NoiseOperator/gaussian", "class": "NoiseOperator", "root_key": [0, 0], "batch_stats_fn": None,
    "stochastic": True, "stream_name": None,
    "_stats_digest": "786a02f742015903c6c6fd852552d272912f4740e15847618a86e217f71f5419"
    "d25e1031afee585313896444934eb04b903a685b1448b755d56f701afe9be2ce",
    "field_key": "image", "target_key": None, "auxiliary_fields": ["depth"], "clip_range": [0.0, 1.0],
    "preserve_auxiliary": True, "validate_domain_constraints": True, "mode": "gaussian", "noise_std": 0.05,
    "noise_mean": 0.0, "salt_prob": 0.1, "pepper_prob": 0.1, "salt_value": None, "pepper_value": None,
    "lam_scale": 30.0,
}  # fmt: skip


def test_the_fingerprints_of_our_operators_are_those_of_old_checkpoints():
    shared = [name for name in GOLDEN if name not in list(GOLDEN)[list(GOLDEN).index("mode") :]]
    patches = {**{name: GOLDEN[name] for name in shared}, "clip_range": None, "auxiliary_fields": None}
    patches |= {"name": "PatchDropoutOperator/2x3x4", "class": "PatchDropoutOperator"}
    patches |= {"num_patches": 2, "patch_size": [3, 4], "drop_value": 0.0}
    told = fingerprint([noise(auxiliary_fields=["depth"]), patch_dropout()])
    assert told == {"stream_version": 1, "operators": [GOLDEN, patches]}
    assert list(told["operators"][0]) == list(GOLDEN)


SCRIPT = """
import json
import test_pages_faults as faults
print(json.dumps([faults.attributes(first) for first, _ in faults.PAIRS.values()]))
"""


def test_a_fingerprint_is_the_same_in_other_processes():
    expected = [attributes(first) for first, _ in PAIRS.values()]
    for seed in ("1", "2"):
        paths = os.pathsep.join([str(pathlib.Path(__file__).parent), *sys.path])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
        )
        assert json.loads(result.stdout) == expected


# Every way of applying an operator to two records.
WAYS = {
    "apply": lambda op, batch: op.apply(first_of(batch), {}, {}, row(op, batch) if op.stochastic else None),
    "apply_batch": lambda op, batch: op.apply_batch(gdx.Batch(batch)),
    "three arguments": lambda op, batch: op.apply_batch(batch, {}, {}),
    "call": lambda op, batch: op(gdx.Batch(batch)),
    "AugmentBatch": lambda op, batch: gdx.AugmentBatch(op).map(batch),
    "AugmentRecord": lambda op, batch: gdx.AugmentRecord(op).random_map(first_of(batch), np.random.default_rng(0)),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
BATCH_WAYS = {name: WAYS[name] for name in ("apply_batch", "three arguments", "call", "AugmentBatch")}


def first_of(batch):
    return {name: field[0] for name, field in batch.items()}


def row(op, batch):
    drawn = op.generate_random_params(jax.random.key(0), {"image": batch["image"].shape})
    return jax.tree.map(lambda rows: rows[0], drawn)


def of_the_image(draw=None, effect=lambda image, _: image, **settings):
    """An operator that draws and does what the two functions say."""

    class Own(gdx.ModalityOperator):
        def draw(self, key, shape):
            return {} if draw is None else draw(key, shape)

        def effect(self, image, params):
            return effect(image, params)

    return Own(gdx.ModalityOperatorConfig(field_key="image", **settings), rngs=nnx.Rngs(0))


IMAGE = images(1)[0]


@pytest.mark.parametrize(
    ("make", "name", "wrong", "error", "message"),
    [
        (OPERATORS["salt_pepper"], "noise_mask", IMAGE, TypeError, "of a type like int8: got float32"),
        (OPERATORS["salt_pepper"], "noise_mask", IMAGE > 2, TypeError, "of a type like int8: got bool"),
        (OPERATORS["salt_pepper"], "noise_mask", np.full(IMAGE.shape, 255, np.uint8), ValueError, "from -1 to 1: got values from 255 to 255"),
        (OPERATORS["poisson"], "poisson_samples", np.full(IMAGE.shape, 3), TypeError, "of a type like float32: got int64"),
        (OPERATORS["poisson"], "poisson_samples", np.full(IMAGE.shape, 3.0), ValueError, "from 0 to 1, both excluded: got values from 3.0"),
        (OPERATORS["poisson"], "poisson_samples", np.ones(IMAGE.shape, np.float32), ValueError, "from 0 to 1, both excluded"),
        (OPERATORS["poisson"], "poisson_samples", np.full(IMAGE.shape, 1 - 1e-12), ValueError, "from 0 to 1, both excluded"),
        (OPERATORS["gaussian"], "noise", np.full(IMAGE.shape, 1e300), ValueError, "from -inf to inf, both excluded"),
        (OPERATORS["gaussian"], "noise", np.full(IMAGE.shape, np.nan, np.float32), ValueError, "from -inf to inf, both excluded"),
        (OPERATORS["gaussian"], "noise", np.zeros(IMAGE.shape, np.int8), TypeError, "of a type like float32: got int8"),
        (patch_dropout, "patch_positions", np.zeros((2, 2), np.float32), TypeError, "of a type like int32: got float32"),
        (patch_dropout, "patch_positions", jnp.zeros((2, 2)), TypeError, "of a type like int32: got float32"),
        (patch_dropout, "patch_positions", np.full((2, 2), -1), ValueError, r"from 0 to \[13  8\]: got values from -1 to -1"),
        (patch_dropout, "patch_positions", np.array([[0, 0], [0, 9]]), ValueError, r"from 0 to \[13  8\]"),
        (patch_dropout, "patch_positions", [[0, 0], [1, 1]], ValueError, r"of shape \(2, 2\)"),
    ],
)  # fmt: skip
def test_params_of_another_meaning_are_refused(make, name, wrong, error, message):
    with pytest.raises(error, match=f"`random_params` must hold `{name}` {message}"):
        make().apply({"image": IMAGE}, {}, {}, {name: wrong})


@pytest.mark.parametrize(
    ("make", "name", "given"),
    [
        (OPERATORS["salt_pepper"], "noise_mask", np.where(IMAGE > 0.5, 1, -1)),
        (OPERATORS["poisson"], "poisson_samples", np.full(IMAGE.shape, 0.5)),
        (OPERATORS["gaussian"], "noise", np.full(IMAGE.shape, 0.5, jnp.bfloat16)),
        (patch_dropout, "patch_positions", np.array([[0, 0], [13, 8]])),
    ],
)
def test_params_of_a_users_own_are_taken(make, name, given):
    result = make().apply({"image": IMAGE}, {}, {}, {name: given})[0]["image"]
    assert np.isfinite(np.asarray(result)).all()
    assert (np.asarray(result) != IMAGE).any()


def test_params_are_a_mapping():
    with pytest.raises(TypeError, match="`random_params` must be a mapping: got list"):
        noise().apply({"image": IMAGE}, {}, {}, [IMAGE])


AUXILIARY = {
    "boxes": (np.zeros((2, 7, 4), np.float32), ValueError, r"share the image's height and width \(16, 12\): got shape \(7, 4\)"),
    "another size": (np.zeros((2, 8, 12)), ValueError, r"share the image's height and width \(16, 12\): got shape \(8, 12\)"),
    "missing": (None, KeyError, "`other` must be a field: got the fields image, record_seed"),
    "list": ([[1, 2], [3]], TypeError, "`other` must be an array: got list"),
    "strings": (np.full((2, 16, 12), "a"), TypeError, "`other` must hold numbers or bools"),
    "objects": (np.full((2, 16, 12), None), TypeError, "`other` must hold numbers or bools"),
    "foreign bytes": (np.zeros((2, 16, 12), ">f4"), TypeError, "`other` must hold numbers or bools in native byte"),
}  # fmt: skip


@every_way
@every_operator
@pytest.mark.parametrize(("other", "error", "message"), AUXILIARY.values(), ids=AUXILIARY)
def test_auxiliary_fields_that_are_preserved_are_looked_at(operator, way, other, error, message):
    batch = seeded_batch(2) if other is None else {**seeded_batch(2), "other": other}
    with pytest.raises(error, match=message):
        way(operator(auxiliary_fields=["other"]), batch)
    seeded = {**seeded_batch(2), "other": np.zeros((2, 16, 12))}
    way(operator(auxiliary_fields=["other"]), seeded)


class Labels(gdx.ModalityOperator):
    """Reads the label too, and leaves its auxiliary field to others."""

    reads = ("image", "label")

    def effect(self, image, params):
        return image

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "image": data["image"] + data["label"]}, state, metadata


def test_a_subclass_may_read_fields_that_are_no_part_of_the_image():
    op = Labels(gdx.ModalityOperatorConfig(field_key="image", auxiliary_fields=["mask"]))
    batch = {"image": np.zeros((2, 4, 4), np.float32), "label": np.float32([1, 2]), "mask": np.zeros((2, 4, 4), bool)}
    result = gdx.AugmentBatch(op).map(batch)
    assert np.asarray(result["image"])[:, 0, 0].tolist() == [1, 2]
    with pytest.raises(ValueError, match="`auxiliary_fields` must share"):
        gdx.AugmentBatch(op).map({**batch, "mask": np.zeros((2, 7, 4))})
    with pytest.raises(KeyError, match="`mask` must be a field"):
        op.apply_batch(gdx.Batch({name: batch[name] for name in ("image", "label")}))


def nested(key, shape):
    return {"a": {"b": jax.random.uniform(key, shape), "c": [jax.random.uniform(key, ()), (jnp.int32(1),)]}, "n": None}


@every_way
@pytest.mark.parametrize("settings", [{"stochastic": True}, {}, {"cacheable": True}], ids=str)
def test_what_is_drawn_may_be_nested(way, settings):
    def effect(image, params):
        assert params["n"] is None
        return image + params["a"]["b"] * params["a"]["c"][0] * params["a"]["c"][1][0]

    op = of_the_image(nested, effect, **settings)
    result = way(op, seeded_batch(2))
    assert np.isfinite(np.asarray(jax.tree.leaves(result)[0])).all()
    params = op.generate_random_params(jax.random.key(0), {"image": (2, 16, 12, 3)})
    assert params["a"]["b"].shape == (2, 16, 12, 3)
    assert params["a"]["c"][1][0].shape == (2,)


def test_nested_params_are_compared_by_path():
    op = of_the_image(nested, stochastic=True)
    params = row(op, seeded_batch(1))
    with pytest.raises(TypeError, match=r"`random_params` must hold `a.c.0` of a type like float32: got int"):
        op.apply({"image": IMAGE}, {}, {}, {"a": {**params["a"], "c": [1, (1,)]}})
    with pytest.raises(ValueError, match=r"`random_params` must hold `a.b` of shape \(16, 12, 3\)"):
        op.apply({"image": IMAGE}, {}, {}, {"a": {**params["a"], "b": np.float32(1)}})


DRAWS = {
    "array": (jax.random.uniform, "got an array"),
    "none": (lambda *_: None, "got NoneType"),
    "list": (lambda key, shape: [jax.random.uniform(key, shape)], "got list"),
    "string": (lambda *_: {"x": {"mode": "a"}}, "got str at x.mode"),
}


@every_way
@pytest.mark.parametrize("settings", [{"stochastic": True}, {}, {"cacheable": True}], ids=str)
@pytest.mark.parametrize(("draw", "message"), DRAWS.values(), ids=DRAWS)
def test_a_draw_that_is_no_mapping_of_arrays_is_refused(way, settings, draw, message):
    with pytest.raises(TypeError, match=f"`draw` must return a mapping of arrays: {message}"):
        way(of_the_image(draw, **settings), seeded_batch(2))


GLOBAL = {
    "numpy": lambda _, shape: {"x": np.random.uniform(size=shape).astype(np.float32)},
    "numpy in jax": lambda key, shape: {"x": jax.random.uniform(key, shape) + np.random.normal()},
    "python": lambda key, shape: {"x": jax.random.uniform(key, shape) * random.random()},
    "python's coin": lambda key, shape: {"x": jax.random.uniform(key, shape) if random.random() < 0.5 else jnp.ones(shape)},
}  # fmt: skip


@every_way
@pytest.mark.parametrize("settings", [{"stochastic": True}, {}, {"cacheable": True}], ids=str)
@pytest.mark.parametrize("draw", GLOBAL.values(), ids=GLOBAL)
def test_a_draw_from_a_global_generator_is_refused(way, settings, draw):
    random.seed(0)  # a coin that falls on one side nine times is not noticed
    with pytest.raises(ValueError, match="`draw` must draw from its key alone: got numbers of NumPy's or Python's"):
        way(of_the_image(draw, **settings), seeded_batch(2))


@every_way
def test_an_effect_from_a_global_generator_is_refused(way):
    op = of_the_image(effect=lambda image, _: image + np.random.normal(size=image.shape).astype(np.float32))
    with pytest.raises(ValueError, match="`effect` must draw from its key alone"):
        way(op, seeded_batch(2))


def test_generators_that_others_move_meanwhile_are_no_fault():
    def draw(key, shape):
        thread = threading.Thread(target=lambda: (random.random(), np.random.uniform()))
        thread.start()
        thread.join()
        return {"x": jax.random.uniform(key, shape)}

    gdx.AugmentBatch(of_the_image(draw, stochastic=True)).map(seeded_batch(2))


def test_a_draw_is_not_repeated_where_it_is_compiled():
    op = of_the_image(lambda key, shape: calls.append(0) or {"x": jax.random.uniform(key, shape)}, stochastic=True)
    calls = []
    augment = gdx.AugmentBatch(op)
    augment.map(seeded_batch(2))
    first = len(calls)
    for _ in range(3):
        augment.map(seeded_batch(2))
    assert len(calls) == first <= 2  # the draw, and what it is compared with


@every_way
@pytest.mark.parametrize(
    ("effect", "got"),
    [
        (lambda *_: None, "NoneType"),
        (lambda image, _: (image, image), "tuple"),
        (lambda image, _: [image], "list"),
        (lambda *_: 1.0, "float"),
        (lambda image, _: {"image": image}, "dict"),
    ],
)
def test_an_effect_that_returns_no_array_is_refused(way, effect, got):
    with pytest.raises(TypeError, match=f'`effect` must return an array: got {got} for field "image"'):
        way(of_the_image(effect=effect), seeded_batch(2))


@pytest.mark.parametrize("way", BATCH_WAYS.values(), ids=BATCH_WAYS)
@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda _: None, "got NoneType"),
        (lambda data: data, "got dict"),
        (lambda data: (data, {}), r"got \('dict', 'dict'\)"),
        (lambda data: (data, {}, {}, {}), "got"),
        (lambda data: (data["image"], {}, {}), "got"),
        (lambda _: (None, {}, {}), "got"),
        (lambda data: (data, [], {}), r"got \('dict', 'list', 'dict'\)"),
    ],
)
def test_an_apply_that_returns_something_else_is_refused(way, wrong, got):
    class Own(gdx.ModalityOperator):
        def effect(self, image, params):
            return image

        def apply(self, data, state, metadata, random_params=None, stats=None):
            """The user's own."""
            return wrong(data)

    assert Own.apply.__doc__ == "The user's own."
    with pytest.raises(
        TypeError, match=f"`apply` must return three mappings, the data, the state and the metadata: {got}"
    ):
        way(Own(gdx.ModalityOperatorConfig(field_key="image")), seeded_batch(2))


@every_operator
def test_data_that_is_no_mapping_is_refused(operator):
    for apply in (lambda: operator().apply(IMAGE, {}, {}), lambda: operator().apply_batch(gdx.Batch(IMAGE[None]))):
        with pytest.raises(TypeError, match="`data` must be a mapping from field names: got ndarray"):
            apply()


@pytest.mark.parametrize("way", BATCH_WAYS.values(), ids=BATCH_WAYS)
@pytest.mark.parametrize("stochastic", [False, True])
@every_operator
def test_a_missing_batch_axis_is_told_of(operator, stochastic, way):
    op = operator(stochastic=stochastic)
    for image in (IMAGE, IMAGE[..., 0]):
        message = r"`record_seed` must be a seed for each record: got shape \(2,\) beside .* axis 0 is the batch, which"
        with pytest.raises(ValueError, match=message):
            way(op, {"image": image, "record_seed": seeds(1)[0]})
    with pytest.raises(
        ValueError, match=r"Axis 0 is the batch, and may be missing here: .*AugmentRecord.*image\[None\]"
    ):
        way(op, {"image": IMAGE[..., 0], "record_seed": seeds(16)})
    if operator is patch_dropout:
        with pytest.raises(ValueError, match="`patch_size` must fit .* Axis 0 is the batch, and may be missing here"):
            way(op, {"image": IMAGE, "record_seed": seeds(16)})
    record = {"image": IMAGE[..., 0], "record_seed": seeds(1)[0]}  # which AugmentRecord makes a batch of one
    gdx.AugmentRecord(op).random_map(record, np.random.default_rng(0))


@every_operator
def test_shapes_to_draw_for_are_those_of_a_batch(operator):
    for shape in ((16, 12), (2, 2, 16, 12, 3), ()):
        with pytest.raises(ValueError, match="`image` must be an image"):
            operator().generate_random_params(jax.random.key(0), {"image": shape})


@every_way
@pytest.mark.parametrize("shape", [(3, 16, 12), (1, 16, 12), (4, 16, 12), (8, 16, 12)], ids=str)
def test_channels_first_are_told_of_where_the_image_is_refused(way, shape):
    batch = {**seeded_batch(2), "image": np.zeros((2, *shape), np.float32), "depth": np.zeros((2, 16, 12))}
    message = 'looks like channels first .*jnp.moveaxis.*axes="CHW"'
    with pytest.raises(ValueError, match=message):
        way(noise(auxiliary_fields=["depth"], stochastic=False), batch)
    with pytest.raises(ValueError, match=message):
        way(patch_dropout(patch_size=(9, 9), stochastic=False), batch)


def test_channels_first_are_warned_of_where_patches_fit_all_the_same():
    message = (
        r"`image` must be \(H, W, C\), as .*: got shape \(5, 7, 9\) for field \"view\"\. It looks like channels first .*"
        r'jnp.moveaxis.*axes="CHW"'
    )
    batch = {"view": np.zeros((2, 5, 7, 9), np.float32), "record_seed": np.zeros((2, 2), np.uint32)}
    with pytest.warns(UserWarning, match=message):
        gdx.AugmentBatch(gdx.Chain([gdx.PixelDropout()], seed=0, image="view")).map(batch)


def test_only_what_looks_so_is_said_to_have_channels_first():
    for shape in ((3, 16, 12), (1, 5, 5), (4, 16, 12), (8, 64, 64)):
        assert looks_channels_first(shape)
    for shape in ((16, 12, 3), (16, 12), (3, 16, 3), (64, 64, 5), (3, 4, 4), (2, 3, 16, 12)):
        assert not looks_channels_first(shape)
    with pytest.raises(ValueError, match=r"Use a smaller patch, .* through\.$"):
        gdx.AugmentBatch(patch_dropout(patch_size=(20, 20))).map(seeded_batch(2))


@every_operator
def test_an_operator_is_called_as_apply_batch(operator):
    batch = seeded_batch(3)
    expected = operator().apply_batch(gdx.Batch(batch), {"mean": np.float32(0)})
    result = operator()(gdx.Batch(batch), {"mean": np.float32(0)})
    assert isinstance(result, gdx.Batch)
    np.testing.assert_array_equal(np.asarray(result.data["image"]), np.asarray(expected.data["image"]))
    data, state, metadata = operator()(batch, {}, {"split": "a"})
    np.testing.assert_array_equal(np.asarray(data["image"]), np.asarray(expected.data["image"]))
    assert (state, metadata) == ({}, {"split": "a"})
