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
    # The other way that stands below it.
    operations = [*variables["operations"], gdx.AugmentBatch(variables["chain"])]
    loader = grain.DataLoader(
        data_source=variables["source"], sampler=variables["sampler"], operations=operations, worker_count=0
    )
    *_, last = loader
    np.testing.assert_array_equal(last["image"], variables["batch"]["image"])
    _, recipe = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(recipe, variables)
    seeded = {"image": variables["images"][:4], "record_seed": np.arange(8, dtype=np.uint32).reshape(4, 2)}
    assert gdx.augment(variables["chain"], seeded)["image"].dtype == "bfloat16"


def test_every_effect_is_in_the_table_and_every_link_leads_somewhere():
    effects = {
        name for name in gdx.__all__ if isinstance(each := getattr(gdx, name), type) and issubclass(each, gdx.Effect)
    }
    first_column = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    assert {name for cell in first_column for name in re.findall(r"`(\w+)`", cell)} == effects - {"Effect"}
    links = [link for link in re.findall(r"\]\((.*?)\)", README) if not link.startswith("http")]
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


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


@pytest.mark.thorough
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
