"""The program of users that the type checkers read beside the package."""

import pathlib
import subprocess
import sys

import pytest


@pytest.mark.thorough
@pytest.mark.long
def test_the_typed_program_runs():
    program = pathlib.Path(__file__).with_name("typed_program.py")
    subprocess.run([sys.executable, "-W", "error", str(program)], check=True, timeout=300)
