"""Processes whose sources end at different times: all end together, and no record is lost or counted twice."""

import functools
import itertools
import json

import grain
import numpy as np
import pytest
from device_sources import SEEDED, SOURCES, chain, expected_from
from equalize_process import KEPT, sizes_of_buffers
from helpers import contents, loader
from multihost import launch
from multihost_process import GLOBAL_BATCH, RECORDS
from multihost_process import chain as whole_chain

import grain_datarax as gdx

pytestmark = pytest.mark.once

start = functools.partial(launch, module="equalize_process")
many = pytest.mark.long


def survivors(kept):
    return sorted(label for label in range(RECORDS) if label // len(kept) < kept[label % len(kept)])


@functools.cache
def pixels_of_one_process():
    stages = [gdx.SeedRecords(), grain.transforms.Batch(RECORDS), gdx.AugmentBatch(whole_chain())]
    (batch,) = loader(stages, count=RECORDS, shuffle=False)
    return dict(zip(np.asarray(batch["label"]).tolist(), np.asarray(batch["image"]), strict=True))


def read(directory, buffer_size, process):
    with np.load(directory / f"{buffer_size}, {process}.npz") as file:
        for label, image in zip(file["label"].tolist(), file["image"], strict=True):
            np.testing.assert_array_equal(image, pixels_of_one_process()[label])
        labels = file["label"].tolist()
    return labels, *json.loads((directory / f"{buffer_size}, {process}.json").read_text())


@many
@pytest.mark.parametrize(
    ("processes", "workers"),
    [(4, 0), (2, 2), *(pytest.param(*each, marks=pytest.mark.thorough) for each in ((2, 0), (4, 2)))],
)
def test_with_padding_each_record_is_valid_once_and_all_processes_end_together(processes, workers, tmp_path):
    kept = KEPT[processes]
    start(processes, tmp_path, "unequal", "pad", workers, json.dumps(kept))
    for buffer_size in sizes_of_buffers(workers):
        labels, steps, totals, applied = zip(*(read(tmp_path, buffer_size, p) for p in range(processes)), strict=True)
        assert sorted([*itertools.chain(*labels)]) == survivors(kept)
        assert [len(each) for each in labels] == kept
        assert len(set(steps)) == 1
        assert steps[0] * (GLOBAL_BATCH // processes) >= max(kept)
        assert set(totals) == {sum(kept)}
        assert list(applied) == kept  # padding is not counted


@many
@pytest.mark.parametrize(
    ("processes", "workers", "kept"),
    [
        (2, 0, KEPT[2]),
        pytest.param(2, 2, KEPT[2], marks=pytest.mark.thorough),
        (4, 0, [9, 6, 16, 12]),
        pytest.param(4, 2, [9, 6, 16, 12], marks=pytest.mark.thorough),
        pytest.param(4, 0, KEPT[4], marks=pytest.mark.thorough),
    ],
)
def test_dropping_leaves_each_process_the_batches_that_all_have(processes, kept, workers, tmp_path):
    start(processes, tmp_path, "unequal", "drop", workers, json.dumps(kept))
    size = GLOBAL_BATCH // processes
    for buffer_size in sizes_of_buffers(workers):
        labels, steps, _, _ = zip(*(read(tmp_path, buffer_size, p) for p in range(processes)), strict=True)
        assert len(set(steps)) == 1
        assert [len(each) for each in labels] == [steps[0] * size] * processes
        if workers == 0:
            assert steps[0] == min(kept) // size
        everything = [*itertools.chain(*labels)]
        assert len(set(everything)) == len(everything)
        assert set(everything) <= set(survivors(kept))


@many
@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("pad", [9, 0]),
        *(pytest.param(*each, marks=pytest.mark.thorough) for each in (("pad", [5, 17]), ("drop", [17, 9]))),
    ],
)
def test_a_state_in_the_middle_or_within_the_padding_goes_on_exactly(mode, kept, tmp_path):
    start(2, tmp_path, "resumed", mode, json.dumps(kept))
    steps = max(-(-count // 4) for count in kept) if mode == "pad" else min(kept) // 4
    assert {(tmp_path / f"{process}.txt").read_text() for process in range(2)} == {str(steps)}


@many
@pytest.mark.parametrize("kind", ["source", "stage"])
def test_an_error_of_one_process_is_raised_in_all(kind, tmp_path):
    start(2, tmp_path, "broken", kind)
    for process in range(2):
        *said, soon = (tmp_path / f"{process}.txt").read_text().split("\n")
        assert soon == "True"
        assert len(said) == 2
        cause = "this record is broken" if kind == "source" else "must fit into int32"
        for each in said:
            assert cause in each
            if process == 0:
                assert each.startswith(
                    f"RuntimeError after {4 if kind == 'source' else 5}: `source` must give batches in"
                )
                assert "got an error in process 1: ValueError" in each
            else:
                assert each.startswith("ValueError after 4")


@many
def test_batches_of_two_sizes_are_an_error_in_all_processes(tmp_path):
    start(2, tmp_path, "of_two_sizes")
    for process in range(2):
        said = (tmp_path / f"{process}.txt").read_text()
        assert "`source` must give all processes batches of one size: got 2 to 3 records. Drop smaller ones" in said


@many
@pytest.mark.parametrize("how", ["stops", "dies"])
def test_a_process_that_falls_silent_is_named_to_the_others(how, tmp_path):
    start(2, tmp_path, "silent", how)
    said = (tmp_path / "0.txt").read_text()
    assert "`equalize` must hear from all processes: got no word of processes [1] within 4 seconds." in said


@pytest.mark.parametrize("source", ["loader", "MapDataset"])
def test_one_process_needs_no_equalizing(source):
    expected = expected_from(SOURCES[source])
    dropped = list(gdx.DeviceLoader(SOURCES[source](), chain(), equalize="drop"))
    assert [contents(batch) for batch in dropped] == expected
    assert "valid" not in dropped[0]
    padded = list(gdx.DeviceLoader(SOURCES[source](), chain(), equalize="pad"))
    assert [contents(batch) for batch in padded] == expected
    assert all(np.asarray(batch["valid"]).all() for batch in padded)


def test_another_way_to_equalize_is_refused():
    with pytest.raises(ValueError, match='`equalize` must be "pad", "drop" or None: got True. Pass one of these'):
        gdx.DeviceLoader(loader(SEEDED), equalize=True)
