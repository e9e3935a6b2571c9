"""Installs the wheel with the oldest, the newest and the coming versions of what it needs, and tries it.

    python tools/install_matrix.py [PYTHON...]

For each Python (by default all of pyenv's, and those on the PATH, from 3.11) and each set of versions it makes an
environment, installs the wheel alone, runs `python -m grain_datarax doctor` and a program without extras, and prints a
row of a table: seconds to install, what it takes on disk, and what importing takes beyond jax, flax and grain.
"""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
PROGRAM = """
import grain, numpy as np
import grain_datarax as gdx

effects = [gdx.PatchDropout(patch_size=(4, 4)), gdx.GaussianNoise(), gdx.PoissonNoise(photons=30), gdx.HorizontalFlip()]
source = grain.MapDataset.source([{"image": np.full((16, 16, 3), 99, np.uint8)}] * 32)
seeded = source.random_map(gdx.SeedRecords(), seed=0)
with gdx.DeviceLoader(seeded.batch(8), gdx.Chain(effects, seed=0)) as loader:
    assert [batch["image"].shape for batch in loader] == [(8, 16, 16, 3)] * 4
"""
TIMED = """
import time, jax, flax.nnx, grain
began = time.perf_counter()
import grain_datarax as gdx
gdx.DeviceLoader, gdx.Chain, gdx.check_pipeline
print(time.perf_counter() - began)
"""


def interpreters() -> list[str]:
    """One for each version that there is."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    found = []
    for version in VERSIONS:
        own = sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))
        found += own[-1:] or filter(None, [shutil.which(f"python{version}")])  # pyenv's shims may have none behind them
    return found


def needed(wheel: pathlib.Path) -> list[str]:
    """What the wheel needs without extras, such as `jax>=0.10.2`."""
    (metadata,) = importlib.metadata.distributions(path=[str(wheel)])
    return [each for each in metadata.requires or [] if "extra ==" not in each]


def run(*command: str, folder: pathlib.Path) -> str:
    return subprocess.run(command, check=True, cwd=folder, text=True, stdout=subprocess.PIPE).stdout


def row(python: str, which: str, wheel: pathlib.Path, folder: pathlib.Path) -> str:
    """Installs and tries it."""
    run(python, "-m", "venv", str(folder), folder=folder.parent)
    own = str(folder / "bin" / "python")
    extra = {"oldest": [each.replace(">=", "==") for each in needed(wheel)], "newest": [], "coming": ["--pre"]}[which]
    began = time.monotonic()
    run(own, "-m", "pip", "install", "--quiet", str(wheel), *extra, folder=folder)
    took = time.monotonic() - began
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    versions = run(own, "-m", "grain_datarax", "doctor", folder=folder)
    (folder / "program.py").write_text(PROGRAM)
    run(own, "-W", "error::UserWarning", "program.py", folder=folder)
    imports = min(float(run(own, "-c", TIMED, folder=folder)) for _ in range(3))
    shown = [
        re.findall(rf"^{name} +([^\s,]+)", versions, re.MULTILINE)[0]
        for name in ("python", "jax", "flax", "grain", "numpy")
    ]
    return f"| {' | '.join([which, *shown, f'{took:.0f} s', f'{size / 1e6:.0f} MB', f'{imports:.2f} s'])} |"


def main() -> None:
    pythons = sys.argv[1:] or interpreters()
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        run(
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, str(ROOT), folder=folder
        )
        (wheel,) = folder.glob("*.whl")
        print(f"{wheel.name}: {wheel.stat().st_size / 1e3:.0f} kB\n")
        print("| versions | python | jax | flax | grain | numpy | install | size | import |")
        print(f"|{' --- |' * 9}")
        for number, python in enumerate(pythons):
            for which in ("oldest", "newest", "coming"):
                print(row(python, which, wheel, folder / f"{number}{which}"), flush=True)
                shutil.rmtree(folder / f"{number}{which}")


if __name__ == "__main__":
    main()
