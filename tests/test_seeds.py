"""Seeds: never shared in silence, and for evaluation those of the records themselves."""

import functools
import pathlib
import warnings

import grain
import jax.numpy as jnp
import numpy as np
import pytest
from effect_table import chain
from sources import images

import grain_datarax as gdx
from grain_datarax.repeats import SeedWatch

pytestmark = pytest.mark.once

NOISE = [gdx.GaussianNoise(std=0.1)]


def source(count=16):
    return grain.MapDataset.source([{"image": image, "id": place} for place, image in enumerate(images(count))])


def distinct(batches):
    seeds = [seed.tobytes() for batch in batches for seed in batch["record_seed"]]
    return len(set(seeds)), len(seeds)


def augmented(dataset):
    """Its batches, augmented."""
    return list(dataset.batch(8).map(gdx.AugmentBatch(chain(*NOISE), keep_seed=True)))


class Halves(grain.experimental.FlatMapTransform):
    max_fan_out = 2

    def flat_map(self, element):
        return [{**element, "image": element["image"][:, :6]}, {**element, "image": element["image"][:, 6:]}]


def drawn(salt=""):
    return source().random_map(gdx.SeedRecords(salt=salt), seed=3)


def streamed(salt=""):
    return source().to_iter_dataset().random_map(gdx.SeedRecords(salt=salt), seed=3)


def flat(dataset, transform):
    return grain.experimental.FlatMapMapDataset(dataset, transform).to_iter_dataset()


SHARED = {
    "mix": (
        lambda: grain.MapDataset.mix([drawn(), drawn()]),
        lambda: grain.MapDataset.mix([drawn("first"), drawn("second")]),
    ),
    "draw behind the mix": (
        lambda: grain.MapDataset.mix([drawn(), drawn()]),
        lambda: grain.MapDataset.mix([source(), source()]).random_map(gdx.SeedRecords(), seed=3),
    ),
    "concatenate": (  # shuffled, as otherwise no batch holds records of both
        lambda: grain.MapDataset.concatenate([drawn(), drawn()]).shuffle(seed=1),
        lambda: grain.MapDataset.concatenate([drawn("first"), drawn("second")]).shuffle(seed=1),
    ),
    "IterDataset.mix": (
        lambda: grain.IterDataset.mix([streamed(), streamed()]),
        lambda: grain.IterDataset.mix([streamed("first"), streamed("second")]),
    ),
    "interleave": (
        lambda: grain.experimental.InterleaveIterDataset([streamed(), streamed()], cycle_length=2),
        lambda: grain.experimental.InterleaveIterDataset([streamed("a"), streamed("b")], cycle_length=2),
    ),
    "FlatMap": (lambda: flat(drawn(), Halves()), lambda: flat(drawn(), gdx.SeedChildren(Halves()))),
    "oversampling": (
        lambda: flat(drawn(), Views()),
        lambda: flat(drawn(), gdx.SeedChildren(Views())),
    ),
    "a record's place in its own FlatMap": (lambda: flat(drawn(), Views()), lambda: flat(drawn(), SeededViews())),
}


class Views(grain.experimental.FlatMapTransform):
    max_fan_out = 3

    def flat_map(self, element):
        return [element] * 3


class SeededViews(Views):
    def flat_map(self, element):
        seed = element["record_seed"]
        return [{**element, "record_seed": gdx.child_seed(seed, place)} for place in range(3)]


@pytest.mark.parametrize(("shared", "mended"), SHARED.values(), ids=SHARED)
def test_records_that_share_a_seed_are_told_of_once_and_what_is_advised_mends_it(shared, mended):
    with pytest.warns(UserWarning, match=r"`record_seed` must differ from record to record: got \d+ of 8") as said:
        batches = augmented(shared())
    assert len(said) == 1
    assert all(words in str(said[0].message) for words in ("SeedRecords(salt=...)", "SeedChildren", "child_seed("))
    unique, count = distinct(batches)
    assert unique <= count // 2
    unique, count = distinct(augmented(mended()))
    assert unique == count > 16


def test_the_loader_tells_of_shared_seeds_too():
    built, made = "got one seed for mixed datasets", "such as rows 0 and 1, which get the same noise"
    with pytest.warns(UserWarning, match=built), pytest.warns(UserWarning, match=made):
        for _ in gdx.DeviceLoader(SHARED["mix"][0]().batch(8), chain(*NOISE)):
            pass


def test_nothing_is_said_of_10_000_batches_of_their_own_seeds():
    watch, bits = SeedWatch(passes=True), np.random.default_rng(0)
    for _ in range(10_000):
        watch.look(bits.integers(0, 2**32, (64, 2), dtype=np.uint32))
    one = bits.integers(0, 2**32, (4096, 2), dtype=np.uint32)
    one[7, 1], one[9] = one[8, 1], one[7, ::-1]  # halves that are equal are no equal seeds
    watch.look(one)
    one[9] = one[7]
    with pytest.warns(UserWarning, match="1 of 4096 .* rows 7 and 9"):
        watch.look(one)


def loader(operations, workers=0, seed=5, epochs=1, count=12):
    return grain.DataLoader(
        data_source=[{"image": image, "id": place} for place, image in enumerate(images(count))],
        sampler=grain.samplers.IndexSampler(count, num_epochs=epochs, seed=seed, shuffle=False),
        operations=operations,
        worker_count=workers,
    )


def test_a_key_may_be_a_path():
    nested = [{"meta": {"id": 7}}, {"meta.id": 7}]
    assert seeds_of(nested, key="meta.id")[0].tolist() == seeds_of(nested[1:], key="meta.id")[0].tolist()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_children_have_seeds_of_their_own_in_a_loader_and_resumed(workers):
    seeded = [gdx.SeedRecords(), gdx.SeedChildren(Halves()), grain.transforms.Batch(4)]
    batches = list(loader(seeded, workers))
    assert distinct(batches) == (24, 24)
    parents = next(iter(loader([gdx.SeedRecords(), grain.transforms.Batch(12)])))["record_seed"]
    by_record = {int(i): [] for i in range(12)}
    for batch in batches:
        for place, seed in zip(batch["id"], batch["record_seed"], strict=True):
            by_record[int(place)].append(seed.tolist())
    for place, seeds in by_record.items():
        assert sorted(seeds) == sorted(gdx.child_seed(parents[place], child).tolist() for child in range(2))
    iterator = iter(loader(seeded, workers))
    next(iterator)
    state, rest = iterator.get_state(), [batch["record_seed"] for batch in iterator]
    again = iter(loader(seeded, workers))
    again.set_state(state)
    for expected, batch in zip(rest, again, strict=True):
        np.testing.assert_array_equal(batch["record_seed"], expected)


def test_a_draw_behind_a_flat_map_says_what_to_write():
    with pytest.raises(ValueError, match=r"SeedRecords\(\) and then SeedChildren\(flat_map\)"):
        list(loader([Halves(), gdx.SeedRecords(), grain.transforms.Batch(2)]))
    with pytest.raises(
        KeyError, match=r"`record_seed` must be in the record before SeedChildren: got the fields id, i"
    ):
        list(loader([gdx.SeedChildren(Halves()), grain.transforms.Batch(2)]))
    with pytest.raises(TypeError, match="`flat_map` must be a FlatMap transform: got 3"):
        gdx.SeedChildren(3)
    with pytest.raises(ValueError, match=r"`seed` must be uint32 of shape \(2,\): got array"):
        gdx.child_seed(np.zeros((3, 2), np.uint32), 0)


def seeds_of(records, **settings):
    transform = gdx.SeedRecords(**settings)
    return [transform.random_map(record, None)["record_seed"] for record in records]


def test_a_key_gives_a_record_one_seed_in_any_order_epoch_and_worker():
    def of(dataset):
        return {int(record["id"]): record["record_seed"].tobytes() for record in dataset}

    by_id = gdx.SeedRecords(key="id")
    expected = of(source().random_map(by_id, seed=0))
    assert of(source().shuffle(seed=4).random_map(by_id, seed=9)) == expected
    assert len(set(expected.values())) == 16
    shuffled = grain.samplers.IndexSampler(12, num_epochs=2)  # without a seed
    data = [{"image": image, "id": place} for place, image in enumerate(images(12))]
    batches = grain.DataLoader(data_source=data, sampler=shuffled, operations=[by_id, grain.transforms.Batch(6)])
    for batch in batches:
        for place, seed in zip(batch["id"], batch["record_seed"], strict=True):
            assert expected[int(place)] == seed.tobytes()


def test_the_seeds_of_keys_and_children_are_pinned():
    """A change here is a *Breaking* line in the changelog."""
    record = {"id": 7, "path": "train/cat.png", "shard": b"\x00\x01", "place": np.array([3, 4])}
    pinned = {
        "id": [2593869065, 489056148],
        "path": [1765167683, 4169777571],
        "shard": [1675219903, 1802978933],
        "place": [955311507, 2675613001],
        ("id", "path"): [199260597, 3398564023],
    }
    got = {key: seeds_of([record], key=key)[0].tolist() for key in pinned}
    salted = seeds_of([record], key="id", salt="a")[0].tolist()
    child = gdx.child_seed(np.array([1, 2], np.uint32), 3).tolist()
    assert (got, salted, child) == (pinned, [3614013045, 3689877109], [3351479973, 3006309430])


def test_identities_are_equal_where_people_would_say_so_and_only_there():
    same = [7, np.int64(7), np.uint8(7), np.array(7)], ["a/b", np.str_("a/b"), pathlib.PurePosixPath("a/b"), b"a/b"]
    for values in same:
        assert len({seed.tobytes() for seed in seeds_of([{"id": value} for value in values], key="id")}) == 1
    others = [7, "7", -7, 77, [7], [7, 7], [77], "", "a", b"\x07", np.array([[7, 7]])]
    assert len({seed.tobytes() for seed in seeds_of([{"id": value} for value in others], key="id")}) == len(others)
    pairs = [("a", "bc"), ("ab", "c"), ("abc", ""), (1, 23), (12, 3)]
    keyed = seeds_of([{"a": first, "b": second} for first, second in pairs], key=("a", "b"))
    assert len({seed.tobytes() for seed in keyed}) == len(pairs)
    salts = [seeds_of([{"id": 7}], key="id", salt=salt)[0].tobytes() for salt in ("", "a", "b")]
    assert len(set(salts)) == 3


@pytest.mark.parametrize(
    ("settings", "record", "error", "message"),
    [
        ({"key": "name"}, {"id": 1}, KeyError, "`name` must be a field: got the fields id"),
        ({"key": "id"}, {"id": 0.5}, TypeError, '`key` must name fields of integers, .* got float in field "id"'),
        ({"key": "id"}, {"id": None}, TypeError, "got NoneType"),
        ({"key": "id"}, {"id": np.zeros(2)}, TypeError, "got float"),
        ({"key": 0.5}, {}, TypeError, "`key` must be the name of a field"),
        ({"key": ()}, {}, ValueError, "`key` must name a field"),
        ({"key": ""}, {}, ValueError, "`key` must name a field"),
        ({"salt": 3}, {}, TypeError, "`salt` must be a string: got 3"),
    ],
)
def test_keys_and_salts_that_are_none_are_refused(settings, record, error, message):
    with pytest.raises(error, match=message):
        seeds_of([record], **settings)


def test_a_salt_leaves_different_draws_different():
    plain, salted = (
        np.stack([record["record_seed"] for record in source().random_map(gdx.SeedRecords(salt=salt), seed=3)])
        for salt in ("", "validation")
    )
    assert len(np.unique(np.concatenate([plain, salted]), axis=0)) == 32
    assert len(np.unique(plain ^ salted, axis=0)) == 1


def pixels(batches):
    return [np.asarray(batch["image"]).tobytes() for batch in batches]


def operations():
    return [gdx.SeedRecords(), grain.transforms.Batch(4), gdx.AugmentBatch(chain(*NOISE))]


def test_a_second_pass_says_once_that_it_repeats_and_both_ways_out_do_not():
    data = loader(operations())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = pixels(data)
    with pytest.warns(UserWarning, match="got those of the first batch again, which repeats every pixel") as said:
        assert pixels(data) == pixels(data) == first
    assert len(said) == 1
    assert all(words in str(said[0].message) for words in ("num_epochs=n", "dataset.repeat(n)", "salt=str(epoch)"))
    at_once = pixels(loader(operations(), epochs=2))
    assert (at_once[:3], len(set(at_once))) == (first, 6)
    apart = [pixels(loader(operations(), seed=5 + 100 * epoch)) for epoch in range(2)]
    assert len({*apart[0], *apart[1]}) == 6


def host_batches(epochs=1, seed=5):
    return loader([gdx.SeedRecords(), grain.transforms.Batch(8)], epochs=epochs, seed=seed, count=16)


@pytest.mark.parametrize("settings", [{}, {"buffer_size": 0}, {"keep_seed": True}], ids=str)
@pytest.mark.parametrize("kind", ["loader", "MapDataset", "IterDataset"])
def test_a_second_pass_over_a_device_loader_says_once_that_it_repeats(kind, settings):
    batched = drawn().batch(8)
    sources = {"loader": host_batches(), "MapDataset": batched, "IterDataset": batched.to_iter_dataset()}
    with gdx.DeviceLoader(sources[kind], chain(*NOISE), **settings) as data:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            next(iter(data))  # a look beforehand is no pass
            first = pixels(data)
        with pytest.warns(UserWarning, match="`loader` must give new records in each epoch: got another pass") as said:
            assert pixels(data) == pixels(data) == first
        assert len(said) == 1
        assert all(words in str(said[0].message) for words in ("num_epochs=n", "dataset.repeat(n)", "by the epoch"))


def test_both_ways_out_give_new_pixels_in_each_epoch():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(set(pixels(gdx.DeviceLoader(host_batches(epochs=2), chain(*NOISE))))) == 4
        repeated = source().repeat(2).random_map(gdx.SeedRecords(), seed=3).batch(8)
        assert len(set(pixels(gdx.DeviceLoader(repeated, chain(*NOISE))))) == 4
        apart = [pixels(gdx.DeviceLoader(host_batches(seed=5 + 100 * epoch), chain(*NOISE))) for epoch in range(2)]
        assert len({*apart[0], *apart[1]}) == 4


def test_a_loader_for_each_epoch_draws_anew_with_the_salt_that_is_advised():
    def seeds(epoch, salt):
        batches = loader([gdx.SeedRecords(salt=salt), grain.transforms.Batch(4)], seed=epoch)
        return {seed.tobytes() for batch in batches for seed in batch["record_seed"]}

    assert len(seeds(0, "") & seeds(1, "")) == 11  # of 12: neighbouring sampler seeds, shifted by one
    epochs = [seeds(epoch, str(epoch)) for epoch in range(3)]
    assert len(set.union(*epochs)) == 36


def test_records_that_are_seeded_by_their_names_may_be_passed_over_again():
    batched = source().random_map(gdx.SeedRecords(key="id"), seed=3).batch(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = gdx.DeviceLoader(batched, chain(*NOISE))
        assert pixels(data) == pixels(data)


def test_what_is_restored_or_only_placed_is_no_second_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = gdx.DeviceLoader(drawn().batch(8), chain(*NOISE))
        batches = iter(data)
        start, first = batches.get_state(), pixels(batches)
        batches.set_state(start)
        assert pixels(batches) == first
        again = iter(data)
        again.set_state(start)
        assert pixels(again) == first
        placed = gdx.DeviceLoader(drawn().batch(8))
        assert pixels(placed) == pixels(placed)


def test_the_same_batch_over_and_over_is_nobodys_second_pass():
    augment = gdx.AugmentBatch(chain(*NOISE))
    batch = next(iter(drawn().batch(8)))
    for _ in range(3):
        augment.map(batch)


def test_rows_of_padding_share_no_seed():
    padded = drawn().batch(12, batch_fn=functools.partial(grain.experimental.batch_and_pad, batch_size=12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(padded.map(gdx.AugmentBatch(chain(*NOISE))))
    watch, few = SeedWatch(passes=False), np.zeros((6, 2), np.uint32)
    few[2:4] = 7
    with pytest.warns(UserWarning, match="1 of 6 .* rows 2 and 3"):
        watch.look(few)


def test_a_pass_that_draws_nothing_repeats_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = gdx.DeviceLoader(drawn().batch(8), chain(gdx.Cast()))
        assert pixels(data) == pixels(data)


def test_children_of_augmented_and_of_tuple_records_have_seeds_of_their_own():
    record = {"image": images(1)[0], "record_seed": np.array([1, 2], np.uint32)}
    augmented_once = gdx.AugmentRecord(chain(*NOISE)).random_map(record, None)
    children = gdx.SeedChildren(Halves()).flat_map(augmented_once)
    again = [gdx.AugmentRecord(chain(*NOISE)).random_map(child, None)["image"] for child in children]
    assert (again[0] != again[1]).any()

    class Twice(grain.experimental.FlatMapTransform):
        max_fan_out = 2

        def flat_map(self, element):
            image, label = element
            return [(image, label), (image, label + 1)]

    seeded = gdx.SeedRecords().random_map((record["image"], 3), np.random.default_rng(0))
    first, second = gdx.SeedChildren(Twice()).flat_map(seeded)
    assert (first[1], second[1]) == (3, 4)
    assert first[2].tolist() == gdx.child_seed(seeded[2], 0).tolist() != second[2].tolist()


def test_places_that_are_none_are_refused():
    parent = np.array([1, 2], np.uint32)
    with pytest.raises(ValueError, match="`place` must be 0 or more, below .*: got -1"):
        gdx.child_seed(parent, -1)
    with pytest.raises(TypeError):
        gdx.child_seed(parent, 1.5)


def test_identities_may_be_names_of_any_file_tuples_and_arrays_of_jax():
    same = seeds_of([{"id": each} for each in (("ep", 3), ["ep", 3])], key="id")
    assert same[0].tolist() == same[1].tolist()
    numbers = seeds_of([{"id": each} for each in (7, jnp.array(7))], key="id")
    assert numbers[0].tolist() == numbers[1].tolist()
    assert seeds_of([{"id": "a\udcff.jpg"}], key="id")[0].dtype == np.uint32
    by_index = gdx.SeedRecords(key=0).random_map(("a.jpg", 3), None)
    assert by_index[2].tolist() == seeds_of([{"id": "a.jpg"}], key="id")[0].tolist()
