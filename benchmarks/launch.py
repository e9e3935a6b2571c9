"""Times what `AugmentBatch` takes on small host batches beyond the compiled function that it calls.

    python -m benchmarks.launch [--against FOLDER] [--rounds 9] [--repeats 100]

With `--against`, the folder of another checkout of this package, it times that one's operators too, in turns.
"""

import argparse
import contextlib
import statistics
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import grain_datarax as gdx
from benchmarks import against, batches, timing

SHAPE = (64, 8, 8, 3)


def calls(description: Mapping[str, Any], form: str, shape: list[int], dtype: str) -> dict[str, timing.Call]:
    """`AugmentBatch`, and one function that is compiled from the same and called by hand, both on NumPy arrays."""
    image, seeds = (np.array(field) for field in batches.make_batch(tuple(shape), dtype))
    operators = batches.from_description(description, form)
    augment, batch = gdx.AugmentBatch(operators), {"image": image, "record_seed": seeds}
    by_hand = jax.jit(batches.ours(operators), donate_argnums=0)
    return {"map": timing.call(lambda: augment.map(batch)["image"]), "by hand": timing.call(by_hand, image, seeds)}


def chain(count: int) -> "gdx.Chain":  # which other versions may lack
    patches, noise = gdx.PatchDropout(num_patches=4, patch_size=(2, 2)), gdx.GaussianNoise(std=0.05)
    effects = [patches, noise, gdx.SaltPepperNoise(salt_prob=0.1, pepper_prob=0.1), gdx.PoissonNoise(photons=30.0)]
    return gdx.Chain((2 * effects)[:count], seed=0)


ROWS = [("chain", 1), ("chain", 3), ("chain", 8), ("operators", 1), ("operators", 3)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launch", description=__doc__.partition("\n")[0])
    parser.add_argument("--against", help="the folder of another checkout of this package")
    parser.add_argument("--rounds", type=int, default=9, help="how often versions take turns (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=100, help="calls in each round (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"Batches of {SHAPE}, microseconds for each: map, by hand, and what map takes beyond", flush=True)
    with contextlib.ExitStack() as stack:
        versions = {"this version": stack.enter_context(against.Version(against.THIS))}
        if arguments.against:
            versions["the other's operators"] = stack.enter_context(against.Version(arguments.against))
        for dtype in ("float32", "uint8"):
            for form, count in ROWS:
                runs = {
                    name: version.timed(
                        "benchmarks.launch",
                        chain(count).to_dict(),
                        form if name == "this version" else "operators",
                        SHAPE,
                        dtype,
                        repeats=arguments.repeats,
                    )
                    for name, version in versions.items()
                }
                cells = []
                for name, seconds in against.in_turns(runs, arguments.rounds).items():
                    through, by_hand = (1e6 * statistics.median(seconds[call]) for call in ("map", "by hand"))
                    cells.append(f"{name} {through:.0f}, {by_hand:.0f}, {through - by_hand:.0f}")
                print(f"{dtype}, {form} of {count}: " + "; ".join(cells), flush=True)


if __name__ == "__main__":
    main()
