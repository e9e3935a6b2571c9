"""The README's code runs, and so does the quick start."""

import pathlib
import re
import subprocess
import sys

import grain
import numpy as np
import pytest

import grain_datarax as gdx

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_first_code_of_the_readme_is_short_and_all_of_it_runs(capsys):
    before, code = re.match(r"(.*?)```python\n(.*?)```", README, re.DOTALL).groups()
    assert len(code.splitlines()) <= 20
    assert len(before.splitlines()) <= 10
    variables = {}
    exec(code, variables)
    assert capsys.readouterr().out.splitlines() == ["(256, 64, 64, 3) <class 'jaxlib._jax.ArrayImpl'>"] * 8
    first = variables["batch"]["image"]
    _, second, third, recipe, fourth = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(second, variables)
    assert variables["batch"]["image"].shape == first.shape
    assert (variables["batch"]["image"] == first).all()
    assert b'"batches": 8' in variables["state"]
    assert [sum(each.values()) for each in variables["counts"].values()] == [2048] * 2
    skipped = variables["counts"]["GaussianNoise"]["skipped"]
    assert abs(skipped - 1024) < 5 * 22.7  # of 2048 with p=0.5: five standard deviations
    exec(third, variables)
    assert variables["optimizer"].step == 8
    assert 0 < variables["loss"] < 1024**2
    exec(recipe, variables)
    seeded = {"image": variables["images"][:4], "record_seed": np.arange(8, dtype=np.uint32).reshape(4, 2)}
    assert gdx.augment(variables["chain"], seeded)["image"].dtype == "bfloat16"
    exec(fourth, variables)
    chain = gdx.Chain([variables["Contrast"](most=1.0), gdx.GaussianNoise()], seed=0)
    records = grain.MapDataset.source(variables["source"][:8])
    by_record = records.random_map(gdx.AugmentRecord(chain), seed=7)
    by_batch = records.random_map(gdx.SeedRecords(), seed=7).batch(8).map(gdx.AugmentBatch(chain))[0]
    np.testing.assert_array_equal([record["image"] for record in by_record], by_batch["image"])
    assert np.std(by_batch["image"]) < 0.8 * np.std(variables["images"])


def test_there_are_two_commands_each_complete():
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert len(commands) == 2
    for command in commands:
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


@pytest.mark.long
def test_the_example_of_several_processes_shows_what_it_says():
    command = [sys.executable, str(ROOT / "examples" / "multihost.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "1 and 4 processes augmented 40 global batches of 32 records to the same pixels." in done.stdout
    assert "4 processes with 2 devices: batches of (32, 32, 32, 3) on 8 devices" in done.stdout


@pytest.mark.long
def test_the_example_of_a_spike_finds_what_covered_the_record():
    command = [sys.executable, str(ROOT / "examples" / "replay.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "patches: applied True, positions [[" in done.stdout
    assert "made again from its seed, its pixels are those of the batch" in done.stdout


@pytest.mark.long
def test_the_quick_start_shows_what_it_says_without_a_warning(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "quickstart.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=True)
    assert "bit for bit as the uninterrupted run did" in done.stdout
    assert "remaining 12 batches" in done.stdout
    assert not re.search("warning|traceback|error", done.stderr, re.IGNORECASE)
    assert (tmp_path / "quickstart.png").stat().st_size > 100_000


def test_importing_starts_no_backend_and_needs_no_flax():
    code = """
import sys
import grain_datarax as gdx
from jax._src import xla_bridge
gdx.SeedRecords
assert "flax" not in sys.modules
for name in gdx.__all__:
    getattr(gdx, name)
assert not xla_bridge._backends
assert "AugmentBatch" in dir(gdx)
try:
    gdx.Missing
except AttributeError as error:
    assert "has no attribute 'Missing'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
