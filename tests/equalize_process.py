"""One process of several whose sources end at different times. Started by test_equalize.py."""

import functools
import json
import os
import pathlib
import time

import grain
import jax
import multihost_process
import numpy as np
from helpers import loader
from multihost_process import GLOBAL_BATCH, RECORDS, chain, save

import grain_datarax as gdx
from grain_datarax import agreement

main = functools.partial(multihost_process.main, scenarios=globals())
# How many of its records each process keeps: none, a part of a batch, all, and some.
KEPT = {2: [RECORDS // 2, 5], 4: [0, 3, RECORDS // 4, 9]}


def sizes_of_buffers(workers):
    return (0, 3) if int(workers) == 0 else (3,)  # worker processes take seconds to start


class Keep(grain.transforms.Filter):
    """The first records of each process, which are dealt out in turns; those of process 0 end first, last, or never."""

    def __init__(self, kept):
        self.kept = kept

    def filter(self, record):
        turn, process = divmod(int(record["label"]), len(self.kept))
        return turn < self.kept[process]


class Fail(grain.transforms.Map):
    """Raises, or gives what can't be placed, at a record."""

    def __init__(self, label, kind):
        self.label, self.kind = label, kind

    def map(self, record):
        fails = int(record["label"]) == self.label
        if fails and self.kind == "source":
            raise ValueError("this record is broken")
        return {**record, "id": np.int64(2**40 if fails and self.kind == "stage" else 0)}


class Name(grain.transforms.Map):
    def map(self, record):
        return {**record, "name": f"record {record['label']}", "inner": {"weight": np.float32(record["label"])}}


def source(workers, kept, *stages, drop_remainder=False):
    index, count = jax.process_index(), jax.process_count()
    batch = grain.transforms.Batch(GLOBAL_BATCH // count, drop_remainder=drop_remainder)
    stages = [gdx.SeedRecords(), Keep(kept), Name(), *stages, batch]
    return loader(stages, count=RECORDS, workers=workers, shard=index, shards=count, shuffle=False)


@jax.jit
def evaluate(valid, image):
    """A step with collectives: all processes must be in it."""
    return valid.sum(), image.astype(np.float32).sum()


def own_rows(field):
    return np.concatenate([np.asarray(shard.data) for shard in field.addressable_shards])


def seen_by_step(iterator):
    """Step, label -> pixels of the records of this process; how many all processes had; and in how many steps."""
    seen, total, steps = {}, 0, 0
    for step, batch in enumerate(iterator):
        assert batch["image"].shape[0] == GLOBAL_BATCH
        valid = batch["valid"] if "valid" in batch else batch["label"] >= 0
        total += int(evaluate(valid, batch["image"])[0])
        steps += 1
        real, labels, images = own_rows(valid), own_rows(batch["label"]), own_rows(batch["image"])
        np.testing.assert_array_equal(own_rows(batch["inner"]["weight"]), labels)
        assert batch["name"].tolist() == [f"record {label}" for label in labels[real]]
        for label, image in zip(labels[real].tolist(), images[real], strict=True):
            seen[step, label] = image
    return seen, total, steps


def unequal(directory, mode, workers, kept):
    """Reads to the end, with batches made ahead and without."""
    kept = json.loads(kept)
    for buffer_size in sizes_of_buffers(workers):
        with gdx.DeviceLoader(
            source(int(workers), kept, drop_remainder=mode == "drop"), chain(), equalize=mode, buffer_size=buffer_size
        ) as batches:
            iterator = iter(batches)
            seen, total, steps = seen_by_step(iterator)
            assert next(iterator, None) is None
            counts = batches.counts()
        name = f"{buffer_size}, {jax.process_index()}"
        save(directory / f"{name}.npz", seen)
        (directory / f"{name}.json").write_text(json.dumps([steps, total, counts["gaussian"]["applied"]]))
    left = [key for key, _ in agreement.global_state.client.key_value_dir_get("grain_datarax")]
    assert len(left) <= 5 * jax.process_count(), left


def resumed(directory, mode, kept):
    """Goes on from every state, in the same iterator and in another: the same records in the same steps."""
    make = functools.partial(gdx.DeviceLoader, equalize=mode)
    for buffer_size in (0, 3):
        sources = source(0, json.loads(kept), drop_remainder=mode == "drop")
        batches = make(sources, chain()[:1], buffer_size=buffer_size)
        iterator = iter(batches)
        states = [iterator.get_state()]
        for _ in iterator:
            states.append(iterator.get_state())
        ended = iterator.get_state()
        iterator.set_state(states[0])
        expected, _, count = seen_by_step(iterator)
        assert count == len(states) - 1
        for step in (count, 0, count - 1, count // 2):
            rest = {(at - step, label): image for (at, label), image in expected.items() if at >= step}
            other = iter(make(sources, chain()[:1], buffer_size=buffer_size))
            for each in (iterator, other):
                each.set_state(states[step])
                got, _, steps = seen_by_step(each)
                assert (got.keys(), steps) == (rest.keys(), count - step)
                for place, image in got.items():
                    np.testing.assert_array_equal(image, rest[place])
            # In the middle, while threads may be waiting for each other.
            iterator.set_state(states[0])
            next(iterator)
            begin = time.monotonic()
            iterator.set_state(states[0])
            assert time.monotonic() - begin < 5
            other.close()
        if mode == "drop":
            assert ended == states[-1]  # not behind a batch that was dropped
            iterator.set_state(ended)
            assert next(iterator, None) is None
        iterator.close()
    (directory / f"{jax.process_index()}.txt").write_text(str(count))


def broken(directory, kind):
    """An error in the last process: what each says, how soon."""
    last = jax.process_count() - 1
    fails = Fail(RECORDS // 2 + last, kind) if jax.process_index() == last else Fail(-1, kind)
    begin, said = time.monotonic(), []
    for equalize in ("pad", "drop"):
        batches = gdx.DeviceLoader(source(0, [RECORDS] * jax.process_count(), fails), chain()[:1], equalize=equalize)
        count = 0
        try:
            for _ in batches:
                count += 1
        except (ValueError, RuntimeError) as error:
            said.append(f"{type(error).__name__} after {count}: {error}")
    said.append(f"{time.monotonic() - begin < 60}")
    (directory / f"{jax.process_index()}.txt").write_text("\n".join(said))


def of_two_sizes(directory):
    """The second batch of one has two records, that of the other three."""
    batches = gdx.DeviceLoader(source(0, [6, 7]), chain()[:1], equalize="drop")
    try:
        said = f"took {len(list(batches))}"
    except ValueError as error:
        said = str(error)
    (directory / f"{jax.process_index()}.txt").write_text(said)


def silent(directory, how):
    """The last process reads one batch, then stops or dies; what the first says."""
    # By then JAX has not ended the first, as it does when it has missed another's heartbeats for 100 seconds.
    agreement.PATIENCE = 4
    index = jax.process_index()
    iterator = iter(gdx.DeviceLoader(source(0, [RECORDS] * 2), chain()[:1], equalize="pad", buffer_size=1))
    next(iterator)
    if index:
        if how == "stops":
            iterator.close()
            while not (directory / "0.txt").exists():
                time.sleep(0.1)
        os._exit(0)
    try:
        said = f"took {len(list(iterator))}"
    except RuntimeError as error:
        said = str(error)
    path = pathlib.Path(directory / "0.tmp")
    path.write_text(said)
    path.rename(directory / "0.txt")
    time.sleep(1)
    os._exit(0)  # jax.distributed would wait for the other
