"""Why did the loss spike? Finds the worst step of a training, and the record, its draws and its pixels behind it.

Run:     python examples/replay.py
Takes:   about 20 seconds on two CPU cores; nothing is downloaded.
Prints:  the step, the record and what it drew, and that its pixels, made again from its seed, are those of the batch.
"""

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from sklearn.datasets import load_digits

import grain_datarax as gdx

CHAIN = gdx.Chain(
    [
        gdx.GaussianNoise(std=(0.0, 0.2)),
        # Rarely, nearly everything is covered: no strength that a recipe should have.
        gdx.PatchDropout(num_patches=1, patch_size=((0.5, 1.0), (0.9, 1.0)), p=0.02, name="patches"),
    ],
    seed=0,
    draws="draws",
)


class Digits:
    """scikit-learn's digits, `uint8 (8, 8, 1)`, with their labels and numbers."""

    def __init__(self) -> None:
        self.data = load_digits()

    def __len__(self) -> int:
        return len(self.data.target)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = (self.data.images[index][..., None] * (255 / 16)).round().astype(np.uint8)
        return {"image": image, "label": self.data.target[index], "number": np.int64(index)}

    def __repr__(self) -> str:
        return "Digits()"


@jax.jit
def train_step(weights, state, batch):
    def losses(weights):
        pixels = batch["image"].reshape(len(batch["image"]), -1) / 255
        return optax.softmax_cross_entropy_with_integer_labels(pixels @ weights, batch["label"])

    gradients, by_record = jax.grad(lambda weights: (losses(weights).mean(), losses(weights)), has_aux=True)(weights)
    updates, state = OPTIMIZER.update(gradients, state)
    return optax.apply_updates(weights, updates), state, by_record


OPTIMIZER = optax.adam(3e-3)


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    digits = Digits()
    dataset = grain.MapDataset.source(digits).seed(1).shuffle().repeat(8).random_map(gdx.SeedRecords())
    batches = dataset.batch(64, drop_remainder=True).to_iter_dataset()
    weights = jnp.zeros((64, 10))
    state = OPTIMIZER.init(weights)
    worst: tuple[float, int, dict] = (0.0, 0, {})
    with gdx.DeviceLoader(batches, CHAIN, keep_seed=True) as loader:
        for step, batch in enumerate(loader):
            weights, state, losses = train_step(weights, state, batch)
            mean = float(losses.mean())
            if step >= 100 and mean > worst[0]:  # behind the steps in which everything is wrong
                worst = mean, step, jax.tree.map(np.asarray, {**batch, "loss": losses})
    mean, step, batch = worst
    row = int(batch["loss"].argmax())
    record = jax.tree.map(lambda leaf: leaf[row], batch)
    number, seed = int(record["number"]), record["record_seed"]
    print(
        f"step {step} had a loss of {mean:.2f}, its record {number}, a {record['label']}, one of {record['loss']:.1f};"
    )
    print(f"with the seed {seed.tolist()} it drew")
    for name, told in gdx.draws(CHAIN, seed, (8, 8, 1)).items():
        print(f"  {name}: " + ", ".join(f"{what} {value.tolist()}" for what, value in told.items()))
    again = gdx.replay(digits[number], seed, CHAIN)
    np.testing.assert_array_equal(again["image"], record["image"])
    print("made again from its seed, its pixels are those of the batch:")
    for before, after in zip(digits[number]["image"][..., 0], again["image"][..., 0], strict=True):
        print("  " + " ".join("".join(" .:-=+*#%@"[level // 26] * 2 for level in row) for row in (before, after)))


if __name__ == "__main__":
    main()
