"""Times what recipes add: model input out of the chain itself, and ranges and probabilities for every effect.

python -m benchmarks.recipes [--repeats 15]
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import grain_datarax as gdx
from benchmarks import batches, timing

SHAPE = (64, 224, 224, 3)
SMALL = (64, 8, 8, 3)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EFFECTS = (
    gdx.PatchDropout(num_patches=4, patch_size=(8, 8)),
    gdx.GaussianNoise(std=0.1),
    gdx.SaltPepperNoise(salt_prob=0.1, pepper_prob=0.1),
)


def into_model_input(repeats: int) -> None:
    image, seeds = batches.make_batch(SHAPE, "uint8")
    last = gdx.Normalize(mean=MEAN, std=STD, dtype="bfloat16")
    whole = timing.compiled(batches.ours(gdx.Chain([*EFFECTS, last], seed=0)), image, seeds)
    augment = jax.jit(batches.ours(gdx.Chain(EFFECTS, seed=0)))
    convert = jax.jit(lambda image: image.astype(jnp.float32) / 255)
    normalize = jax.jit(lambda image: ((image - jnp.array(MEAN)) / jnp.array(STD)).astype(jnp.bfloat16))
    apart = timing.call(lambda: normalize(augment(convert(image), seeds)))
    seconds = timing.medians({"whole": timing.call(whole.run, image, seeds), "apart": apart}, repeats)
    print(f"{SHAPE} uint8, patches, gaussian, salt and pepper, normalised to bfloat16:")
    print(f"  in the chain {1e3 * seconds['whole']:.1f} ms, in float32 and apart {1e3 * seconds['apart']:.1f} ms:")
    print(f"  {seconds['whole'] / seconds['apart']:.2f} of it; scratch {whole.scratch / (2 * image.size):.2f} outputs")


def launching(repeats: int) -> None:
    plain = [*EFFECTS, gdx.PoissonNoise(photons=30.0)]
    ranged = [
        gdx.PatchDropout(num_patches=(1, 4), patch_size=((1, 2), (1, 2)), p=0.5),
        gdx.GaussianNoise(std=(0.05, 0.1), p=0.5),
        gdx.SaltPepperNoise(salt_prob=(0.05, 0.1), pepper_prob=(0.05, 0.1), p=0.5),
        gdx.PoissonNoise(photons=(20.0, 40.0), p=0.5),
    ]
    image, seeds = (np.array(field) for field in batches.make_batch(SMALL, "uint8"))
    batch = {"image": image, "record_seed": seeds}
    effects = {"plain": plain, "ranged": ranged}
    transforms = {name: gdx.AugmentBatch(gdx.Chain(2 * links, seed=0)) for name, links in effects.items()}

    seconds: dict[str, list[float]] = {name: [] for name in transforms}
    for turn in range(repeats):
        for name, transform in transforms.items():
            start = time.perf_counter()
            launched = transform.map(batch)["image"]  # which does not wait for the device
            elapsed = time.perf_counter() - start
            jax.block_until_ready(launched)
            if turn:
                seconds[name].append(elapsed)
    plain, ranged = (1e6 * statistics.median(each) for each in seconds.values())
    print(f"{SMALL} uint8, until map returns: eight plain effects {plain:.0f} us, with ranges and p {ranged:.0f} us:")
    print(f"  {ranged / plain:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15, help="calls of each, of which the median counts")
    arguments = parser.parse_args()
    into_model_input(arguments.repeats)
    launching(20 * arguments.repeats)


if __name__ == "__main__":
    main()
