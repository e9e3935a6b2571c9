"""Compiles every effect for accelerators that are not there, and models what it would take: nothing is measured.

    pip install '.[lowered]'
    python -m benchmarks.lowered [--targets h100 v5e v6e] [--target-config FILE] [--json FILE] [--check FILE]

For each effect on a batch of (256, 224, 224, 3): kernels, bytes moved over the ideal (to read and to write the batch
once), scratch memory over the batch, seconds of compiling, and a modelled time over that of copying the batch.

- H100: by kernel, the largest of bytes over bandwidth, and instructions of the disassembled kernel over the lanes that
  take them on the longest way through the kernel; the kernels added up. It knows no launches (about 2 microseconds a
  kernel) and no stalls, and counts loops once.
- TPU: the cycles that its compiler estimates, and the bytes of its cost analysis.

`--check` compares with a file of `--json`, and fails where kernels, bytes or scratch of an effect have grown by more
than a tenth.
"""

import argparse
import functools
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import grain_datarax as gdx
from benchmarks import effects, hlo
from grain_datarax.records import Augmentation

SHAPE = (256, 224, 224, 3)
DTYPES = ("float32", "uint8")
ROWS = ("gaussian", "salt_pepper", "salt_pepper, 0.02", "poisson", "patches 4 x 8x8", "patches 8 x 32x32", "chain")
MANY = ("patches 147 x 16x16", "patches 1000 x 4x4")

# Of an H100 SXM: bytes a second, and by kind of instruction how many of them all its cores take in a second.
_BANDWIDTH = 3.35e12
_CORES, _CLOCK = 132, 1.755e9
_LANES = {"issue": 128, "alu": 64, "special": 16}
_ALU = re.compile(r"IADD|LOP|SHF|ISETP|SEL|LEA|PRMT|IMNMX|VI|FSETP|FSEL|FMNMX|PLOP|I2FP|F2FP|IABS|BMSK|R2P")
_SPECIAL = re.compile(r"MUFU|I2F|F2I|F2F|FRND|POPC|FLO|BREV")
_TPU_CLOCK = {"v5e": 1.5e9, "v6e": 1.75e9}


@functools.cache
def device(target: str, config: str) -> Any:
    """A device to compile for."""
    if target == "h100":
        return topologies.get_topology_desc(platform="cuda", target_config=config, topology="1x1x1").devices[0]
    return topologies.get_topology_desc(platform="tpu", topology_name=f"{target}:2x2").devices[0]


def modelled(target: str, config: str, dtype: str, function: Callable, *, donate: bool) -> dict[str, Any]:
    """What a compiled function of images and seeds would take."""
    sharding = SingleDeviceSharding(device(target, config))
    image = jax.ShapeDtypeStruct(SHAPE, dtype, sharding=sharding)
    seeds = jax.ShapeDtypeStruct((SHAPE[0], 2), np.uint32, sharding=sharding)
    lowered = jax.jit(function, donate_argnums=0 if donate else (), keep_unused=True).lower(image, seeds)
    with tempfile.TemporaryDirectory() as folder:
        dump = {"xla_dump_to": folder, "xla_dump_emitter_re": ".*"} if target == "h100" else {}
        start = time.perf_counter()
        program = lowered.compile(compiler_options=dump)
        result = {"compile_s": time.perf_counter() - start}
        model = _of_gpu(program.as_text(), pathlib.Path(folder)) if target == "h100" else _of_tpu(program, target)
    nbytes = image.size * image.dtype.itemsize
    result["scratch"] = program.memory_analysis().temp_size_in_bytes / nbytes
    return {**result, **model, "bytes": model["bytes"] / (2 * nbytes)}


def _of_tpu(program: Any, target: str) -> dict[str, Any]:
    entry = program.as_text().partition("\nENTRY")[2]
    cycles = [int(found) for found in re.findall(r'"estimated_cycles":"(\d+)"', entry)]
    return {
        "kernels": len(cycles),
        "bytes": program.cost_analysis()["bytes accessed"],
        "us": 1e6 * sum(cycles) / _TPU_CLOCK[target],
    }


def _of_gpu(text: str, folder: pathlib.Path) -> dict[str, Any]:
    launches = _launches(folder)
    assembly = [path for path in folder.glob("*.ptx") if ".version" in path.read_text()]  # JAX 0.10 adds an empty one
    instructions = {name: counts for path in assembly for name, counts in _disassembled(path).items()}
    moved, microseconds = 0, 0.0
    kernels = list(hlo.kernels(text))
    for name, size in kernels:
        moved += size
        seconds = [size / _BANDWIDTH]
        kernel = re.sub(r"[.-]", "_", name)
        for kind, count in instructions.get(kernel, {}).items():
            seconds.append(count * launches.get(kernel, 0) / (_LANES[kind] * _CORES * _CLOCK))
        microseconds += 1e6 * max(seconds)
    return {"kernels": len(kernels), "bytes": moved, "us": microseconds}


def _launches(folder: pathlib.Path) -> dict[str, int]:
    """How many threads run each kernel."""
    found = {}
    for path in folder.glob("*thunk_sequence.txt"):
        for line in path.read_text().splitlines():
            if launch := re.search(r"([\w.-]+) grid: \[([\d, ]+)\] threads: \[([\d, ]+)\]", line):
                sizes = [int(size) for size in f"{launch[2]}, {launch[3]}".split(", ")]
                found[re.sub(r"[.-]", "_", launch[1])] = int(np.prod(sizes))
    return found


def _disassembled(ptx: pathlib.Path) -> dict[str, dict[str, int]]:
    """By kernel: how many instructions of each kind it has."""
    cubin = ptx.with_suffix(".cubin")
    subprocess.run([_tool("ptxas"), "-arch=sm_90a", str(ptx), "-o", str(cubin)], check=True)
    text = subprocess.run([_tool("nvdisasm"), "-c", str(cubin)], check=True, capture_output=True, text=True).stdout
    counts: dict[str, dict[str, int]] = {}
    for section in re.split(r"\.section\s+\.text\.", text)[1:]:
        name = re.match(r"[\w.$]+", section)[0]
        counts[name] = dict(zip(_LANES, _longest_way(section), strict=True))
    return counts


def _longest_way(assembly: str) -> np.ndarray:
    """The most instructions of each kind of `_LANES` that one thread can meet, no loop taken twice."""
    nowhere = np.full(len(_LANES), -np.inf)
    here, most, arriving = np.zeros(len(_LANES)), np.zeros(len(_LANES)), {}
    for line in assembly.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            here = np.maximum(here, arriving.get(label[1], nowhere))
        elif found := re.search(r"/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?([A-Z][\w.]*)(.*)", line):
            predicate, opcode, operands = found.groups()
            if opcode.startswith("BRA"):
                target = re.search(r"\.L_\w+", operands)[0]
                arriving[target] = np.maximum(here, arriving.get(target, nowhere))
            elif opcode != "NOP":
                alu = bool(_ALU.match(opcode))
                here = here + np.array([1, alu, bool(_SPECIAL.match(opcode)) and not alu])
                most = np.maximum(most, here)
            if opcode.startswith(("BRA", "EXIT", "RET")) and not predicate:
                here = nowhere
    return most


@functools.cache
def _tool(name: str) -> str:
    """A program out of the wheels, of the same version as each other."""
    for folder in importlib.util.find_spec("nvidia").submodule_search_locations:
        for path in sorted(pathlib.Path(folder).glob(f"*/bin/{name}")):
            path.chmod(0o755)
            return str(path)
    raise FileNotFoundError(f"`{name}` must be among the NVIDIA wheels: got none. Run pip install '.[lowered]'.")


def _copy(image: jax.Array, seeds: jax.Array) -> jax.Array:
    del seeds
    return image + jnp.ones((), image.dtype)  # which moves the same bytes; a plain copy is no kernel everywhere


def _augment(chain: gdx.Chain, *, in_place: bool) -> Callable:
    augmentation = Augmentation.of(chain, in_place=in_place)
    return lambda image, seeds: augmentation.augment({"image": image}, seeds)[0]["image"]


def measure(targets: Sequence[str], config: str) -> list[dict[str, Any]]:
    rows = []
    for target in targets:
        for dtype in DTYPES:
            copying = modelled(target, config, dtype, _copy, donate=False)["us"]
            for name in (*ROWS, *MANY):
                for donate in (False, True):
                    row = {"target": target, "dtype": dtype, "effect": name, "donated": donate}
                    function = _augment(effects.EFFECTS[name], in_place=donate)
                    row |= modelled(target, config, dtype, function, donate=donate)
                    rows.append({**row, "copies": row["us"] / copying})
                    print(table_row(rows[-1]), flush=True)
    return rows


COLUMNS = (
    "target",
    "batch",
    "effect",
    "kernels",
    "bytes over ideal",
    "scratch in batches",
    "compile s",
    "us",
    "copies",
)
HEADER = "| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|"


def table_row(row: dict[str, Any]) -> str:
    cells = [row["target"], row["dtype"] + ", donated" * row["donated"], row["effect"], str(row["kernels"])]
    cells += [f"{row['bytes']:.2f}", f"{row['scratch']:.3f}", f"{row['compile_s']:.1f}", f"{row['us']:.0f}"]
    return "| " + " | ".join([*cells, f"{row['copies']:.2f}"]) + " |"


def grown(rows: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]) -> list[str]:
    """What takes more than a tenth more than it took before, in words."""
    result = []
    earlier = {_key(row): row for row in before}
    for row in rows:
        for what in ("kernels", "bytes", "scratch"):
            # A hundredth of a batch is nothing.
            if _key(row) in earlier and row[what] > 1.1 * earlier[_key(row)][what] + 0.01:
                result.append(f"{_key(row)}: {what} {row[what]:.3f}, before {earlier[_key(row)][what]:.3f}")
    return result


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["target"], row["dtype"], row["effect"], row["donated"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lowered", description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", nargs="+", choices=("h100", "v5e", "v6e"), default=("h100", "v5e", "v6e"))
    config = pathlib.Path(__file__).with_name("h100.txtpb")
    parser.add_argument("--target-config", type=pathlib.Path, default=config, help="of the GPU, as XLA writes it")
    parser.add_argument("--json", help="the file to write")
    parser.add_argument("--check", help="a file of --json that nothing may have grown against")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # nothing runs
    print(f"jax {jax.__version__}", HEADER, sep="\n\n", flush=True)
    rows = measure(arguments.targets, arguments.target_config.read_text())
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps({"jax": jax.__version__, "rows": rows}, indent=1) + "\n")
    if arguments.check and (worse := grown(rows, json.loads(pathlib.Path(arguments.check).read_text())["rows"])):
        sys.exit("\n".join(worse))


if __name__ == "__main__":
    main()
