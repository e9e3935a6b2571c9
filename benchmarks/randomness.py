"""Lays out the random stream as bytes for PractRand, which looks for patterns in it, and prints its report.

    python -m benchmarks.randomness --order records|counters [--tool RNG_test] [--length 64GB]
    python -m benchmarks.randomness --order records|counters -o - | ...    # the bytes alone, for any other tool

Record by record it is 32 bits for each value of an image, as three effects draw them for record 0, then for record 1,
and so on. Counter by counter it is 32 bits as one effect draws them for each of 1281167 records, then 32 more, and so
on: what differs from one value to the next is the record's seed alone. See docs/randomness.md.
"""

import argparse
import contextlib
import itertools
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import grain
import jax
import jax.numpy as jnp
import numpy as np

import grain_datarax as gdx
from grain_datarax.random.bits import STREAM, threefry
from grain_datarax.random.keys import record_keys
from grain_datarax.seeding import draw_seed

CHAIN = gdx.Chain(
    [gdx.GaussianNoise(std=0.1), gdx.SaltPepperNoise(salt_prob=0.1, pepper_prob=0.1), gdx.PoissonNoise(photons=30)],
    seed=0,
)
SAMPLER_SEED = 0
IMAGE = (224, 224, 3)
RECORDS = 1281167  # as many as ImageNet has to train on

Block = Sequence[jax.Array]  # of uint32: in the order of their first axis, and of each row all arrays in turn


def record_seeds(numbers: Iterable[int]) -> np.ndarray:
    """The seeds `SeedRecords` gives to these records, uint32 `(B, 2)`: of Grain's generators, of neighbouring keys."""
    sampler = grain.samplers.IndexSampler(num_records=RECORDS, num_epochs=None, seed=SAMPLER_SEED)
    return np.stack([draw_seed(sampler[number].rng) for number in numbers])


def effect_keys() -> list[jax.Array]:
    return [jax.random.wrap_key_data(jnp.asarray(words[""]), impl=STREAM) for words in CHAIN.key_words()]


def by_record(image: tuple[int, ...] = IMAGE, batch: int = 16) -> Iterator[Block]:
    """32 bits for each value of an image, for each effect of each record."""

    @jax.jit
    def draws(seeds: jax.Array) -> list[jax.Array]:
        draw = jax.vmap(lambda key: jax.random.bits(key, image, jnp.uint32))
        return [draw(record_keys(key, seeds)) for key in effect_keys()]

    for start in itertools.count(step=batch):
        yield draws(record_seeds(range(start, start + batch)))


def by_counter(records: int = RECORDS) -> Iterator[Block]:
    """Of the same for the first effect, two words for each counter: the first of all records, then the second.

    In a draw of n values they are the values number `counter` and `counter + n / 2`.
    """
    keys = jax.random.key_data(record_keys(effect_keys()[0], jnp.asarray(record_seeds(range(records)))))

    @jax.jit
    def words(counter: jax.Array) -> list[jax.Array]:
        index = jnp.full((1, records), counter)
        return list(threefry(keys.T, index, jnp.full_like(index, 32)))

    for counter in itertools.count():
        yield words(jnp.uint32(counter))


ORDERS = {"records": by_record, "counters": by_counter}


def write(blocks: Iterable[Block], file: BinaryIO, length: float = math.inf) -> None:
    """Writes so many bytes, little endian, or until nobody reads any more."""
    with contextlib.suppress(BrokenPipeError):
        for block, _ in itertools.pairwise(blocks):  # so that the next one is computed while this one is written
            words = np.stack(jax.device_get(block), axis=1).astype("<u4", copy=False)
            data = memoryview(words).cast("B")[: min(words.nbytes, length)]
            length -= len(data)
            while data:  # past any buffer, in which the rest would stay when the reader has gone
                data = data[os.write(file.fileno(), data) :]
            if not length:
                return


def bytes_of(length: str) -> int:
    """The bytes that PractRand means: 1GB is 2**30."""
    number, unit = length[:-2], length[-2:].upper()
    units = ("KB", "MB", "GB", "TB")
    if unit not in units or not number.isdecimal():
        raise ValueError(f"`length` must be a number and one of KB, MB, GB and TB: got {length!r}. Pass 64GB.")
    return int(number) * 1024 ** (units.index(unit) + 1)


def judge(tool: str, blocks: Iterable[Block], length: str) -> int:
    """Gives PractRand the stream for as long as it reads, and returns its exit status; it prints its report itself."""
    first = min("1GB", length, key=bytes_of)
    command = [tool, "stdin32", "-multithreaded", "-tlmin", first, "-tlmax", length]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        write(blocks, process.stdin)
    return process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.randomness", description=__doc__.partition("\n")[0])
    parser.add_argument("--order", choices=ORDERS, required=True, help="in which order the words are laid out")
    parser.add_argument("--tool", default="RNG_test", help="PractRand's program (default: %(default)s)")
    parser.add_argument("--length", default="64GB", help="how much is tested or written (default: %(default)s)")
    parser.add_argument("-o", "--output", help="write the bytes to this file instead, or to standard output: -")
    arguments = parser.parse_args()
    try:
        length = bytes_of(arguments.length)
    except ValueError as error:
        parser.error(str(error))
    blocks = ORDERS[arguments.order]()
    if arguments.output == "-":
        write(blocks, sys.stdout.buffer, length)
    elif arguments.output:
        with open(arguments.output, "wb") as file:
            write(blocks, file, length)
    elif shutil.which(arguments.tool) is None:
        parser.error(f"`--tool` must be PractRand's RNG_test: got {arguments.tool!r}. Build it, or pass -o -.")
    else:
        sys.exit(judge(arguments.tool, blocks, arguments.length))


if __name__ == "__main__":
    main()
