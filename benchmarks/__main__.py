"""Times every effect against copying the batch, plain `jax.random` and other libraries; prints a table, writes JSON.

    python -m benchmarks [--repeats 9] [--json benchmarks.json]

Times are medians, taken in turns within one run. On a busy machine they mean little; their ratios mean more. Plain
`jax.random.poisson` alone takes minutes. Other libraries join where they are installed: pip install '.[bench]'.
"""

import argparse
import datetime
import json
import pathlib
import platform

import jax
import numpy as np

from benchmarks import effects, peers, timing

BATCHES = [((64, 224, 224, 3), "float32"), ((64, 224, 224, 3), "uint8"), ((256, 32, 32, 3), "float32")]


def measure(repeats: int) -> list[dict]:
    rows = []
    for shape, dtype in BATCHES:
        batch = effects.make_batch(shape, dtype)
        for name, operators in effects.EFFECTS.items():
            ours = timing.compiled(effects.ours(operators), *batch)
            calls = {"copy": timing.call(effects.copy, batch[0]), "ours": timing.call(ours.run, *batch)}
            calls["ours, donated"] = timing.donating_call(effects.ours(operators), *batch)
            others = peers.calls(name, np.asarray(batch[0]))
            if name in effects.PLAIN:
                others["jax.random"] = timing.call(timing.compiled(effects.plain(name), *batch).run, *batch)
            # Apart: a call that takes gigabytes makes the copies after it slow.
            medians = timing.medians(calls, repeats) | timing.medians(others, repeats)
            row = {"batch": f"{shape} {dtype}", "effect": name, "compile_s": ours.seconds}
            row["scratch_batches"] = ours.scratch / batch[0].nbytes
            rows.append({**row, "ms": {peer: 1e3 * seconds for peer, seconds in medians.items()}})
            print(table_row(rows[-1]), flush=True)
    return rows


def measure_growth(repeats: int) -> dict[str, dict[int, float]]:
    """Milliseconds by the number of records, and by the number of patches."""
    growth = {}
    for name in ("gaussian", "salt_pepper", "poisson"):
        batches = {size: effects.make_batch((size, 224, 224, 3), "float32") for size in (1, 4, 16, 64, 128)}
        run = jax.jit(effects.ours(effects.EFFECTS[name]))
        growth[f"{name}, records"] = timing.medians(
            {size: timing.call(run, *batch) for size, batch in batches.items()}, repeats
        )
    batch = effects.make_batch((64, 224, 224, 3), "float32")
    growth["patches of 16 x 16, donated"] = timing.medians(
        {
            count: timing.donating_call(effects.ours([effects.patches(num_patches=count, patch_size=(16, 16))]), *batch)
            for count in (1, 4, 16, 64)
        },
        repeats,
    )
    return {name: {size: 1e3 * seconds for size, seconds in times.items()} for name, times in growth.items()}


COLUMNS = ("batch", "effect", "ms", "copies", "copies, donated", "jax.random / ours", "scratch in batches", "compile s")
HEADER = "| " + " | ".join([*COLUMNS, "others / ours"]) + " |\n" + "| --- " * (len(COLUMNS) + 1) + "|"


def table_row(row: dict) -> str:
    times = dict(row["ms"])
    copy, ours, donated = (times.pop(name) for name in ("copy", "ours", "ours, donated"))
    plain = f"{times.pop('jax.random') / ours:.1f}" if "jax.random" in times else ""
    others = ", ".join(f"{peer} {ms / ours:.1f}" for peer, ms in times.items())
    cells = [row["batch"], row["effect"], f"{ours:.2f}", f"{ours / copy:.2f}", f"{donated / copy:.3f}", plain]
    cells += [f"{row['scratch_batches']:.2f}", f"{row['compile_s']:.2f}", others]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=9, help="how often each call is timed (default: %(default)s)")
    parser.add_argument("--json", default="benchmarks.json", help="the file to write (default: %(default)s)")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    environment = {
        "date": datetime.date.today().isoformat(),
        "device": f"{device.device_kind} ({device.platform})",
        "python": platform.python_version(),
        **peers.versions(),
    }
    print(", ".join(f"{name} {value}" for name, value in environment.items()), HEADER, sep="\n\n", flush=True)
    rows = measure(arguments.repeats)
    for row in rows:
        if row["effect"] == "chain":
            apart = [
                other["ms"]["ours"]
                for other in rows
                if other["batch"] == row["batch"] and other["effect"] in effects.CHAINED
            ]
            row["chain_of_apart"] = row["ms"]["ours"] / sum(apart)
            print(f"\n{row['batch']}: the chain takes {row['chain_of_apart']:.2f} of its parts one by one.")
    growth = measure_growth(arguments.repeats)
    for name, times in growth.items():
        print(f"\n{name}: " + ", ".join(f"{size}: {ms:.2f} ms" for size, ms in times.items()))
    result = {"environment": environment, "effects": rows, "growth_ms": growth}
    pathlib.Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
