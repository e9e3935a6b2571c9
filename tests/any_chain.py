"""Strategies for chains of any kind: settings follow from the rule that each is declared with."""

import collections
import dataclasses

import jax.numpy as jnp
import numpy as np
from hypothesis import reject
from hypothesis import strategies as st
from refusals import require_refusal

import grain_datarax as gdx
from grain_datarax.effects import EFFECTS
from grain_datarax.effects import settings as rules
from grain_datarax.effects.composition import Composition, Effects, Weights
from grain_datarax.effects.conversion import PerChannel
from grain_datarax.effects.function import Importable, Keywords
from grain_datarax.effects.occlusion import Fill
from grain_datarax.effects.pad_crop import Padding

# Lengths in pixels, of images that are a few pixels high; of patches larger ones, too.
LENGTHS = st.sampled_from([1, 1, 2, 2, 3, 4, 5, 7, 9])
SIDES = st.one_of(LENGTHS, st.sampled_from([1000, 2**15, 2**24]))
COUNTS = st.sampled_from([0, 1, 1, 2, 2, 3, 40])
SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 1e-6])
OF_ALL = {"name", "p", "same_on_frame"}
FUNCTIONS = ["any_chain:darker", "any_chain:wrong_shape", "any_chain:no_array"]


def darker(_, image, by=0.5, **_others):
    return image * by


def wrong_shape(_, image, **_others):
    return image[:, :1, :, None]


def no_array(*_, **_others):
    return "image"


def ranged(values):
    """A value, or two in their order."""
    return st.one_of(values, values, st.tuples(values, values).map(lambda pair: tuple(sorted(pair))))


def of_rule(rule, name):
    """Values that a rule allows, most of them such as people pass."""
    if isinstance(rule, Fill):
        words = st.sampled_from(["mean", "random", "noise"])
        return st.one_of(ranged(SHARES), words, st.lists(SHARES, min_size=3, max_size=4).map(tuple))
    if isinstance(rule, rules.OrRange):
        return ranged(of_rule(rule.rule, name))
    if isinstance(rule, rules.Number):
        usual = [value for value in (0.0, 0.05, 0.25, 0.9, 1.0, -0.2, 30.0) if rule.low <= value <= rule.high]
        ends = [end for end in (rule.low, rule.high) if abs(end) <= 1e6]
        return st.sampled_from([*usual * 3, *ends] or [rule.low])
    if isinstance(rule, rules.Integer):
        return COUNTS.filter(lambda count: count >= (rule.least or 0))
    if isinstance(rule, rules.Size):
        return st.tuples(*[LENGTHS if name == "size" else SIDES] * 2)
    if isinstance(rule, rules.Side):
        return st.one_of(ranged(SIDES), ranged(SHARES.filter(bool)))
    if isinstance(rule, rules.Extent):
        return st.tuples(*[of_rule(rules.Side(), name)] * 2)
    if isinstance(rule, rules.CountOrShare):
        return st.one_of(ranged(COUNTS), ranged(SHARES))
    if isinstance(rule, rules.Optional):
        return st.one_of(st.none(), of_rule(rule.rule, name))
    if isinstance(rule, rules.Choice):
        return st.sampled_from(rule.values)
    if isinstance(rule, PerChannel):
        value = of_rule(rule.rule, name)
        return st.one_of(value, st.lists(value, min_size=1, max_size=4).map(tuple))
    if isinstance(rule, Padding):
        return st.one_of(LENGTHS, st.tuples(LENGTHS, LENGTHS))
    if isinstance(rule, Importable):
        return st.sampled_from(FUNCTIONS)
    if isinstance(rule, Keywords):
        return st.sampled_from([{}, {}, {"by": 0.5}, {"x": 1}])
    return {rules.Flag: st.booleans(), Weights: st.none()}[type(rule)]


@st.composite
def effects(draw, parts=3):
    """An effect of any class, with any settings that are allowed each for itself; a composition of up to three."""
    cls = draw(st.sampled_from([cls for cls in EFFECTS.values() if parts or not issubclass(cls, Composition)]))
    settings = {}
    for name, rule in rules.rules(cls).items():
        if isinstance(rule, Effects):
            held = st.lists(effects(parts=0), min_size=1, max_size=parts)
            settings[name] = draw(held)
        elif name not in OF_ALL and (draw(st.booleans()) or _is_required(cls, name)):
            settings[name] = draw(of_rule(rule, name))
    settings["name"] = draw(st.sampled_from([None, None, None, "a", "b", "with.dots"]))
    settings["p"] = draw(st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.0]))
    settings["same_on_frame"] = draw(st.booleans()) if "effects" not in settings else True
    return made(cls, **settings)


def made(cls, *args, **settings):
    """An effect or a chain; what does not go together is refused in words, and is no case."""
    try:
        return cls(*args, **settings)
    except (TypeError, ValueError) as error:
        require_refusal(error)
        reject()


def _is_required(cls, name):
    field = cls.__dataclass_fields__[name]
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


PATHS = [
    "image",
    "image",
    "image",
    "a.b",
    "a.c.d",
    "\u00e4 \u65e5\u672c",
    " ",
    "x" * 300,
    "0",
    "2",
    "image.",
    ".",
    "a..b",
]
RANGES = [
    None,
    None,
    None,
    (0, 1),
    (0.0, 1.0),
    (-1, 1),
    (0, 255),
    (-1024, 3071),
    (0, 2**16 - 1),
    (-1e30, 1e30),
    (0.1, 0.2),
]


@st.composite
def chains(draw):
    """A chain of up to three effects, on fields of any names."""
    axes = draw(st.sampled_from(["HWC", "HWC", "HWC", "HW", "CHW", "THWC", "TCHW", "THW"]))
    paths = draw(st.lists(st.sampled_from([*PATHS, "mask", "boxes", "points"]), min_size=8, max_size=8, unique=True))
    rarely = st.sampled_from([False, False, False, True])
    paths = [str(index) for index in range(len(paths))] if draw(rarely) else paths  # items of a tuple, or names
    settings = {"seed": draw(st.sampled_from([0, 1, 2**64 - 1])), "axes": axes, "image": paths[0]}
    if draw(rarely):
        settings["image"] = paths[:1] + paths[1:2]
    if draw(rarely):
        settings["masks"] = {paths[2]: draw(st.sampled_from([None, 0, 255, -1, 0.5, 1e9]))}
    if draw(rarely):
        settings["boxes"] = {paths[3]: draw(st.sampled_from(["xyxy", "xywh", "cxcywh", "rel_xyxy", "rel_xywh"]))}
    if draw(rarely):
        settings["keypoints"] = {paths[4]: draw(st.sampled_from(["xy", "rel_xy"]))}
    if draw(rarely):
        settings["labels"] = paths[5]
    if draw(rarely):
        settings["draws"] = paths[6]
    if draw(rarely):
        settings["size"] = paths[7]
    settings["value_range"] = draw(st.sampled_from(RANGES))
    settings["clip"] = not draw(rarely)
    settings["channels"] = draw(st.sampled_from([None, None, None, [0], [1], [0, 2], [7]]))
    links = draw(st.lists(effects(), min_size=1, max_size=2))
    return made(gdx.Chain, links, **settings)


class _Odd:
    """What most of Python can't be asked of."""

    def __repr__(self):
        raise RuntimeError("no repr")

    def __eq__(self, other):
        raise RuntimeError("no equality")

    __hash__ = None


def _deep(levels):
    part = ()
    for _ in range(levels):
        part = (part,)
    return part


ODD_VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 2**24, 2**31, 2**64, 10**400, -(10**5000), 0.0, -0.0, 0.5, 1.0, 1.5, -0.5, 5e-324, 1e308,
    float("nan"), float("inf"), -float("inf"), 1j, "", "mean", "noise", "a", "1e-3", "\ud800", "x" * 10**5, "\n", b"a", "HWC", "xyxy",
    (), [], {}, {1: 2}, set(), (0.1, 0.2), (0.2, 0.1), [1, 2], (1, 2, 3), (0.1, 0.2, 0.3), ((0.1, 0.2),), ((1, 2), (0.1, 0.5)),
    (None, None), (float("nan"), 1.0), ("a", "b"), _deep(3000), [_deep(60)], np.float32(0.5), np.float64("nan"), np.int64(3),
    np.bool_(True), np.str_("mean"), np.array(0.5), np.array([0.1, 0.2]), np.array([1, 2, 3]), np.zeros((2, 2)), np.array([]),
    np.array(["a"]), np.array([None]), jnp.float32(0.5), jnp.ones(2), object(), _Odd(), len, int, np.float16, jnp.bfloat16, range(3),
    iter([1]), collections.OrderedDict(a=1), "bfloat16", "constant", "os:system", "numpy:add", "numpy:", ":", lambda key, image: image,
    gdx.GaussianNoise(), [gdx.GaussianNoise()], (gdx.GaussianNoise(), None), {"mask": 255}, {"boxes": "xyxy"}, (("mask", 255),),
    (("mask",),), {"": 1}, {None: 1}, {("a",): "xy"}, ["image", "image"], [["a"]], "record_seed", [None], 10**30,
]  # fmt: skip


@st.composite
def makings(draw):
    """A class of effects, or `Chain`, and settings of which up to three may be anything."""
    cls = draw(st.sampled_from([gdx.Chain, gdx.Chain, *EFFECTS.values()]))
    needed = {
        "effects": [gdx.GaussianNoise()],
        "photons": 30.0,
        "function": "numpy:add",
        "mean": 0.5,
        "std": 0.5,
        "seed": 0,
    }
    settings = {name: needed[name] for name in _names(cls) if _is_required(cls, name)}
    odd = st.sampled_from(ODD_VALUES)
    values = st.one_of(odd, odd, st.tuples(odd, odd), odd.map(lambda value: [value]))
    for name in draw(st.lists(st.sampled_from(_names(cls)), min_size=1, max_size=3, unique=True)):
        settings[name] = draw(values)
    return cls, settings


def _names(cls):
    return [field.name for field in dataclasses.fields(cls)]
