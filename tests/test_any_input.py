"""Records of any kind, in chains of any kind: what comes out is what is documented, or it is refused in words.

`pytest --hypothesis-profile=nightly tests/test_any_input.py` tries many more of them.
"""

import collections
import contextlib
import itertools
import json
import warnings

import any_chain
import grain
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import FORM, REFUSALS, require_refusal

import grain_datarax as gdx
from grain_datarax.fields import flatten, get_field, has_field, nested

pytestmark = pytest.mark.once

EXAMPLES = settings.default.max_examples
INPUTS = 5  # of each chain, which share what is compiled
_tried = itertools.count()
everything_allowed = settings(suppress_health_check=list(HealthCheck))

SIZES = [(1, 1), (1, 4), (5, 1), (4, 4), (5, 7), (8, 8)]
DTYPES = ["uint8"] * 4 + ["float32"] * 3 + ["bfloat16", "float16", "uint16", "int16", "int8", "int32", "bool"]
ODD_DTYPES = [
    "float64",
    "longdouble",
    "uint64",
    "complex64",
    "object",
    "str",
    ">f4",
    "float8_e4m3fn",
    "int4",
    "datetime64[s]",
]


def as_dtype(name):
    return np.dtype(getattr(ml_dtypes, name, name))


@st.composite
def shapes_and_types(draw):
    """Of the images of one batch: height and width, channels, frames, and the type."""
    return (
        draw(st.sampled_from(SIZES)),
        draw(st.sampled_from([3, 3, 1, 2, 4])),
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from(DTYPES)),
    )


@np.errstate(over="ignore", invalid="ignore")  # of ranges that the type can't hold, which are refused
def values(rng, kind, shape, dtype, scale):
    """An array of this kind of values; ends of the range are among them."""
    low, high = scale
    if kind == "ends":
        drawn = rng.choice([low, high], shape)
    elif kind == "constant":
        drawn = np.full(shape, rng.choice([low, high, (low + high) / 2]))
    else:
        drawn = low + rng.random(shape) * (high - low)
    if np.issubdtype(dtype, np.integer) or dtype.kind == "b":
        return np.clip(np.round(drawn), low, high).astype(dtype)
    array = np.clip(drawn.astype(dtype), _held(low, high, dtype), _held(high, low, dtype))
    if kind == "not finite" and array.size:
        array.flat[:: max(array.size // 3, 1)] = rng.choice([np.nan, np.inf, -np.inf])
    if kind == "outside" and array.size:
        array.flat[0] = np.inf if high > 1e4 else 2 * high + 1
    return array


def _held(end, other, dtype):
    """The value of a type next to an end of a range, inside it: 65535 would be 65536 in bfloat16."""
    held = np.asarray(end, dtype)
    return held if (float(held) - end) * (other - end) >= 0 else np.nextafter(held, np.asarray(other, dtype))


def batch_of(chain, rng, count, form, kind):
    """The fields of a batch that the chain reads, by path."""
    (height, width), channels, frames, dtype = form
    dtype = as_dtype(dtype)
    lengths = {"T": frames, "H": height, "W": width, "C": channels}
    leading = (count, *(lengths["T"] for axis in chain.axes if axis == "T"))
    shape = (count, *(lengths[axis] for axis in chain.axes))
    floats = jnp.issubdtype(dtype, jnp.floating)
    scale = chain.value_range or ((0, 1) if floats or dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max))
    fields = {path: values(rng, kind, shape, dtype, scale) for path in chain.images}
    fields |= {
        path: rng.integers(0, 5, (*leading, height, width)).astype(rng.choice(["uint8", "int32", "float32"]))
        for path in chain.fills
    }
    fields |= {path: rng.random((*leading, 2, 4)).astype(np.float32) for path in chain.box_formats}
    fields |= {
        path: rng.integers(0, 5, (*leading, 3, 2)).astype(rng.choice(["int32", "float32"]))
        for path in chain.keypoint_formats
    }
    fields |= {path: rng.random((count, 3)).astype(np.float32) for path in chain.labels}
    partners = {chain.partner_of(path): fields[path][::-1] for path in fields} if chain.mixes else {}
    fields |= {path: np.ascontiguousarray(field) for path, field in partners.items()}
    for path in chain.sizes:
        fields[path] = np.stack(
            [rng.integers(1, [height + 1, width + 1], 2) for _ in range(count)] or [np.zeros(2, int)]
        )[:count].astype(np.int32)
    return fields


EXTRAS = {"of strings": np.array(["a", "b"]), "nothing": None, "words": ["a"], "big": np.zeros((1, 2), np.float64)}


def in_container(fields, kind):
    """These fields in a record of some kind, or in a dict where that can't hold them."""
    items = {path: field for path, field in fields.items() if path != "record_seed"}
    if kind in (tuple, list) and items and all(path.isdecimal() for path in items):
        behind = [fields["record_seed"]] if "record_seed" in fields else []
        return kind([*(items.get(str(index), "nothing") for index in range(int(max(items)) + 1)), *behind])
    if kind == "nested":
        with contextlib.suppress(TypeError):  # of names that are others' beginnings
            return {**nested(fields), **EXTRAS}
    return {"ordered": collections.OrderedDict}.get(kind, dict)({**EXTRAS, **fields})


def spec_of(record):
    return jax.tree.map(
        lambda leaf: (
            grain.experimental.ShapeDtypeStruct(shape=leaf.shape, dtype=leaf.dtype) if hasattr(leaf, "shape") else leaf
        ),
        record,
    )


def require_documented(chain, case, result, spec, given):
    """Fails unless what came out has the form that `output_spec` says, and values that it may have."""
    fields, spec = flatten(result), flatten(spec)
    assert fields.keys() == spec.keys()
    for path, each in spec.items():
        if hasattr(each, "shape"):
            assert (fields[path].shape, fields[path].dtype) == (tuple(each.shape), each.dtype), path
    for name, extra in EXTRAS.items():
        assert get_field(result, name) is extra if has_field(given, name) else not has_field(result, name)
    if case["kind"] in ("outside", "not finite") or case["damage"]:
        return
    for path in chain.images:
        image, dtype = np.asarray(get_field(result, path)).astype(np.float64), get_field(given, path).dtype
        assert not np.isnan(image).any()
        if chain.clip:
            assert np.isfinite(image).all()
        if chain.clip and image.size and not isinstance(chain.links[-1], gdx.Cast | gdx.Normalize):
            scale = chain.scale(dtype, path)
            low, high = (float(np.asarray(end, dtype)) for end in (scale.low, scale.high))
            assert low <= image.min() <= image.max() <= high, (path, image.min(), image.max())


def row(record, index):
    """One record of a batch."""
    extras = [id(each) for each in EXTRAS.values()]

    def of(leaf):
        has_rows = id(leaf) not in extras and getattr(leaf, "ndim", 0) and len(leaf)
        return leaf[min(index, len(leaf) - 1)] if has_rows else leaf

    return jax.tree.map(of, record, is_leaf=lambda leaf: id(leaf) in extras)


@contextlib.contextmanager
def saying_in_words():
    """Warnings have the form of errors, too."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for each in said:
        if "grain_datarax" in str(each.filename) or issubclass(each.category, UserWarning):
            assert FORM.fullmatch(str(each.message)), str(each.message)


@st.composite
def inputs(draw):
    kind = draw(st.sampled_from(["usual"] * 4 + ["ends", "constant", "outside", "not finite"]))
    return {
        "seed": draw(st.integers(0, 2**32)),
        "kind": kind,
        "on_device": draw(st.sampled_from([False, False, True])),
        "container": draw(st.sampled_from(["flat", "flat", "nested", "ordered", tuple, list])),
        "damage": draw(st.sampled_from([None] * 4 + list(DAMAGES))),
    }


def _with(name, change):
    def damage(chain, fields, rng):
        path = {"image": chain.images[0], "seed": "record_seed"}.get(name) or rng.choice(list(fields))
        return {**fields, path: change(fields[path])}

    return damage


DAMAGES = {
    "no image": lambda chain, fields, rng: {path: field for path, field in fields.items() if path != chain.images[-1]},
    "no seed": lambda chain, fields, rng: {path: field for path, field in fields.items() if path != "record_seed"},
    "a field less": lambda chain, fields, rng: {
        path: field for path, field in fields.items() if path != rng.choice(list(fields))
    },
    "None": _with("any", lambda field: None),
    "a list": _with("any", lambda field: field.tolist()),
    "a str": _with("any", lambda field: "image"),
    "an object": _with("any", lambda field: object()),
    "a dict": _with("any", lambda field: {"a": field}),
    "one axis more": _with("any", lambda field: field[..., None]),
    "one axis less": _with("any", lambda field: field[0] if len(field) else field.ravel()),
    "turned": _with("any", lambda field: field.T),
    "another length": _with("any", lambda field: np.concatenate([field, field[:1]])),
    "a wider last axis": _with("any", lambda field: np.concatenate([field, field], axis=-1)),
    "scalar": _with("any", lambda field: np.float32(1)),
    "no pixels": _with("image", lambda image: image[:, :0]),
    "a seed of int32": _with("seed", lambda seeds: seeds.astype(np.int32)),
    "a seed of uint64": _with("seed", lambda seeds: seeds[:, 0].astype(np.uint64)),
    "the seed of one": _with("seed", lambda seeds: seeds[0] if len(seeds) else np.zeros(2, np.uint32)),
    "a seed as list": _with("seed", lambda seeds: seeds.tolist()),
    **{
        f"{dtype} image": _with("image", lambda image, dtype=dtype: np.zeros(image.shape, as_dtype(dtype)))
        for dtype in ODD_DTYPES
    },
    **{
        f"{dtype} field": _with("any", lambda field, dtype=dtype: np.zeros(field.shape, as_dtype(dtype)))
        for dtype in ODD_DTYPES
    },
}


def on_device(field):
    dtype = getattr(field, "dtype", np.dtype(object))
    return jnp.asarray(field) if dtype.isnative and dtype.kind in "biufV" and dtype.itemsize <= 4 else field


@settings(suppress_health_check=list(HealthCheck), max_examples=max(EXAMPLES // INPUTS, 1))
@given(
    any_chain.chains(),
    shapes_and_types(),
    st.sampled_from([1, 1, 1, 1, 2, 2, 3, 0, 130]),
    st.lists(inputs(), min_size=INPUTS, max_size=INPUTS),
)
def test_batches_and_records_come_out_as_documented_or_are_refused(chain, form, count, several):
    if next(_tried) % 200 == 199:
        jax.clear_caches()  # of thousands of programs, megabytes each
    for case in several:
        rng = np.random.default_rng(case["seed"])
        fields = batch_of(chain, rng, count, form, case["kind"])
        fields["record_seed"] = rng.integers(0, 2**32, (count, 2), np.uint32)
        if case["damage"]:
            fields = DAMAGES[case["damage"]](chain, fields, rng)
        if case["on_device"]:
            fields = {path: on_device(field) if path in chain.images else field for path, field in fields.items()}
        batch = in_container(fields, case["container"])
        result = treated(chain, case, gdx.AugmentBatch(chain), batch)
        if not count:
            continue
        generator = np.random.default_rng(case["seed"]) if case["seed"] % 4 else None
        alone = treated(chain, case, gdx.AugmentRecord(chain), row(batch, count - 1), generator)
        one_refused = (alone is None) != (result is None) and case["kind"] in ("outside", "not finite")
        if case["damage"] is None and not one_refused:
            require_equal(alone, None if result is None else row(jax.device_get(result), count - 1))


def treated(chain, case, transform, given, *generator):
    """What a transform makes of its input, if that is not refused."""
    use = transform.random_map if generator else transform.map
    with saying_in_words():
        try:
            result = use(given, *generator)
        except REFUSALS as error:
            require_refusal(error)
            return None
    require_documented(chain, case, result, transform.output_spec(spec_of(given)), given)
    return result


def require_equal(alone, together):
    """Fails unless a record has the same bits by itself as in a batch, or is refused in both."""
    assert (alone is None) == (together is None)
    for path, field in flatten(alone).items() if alone is not None else ():
        if hasattr(field, "shape") and not path.startswith("record_"):
            other = np.asarray(get_field(together, path))
            assert (field.dtype, field.shape, field.tobytes()) == (other.dtype, other.shape, other.tobytes()), path


@everything_allowed
@given(any_chain.makings())
def test_settings_of_any_kind_make_a_value_or_are_refused(making):
    cls, given_ = making
    with saying_in_words():
        try:
            value = cls(**given_)
        except REFUSALS as error:
            require_refusal(error)
            return
    text = json.dumps(value.to_dict(), allow_nan=False)
    chain = value if cls is gdx.Chain else gdx.Chain([value], seed=0)
    again = gdx.Chain.from_dict(json.loads(json.dumps(chain.to_dict())), functions=["numpy:add", "os:system"])
    assert (again, hash(again), repr(again)) == (chain, hash(chain), repr(chain))
    assert text in json.dumps(again.to_dict())


leaves = st.one_of(
    st.none(), st.integers(), st.text(), st.binary(), st.sampled_from([np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 2), np.uint32)]),
    st.sampled_from([np.zeros((4, 4, 3), np.uint8), np.array("image"), np.array([{}]), object(), 1j, iter(()), gdx, float("nan")]),
)  # fmt: skip
names = st.one_of(
    st.sampled_from(["image", "mask", "record_seed", "", ".", "a.b"]), st.text(max_size=3), st.integers(), st.none()
)
elements = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.dictionaries(names, parts, max_size=4),
        st.lists(parts, max_size=3),
        st.lists(parts, max_size=3).map(tuple),
        st.tuples(parts, parts).map(lambda pair: collections.namedtuple("Pair", ["image", "record_seed"])(*pair)),
    ),
    max_leaves=8,
)
COMPILED_ONCE = {
    "image": gdx.Chain([gdx.GaussianNoise()], seed=0),
    "item": gdx.Chain([gdx.GaussianNoise()], seed=0, image=0),
    "below": gdx.Chain([gdx.GaussianNoise()], seed=0, image="a.b"),
    "draws": gdx.Chain([gdx.GaussianNoise()], seed=0, image="0.image", masks={"mask": 0}, draws="a.b"),
}


@everything_allowed
@given(
    elements, st.sampled_from(list(COMPILED_ONCE.values())), st.sampled_from([None, 3, "rng", np.random.default_rng(0)])
)
def test_elements_of_any_kind_are_augmented_or_refused(element, chain, rng):
    augmentations = [
        lambda: gdx.AugmentBatch(chain).map(element),
        lambda: gdx.AugmentRecord(chain).random_map(element, rng),
        lambda: gdx.SeedRecords().random_map(element, rng),
        lambda: gdx.SeedRecords(key=["image", "a.b"]).random_map(element, rng),
    ]
    for augment in augmentations:
        with saying_in_words():
            try:
                assert augment() is not None
            except REFUSALS as error:
                require_refusal(error)
