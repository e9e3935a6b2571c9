"""Whatever goes wrong ends in a clear error or in a clean continuation, and loses nothing: see docs/reliability.md."""

import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings

import grain
import pytest
from fault_sources import BATCH, COUNT, Batches, Faulty, iter_dataset, loader, map_dataset
from fault_table import CHECKPOINTS, DISK, PAGE, PROGRAMS, RECORDS, USES, WORKERS, first_sentence, page, seen_of
from helpers import closing, contents

import grain_datarax as gdx
from grain_datarax import checkpoint, waiting

pytestmark = pytest.mark.once
TESTS = pathlib.Path(__file__).parent


def chain(std=0.1):
    return gdx.Chain([gdx.GaussianNoise(std=std)], seed=0)


def rows(table, *marks):
    """The names of a table's rows, to parametrize a test."""
    thorough = [pytest.mark.thorough]
    return [pytest.param(name, marks=[*marks, *(thorough * fault.thorough)]) for name, fault in table.items()]


@pytest.fixture(scope="module")
def expected():
    """The contents of all batches, by the kind of source."""
    return {
        make.__name__: [contents(batch) for batch in gdx.DeviceLoader(make("", os.devnull + "/none"), chain())]
        for make in (loader, map_dataset, iter_dataset)
    }


@pytest.fixture
def flag(tmp_path):
    """The file without which nothing fails."""
    (tmp_path / "fails").touch()
    return tmp_path / "fails"


def read_until_it_fails(iterator, seconds=60):
    """What it gave, and the error or warning that came of it; fails if it still waits by then."""
    given, seen = [], []

    def read():
        try:
            given.extend(contents(batch) for batch in iterator)
        except BaseException as error:
            seen.append(error)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"
    return given, [*seen, *(each.message for each in warned if "value_range" in str(each.message))]


def test_the_page_is_that_of_the_table():
    assert PAGE.read_text() == page(), "run `python tests/fault_table.py`"


@pytest.mark.parametrize("make", [loader, map_dataset], ids=["loader", "MapDataset"])
@pytest.mark.parametrize("buffer_size", [0, 2])
@pytest.mark.parametrize("act", ["raises", "without an image", "fields of other lengths"])
def test_an_error_moves_nothing_and_the_next_call_tries_again(make, buffer_size, act, expected, flag):
    wanted = expected[make.__name__]
    with closing(iter(gdx.DeviceLoader(make(act, flag), chain(), buffer_size=buffer_size))) as iterator:
        given = [contents(next(iterator)) for _ in range(2)]
        state = iterator.get_state()
        for _ in range(3):
            with pytest.raises(ValueError, match="."):
                next(iterator)
            assert iterator.get_state() == state
        flag.unlink()
        given += [contents(batch) for batch in iterator]
        assert given == wanted


@pytest.mark.parametrize("act", rows(RECORDS))
def test_a_record_that_can_not_be_treated(act, expected, flag):
    wanted, fault = expected["loader"], RECORDS[act]
    with closing(iter(gdx.DeviceLoader(loader(act, flag), chain()))) as iterator:
        given, seen = read_until_it_fails(iterator)
        state = iterator.get_state()
    if act in ("another dtype", "no number", "empty batch"):  # it goes on
        sizes = [len(labels) for labels, _ in given]
        assert [each for place, each in enumerate(given) if place != 2] == wanted[:2] + wanted[3:]
        assert fault.seen == (first_sentence(seen[0]) if seen else f"a batch of {min(sizes)} records")
        return
    assert [first_sentence(error) for error in seen] == [fault.seen]
    assert given == wanted[:2]
    flag.unlink()
    with closing(iter(gdx.DeviceLoader(loader(act, flag), chain()))) as iterator:
        iterator.set_state(state)
        assert [contents(batch) for batch in iterator] == wanted[2:]


def workers():
    return [process for process in multiprocessing.active_children() if "grain-process-prefetch" in process.name]


@pytest.mark.parametrize("kind", ["loader", pytest.param("iter_dataset", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("act", rows(WORKERS, pytest.mark.long))
def test_a_worker_process_that_fails(kind, act, expected, flag, monkeypatch):
    monkeypatch.setattr(waiting, "GRACE", 2.0)
    make, wanted, fault = {"loader": loader, "iter_dataset": iter_dataset}[kind], expected[kind], WORKERS[act]
    name, resumed = act.removesuffix(", resumed"), act.endswith(", resumed")
    device_loader = gdx.DeviceLoader(make(name, flag, workers=1), chain())
    with closing(iter(device_loader)) as iterator:
        if resumed:
            iterator.set_state(iterator.get_state())
        given = []
        if act == "large":
            given.append(contents(next(iterator)))
            time.sleep(2)  # until all that lies between is full, and the worker waits in the middle of a batch
            (worker,) = workers()
            os.kill(worker.pid, signal.SIGKILL)
        rest, seen = read_until_it_fails(iterator)
        given += rest
        (error,) = seen
        assert first_sentence(error) in seen_of(fault)
        assert len(given) <= (COUNT // BATCH - 1 if act == "large" else 2)
        assert given == wanted[: len(given)]
        flag.unlink()
        assert given + [contents(batch) for batch in iterator] == wanted
    assert not workers()


@pytest.mark.long
@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["loader", "iter_dataset"])
@pytest.mark.parametrize("act", ["raises", "is killed", "exits as if all were well"])
def test_a_run_that_a_worker_has_ended_is_resumed(kind, act, expected, flag):
    make, wanted = {"loader": loader, "iter_dataset": iter_dataset}[kind], expected[kind]
    with closing(iter(gdx.DeviceLoader(make(act, flag, workers=1), chain()))) as iterator:
        given, _ = read_until_it_fails(iterator)
        state = iterator.get_state()
    flag.unlink()
    with closing(iter(gdx.DeviceLoader(make(act, flag, workers=1), chain()))) as iterator:
        iterator.set_state(state)
        assert given + [contents(batch) for batch in iterator] == wanted


# Of the state as a dict, what is written instead.
CHANGES = {
    "cut off": lambda state: json.dumps(state, indent=4)[:16],
    "empty": lambda _: "",
    "edited": lambda state: json.dumps({**state, "last_seen_indices": {"0": "15"}}),
    "beyond the end": lambda state: json.dumps({**state, "last_seen_indices": {"0": 99}}),
    "another chain": json.dumps,
    "another sampler": lambda state: json.dumps({**state, "sampler": "other"}),
}


@pytest.mark.parametrize("name", rows(CHECKPOINTS))
def test_a_checkpoint_that_is_not_what_it_was(name, expected, tmp_path):
    make = lambda std=0.1: iter(gdx.DeviceLoader(loader("", tmp_path / "none"), chain(std)))  # noqa: E731
    (tmp_path / "good").mkdir()
    with closing(make()) as iterator:
        next(iterator), next(iterator)
        state = json.loads(iterator.get_state())
        (tmp_path / "good" / "process_0-of-1.json").write_text(json.dumps(state))
    bad = tmp_path / "bad"
    bad.mkdir()
    if name in CHANGES:
        (bad / "process_0-of-1.json").write_text(CHANGES[name](state))
    with closing(make(0.2 if name == "another chain" else 0.1)) as iterator:
        before = iterator.get_state()
        with pytest.raises((ValueError, FileNotFoundError)) as refused:
            checkpoint.restore(bad, iterator)
        seen = first_sentence(refused.value).replace(str(bad / "process_0-of-1.json"), "FILE")
        seen = re.sub("got Expecting.* in", "got … in", seen.replace(str(bad), "FOLDER"))
        assert seen == CHECKPOINTS[name].seen
        assert iterator.get_state() == before
    with closing(make()) as iterator:
        checkpoint.restore(tmp_path / "good", iterator)
        assert [contents(batch) for batch in iterator] == expected["loader"][2:]


def train(folder, *killed):
    command = [sys.executable, str(TESTS / "step_process.py"), str(folder), *killed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (-signal.Signals[killed[1]] if killed else 0), done.stderr


def digests(folder):
    """By step, those of all runs."""
    found = {}
    for line in (folder / "digests").read_text().splitlines():
        step, digest = line.split()
        found.setdefault(int(step), set()).add(digest)
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    "numbers", [("SIGKILL", "SIGTERM"), pytest.param(("SIGTERM", "SIGKILL"), marks=pytest.mark.thorough)]
)
def test_a_program_that_is_killed_in_every_phase_of_a_step_goes_on_to_the_same_bits(numbers, tmp_path):
    train(tmp_path / "whole")
    assert list(PROGRAMS) == ["reading", "augmenting", "saving", "between"]
    for phase, number in zip(["reading", "augmenting", "between", "saving"], numbers * 2, strict=True):
        train(tmp_path / "killed", phase, number)
        shutil.copy(tmp_path / "killed" / "state", tmp_path / f"state {phase}")
    train(tmp_path / "killed")
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    steps = [json.loads((tmp_path / f"state {phase}").read_text())["step"] for phase in PROGRAMS]
    assert len(digests(tmp_path / "whole")) == 24 > max(steps)


@pytest.mark.long
@pytest.mark.parametrize("kind", DISK)
def test_a_full_disk_leaves_the_checkpoints_before_and_the_iterator_as_they_are(kind, tmp_path):
    command = [sys.executable, str(TESTS / "disk_process.py"), str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (seen,) = done.stdout.splitlines()
    assert seen == DISK[kind].seen if kind == "file" else "File too large" in seen
    assert "File too large" in DISK[kind].seen


class Gate(Faulty):
    """A source that waits at a record until it is let through."""

    def __init__(self):
        super().__init__("", "none")
        self.reached, self.open = threading.Event(), threading.Event()

    def __getitem__(self, index):
        if index == BATCH:
            self.reached.set()
            assert self.open.wait(60)
        return super().__getitem__(index)


@pytest.mark.parametrize("buffer_size", [0, 2])
@pytest.mark.parametrize("use", [name for name in USES if name != "interrupt"])
def test_an_iterator_in_the_hands_of_two_threads(use, buffer_size, expected):
    gate = Gate()
    seeded = grain.MapDataset.source(gate).random_map(gdx.SeedRecords(), seed=7).batch(BATCH)
    source = seeded.map(Batches("", "none")).to_iter_dataset(grain.ReadOptions(0, 0))
    wanted = expected["map_dataset"]
    with closing(iter(gdx.DeviceLoader(source, chain(), buffer_size=buffer_size))) as iterator:
        given = [contents(next(iterator))]
        state = iterator.get_state()
        thread = threading.Thread(target=lambda: given.append(contents(next(iterator))), daemon=True)
        thread.start()
        assert gate.reached.wait(60)
        time.sleep(0.1)
        if use == "get_state":
            assert iterator.get_state() == state
            assert USES[use].seen == "the state of the batch before"
        elif use == "close":
            threading.Timer(0.5, gate.open.set).start()
            iterator.close()
            with pytest.raises(ValueError, match="must be open"):
                next(iterator)
        else:
            with pytest.raises(RuntimeError) as refused:
                next(iterator) if use == "next" else iterator.set_state(state)
            assert first_sentence(refused.value) == USES[use].seen
        gate.open.set()
        thread.join(60)
        assert given == wanted[:2]
        if use != "close":
            assert given + [contents(batch) for batch in iterator] == wanted
    with closing(iter(gdx.DeviceLoader(source, chain()))) as iterator:
        iterator.set_state(state)
        assert [contents(batch) for batch in iterator] == wanted[1:]


@pytest.mark.parametrize("buffer_size", [0, 2])
def test_a_wait_that_is_interrupted_loses_no_batch(buffer_size, expected):
    gate = Gate()
    seeded = grain.MapDataset.source(gate).random_map(gdx.SeedRecords(), seed=7).batch(BATCH)
    source = seeded.map(Batches("", "none")).to_iter_dataset(grain.ReadOptions(0, 0))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with closing(iter(gdx.DeviceLoader(source, chain(), buffer_size=buffer_size))) as iterator:
            given = [contents(next(iterator))]
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(KeyboardInterrupt) as interrupted:
                next(iterator)
            assert first_sentence(interrupted.value) == USES["interrupt"].seen
            gate.open.set()
            assert given + [contents(batch) for batch in iterator] == expected["map_dataset"]
    finally:
        signal.signal(signal.SIGALRM, before)
