"""What `python -m grain_datarax doctor` says of a machine."""

import subprocess
import sys

import pytest

import grain_datarax as gdx
from grain_datarax import doctor

COMMAND = [sys.executable, "-m", "grain_datarax", "doctor"]


@pytest.mark.long
def test_it_names_what_is_installed_starts_a_worker_and_finds_nothing_wrong():
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=300, check=True)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:12] if " " in line)
    assert lines["grain_datarax"] == f"{gdx.__version__}, streams of version {gdx.STREAM_VERSION}"
    assert "x cpu" in lines["devices"]
    assert "a worker process  starts, and ends, in" in done.stdout
    assert "WRONG" not in done.stdout
    assert "Note: Grain" in done.stdout  # which can't ask its flag in a program that has not parsed any


def test_pixels_that_differ_are_wrong(monkeypatch):
    assert list(doctor._of_streams()) == []
    monkeypatch.setattr(doctor, "_PIXELS", "0")
    (finding,) = doctor._of_streams()
    assert finding.wrong
    assert "two records get the pixels" in finding.what


def test_a_worker_that_does_not_start_is_wrong(monkeypatch):
    def fail(**_):
        raise RuntimeError("Worker process was terminated unexpectedly")

    monkeypatch.setattr(doctor, "_records", fail)
    (finding,) = doctor._of_workers()
    assert finding.wrong
    assert "terminated unexpectedly" in finding.what


@pytest.mark.parametrize(("blocks", "count"), [(16, 1), (2**19, 0)])
def test_little_shared_memory_is_said(monkeypatch, tmp_path, blocks, count):
    class Size:
        f_frsize, f_blocks = 4096, blocks

    monkeypatch.setattr(doctor.os, "statvfs", lambda _: Size)
    monkeypatch.setattr(doctor, "_SHARED", tmp_path)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "8589934592")
    found = list(doctor._of_memory())
    assert len(found) == count
    assert all("shared memory is 0 MiB" in finding.what for finding in found)


def test_an_accelerator_that_jax_does_not_use_is_said(monkeypatch, tmp_path):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(
        doctor, "_ACCELERATORS", {tmp_path / "nvidia0": ("an NVIDIA GPU", "cuda13"), tmp_path / "no": ("a TPU", "tpu")}
    )
    (finding,) = doctor._of_devices()
    assert "has an NVIDIA GPU" in finding.what
    assert "jax[cuda13]" in finding.remedy
