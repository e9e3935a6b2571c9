"""Three pipelines as people run them, as a program: `pipeline_process.py KIND FOLDER [KILLED_AT]`.

It trains for `STEPS` steps, writes a checkpoint every ten, notes a digest of each batch's pixels, and goes on from the
checkpoint in its folder. With KILLED_AT it kills itself at that step.
"""

import hashlib
import os
import pathlib
import pickle
import signal
import sys

import absl.flags
import grain
import jax
import jax.numpy as jnp
import numpy as np

import grain_datarax as gdx

STEPS, EVERY = 100, 10


class Run:
    """What is kept of a training between steps, in a folder."""

    def __init__(self, folder, killed_at):
        self.folder, self.killed_at = pathlib.Path(folder), killed_at
        self.folder.mkdir(exist_ok=True)
        kept = self.folder / "checkpoint"
        self.step, self.state, self.weights = pickle.loads(kept.read_bytes()) if kept.exists() else (0, None, None)

    def note(self, step, image):
        """A digest of a batch's pixels; here it is killed, where it is to be."""
        digest = hashlib.sha256(np.ascontiguousarray(jax.device_get(image)).tobytes()).hexdigest()
        with open(self.folder / "digests", "a") as file:
            file.write(f"{step} {digest}\n")
        if step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def keep(self, step, state, weights):
        """A checkpoint, every ten steps."""
        if step % EVERY == 0:
            (self.folder / "unfinished").write_bytes(pickle.dumps((step, state, jax.device_get(weights))))
            (self.folder / "unfinished").rename(self.folder / "checkpoint")


def big_vision(run):
    """A loop of one's own, with the transfer guard on and a sharding that is written for images."""
    jax.config.update("jax_transfer_guard", "disallow")
    rng = np.random.default_rng(0)
    source = grain.MapDataset.source(rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8))
    dataset = source.shuffle(seed=1).repeat().map(lambda image: {"image": image, "label": int(image[0, 0, 0])})
    chain = gdx.Chain(
        [
            gdx.PatchDropout(patch_size=(4, 4), p=0.5),
            gdx.GaussianNoise(std=(0.0, 0.1)),
            gdx.Normalize(mean=0.5, std=0.25),
        ],
        seed=0,
    )
    mesh = jax.make_mesh((len(jax.devices()),), ("data",))
    sharding = jax.NamedSharding(mesh, jax.P("data", None, None, None))
    weights = jax.device_put(
        np.zeros((16, 16, 3), np.float32) if run.weights is None else run.weights, jax.NamedSharding(mesh, jax.P())
    )

    @jax.jit
    def update(weights, batch):
        return weights + batch["image"].sum(axis=0) * batch["label"].sum()

    seeded = dataset.random_map(gdx.SeedRecords(), seed=2).batch(8)
    with gdx.DeviceLoader(seeded, chain, sharding=sharding) as loader:
        batches = iter(loader)
        if run.state is not None:
            batches.set_state(run.state)
        for step in range(run.step + 1, STEPS + 1):
            batch = next(batches)
            weights = update(weights, batch)
            run.note(step, batch["image"])
            run.keep(step, batches.get_state(), weights)


class Episodes:
    """Frames of two cameras, in flat records whose names have dots."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return {
            "observation.images.top": rng.random((2, 3, 12, 16), dtype=np.float32),
            "observation.images.wrist": rng.random((2, 3, 12, 16), dtype=np.float32),
            "observation.state": rng.random((2, 6), dtype=np.float32),
            "action": rng.random(6, dtype=np.float32),
            "episode_index": index // 8,
            "task": "fold the towel",
        }

    def __repr__(self):
        return "Episodes()"


def lerobot(run):
    """Two cameras in workers, the same patches on both and on all frames."""
    loader = grain.DataLoader(
        data_source=Episodes(),
        sampler=grain.samplers.IndexSampler(40, shuffle=True, num_epochs=30, seed=3),
        operations=[gdx.SeedRecords(), grain.transforms.Batch(8, drop_remainder=True)],
        worker_count=2,
    )
    cameras = ["observation.images.top", "observation.images.wrist"]
    effects = [
        gdx.PatchDropout(num_patches=2, patch_size=(4, 4)),
        gdx.OneOf([gdx.GaussianNoise(), gdx.SaltPepperNoise()]),
    ]
    chain = gdx.Chain(effects, seed=0, image=cameras, axes="TCHW")
    weights = jnp.zeros(6) if run.weights is None else jnp.asarray(run.weights)
    with gdx.DeviceLoader(loader, chain) as device_loader:
        batches = iter(device_loader)
        if run.state is not None:
            batches.set_state(run.state)
        for step in range(run.step + 1, STEPS + 1):
            batch = next(batches)
            assert batch["task"][0] == "fold the towel"
            weights = weights + (batch["action"] * batch[cameras[1]].mean(axis=(1, 2, 3, 4))[:, None]).sum(axis=0)
            run.note(step, jnp.stack([batch[camera] for camera in cameras]))
            run.keep(step, batches.get_state(), weights)


def keras_fit(run):
    """Keras' own loop, which is handed batches, and goes on from the one behind the checkpoint."""
    import keras

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    records = [{"image": image, "label": float(image.mean())} for image in rng.random((48, 8, 8, 3), dtype=np.float32)]
    seeded = grain.MapDataset.source(records).shuffle(seed=1).repeat().random_map(gdx.SeedRecords(), seed=2).batch(8)
    chain = gdx.Chain([gdx.PatchDropout(patch_size=(2, 2)), gdx.PoissonNoise(photons=(20.0, 60.0))], seed=0)
    model = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    if run.weights is not None:
        model.set_weights(run.weights)
    states = {}

    class Keeper(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            step = run.step + EVERY * (epoch + 1)
            run.keep(step, states[step], model.get_weights())

    def pairs(batches):
        for step, batch in enumerate(batches, start=run.step + 1):
            states[step] = batches.get_state()
            run.note(step, batch["image"])
            yield np.asarray(batch["image"]), np.asarray(batch["label"])

    with gdx.DeviceLoader(seeded, chain, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])) as loader:
        batches = iter(loader)
        if run.state is not None:
            batches.set_state(run.state)
        epochs = (STEPS - run.step) // EVERY
        model.fit(pairs(batches), steps_per_epoch=EVERY, epochs=epochs, callbacks=[Keeper()], verbose=0)


KINDS = {"big_vision": big_vision, "lerobot": lerobot, "keras": keras_fit}

if __name__ == "__main__":
    absl.flags.FLAGS.mark_as_parsed()
    kind, folder, *killed_at = sys.argv[1:]
    KINDS[kind](Run(folder, int(killed_at[0]) if killed_at else None))
