"""Batches on any devices: the pixels of one device, padding, and what stays on the host."""

import weakref

import grain
import jax
import numpy as np
import pytest
from device_sources import SEEDED, SOURCES, Map, chain, every_buffer_size, expected_from
from helpers import OPERATORS, closing, contents, loader, noise, patch_dropout, pixels
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import grain_datarax as gdx
from grain_datarax.placement import RowSharding


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", ["uint8", "bfloat16", "float32"])
@pytest.mark.long
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


def test_integers_that_jax_would_change_are_an_error():
    far = Map(lambda record: {**record, "id": np.int64(2**31 + record["label"])})
    with pytest.raises(ValueError, match="`batch\\['id'\\]` must fit into int32.*got values from 21474836"):
        list(gdx.DeviceLoader(loader([far, *SEEDED])))


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
