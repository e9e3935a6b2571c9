"""Several processes of `jax.distributed`: the pixels of one, and a checkpoint of some that goes on with others."""

import grain
import numpy as np
import pytest
from helpers import loader
from multihost import launch
from multihost_process import GLOBAL_BATCH, RECORDS, chain, take
from sources import Records

import grain_datarax as gdx

pytestmark = pytest.mark.long


def load(directory, name):
    """(step, label) -> pixels, of all processes; a record that two of them had must be the same in both."""
    seen = {}
    paths = sorted(directory.glob(f"{name}, ?.npz"))
    for path in paths:
        with np.load(path) as file:
            for step, label, image in zip(file["step"], file["label"], file["image"], strict=True):
                np.testing.assert_array_equal(seen.setdefault((int(step), int(label)), image), image)
    return seen


def assert_same(result, expected, steps=1):
    """The same records in each round of this many steps, with the same pixels."""
    assert {(step // steps, label) for step, label in result} == {(step // steps, label) for step, label in expected}
    images = {label: image for (_, label), image in expected.items()}
    for (_, label), image in result.items():
        np.testing.assert_array_equal(image, images[label])
    assert len(result) == len(expected)


def one_loader(**kwargs):
    return loader([gdx.SeedRecords(), grain.transforms.Batch(GLOBAL_BATCH)], count=RECORDS, **kwargs)


@pytest.fixture(scope="module")
def one_process():
    """What one process with eight devices gets."""
    with gdx.DeviceLoader(one_loader(), chain()) as batches:
        seen = take(batches)
    assert len(seen) == RECORDS
    return seen


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.thorough)])
def test_several_processes_get_the_pixels_of_one(processes, tmp_path, one_process):
    launch(processes, tmp_path, "pixels")
    names = {path.stem.rpartition(", ")[0] for path in tmp_path.iterdir()}
    assert len(names) == 11
    for name in names:
        assert len(list(tmp_path.glob(f"{name}, ?.npz"))) == processes
        assert_same(load(tmp_path, name), one_process, steps=2 if name == "2 workers" else 1)


def test_processes_that_hold_the_same_rows_put_the_same_arrays_together(tmp_path, one_process):
    launch(2, tmp_path, "same_rows")
    assert len(list(tmp_path.iterdir())) == 4
    assert_same(load(tmp_path, "same rows"), one_process)
    assert_same(load(tmp_path, "replicated"), one_process)


def test_a_mesh_that_deals_rows_out_unequally_is_refused_by_every_process(tmp_path):
    launch(2, tmp_path, "refused_meshes")
    for process in range(2):
        others, unequal, all_devices = (tmp_path / f"{process}.txt").read_text().split("\n")
        if process:
            assert "`sharding` must have devices of this process, number 1: got those of [0]. Use a mesh over" in others
        assert "must give every process as many rows" in unequal
        assert "got rows {0: [0, 1], 1: [2]}" in unequal
        assert all_devices == f"took {RECORDS // 2} records"


def test_training_steps_with_collectives_see_the_right_batches(tmp_path):
    launch(2, tmp_path, "training")
    expected = [int(batch["label"].sum()) for batch in one_loader(epochs=20)]
    for index in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"training, {index}.npy"), expected)


def test_a_model_with_keys_is_put_on_the_devices_of_all_processes(tmp_path):
    launch(2, tmp_path, "replicated_model")
    first, second = (np.load(tmp_path / f"gradients, {index}.npy") for index in range(2))
    assert np.abs(first).max() > 0
    np.testing.assert_array_equal(first, second)


@pytest.mark.thorough
def test_a_checkpoint_goes_on_with_any_number_of_processes_and_workers(tmp_path):
    # processes, workers, steps: to the end at last
    legs = [(1, 2, 2), (2, 0, 1), (4, 1, 2), (1, 3, 3)]
    assert sum(steps for _, _, steps in legs) == RECORDS // GLOBAL_BATCH
    step = 0
    for processes, workers, steps in legs:
        launch(processes, tmp_path, "resume", step, step + steps, workers, steps)
        step += steps
    dataset = grain.MapDataset.source(Records(RECORDS)).shuffle(seed=1).random_map(gdx.SeedRecords(), seed=7)
    dealt_out = take(gdx.DeviceLoader(one_loader(), chain()[:2]))
    in_order = take(gdx.DeviceLoader(dataset.batch(GLOBAL_BATCH), chain()[:2]))
    for name, expected in {"loader": dealt_out, "dataset": in_order, "elastic": in_order}.items():
        seen, begin = {}, 0
        for _, _, steps in legs:
            part = load(tmp_path, f"{name}, {begin + steps}")
            seen |= {(begin + at, label): image for (at, label), image in part.items()}
            begin += steps
        # The loader's order within what is left depends on its workers; that of datasets does not.
        assert_same(seen, expected, steps=RECORDS if name == "loader" else 1)
