"""What `python -m grain_datarax doctor` prints: what is installed, what JAX runs on, and what in it needs care."""

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import time
from collections.abc import Iterator
from typing import Any

import absl.flags
import grain
import jax
import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.device import DeviceLoader
from grain_datarax.effects.patch_dropout import PatchDropout
from grain_datarax.effects.salt_pepper_noise import SaltPepperNoise
from grain_datarax.random.keys import STREAM_VERSION
from grain_datarax.seeding import SeedRecords
from grain_datarax.traps.program import Program

_NEEDED = ("jax", "jaxlib", "flax", "grain", "numpy")
# What only some things need: the extra of this package, and what it is for.
_OPTIONAL = {
    "matplotlib": ("plot", "preview"),
    "pyyaml": ("yaml", "chains as YAML"),
    "orbax-checkpoint": ("orbax", "checkpoints"),
    "datarax": ("datarax", "its operators"),
}
# The digest of the pixels that two records get on any device, as no logarithm is in them.
_PIXELS = "d3ad502ab34fe4c1"
# What Linux shows of them, and the extra of JAX that drives them.
_ACCELERATORS = {
    pathlib.Path("/dev/nvidia0"): ("an NVIDIA GPU", "cuda13"),
    pathlib.Path("/dev/accel0"): ("a TPU", "tpu"),
}
_SHARED, _ROOMY = pathlib.Path("/dev/shm"), 2**30  # bytes of shared memory


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that needs care: what it is, what to do, and whether without that nothing is right."""

    what: str
    remedy: str
    wrong: bool = False


def diagnose() -> int:
    """Prints it; returns 1 if something is wrong, else 0."""
    for name, value in _environment():
        print(f"{name:<18}{value}")
    findings = [*_of_streams(), *_of_workers(), *_of_devices(), *_of_memory(), *_of_grain()]
    for finding in findings:
        print(f"\n{'WRONG' if finding.wrong else 'Note'}: {finding.what}\n  {finding.remedy}")
    print("\nOf a pipeline of your own: python -m grain_datarax check MODULE:FUNCTION.")
    return int(any(finding.wrong for finding in findings))


def _environment() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield "grain_datarax", f"{importlib.metadata.version('grain-datarax')}, streams of version {STREAM_VERSION}"
    for name in _NEEDED:
        yield name, importlib.metadata.version(name)
    for name, (extra, purpose) in _OPTIONAL.items():
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, f"not installed: pip install 'grain-datarax[{extra}]', for {purpose}"
    kinds = [f"{device.platform} {device.device_kind}" for device in jax.devices()]
    yield "devices", ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    yield "processes", f"{jax.process_count()}"


def _of_streams() -> Iterator[Finding]:
    """Whether records get the pixels here that they get everywhere."""
    found = hashlib.sha256(_pixels(_records(workers=0)).tobytes()).hexdigest()[:16]
    if found != _PIXELS:
        yield Finding(
            f"two records get the pixels {found}, and not {_PIXELS} as everywhere.",
            "Results differ from those of other machines. Run the tests of this package, and report what fails.",
            wrong=True,
        )


def _of_workers() -> Iterator[Finding]:
    """Whether a worker process starts, and gives the same."""
    if not Program.running().flags_parsed:
        yield Finding(
            f"Grain {grain.__version__} asks an absl flag before it starts workers, and fails where none are parsed.",
            "Start programs with workers by absl.app.run(main), or call absl.flags.FLAGS.mark_as_parsed() first"
            " (https://github.com/google/grain/issues/1355).",
        )
        absl.flags.FLAGS.mark_as_parsed()
    began = time.monotonic()
    try:
        same = (_pixels(_records(workers=1)) == _pixels(_records(workers=0))).all()
    except Exception as error:  # whatever keeps it from starting
        yield Finding(f"a worker process fails: {error!r}.", "See what it wrote above.", wrong=True)
        return
    print(f"{'a worker process':<18}starts, and ends, in {time.monotonic() - began:.1f} s")
    if not same:
        yield Finding("a worker process gives other pixels.", "Report it, with what stands above.", wrong=True)


def _of_devices() -> Iterator[Finding]:
    for path, (name, extra) in _ACCELERATORS.items():
        if path.exists() and jax.default_backend() == "cpu":
            yield Finding(
                f"this machine has {name}, and JAX runs on the CPU.",
                f"pip install 'jax[{extra}]', and see whether JAX_PLATFORMS says cpu.",
            )


def _of_memory() -> Iterator[Finding]:
    size = os.statvfs(_SHARED) if _SHARED.is_dir() else None
    if size is not None and (whole := size.f_frsize * size.f_blocks) < _ROOMY:
        yield Finding(
            f"shared memory is {whole / 2**20:.0f} MiB, and Grain's workers send their batches through it.",
            "Give it more: docker run --shm-size=8g, or an emptyDir of medium Memory at /dev/shm.",
        )
    if (
        jax.default_backend() == "cpu"
        and platform.libc_ver()[0] == "glibc"
        and "MALLOC_TRIM_THRESHOLD_" not in os.environ
    ):
        yield Finding(
            "on the CPU glibc gives batches of more than 32 MB back to the system after each use, which takes time.",
            "Set MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 in front of the program.",
        )


def _of_grain() -> Iterator[Finding]:
    """What holds of Grain everywhere."""
    yield Finding(
        "a second pass over a loader or dataset draws the same again, and neighbouring seeds of samplers share draws.",
        "num_epochs=n or .repeat(n) in one pass; SeedRecords(salt=...) where seeds are neighbours.",
    )
    yield Finding(
        "worker processes run the program's file from the top.",
        'Put what runs under `if __name__ == "__main__":`.',
    )
    yield Finding(
        "reading ahead, by default 500 records in 16 threads, costs 0.3 ms a record.",
        "For small records grain.ReadOptions(num_threads=1, prefetch_buffer_size=16).",
    )


def _records(workers: int) -> grain.DataLoader:
    source: Any = [{"image": np.full((8, 8, 3), 16 * place, np.uint8)} for place in range(2)]
    return grain.DataLoader(
        data_source=source,
        sampler=grain.samplers.IndexSampler(2, shuffle=False, num_epochs=1, seed=0),
        operations=[SeedRecords(), grain.transforms.Batch(2)],
        worker_count=workers,
        shard_options=grain.sharding.NoSharding(),
        read_options=grain.ReadOptions(0, 0),
    )


def _pixels(records: grain.DataLoader) -> Any:
    chain = Chain([PatchDropout(num_patches=1, patch_size=(2, 3)), SaltPepperNoise(salt_prob=0.1)], seed=0)
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with DeviceLoader(records, chain, sharding=one) as loader:
        return np.asarray(next(iter(loader))["image"])
