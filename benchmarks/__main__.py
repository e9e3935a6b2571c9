"""Times every effect against copying the batch, plain `jax.random` and other libraries; prints a table, writes JSON.

    python -m benchmarks [--repeats 9] [--batches 64] [--json benchmarks.json] [--against FOLDER]

With `--against`, the folder of another checkout of this package, it times our rows beside that one's operators instead.

Times are medians, taken in turns within one run. On a busy machine they mean little; their ratios mean more. Before
JAX 0.12 plain `jax.random.poisson` alone takes minutes. Other libraries join where they are installed: pip install
'.[bench]'.
"""

import argparse
import datetime
import json
import pathlib
import platform
from typing import Any

import jax
import numpy as np

from benchmarks import against, batches, effects, peers, timing


def measure(repeats: int, count: int) -> list[dict]:
    rows = []
    for shape, dtype in batches.batches_of(count):
        batch = batches.make_batch(shape, dtype)
        for name in effects.rows(shape):
            ours, calls = calls_of(effects.augmentation(name), batch)
            calls = {"copy": timing.call(batches.copy, batch[0]), **calls}
            if scattered := effects.scattered(name):
                calls |= {how.replace("ours", "scatter"): call for how, call in calls_of(scattered, batch)[1].items()}
            others = peers.calls(name, np.asarray(batch[0]))
            for sampler, function in effects.samplers(name).items():
                others[sampler] = timing.call(timing.compiled(function, *batch).run, *batch)
            # Apart: a call that takes gigabytes makes the copies after it slow.
            medians = timing.medians(calls, repeats) | timing.medians(others, repeats)
            row = {"batch": f"{shape} {dtype}", "effect": name, "compile_s": ours.seconds}
            row["scratch_batches"] = ours.scratch / batch[0].nbytes
            rows.append({**row, "ms": milliseconds(medians)})
            print(table_row(rows[-1]), flush=True)
    return rows


def bandwidth(count: int, repeats: int) -> float:
    """Bytes a second that copying a batch reads and writes."""
    image, _ = batches.make_batch((count, 224, 224, 3), "float32")
    (seconds,) = timing.medians({"copy": timing.call(batches.copy, image)}, repeats).values()
    return 2 * image.nbytes / seconds


def calls_of(operators: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[timing.Compiled, dict[str, timing.Call]]:
    function = batches.ours(operators)
    ours = timing.compiled(function, *batch)
    return ours, {"ours": timing.call(ours.run, *batch), "ours, donated": timing.donating_call(function, *batch)}


def measure_growth(repeats: int) -> dict[str, dict[int, float]]:
    """Milliseconds by the number of records, and by the number of patches."""
    growth = {}
    sizes = {size: batches.make_batch((size, 224, 224, 3), "float32") for size in (1, 4, 16, 64, 128)}
    for name in ("gaussian", "salt_pepper", "poisson"):
        run = jax.jit(batches.ours(effects.EFFECTS[name]))
        growth[f"{name}, records"] = {size: timing.call(run, *batch) for size, batch in sizes.items()}
    growth["patches of 16 x 16, donated"] = {
        count: timing.donating_call(batches.ours(effects.chain(effects.patches(count, 16))), *sizes[64])
        for count in (1, 4, 16, 64)
    }
    return {name: milliseconds(timing.medians(calls, repeats)) for name, calls in growth.items()}


def milliseconds(seconds: dict) -> dict:
    return {name: 1e3 * median for name, median in seconds.items()}


COLUMNS = ("batch", "effect", "ms", "copies", "copies, donated", "jax.random / ours", "scatter / ours, and donated")
COLUMNS += ("scratch in batches", "compile s", "others / ours")
HEADER = "| " + " | ".join(COLUMNS) + " |\n" + "| --- " * len(COLUMNS) + "|"


def table_row(row: dict) -> str:
    times = dict(row["ms"])
    copy, ours, donated = (times.pop(name) for name in ("copy", "ours", "ours, donated"))
    plain = f"{times.pop('jax.random') / ours:.1f}" if "jax.random" in times else ""
    scatter = ""
    if "scatter" in times:
        scatter = f"{times.pop('scatter') / ours:.2f}, {times.pop('scatter, donated') / donated:.2f}"
    others = ", ".join(f"{peer} {ms / ours:.1f}" for peer, ms in times.items())
    cells = [row["batch"], row["effect"], f"{ours:.2f}", f"{ours / copy:.2f}", f"{donated / copy:.3f}", plain, scatter]
    cells += [f"{row['scratch_batches']:.2f}", f"{row['compile_s']:.2f}", others]
    return "| " + " | ".join(cells) + " |"


def add_chain_of_apart(rows: list[dict]) -> None:
    """Adds to the row of the chain its time over those of its parts, one by one."""
    times = {(row["batch"], row["effect"]): row["ms"]["ours"] for row in rows}
    for row in rows:
        if row["effect"] == "chain":
            row["chain_of_apart"] = row["ms"]["ours"] / sum(times[row["batch"], part] for part in effects.CHAINED)
            print(f"\n{row['batch']}: the chain takes {row['chain_of_apart']:.2f} of its parts one by one.")


def compare(folder: str, rounds: int) -> None:
    """Prints for each row this version's time over that of the version in the folder: below 1 it is faster."""
    print("This version's time over the other's, medians of rounds in turns\n")
    print(
        "| batch | effect | " + " | ".join(batches.WAYS) + " |\n" + "| --- " * (len(batches.WAYS) + 2) + "|", flush=True
    )
    with against.Version(against.THIS) as ours, against.Version(folder) as other:
        for shape, dtype in batches.batches_of():
            for name in effects.rows(shape):
                forms = {ours: effects.form(name), other: "operators"}  # the other may know no chains
                description = effects.EFFECTS[name].to_dict()
                runs = {
                    version: version.timed("benchmarks.batches", description, form, shape, dtype, repeats=3)
                    for version, form in forms.items()
                }
                seconds = against.in_turns(runs, rounds)
                ratios = (against.ratio(seconds[ours][way], seconds[other][way]) for way in batches.WAYS)
                cells = [f"{shape} {dtype}", name, *(f"{ratio:.3f}" for ratio in ratios)]
                print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9, help="how often each call is timed (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=64, help="of how many large images (default: %(default)s)")
    parser.add_argument("--json", default="benchmarks.json", help="the file to write (default: %(default)s)")
    parser.add_argument("--against", help="the folder of another checkout of this package, to be compared with")
    arguments = parser.parse_args()
    if arguments.against:
        compare(arguments.against, arguments.repeats)
        return
    device = jax.devices()[0]
    environment = {
        "date": datetime.date.today().isoformat(),
        "device": f"{device.device_kind} ({device.platform})",
        "python": platform.python_version(),
        **peers.versions(),
    }
    print(", ".join(f"{name} {value}" for name, value in environment.items()))
    print(f"Copying: {bandwidth(arguments.batches, arguments.repeats) / 1e9:.1f} GB/s", HEADER, sep="\n\n", flush=True)
    rows = measure(arguments.repeats, arguments.batches)
    add_chain_of_apart(rows)
    growth = measure_growth(arguments.repeats)
    for name, times in growth.items():
        print(f"\n{name}: " + ", ".join(f"{size}: {ms:.2f} ms" for size, ms in times.items()))
    result = {"environment": environment, "effects": rows, "growth_ms": growth}
    pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
