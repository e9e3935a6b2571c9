"""Public pipelines, rebuilt: killed on their way and started again, they see the same pixels to the bit."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = pathlib.Path(__file__).parent / "pipeline_process.py"


def run(kind, folder, killed_at=None):
    arguments = [kind, str(folder)] + ([str(killed_at)] if killed_at else [])
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, str(PROGRAM), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=False)
    assert done.returncode == (-signal.SIGKILL if killed_at else 0), done.stderr[-3000:]


def kept(folder):
    """The digests of each step, whichever run made them, and the last weights."""
    digests = {}
    for line in (folder / "digests").read_text().splitlines():
        step, digest = line.split()
        digests.setdefault(int(step), set()).add(digest)
    step, _, weights = pickle.loads((folder / "checkpoint").read_bytes())
    assert step == 100
    return {step: digests[step] for step in range(1, 101)}, weights if isinstance(weights, list) else [weights]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["big_vision", "keras", pytest.param("lerobot", marks=pytest.mark.thorough)])
def test_a_run_of_100_steps_that_is_killed_twice_sees_the_same_pixels(kind, tmp_path):
    run(kind, tmp_path / "whole")
    expected, weights = kept(tmp_path / "whole")
    assert len(set.union(*expected.values())) == 100
    for killed_at in (37, 74):
        run(kind, tmp_path / "killed", killed_at)
    run(kind, tmp_path / "killed")
    digests, others = kept(tmp_path / "killed")
    assert digests == expected
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)
