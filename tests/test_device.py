"""DeviceLoader: the pixels of AugmentBatch on any devices, and the states of Grain's own iterators."""

import functools
import gc
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
import weakref

import grain
import jax
import numpy as np
import pytest
from helpers import OPERATORS, closing, contents, loader, noise, patch_dropout, pixels
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from sources import Records

import grain_datarax as gdx
from grain_datarax.operators import chain as compiled_chain
from grain_datarax.placement import RowSharding

BATCH = 8  # divides over the eight devices
# By default Grain reads 500 elements ahead, which may be batches.
READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
SEEDED = [gdx.SeedRecords(), grain.transforms.Batch(BATCH)]


def chain():
    return [patch_dropout(), noise()]


def dataset(count=32, epochs=1):
    return grain.MapDataset.source(Records(count)).shuffle(seed=1).repeat(epochs).random_map(gdx.SeedRecords(), seed=7)


def worker_dataset(epochs=1, workers=2):
    options = grain.MultiprocessingOptions(num_workers=workers)
    return dataset(epochs=epochs).batch(BATCH).to_iter_dataset(READ_OPTIONS).mp_prefetch(options)


def elastic(epochs=1):
    whole = grain.sharding.NoSharding()
    return grain.experimental.ElasticIterator(dataset(epochs=epochs), BATCH, whole, read_options=READ_OPTIONS)


# Four batches in each epoch; without end for epochs=None.
SOURCES = {
    "loader": lambda epochs=1: loader(SEEDED, epochs=epochs),
    "loader, 2 workers": lambda epochs=1: loader(SEEDED, epochs=epochs, workers=2),
    "MapDataset": lambda epochs=1: dataset(epochs=epochs).batch(BATCH),
    "IterDataset": lambda epochs=1: dataset(epochs=epochs).to_iter_dataset(READ_OPTIONS).batch(BATCH),
    "IterDataset, 2 workers": worker_dataset,
    "ElasticIterator": elastic,
}
every_source = pytest.mark.parametrize(
    "source",
    [pytest.param(make, marks=[pytest.mark.long] * ("workers" in name), id=name) for name, make in SOURCES.items()],
)
every_buffer_size = pytest.mark.parametrize("buffer_size", [0, 1, 4])


def plain(source):
    """Grain's own iterator, of anything that a DeviceLoader takes."""
    if isinstance(source, grain.MapDataset):
        return iter(source.to_iter_dataset(grain.ReadOptions(0, 0)))
    return iter(source)


def expected_of(source, count=None):
    """Labels and pixels of the first batches, or of all: those of AugmentBatch over Grain's own iterator."""
    augment = gdx.AugmentBatch(chain())
    with closing(plain(source)) as iterator:
        return [contents(augment.map(batch)) for batch in itertools.islice(iterator, count)]


@functools.cache
def expected_from(source, epochs=1):
    """The same for one of `SOURCES`, at most nine batches: worker processes take seconds to start."""
    return expected_of(source(epochs), 9)


# Sources without end: at one, worker processes stop.
@every_source
@every_buffer_size
def test_resuming_at_every_step_gives_the_remaining_batches(source, buffer_size):
    expected, states = expected_from(source, None), []
    with gdx.DeviceLoader(source(None), chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        iterator.start_prefetch()
        for step in range(6):
            states.append(iterator.get_state())
            assert contents(next(iterator)) == expected[step]
    with gdx.DeviceLoader(source(None), chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        for step in (2, 0, 1, 5, 4, 3):
            iterator.set_state(states[step])
            assert iterator.get_state() == states[step]
            assert [contents(next(iterator)) for _ in range(4)] == expected[step : step + 4]


@every_source
def test_states_are_those_of_grains_own_iterator_both_ways(source):
    expected = expected_from(source, None)
    device = iter(gdx.DeviceLoader(source(None), chain()))
    without = iter(gdx.DeviceLoader(source(None), chain(), fingerprint=False))
    augment = gdx.AugmentBatch(chain())
    with closing(plain(source(None))) as own, closing(device), closing(without):
        states = []
        for _ in range(4):
            states.append((own.get_state(), device.get_state()))
            assert without.get_state() == own.get_state()
            next(own), next(device), next(without)
        assert without.get_state() == own.get_state()
        for step, (owns, devices) in enumerate(states):
            own.set_state(devices)
            device.set_state(owns)
            assert [contents(augment.map(next(own))) for _ in range(2)] == expected[step : step + 2]
            assert [contents(next(device)) for _ in range(2)] == expected[step : step + 2]


@every_buffer_size
@pytest.mark.parametrize("name", [name for name in SOURCES if "workers" not in name])
def test_resuming_at_every_step_goes_on_to_the_end(name, buffer_size):
    expected, states = expected_from(SOURCES[name]), []
    with gdx.DeviceLoader(SOURCES[name](), chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        states = [iterator.get_state(), *(iterator.get_state() for _ in iterator)]
        assert len(states) == 5
        for step in (4, 2, 0, 1, 3):
            iterator.set_state(states[step])
            assert [contents(batch) for batch in iterator] == expected[step:]


def test_states_have_the_type_of_grains_own():
    assert isinstance(iter(gdx.DeviceLoader(SOURCES["loader"]())).get_state(), bytes)
    iterator = iter(gdx.DeviceLoader(SOURCES["MapDataset"]()))
    assert isinstance(iterator, grain.DatasetIterator)
    assert isinstance(iterator.get_state(), dict)


def test_an_iterator_can_be_set_back_and_forth():
    expected = expected_from(SOURCES["loader"])
    with closing(iter(gdx.DeviceLoader(SOURCES["loader"](), chain()))) as iterator:
        start = iterator.get_state()
        assert [contents(batch) for batch in iterator] == expected
        end = iterator.get_state()
        iterator.set_state(start)
        assert contents(next(iterator)) == expected[0]
        iterator.set_state(end)
        assert next(iterator, None) is None


CHANGES = {
    "setting": (lambda: [patch_dropout(), noise(noise_std=0.1)], "`noise_std` 0.1 for 0.05 in NoiseOperator"),
    "order": (lambda: [noise(), patch_dropout()], "the operators \\['NoiseOperator.*'\\] for \\['PatchDropout"),
    "number": (lambda: [patch_dropout()], "the operators \\['PatchDropoutOperator.*'\\] for"),
    "name": (lambda: [patch_dropout(), noise(name="other")], "'other'"),
    "none": (lambda: (), "the operators \\[\\] for"),
}


@pytest.mark.parametrize(("operators", "message"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("source", ["loader", "MapDataset"])
def test_a_state_of_other_operators_is_refused(source, operators, message):
    with closing(iter(gdx.DeviceLoader(SOURCES[source](), chain()))) as iterator:
        next(iterator)
        state = iterator.get_state()
    other = gdx.DeviceLoader(SOURCES[source](), operators())
    with closing(iter(other)) as iterator:
        before = iterator.get_state()
        with pytest.raises(ValueError, match=f"`operators` must be those of the checkpoint: got .*{message}"):
            iterator.set_state(state)
        assert iterator.get_state() == before
        assert len(list(iterator)) == 4
    lenient = gdx.DeviceLoader(SOURCES[source](), operators(), strict=False)
    with closing(iter(lenient)) as iterator:
        with pytest.warns(UserWarning, match=message) as warned:
            iterator.set_state(state)
        assert [each.filename for each in warned] == [__file__]
        assert len(list(iterator)) == 3


def test_another_root_key_or_stream_version_is_refused(monkeypatch):
    from flax import nnx

    from grain_datarax.operators import fingerprint

    state = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise()])).get_state()
    iterator = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise().copy(rngs=nnx.Rngs(1))]))
    with pytest.raises(ValueError, match="`root_key` "):
        iterator.set_state(state)
    monkeypatch.setattr(fingerprint, "STREAM_VERSION", 2)
    iterator = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise()]))
    with pytest.raises(ValueError, match="STREAM_VERSION 2 for 1"):
        iterator.set_state(state)


def test_what_does_not_change_pixels_may_change():
    state = iter(gdx.DeviceLoader(SOURCES["MapDataset"](), [noise()])).get_state()
    assert json.loads(json.dumps(state)) == state
    operators = [noise(batch_strategy="scan", cacheable=True)]
    iter(gdx.DeviceLoader(SOURCES["MapDataset"](), operators)).set_state(state)


def test_a_state_that_grain_refuses_leaves_the_iterator_where_it_was():
    with (
        closing(iter(gdx.DeviceLoader(loader(SEEDED, seed=4), chain()))) as other,
        closing(iter(gdx.DeviceLoader(loader(SEEDED), chain(), buffer_size=4))) as iterator,
    ):
        first = next(iterator)
        time.sleep(0.5)  # the thread is ahead by now
        with pytest.raises(ValueError, match="Sampler in checkpoint does not match") as refused:
            iterator.set_state(other.get_state())
        assert "see grain_datarax.checkpoint" in refused.value.__notes__[0]
        expected = expected_of(loader(SEEDED))
        assert [contents(batch) for batch in (first, *iterator)] == expected


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float32"])
def test_any_number_of_devices_gives_the_pixels_of_one(devices, dtype):
    operators = [OPERATORS[mode](name=mode) for mode in OPERATORS]
    expected = pixels(loader([*SEEDED, gdx.AugmentBatch(operators)], dtype=dtype))
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:devices]), ("data",)), PartitionSpec("data"))
    batches = gdx.DeviceLoader(loader(SEEDED, dtype=dtype), operators, sharding=sharding)
    assert pixels(batches) == expected
    with batches:
        batch = next(iter(batches))
        assert batch["image"].sharding == batch["label"].sharding == sharding


MESHES = {
    "data": ((8,), ("data",), "data"),
    "data x model": ((4, 2), ("data", "model"), "data"),
    "model x data": ((4, 2), ("model", "data"), "data"),
    "both": ((4, 2), ("data", "model"), ("data", "model")),
}


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize(("shape", "names", "spec"), MESHES.values(), ids=MESHES)
@pytest.mark.parametrize("buffer_size", [0, 2])
def test_any_mesh_gives_the_same_pixels(axis_type, shape, names, spec, buffer_size):
    mesh = jax.make_mesh(shape, names, axis_types=(axis_type,) * len(shape))
    sharding = NamedSharding(mesh, PartitionSpec(spec))
    expected = expected_from(SOURCES["loader"])
    with jax.set_mesh(mesh):
        with gdx.DeviceLoader(SOURCES["loader"](), chain(), sharding=sharding, buffer_size=buffer_size) as batches:
            result = list(batches)
        assert all(batch["image"].sharding == sharding for batch in result)
        total = jax.jit(lambda batch: batch["image"].astype("float32").sum())(result[0])
        assert np.isfinite(total)
    assert [contents(batch) for batch in result] == expected


def test_augmenting_compiles_to_no_collective_operation():
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    rows = RowSharding(NamedSharding(mesh, PartitionSpec("data")))
    batch = next(iter(loader(SEEDED)))
    placed, _ = rows.place(batch)
    operators = [OPERATORS[mode](name=mode) for mode in OPERATORS]
    text = jax.jit(gdx.AugmentBatch(operators).map).lower(placed).compile().as_text()
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
    assert not [name for name in collectives if name in text]


def test_augmenting_takes_the_buffers_that_the_loader_has_placed(monkeypatch):
    place, placed = RowSharding.place, []

    def remember(self, batch, pad_to):
        placed.append(place(self, batch, pad_to)[0])
        return placed[-1], len(batch["label"])

    monkeypatch.setattr(RowSharding, "place", remember)
    # Of jax.Arrays there is always a copy; NumPy's may be read where they are, and are not ours to take then.
    source = grain.MapDataset.source([jax.tree.map(jax.numpy.asarray, batch) for batch in loader(SEEDED)])
    jax.block_until_ready(list(gdx.DeviceLoader(source, chain())))
    assert [batch["image"].is_deleted() for batch in placed] == [True] * 4


@pytest.mark.parametrize("donor", [np.asarray, jax.numpy.asarray], ids=["NumPy", "JAX"])
def test_arrays_of_the_source_stay_as_they_are(donor):
    batches = [jax.tree.map(donor, batch) for batch in loader(SEEDED)]
    before = [np.array(batch["image"]) for batch in batches]
    one = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    augmented = list(gdx.DeviceLoader(grain.MapDataset.source(batches), chain(), sharding=one))
    jax.block_until_ready(augmented)
    for batch, image, result in zip(batches, before, augmented, strict=True):
        np.testing.assert_array_equal(np.asarray(batch["image"]), image)
        assert contents(result) == contents(gdx.AugmentBatch(chain()).map(jax.tree.map(np.asarray, batch)))


class Extras(grain.transforms.Map):
    def map(self, element):
        label = element["label"]
        extras = {"name": f"record {label}", "nothing": None, "inner": {"float": label / 2, "flag": label % 2 == 0}}
        return {**element, **extras, "id": np.int64(label), "raw": [f"{label}".encode(), np.float64(label)]}


@every_buffer_size
def test_leaves_that_are_not_numeric_stay_on_the_host_in_step_with_their_batch(buffer_size):
    source = loader([Extras(), *SEEDED])
    for batch in gdx.DeviceLoader(source, chain(), buffer_size=buffer_size):
        labels = np.asarray(batch["label"])
        assert type(batch["name"]) is np.ndarray
        assert batch["name"].tolist() == [f"record {label}" for label in labels]
        assert batch["nothing"] is None
        assert batch["raw"][0].tolist() == [f"{label}".encode() for label in labels]
        on_devices = [batch["inner"]["float"], batch["inner"]["flag"], batch["id"], batch["raw"][1], batch["label"]]
        assert all(isinstance(field, jax.Array) for field in on_devices)
        assert [str(field.dtype) for field in on_devices] == ["float32", "bool", "int32", "float32", "int32"]
        np.testing.assert_array_equal(np.asarray(batch["inner"]["float"]), labels / 2)
        np.testing.assert_array_equal(np.asarray(batch["inner"]["flag"]), labels % 2 == 0)
        assert "record_seed" not in batch


def test_without_operators_batches_are_placed_as_they_are():
    for keep_seed in (False, True):
        for own, batch in zip(loader(SEEDED), gdx.DeviceLoader(loader(SEEDED), keep_seed=keep_seed), strict=True):
            assert set(batch) == {"image", "label"} | ({"record_seed"} if keep_seed else set())
            for name, field in batch.items():
                np.testing.assert_array_equal(np.asarray(field), own[name])


class Map(grain.transforms.Map):
    def __init__(self, function):
        self.function = function

    def map(self, element):
        return self.function(element)


def test_integers_that_jax_would_change_are_an_error():
    far = Map(lambda record: {**record, "id": np.int64(2**31 + record["label"])})
    with pytest.raises(ValueError, match="`batch\\['id'\\]` must fit into int32.*got values from 21474836"):
        list(gdx.DeviceLoader(loader([far, *SEEDED])))


def test_images_of_64_bits_are_an_error_as_in_augment_batch():
    wide = Map(lambda record: {**record, "image": record["image"].astype(np.float64)})
    with pytest.raises(TypeError, match="`image` must have a dtype of at most 32 bits: got float64"):
        list(gdx.DeviceLoader(loader([wide, *SEEDED]), chain()))


def test_values_outside_the_clip_range_are_an_error_in_the_first_batch():
    bright = Map(lambda record: {**record, "image": record["image"] * 255})
    with pytest.raises(ValueError, match="`clip_range` must hold the values"):
        list(gdx.DeviceLoader(loader([bright, *SEEDED]), chain()))


def partial(count=20, batch_size=8, workers=0, **kwargs):
    stages = [Extras(), gdx.SeedRecords(), grain.transforms.Batch(batch_size)]
    return loader(stages, count=count, workers=workers, **kwargs)


def test_a_batch_that_does_not_divide_is_an_error_that_names_the_sizes_that_would():
    iterator = iter(gdx.DeviceLoader(partial(), chain()))
    assert len(next(iterator)["label"]) == len(next(iterator)["label"]) == 8
    with pytest.raises(ValueError, match="over the 8 devices of this process: got 4 records. Use batches of 8, "):
        next(iterator)
    with pytest.raises(ValueError, match="got 12 records. Use batches of 8 or 16, "):
        next(iter(gdx.DeviceLoader(partial(batch_size=12))))


def real_rows(batch):
    valid = np.asarray(batch["valid"])
    return np.asarray(batch["label"])[valid].tolist(), np.asarray(batch["image"])[valid].tobytes()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_small_batches_are_padded_to_the_size_of_the_others_and_marked(workers):
    augment = gdx.AugmentBatch(chain())
    with closing(iter(partial(workers=workers))) as iterator:
        expected = [contents(augment.map(batch)) for batch in iterator]
    sizes = [len(labels) for labels, _ in expected]
    assert sizes == ([8, 8, 4] if workers == 0 else [8, 8, 2, 2])
    operators = [patch_dropout(), noise(validate_domain_constraints=False)]

    def device_loader():
        two = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), PartitionSpec("data"))  # 4 and 2 rows divide
        return gdx.DeviceLoader(partial(workers=workers), operators, pad_last_batch=True, sharding=two)

    with device_loader() as batches:
        iterator = iter(batches)
        states, result = [iterator.get_state()], []
        for batch in iterator:
            result.append(batch)
            states.append(iterator.get_state())
    assert [real_rows(batch) for batch in result] == expected
    for batch, size in zip(result, sizes, strict=True):
        assert batch["valid"].dtype == bool
        assert np.asarray(batch["valid"]).tolist() == [True] * size + [False] * (8 - size)
        assert batch["image"].shape[0] == 8
        assert len(batch["name"]) == size
    for operator in operators:
        assert operator.get_operation_stats() == {"applied_count": 20, "skipped_count": 0}
    with device_loader() as batches:
        iterator = iter(batches)
        # Into the last batches alone; worker processes take seconds to start, so once for them.
        for step in [len(sizes) - 1] if workers else reversed(range(len(states))):
            iterator.set_state(states[step])
            assert all(next(iterator)["image"].shape[0] == 8 for _ in sizes[step:])


def test_padding_makes_up_for_devices_that_are_left_over():
    batches = list(gdx.DeviceLoader(partial(count=3), chain(), pad_last_batch=True))
    assert [batch["image"].shape[0] for batch in batches] == [8]
    assert np.asarray(batches[0]["valid"]).sum() == 3


def test_a_field_called_valid_is_no_place_for_the_mark():
    named = Map(lambda record: {**record, "valid": True})
    with pytest.raises(ValueError, match="`batch` must have no field `valid`"):
        list(gdx.DeviceLoader(loader([named, *SEEDED]), pad_last_batch=True))
    assert np.asarray(next(iter(gdx.DeviceLoader(loader([named, *SEEDED]))))["valid"]).all()


class Counted:
    """A source that knows which records were read."""

    def __init__(self, count):
        self._records, self.read = Records(count), []

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        self.read.append(index)
        return self._records[index]


@pytest.mark.parametrize("buffer_size", [0, 1, 2, 5])
@pytest.mark.parametrize("kind", ["MapDataset", "IterDataset"])
def test_batches_are_made_ahead_as_far_as_the_buffer_says(buffer_size, kind):
    source = Counted(32 * BATCH)
    seeded = grain.MapDataset.source(source).random_map(gdx.SeedRecords(), seed=7).batch(BATCH)
    host = seeded if kind == "MapDataset" else seeded.to_iter_dataset(grain.ReadOptions(0, 0))
    with closing(iter(gdx.DeviceLoader(host, buffer_size=buffer_size))) as iterator:
        next(iterator)
        # One more is in the making; the threads that read a MapDataset are as far ahead again, and hold one more.
        low, high = (buffer_size + 1, 2 * buffer_size + 2) if buffer_size else (0, 0)
        deadline = time.monotonic() + 20
        while len(source.read) // BATCH - 1 < low and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        ahead = len(source.read) // BATCH - 1
    assert low <= ahead <= (high if kind == "MapDataset" else low)


def grains_deleter(thread):
    """Grain has one pool of threads for the whole process, which frees shared memory."""
    return "ThreadPool" in str(thread) or any(name in thread.name for name in ("(worker)", "(_handle_"))


def own_threads():
    return {thread for thread in threading.enumerate() if not grains_deleter(thread)}


@pytest.mark.parametrize(
    ("source", "way"),
    [
        pytest.param(SOURCES[name], way, marks=[pytest.mark.long] * ("workers" in name), id=f"{name}, {way}")
        for name in SOURCES
        for way in ["iterator", "loader", "with iterator", "with loader", "dropped", "exhausted"]
        if "workers" not in name
        or (name, way) in {("loader, 2 workers", "dropped"), ("IterDataset, 2 workers", "iterator")}
    ],
)
def test_closing_ends_every_thread(source, way):
    before = own_threads()
    batches = gdx.DeviceLoader(source(), chain(), buffer_size=4)
    iterator = iter(batches)
    next(iterator)
    if way == "iterator":
        iterator.close()
        iterator.close()
    elif way == "loader":
        batches.close()
    elif way == "with iterator":
        with iterator:
            next(iterator)
    elif way == "with loader":
        with batches:
            next(iterator)
    elif way == "exhausted":
        assert len(list(iterator)) == 3
        assert next(iterator, None) is None
        assert next(iterator, None) is None
    if way not in ("dropped", "exhausted"):
        with pytest.raises(ValueError, match="`iterator` must be open"):
            next(iterator)
        state = iterator.get_state()
        with pytest.raises(ValueError, match="`iterator` must be open"):
            iterator.set_state(state)
    del iterator, batches
    gc.collect()
    deadline = time.monotonic() + 10  # Grain's reading threads are told to end, and not waited for
    while own_threads() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own_threads() - before


@every_source
def test_every_iterator_starts_anew(source):
    expected = expected_from(source)
    with gdx.DeviceLoader(source(), chain()) as batches:
        first = iter(batches)
        assert contents(next(first)) == expected[0]
        assert [contents(batch) for batch in batches] == expected  # beside the first
        assert contents(next(first)) == expected[1]


def test_an_elastic_iterator_stays_where_its_user_left_it():
    source, expected = SOURCES["ElasticIterator"](), expected_of(SOURCES["ElasticIterator"]())
    source.set_state({"global_next_index": BATCH})
    for _ in range(2):
        assert [contents(batch) for batch in gdx.DeviceLoader(source, chain())] == expected[1:]
    assert source.get_state() == {"global_next_index": BATCH}


def fails_at(label):
    def check(record):
        if record["label"] == label:
            raise ValueError(f"record {label} is broken")
        return record

    return Map(check)


@pytest.mark.parametrize(
    ("workers", "buffer_size"), [(0, 0), (0, 1), (0, 4), pytest.param(2, 4, marks=pytest.mark.long)]
)
def test_an_error_in_the_pipeline_arrives_at_its_batch_and_leaves_the_last_state(workers, buffer_size):
    source = loader([fails_at(18), *SEEDED], workers=workers, shuffle=False)
    expected = expected_of(loader(SEEDED, shuffle=False, workers=workers))
    with gdx.DeviceLoader(source, chain(), buffer_size=buffer_size) as batches:
        iterator = iter(batches)
        assert [contents(next(iterator)) for _ in range(2)] == expected[:2]
        state = iterator.get_state()
        with pytest.raises(ValueError, match="record 18 is broken"):
            next(iterator)
        if buffer_size:
            assert iterator.get_state() == state
    with gdx.DeviceLoader(loader(SEEDED, workers=workers, shuffle=False), chain()) as batches:
        iterator = iter(batches)
        iterator.set_state(state)
        assert [contents(batch) for batch in iterator] == expected[2:]


SCRIPT = """
import os
import sys
sys.path.insert(0, {tests!r})
if __name__ == "__main__":  # the imports too: worker processes run the rest
    from absl import flags
    from test_device import *
    flags.FLAGS.mark_as_parsed()
    # Slow to close files, so that two threads that close the same one are sure to meet.
    close = os.close
    os.close = lambda file: (time.sleep(0.003), close(file))
    batches = gdx.DeviceLoader(SOURCES[{source!r}](), chain(), buffer_size={buffer_size})
    iterator = iter(batches)
    batch = next(iterator)
    {ending}
"""
ENDINGS = {"left open": "pass", "dropped": "del iterator, batches", "used up": "for batch in iterator: pass"}


@pytest.mark.long
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("source", ["loader", "loader, 2 workers"])
def test_the_program_ends_without_a_sound(source, ending, tmp_path):
    script = tmp_path / "script.py"
    tests = __file__.rpartition("/")[0]
    script.write_text(SCRIPT.format(tests=tests, source=source, ending=ENDINGS[ending], buffer_size=2))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


KILLED = """
import os
import sys
if __name__ != "__main__":
    os._exit(1)  # a worker that dies before it has read its dataset: the pipe holds no more than 64 KiB
sys.path.insert(0, {tests!r})
import signal
from absl import flags
from test_device import *
from grain_datarax import iterators
flags.FLAGS.mark_as_parsed()
iterators.PATIENCE = 1
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 2)
with gdx.DeviceLoader(loader(SEEDED, count=256, workers=1), chain()) as batches:
    next(iter(batches))
"""


@pytest.mark.long
def test_the_program_can_be_interrupted_while_it_waits_for_a_worker_that_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED.format(tests=__file__.rpartition("/")[0]))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in done.stderr
    assert "`iterator` must end within 1 seconds when it is closed" in done.stderr


def test_batches_hold_no_shared_memory_of_the_workers():
    def shared(array):
        copy = grain.multiprocessing.SharedMemoryArray(array.shape, array.dtype)
        np.copyto(copy, array)
        copy.unlink_on_del()
        return copy

    batch = {
        "label": np.arange(8, dtype=np.int32),
        "name": np.array(["a"] * 8),
        "image": np.ones((8, 64, 64), np.uint8),
    }
    held = {name: shared(field) for name, field in batch.items()}
    alive = [weakref.ref(field) for field in held.values()]
    placed, _ = RowSharding().place(held)
    del held
    assert [array() is None for array in alive] == [True] * 3
    for name, field in batch.items():
        np.testing.assert_array_equal(np.asarray(placed[name]), field)


def test_nothing_is_compiled_after_the_first_batch():
    def sizes():
        return compiled_chain._augment._cache_size()

    with gdx.DeviceLoader(loader(SEEDED, epochs=20), chain()) as batches:
        iterator = iter(batches)
        next(iterator)
        first = sizes()
        assert len(list(iterator)) == 79
        assert sizes() == first
    with gdx.DeviceLoader(loader(SEEDED), chain()) as batches:
        next(iter(batches))
        assert sizes() == first


class Grey(gdx.ModalityOperator):
    """Writes what does not depend on the image, so that no sharding can follow from it."""

    def effect(self, image, params):
        return jax.numpy.full(image.shape, 0.5, image.dtype)


def test_results_that_do_not_depend_on_the_batch_are_spread_like_it():
    operator = Grey(gdx.ModalityOperatorConfig(field_key="image", target_key="grey"))
    for batch in gdx.DeviceLoader(loader(SEEDED), operator):
        assert batch["grey"].sharding == batch["image"].sharding
        assert (np.asarray(batch["grey"]) == 0.5).all()


def test_fields_whose_paths_read_alike_are_kept_apart():
    alike = Map(lambda record: {**record, "a.b": record["label"] * 2, "a": {"b": record["label"] * 3}})
    for batch in gdx.DeviceLoader(loader([alike, *SEEDED])):
        labels = np.asarray(batch["label"])
        np.testing.assert_array_equal(np.asarray(batch["a.b"]), labels * 2)
        np.testing.assert_array_equal(np.asarray(batch["a"]["b"]), labels * 3)


def test_aligned_arrays_of_the_source_are_not_written_to():
    memory = np.zeros(8 * 16 * 12 * 3 + 64, np.uint8)
    image = memory[-memory.ctypes.data % 64 :][: 8 * 16 * 12 * 3].reshape(8, 16, 12, 3)
    batch = {"image": image, "record_seed": np.arange(16, dtype=np.uint32).reshape(8, 2)}
    one = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    source = grain.MapDataset.source([batch]).repeat(3)
    results = [contents({**result, "label": 0}) for result in gdx.DeviceLoader(source, [noise()], sharding=one)]
    assert not image.any()
    assert results == results[:1] * 3


def test_setting_a_state_leaves_it_as_it_is():
    with closing(iter(gdx.DeviceLoader(SOURCES["MapDataset"](), chain()))) as iterator:
        state = iterator.get_state()
        before = json.dumps(state)
        iterator.set_state(state)
        list(iterator)
        assert json.dumps(state) == before


def test_settings_of_a_fingerprint_are_told_apart_by_value():
    states = [
        iter(gdx.DeviceLoader(SOURCES["MapDataset"](), patch_dropout(num_patches=count, name="patches"))).get_state()
        for count in (2, np.int64(2), np.int64(3))
    ]
    assert states[0] == states[1] != states[2]


WRONG = {
    "iterator": (lambda: gdx.DeviceLoader(iter([])), TypeError, "`source` must be a grain.DataLoader"),
    "operator": (lambda: gdx.DeviceLoader(dataset().batch(8), ["noise"]), TypeError, "`operators` must be operators"),
    "buffer": (lambda: gdx.DeviceLoader(dataset().batch(8), buffer_size=-1), ValueError, "`buffer_size` must not be"),
    "bool": (lambda: gdx.DeviceLoader(dataset().batch(8), buffer_size=True), TypeError, "`buffer_size` must be an int"),
    "device": (
        lambda: gdx.DeviceLoader(dataset().batch(8), sharding=jax.devices()[0]),
        TypeError,
        "`sharding` must be a NamedSharding",
    ),
    "spec": (
        lambda: gdx.DeviceLoader(dataset().batch(8), sharding=NamedSharding(jax.make_mesh((8,), "x"), PartitionSpec())),
        ValueError,
        "`sharding` must spread axis 0",
    ),
    "seeds": (
        lambda: next(iter(gdx.DeviceLoader(grain.MapDataset.source(Records(8)).batch(8), [noise()]))),
        KeyError,
        "`record_seed` must be in the batch",
    ),
    "record": (
        lambda: next(iter(gdx.DeviceLoader(grain.MapDataset.range(8).batch(8)))),
        TypeError,
        "`element` must be a mapping",
    ),
    "statistics": (
        lambda: gdx.DeviceLoader(dataset().batch(8), [noise(batch_stats_fn=dict)]),
        ValueError,
        "`batch_stats_fn` must be None over several devices",
    ),
    "elastic": (
        lambda: gdx.DeviceLoader(elastic().map(lambda batch: batch).map(lambda batch: batch)),
        ValueError,
        "`source` must not be built on an ElasticIterator",
    ),
    "nothing": (
        lambda: next(iter(gdx.DeviceLoader(loader([*SEEDED, Map(lambda _: None)])))),
        TypeError,
        "`element` must be a mapping from field names: got NoneType",
    ),
    "lengths": (
        lambda: next(iter(gdx.DeviceLoader(dataset().batch(8).map(lambda batch: {**batch, "x": np.ones(3)})))),
        ValueError,
        "`data` must share the batch as axis 0",
    ),
}


@pytest.mark.parametrize(("act", "kind", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_and_batches_are_refused(act, kind, message):
    with pytest.raises(kind, match=message):
        act()
