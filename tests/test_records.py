"""Records as people have them: each kind comes out in its type, with the pixels of a plain dict."""

import collections

import grain
import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from record_kinds import KINDS, Named, Padded, Plain, Seeded, Source, Unseeded
from sources import images

import grain_datarax as gdx
from grain_datarax.containers import container_of, without
from grain_datarax.fields import flatten, get_field, has_field, names_of, replace_fields, set_field

pytestmark = pytest.mark.once

every_kind = pytest.mark.parametrize("kind", KINDS)


def chain(kind="dict", seed=0):
    effects = [gdx.PatchDropout(num_patches=2, patch_size=(3, 4)), gdx.GaussianNoise(std=0.1)]
    return gdx.Chain(effects, seed=seed, image=KINDS[kind].image, masks={KINDS[kind].mask: 255})


def dataset(kind, **kwargs):
    return grain.MapDataset.source(Source(kind, **kwargs)).random_map(gdx.SeedRecords(), seed=7)


def require_same(kind, record, expected):
    """The fields of `record` are those of a dict, and it has their type and no field more."""
    fields, like = KINDS[kind].read(record), KINDS[kind].make(*(expected[name] for name in ("image", "mask", "label")))
    for field, name in zip(fields, ("image", "mask", "label"), strict=True):
        np.testing.assert_array_equal(field, expected[name], name)
        assert np.asarray(field).dtype == np.asarray(expected[name]).dtype
    assert type(record) is type(like)
    assert jax.tree.structure(record) == jax.tree.structure(like)


@pytest.fixture(scope="module")
def batches():
    return list(dataset("dict").batch(4).map(gdx.AugmentBatch(chain())))


@every_kind
def test_batches_of_every_kind_get_the_pixels_of_dicts(kind, batches):
    for batch, expected in zip(dataset(kind).batch(4).map(gdx.AugmentBatch(chain(kind))), batches, strict=True):
        require_same(kind, batch, expected)


@every_kind
@pytest.mark.parametrize("seeded", [False, True])
def test_records_of_every_kind_get_the_pixels_of_dicts(kind, seeded, batches):
    source = grain.MapDataset.source(Source(kind))
    records = (source.random_map(gdx.SeedRecords(), seed=7) if seeded else source).random_map(
        gdx.AugmentRecord(chain(kind)), seed=7
    )
    for index, record in enumerate(records):
        expected = {name: field[index % 4] for name, field in batches[index // 4].items()}
        if seeded:
            assert get_field(record, "record_seed").shape == (2,)
            record = without(record, "record_seed", "record_draws")
        expected["label"] = int(expected["label"])
        require_same(kind, record, expected)


@every_kind
def test_a_kept_seed_lies_where_it_was_and_tells_who_drew(kind):
    seeded = dataset(kind).batch(4)[0]
    kept = gdx.AugmentBatch(chain(kind), keep_seed=True).map(seeded)
    assert type(kept) is type(seeded)
    assert (get_field(kept, "record_seed") == get_field(seeded, "record_seed")).all()
    assert set(get_field(kept, "record_draws")) == {"PatchDropout/2x3x4@" + mark for mark in _words(kept, "Patch")} | {
        "GaussianNoise@" + mark for mark in _words(kept, "Gauss")
    }
    if kind in ("tuple", "list"):
        assert len(kept) == 5
        assert kept[3] is get_field(kept, "record_seed")
    with pytest.raises(ValueError, match="`name` must not be that of an effect that drew from the same seeds before"):
        gdx.AugmentBatch(chain(kind)).map(kept)
    again = gdx.AugmentBatch(chain(kind, seed=1)).map(kept)
    assert not has_field(again, "record_seed")
    assert not has_field(again, "record_draws")


def _words(record, name):
    return [mark.partition("@")[2] for mark in get_field(record, "record_draws") if mark.startswith(name)]


@every_kind
def test_a_device_loader_hands_out_the_kind_that_it_is_given(kind):
    expected = list(gdx.DeviceLoader(dataset("dict").batch(8), chain()))
    with gdx.DeviceLoader(dataset(kind).batch(8), chain(kind)) as loader:
        for batch, like in zip(loader, expected, strict=True):
            require_same(kind, batch, like)
            assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(batch))


@pytest.mark.parametrize("kind", ["tuple", "NamedTuple", "flax.struct", "dotted"])
def test_a_device_loader_without_operators_keeps_seeds_or_takes_them_out(kind):
    seeded = dataset(kind).batch(8)[0]
    with gdx.DeviceLoader(dataset(kind).batch(8)) as loader:
        assert not has_field(next(iter(loader)), "record_seed")
    with gdx.DeviceLoader(dataset(kind).batch(8), keep_seed=True) as loader:
        placed = next(iter(loader))
        assert jax.tree.structure(placed) == jax.tree.structure(seeded)
    expected = gdx.AugmentBatch(chain(kind)).map(seeded)
    augmented = jax.jit(lambda batch: gdx.augment(chain(kind), batch))(placed)
    assert jax.tree.structure(augmented) == jax.tree.structure(expected)
    np.testing.assert_array_equal(KINDS[kind].read(augmented)[0], KINDS[kind].read(expected)[0])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dotted", "tuple", "NamedTuple", "flax.struct", "register_dataclass"])
def test_two_workers_hand_on_every_kind(kind):
    def run(which, workers):
        operations = [gdx.SeedRecords(), grain.transforms.Batch(8)]
        loader = grain.DataLoader(
            data_source=Source(which, count=32),
            sampler=grain.samplers.IndexSampler(32, num_epochs=1, shuffle=True, seed=3),
            operations=operations,
            worker_count=workers,
            read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=8),
        )
        with gdx.DeviceLoader(loader, chain(which)) as batches:
            return list(batches)

    by_label = {}
    for batch in run("dict", 0):
        by_label |= {int(label): batch["image"][row] for row, label in enumerate(batch["label"])}
    for batch in run(kind, 2):
        image, _, labels = KINDS[kind].read(batch)
        assert type(batch) is type(KINDS[kind].make(0, 0, 0))
        for row, label in enumerate(labels):
            np.testing.assert_array_equal(image[row], by_label.pop(int(label)))
    assert not by_label


@every_kind
def test_the_spec_of_what_comes_out_is_of_its_kind(kind):
    def spec(leaf):
        return grain.experimental.ShapeDtypeStruct(shape=np.shape(leaf), dtype=np.asarray(leaf).dtype)

    record = Source(kind)[0]
    seeded = gdx.SeedRecords().output_spec(jax.tree.map(spec, record))
    assert seeded == jax.tree.map(spec, gdx.SeedRecords().random_map(record, np.random.default_rng(0)))
    augment, batch = gdx.AugmentBatch(chain(kind)), dataset(kind).batch(8)[0]
    assert augment.output_spec(jax.tree.map(spec, batch)) == jax.tree.map(spec, augment.map(batch))
    by_record = gdx.AugmentRecord(chain(kind))
    assert by_record.output_spec(jax.tree.map(spec, record)) == jax.tree.map(spec, record)


@every_kind
def test_operators_of_the_pages_find_their_fields_in_every_kind(kind):
    def operators(which, **settings):
        path = str(KINDS[which].image)
        config = gdx.PatchDropoutOperatorConfig(field_key=path, num_patches=2, stochastic=True, **settings)
        return [gdx.PatchDropoutOperator(config, rngs=nnx.Rngs(0))]

    expected = gdx.AugmentBatch(operators("dict")).map(dataset("dict").batch(4)[0])
    require_same(kind, gdx.AugmentBatch(operators(kind)).map(dataset(kind).batch(4)[0]), expected)
    aside = operators(kind, auxiliary_fields=[str(KINDS[kind].mask)], preserve_auxiliary=False)
    masks = KINDS[kind].read(gdx.AugmentBatch(aside).map(dataset(kind).batch(4)[0]))[1]
    assert (np.asarray(masks)[:, :, :] == 0).any(axis=(1, 2)).all()


class Looking(gdx.PatchDropoutOperator):
    def apply(self, data, state, metadata, random_params=None, stats=None):
        assert data["observation.images"]["top.left"].ndim == 3
        return super().apply(data, state, metadata, random_params, stats)


def test_operators_of_ones_own_see_the_names_of_the_record_in_batches_too():
    config = gdx.PatchDropoutOperatorConfig(field_key="observation.images.top.left", stochastic=True)
    operator = Looking(config, rngs=nnx.Rngs(0))
    record = {"observation.images": {"top.left": images(1)[0]}, "label": 1}
    source = grain.MapDataset.source([record] * 4).random_map(gdx.SeedRecords(), seed=7)
    batch = source.batch(4).map(gdx.AugmentBatch([operator]))[0]
    again = source.random_map(gdx.AugmentRecord([operator]), seed=7)[3]
    np.testing.assert_array_equal(batch["observation.images"]["top.left"][3], again["observation.images"]["top.left"])


@every_kind
def test_replay_gives_a_record_of_any_kind_its_pixels_again(kind, batches):
    seeds = dataset(kind).batch(4)[0]
    record = gdx.replay(Source(kind)[1], get_field(seeds, "record_seed")[1], chain(kind))
    expected = {name: field[1] for name, field in batches[0].items()}
    require_same(kind, record, {**expected, "label": 1})


def test_an_array_is_a_record_of_one_field():
    image = images(1, dtype="uint8")[0]
    noise = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
    augment, rng = gdx.AugmentRecord(noise).random_map, np.random.default_rng
    expected = augment({"image": image}, rng(0))["image"]
    assert (augment(image, rng(0)) == expected).all()
    assert isinstance(augment(image, rng(0)), np.ndarray)
    with pytest.raises(TypeError, match=r"`element` must have fields for operators that read \['image', 'mask'\]"):
        gdx.AugmentRecord(chain()).random_map(image, rng(0))


def test_a_record_of_lerobot_is_augmented_where_its_names_have_dots():
    frames = (images(4, shape=(6, 8, 3), dtype="uint8"), images(4, shape=(6, 8, 3), dtype="uint8", seed=1))
    record = {
        "observation.images.top": frames[0].transpose(0, 3, 1, 2),
        "observation.images.wrist": frames[1].transpose(0, 3, 1, 2),
        "observation.state": np.zeros((4, 6), np.float32),
        "action": np.zeros((4, 6), np.float32),
        "action.mask": np.ones(4, bool),
        "task": "pick",
    }
    paths = ["observation.images.top", "observation.images.wrist"]
    effects = [gdx.PatchDropout(num_patches=2, patch_size=(2, 2)), gdx.GaussianNoise(std=0.1)]
    by_frame = gdx.Chain(effects, seed=0, image=paths, axes="TCHW", draws="observation.draws")
    plain = gdx.Chain(effects, seed=0, image=["top", "wrist"], axes="THWC")

    def batch(chain, record):
        source = grain.MapDataset.source([record] * 4).random_map(gdx.SeedRecords(), seed=7).batch(4)
        return source.map(gdx.AugmentBatch(chain))[0]

    augmented = batch(by_frame, record)
    expected = batch(plain, {"top": frames[0], "wrist": frames[1]})
    for path in paths:
        channels_last = np.asarray(augmented[path]).transpose(0, 1, 3, 4, 2)
        np.testing.assert_array_equal(channels_last, expected[path.rpartition(".")[2]])
        assert (channels_last != record[path].transpose(0, 2, 3, 1)).any(axis=(1, 2, 3, 4)).all()
    assert set(augmented) == {*record, "observation.draws"}
    positions = augmented["observation.draws"]["PatchDropout/2x2x2"]["positions"]
    drawn = gdx.draws(by_frame, np.asarray(dataset("dict").batch(4)[0]["record_seed"]), (4, 3, 6, 8))
    assert (positions == drawn["PatchDropout/2x2x2"]["positions"]).all()
    assert augmented["task"].tolist() == ["pick"] * 4


def test_boxes_keypoints_labels_and_partners_have_dotted_names():
    record = {
        "observation.image": images(1)[0],
        "observation.boxes": np.array([[0, 0, 4, 4]], np.float32),
        "next": {"joint.xy": np.array([[1.0, 2.0]], np.float32), "reward.label": np.array([0.0, 1.0], np.float32)},
    }
    partner = {"observation.image": images(1, seed=1)[0], "next.reward.label": np.array([1.0, 0.0], np.float32)}
    chain = gdx.Chain(
        [gdx.MixUp(), gdx.PatchDropout(num_patches=2, patch_size=(3, 4))],
        seed=0,
        image="observation.image",
        boxes={"observation.boxes": "xyxy"},
        keypoints={"next.joint.xy": "xy"},
        labels="next.reward.label",
    )
    source = grain.MapDataset.source([{**record, "partner": partner}] * 4).random_map(gdx.SeedRecords(), seed=7)
    batch = source.batch(4).map(gdx.AugmentBatch(chain))[0]
    assert set(batch) == {*record, "partner", "observation.boxes_covered"}
    assert set(batch["next"]) == {"joint.xy", "joint.xy_visible", "reward.label"}
    assert batch["next"]["joint.xy_visible"].shape == (4, 1)
    assert (batch["next"]["reward.label"] != record["next"]["reward.label"]).any()
    np.testing.assert_allclose(batch["next"]["reward.label"].sum(-1), 1, rtol=1e-6)
    assert gdx.AugmentBatch(chain).output_spec(source.batch(4)[0]).keys() == batch.keys()


def test_targets_are_written_beside_their_fields():
    def target(record, target_key, field_key):
        config = gdx.PatchDropoutOperatorConfig(field_key=field_key, target_key=target_key, stochastic=True)
        augment = gdx.AugmentBatch([gdx.PatchDropoutOperator(config, rngs=nnx.Rngs(0))])
        source = grain.MapDataset.source([record] * 4).random_map(gdx.SeedRecords(), seed=7).batch(4)
        return source.map(augment)[0]

    image = images(1)[0]
    flat = target({"observation.image": image}, "observation.clean", "observation.image")
    assert set(flat) == {"observation.image", "observation.clean"}
    mixed = target({"observation.images": {"top": image}}, "observation.images.clean", "observation.images.top")
    assert set(mixed["observation.images"]) == {"top", "clean"}
    assert set(target({"image": image}, "a.b", "image")["a"]) == {"b"}
    named = target(Named(image, None, 1), "mask", "image")
    assert named.mask.shape == named.image.shape
    pair = target(({"image": image}, 1), "0.clean", "0.image")
    assert set(pair[0]) == {"image", "clean"}
    assert len(pair) == 2


def test_indices_are_paths():
    by_index = gdx.Chain([gdx.GaussianNoise()], seed=0, image=[0, 1], masks={2: 255}, boxes={3: "xyxy"})
    by_name = gdx.Chain([gdx.GaussianNoise()], seed=0, image=["0", "1"], masks={"2": 255}, boxes={"3": "xyxy"})
    assert by_index == by_name
    assert hash(by_index) == hash(by_name)
    assert gdx.Chain.from_dict(by_index.to_dict()) == by_index
    assert gdx.Chain([gdx.GaussianNoise()], seed=0, image=0).images == ("0",)
    for wrong in (-1, True, 1.0, [0, True]):
        with pytest.raises((TypeError, ValueError), match="`image` must be"):
            gdx.Chain([gdx.GaussianNoise()], seed=0, image=wrong)


class Bare(collections.UserDict):
    pass


rng = np.random.default_rng(0)
IMAGE = images(1)[0]
WRONG = {
    "array": (lambda: gdx.SeedRecords().random_map(IMAGE, rng), TypeError, r'\.map\(lambda image: {"image": image}\)'),
    "text": (lambda: gdx.SeedRecords().random_map("a", rng), TypeError, "`element` must be .*: got str"),
    "no attribute": (
        lambda: gdx.SeedRecords().random_map(Unseeded(IMAGE, 0, 1), rng),
        TypeError,
        "`Unseeded` must declare `record_seed` to hold it: got .* Add `record_seed: Any = None` to its fields",
    ),
    "no attribute for who drew": (
        lambda: gdx.AugmentBatch(chain(), keep_seed=True).map(
            Seeded(*(np.asarray(part)[None] for part in (IMAGE, IMAGE[..., 0].astype(np.int32))), np.uint32([[1, 2]]))
        ),
        TypeError,
        "`Seeded` must declare `record_draws` to hold it: got a class of image, mask, record_seed",
    ),
    "keys that are no names": (
        lambda: gdx.SeedRecords().random_map({0: IMAGE}, rng),
        TypeError,
        r"names that are strings, .*: got \[0\]\. Rename them before: \.map\(lambda record",
    ),
    "seeded tuple": (
        lambda: gdx.SeedRecords().random_map((IMAGE, np.zeros(2, np.uint32)), rng),
        ValueError,
        "`record_seed` must not be in the record before SeedRecords: got the fields 0, record_seed",
    ),
    "seeded dataclass": (
        lambda: gdx.SeedRecords().random_map(gdx.SeedRecords().random_map(Named(IMAGE, 0, 1), rng), rng),
        ValueError,
        "`record_seed` must not be in the record before SeedRecords: got the fields image, mask, label, record_seed",
    ),
    "no pytree": (
        lambda: grain.MapDataset.source([Plain(IMAGE)] * 2).batch(2).map(gdx.AugmentBatch(chain()))[0],
        TypeError,
        "must have fields that JAX looks into: got an array of Plain. Decorate Plain with flax.struct.dataclass, or",
    ),
    "no pytree below": (
        lambda: gdx.AugmentRecord(gdx.Chain([gdx.GaussianNoise()], seed=0, image="inputs.image")).random_map(
            grain.MapDataset.source([{"inputs": Plain(IMAGE)}] * 2).batch(2)[0], rng
        ),
        KeyError,
        "objects of Plain into `inputs`, as JAX does not look into them. Decorate Plain",
    ),
    "no pytree from a batch_fn": (
        lambda: next(iter(gdx.DeviceLoader(grain.MapDataset.source([{}]).map(lambda _: Plain(IMAGE)), chain()))),
        TypeError,
        "must have fields that JAX looks into: got Plain. Decorate Plain",
    ),
    "typo": (
        lambda: gdx.AugmentRecord(chain()).random_map({"imagee": IMAGE, "label": 1}, rng),
        KeyError,
        "`image` must be a field: got the fields imagee, label. Did you mean 'imagee'?",
    ),
    "last name": (
        lambda: gdx.AugmentRecord(chain()).random_map({"observation.image": IMAGE, "label": 1}, rng),
        KeyError,
        "Did you mean 'observation.image'?",
    ),
    "index": (
        lambda: gdx.AugmentRecord(chain("tuple")).random_map((IMAGE,), rng),
        KeyError,
        "`1` must be a field: got the fields 0",
    ),
    "mark in a tuple": (
        lambda: gdx.AugmentRecord(gdx.Chain([gdx.GaussianNoise()], seed=0, image=0, draws="draws")).random_map(
            (IMAGE, 1), rng
        ),
        TypeError,
        "`draws` must be an item that there is: got a tuple of 2. Make the record a dict",
    ),
    "mark in a class": (
        lambda: gdx.AugmentRecord(gdx.Chain([gdx.GaussianNoise()], seed=0, draws="draws")).random_map(
            Unseeded(IMAGE, 0, 1), rng
        ),
        TypeError,
        "`Unseeded` must declare `draws` to hold it",
    ),
    "valid in a tuple": (
        lambda: next(iter(gdx.DeviceLoader(dataset("tuple").batch(8), chain("tuple"), pad_last_batch=True))),
        TypeError,
        "`valid` must be an item that there is: got a tuple of 3",
    ),
}


@pytest.mark.parametrize(("act", "kind", "message"), WRONG.values(), ids=WRONG)
def test_records_that_cannot_be_treated_are_refused_with_what_to_do(act, kind, message):
    with pytest.raises(kind, match=message):
        act()


def test_classes_that_declare_it_are_told_which_rows_are_records():
    image = images(1)[0]
    source = grain.MapDataset.source([Padded(image)] * 12).random_map(gdx.SeedRecords(), seed=7).batch(8)
    noise = gdx.Chain([gdx.GaussianNoise()], seed=0)
    with gdx.DeviceLoader(source, noise, pad_last_batch=True) as loader:
        batches = list(loader)
    assert [type(batch) for batch in batches] == [Padded, Padded]
    assert [int(batch.valid.sum()) for batch in batches] == [8, 4]
    assert all(batch.record_seed is None for batch in batches)


def test_mappings_that_jax_does_not_look_into_become_dicts():
    record = gdx.SeedRecords().random_map(Bare(image=IMAGE), np.random.default_rng(0))
    assert type(record) is dict
    assert set(record) == {"image", "record_seed"}


def test_attributes_that_are_none_are_not_there():
    record = Named(IMAGE, None, 1)
    assert sorted(flatten(record)) == ["image", "label"]
    assert not has_field(record, "mask")
    assert set_field(record, "mask", 3).mask == 3
    assert replace_fields(record, {"label": None}).label is None


def test_the_longest_name_comes_first():
    record = {"a.b": 1, "a": {"b": 2, "c": 3}}
    assert get_field(record, "a.b") == 1
    assert flatten(record) == {"a.b": 1, "a.c": 3}
    assert flatten(dict(reversed(record.items()))) == {"a.b": 1, "a.c": 3}
    assert set_field(record, "a.b", 4) == {"a.b": 4, "a": {"b": 2, "c": 3}}
    assert set_field(record, "a.d", 4) == {"a.b": 1, "a": {"b": 2, "c": 3, "d": 4}}
    assert get_field({"a.b": {"x": 1}, "a": {"b.c": 2}}, "a.b.c") == 2  # as "a.b" has no "c"
    assert replace_fields(record, {"a.b": None}) == {"a": {"b": 2, "c": 3}}


def test_a_long_list_of_fields_is_cut_short():
    with pytest.raises(KeyError, match=r"got the fields x\.0, .*, and 60 more\."):
        get_field({"x": list(range(100))}, "image")


_names = st.sampled_from(["a", "b", "a.b", "b.a", "0", "a.b.0"])
_records = st.recursive(
    st.integers(),
    lambda below: (
        st.dictionaries(_names, below, min_size=1)
        | st.lists(below, min_size=1, max_size=3)
        | st.tuples(below)
        | st.builds(Named, below, below, below, st.none(), st.none())
    ),
    max_leaves=8,
)


@given(st.dictionaries(_names, _records, min_size=1) | st.lists(_records, min_size=1))
def test_every_path_leads_to_its_field_and_back(record):
    for path, field in flatten(record).items():
        if container_of(get_field(record, path)) is not None:
            continue  # hidden behind a longer name, such as "a.0" in {"a": [1], "a.0": {}}
        assert get_field(record, path) is field
        changed = set_field(record, path, "new")
        assert type(changed) is type(record)
        assert get_field(changed, path) == "new"
        assert flatten(changed) == {**flatten(record), path: "new"}
        names = names_of(record, path)
        assert ".".join(names) == path
        assert set_field(changed, path, field) == record
