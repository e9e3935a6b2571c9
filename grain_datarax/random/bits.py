"""The bit stream: Threefry-2x32 with 20 rounds, as a JAX PRNG implementation with a layout of its own.

JAX's own streams change with `jax_default_prng_impl` and `jax_threefry_partitionable`. Keys of `STREAM` do not, and
`jax.random.normal`, `uniform`, `randint`, `bits`, `split` and `fold_in` run on them unchanged, only faster: the rounds
are unrolled, and every bit of a hash is used.

Layout. One hash turns a key and a counter, two words each, into two words `(first, second)`. The counter's first word
counts, its second word says what the hash is for, so that no two uses of one key share a counter:

| use | counter | result |
| --- | --- | --- |
| `split` | `(i, 1)` | key `i`, whatever the number of keys asked for |
| `fold_in(data)` | `(data, 2)` | the key |
| draw of `w` = 8, 16, 32 or 64 bits | `(i, w)` | `64 / w` elements: `first` cut up, low bits first, then `second` |

A draw of `n` elements takes the first piece of each of its `ceil(n w / 64)` hashes, in the order of `i`, then each
second piece, and so on. Its limit is 2**32 hashes: 2**35 elements of 8 bits, 2**32 of 64 bits. More is a `ValueError`.

Source: Salmon et al., SC 2011.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as jax_prng

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_SPLIT, _FOLD_IN = np.uint32(1), np.uint32(2)
_MOST_COUNTERS = 2**32


def threefry(key: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Hashes counters under one key; a bijection of each counter.

    Args:
      key: `uint32 (2,)`; arrays of NumPy or of JAX.
      first: The counters' first words, `uint32` of any shape.
      second: Their second words, of the same shape.

    Returns:
      The hashes' first and second words.

    Example:
      >>> zero = jnp.uint32(0)
      >>> [hex(word) for word in threefry(jnp.zeros(2, jnp.uint32), zero, zero)]
      ['0x6b200159', '0x99ba4efe']
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    first, second = first + schedule[0], second + schedule[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = ((second << np.uint32(rotation)) | (second >> np.uint32(32 - rotation))) ^ first
        first = first + schedule[(group + 1) % 3]
        second = second + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return first, second


def treated_bits(
    treat: Callable[[jax.Array], jax.Array], key: jax.Array, shape: tuple[int, ...], bit_width: int
) -> jax.Array:
    """`treat(jax.random.bits(key, shape, ...))`, but that the bits need not be kept in memory, which costs more.

    Args:
      treat: Treats each value for itself; what it makes should be smaller than the bits.
      key: A key of `STREAM`, or a `sized_key`.
      shape: The shape.
      bit_width: 8, 16 or 32.
    """
    if jax.random.key_impl(key) != STREAM:
        return treat(jax.random.bits(key, shape, jnp.dtype(f"uint{bit_width}")))

    def on_gpu(key: jax.Array) -> jax.Array:
        # By what `python -m benchmarks.lowered` shows of both.
        return treat((_by_value if bit_width == 32 else _in_shape)(key, bit_width=bit_width, shape=shape))

    return _drawn(jax.random.key_data(key), bit_width, shape, treat, on_gpu)


def uniform_levels(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform levels in the open interval (0, 1), `float32`: odd multiples of 2**-24, symmetric about 1/2."""
    bits = jax.random.bits(key, shape, jnp.uint32) >> np.uint32(9)
    return bits.astype(jnp.int32).astype(jnp.float32) * 2.0**-23 + 2.0**-24


def uniform_integers(key: jax.Array, shape: tuple[int, ...], bound: np.ndarray | jax.Array) -> jax.Array:
    """Uniform integers from 0 to `bound - 1`, `int32`; each value's probability is off by at most 2**-32.

    Args:
      key: A key of `STREAM`.
      shape: The shape.
      bound: Positive, below 2**31, of as many axes as `shape`, to be broadcast to it.
    """
    # floor(bits * bound / 2**32), by halves: JAX has no 64-bit product without jax_enable_x64.
    bits = jax.random.bits(key, shape, jnp.uint32)
    half, mask = np.uint32(16), np.uint32(0xFFFF)
    high, low = jnp.asarray(bound >> 16, jnp.uint32), jnp.asarray(bound & 0xFFFF, jnp.uint32)
    middle = (bits >> half) * low + (((bits & mask) * low) >> half)
    carry = ((bits & mask) * high + (middle & mask)) >> half
    return ((bits >> half) * high + (middle >> half) + carry).astype(jnp.int32)


def _seed(seed: jax.Array | int) -> jax.Array:
    high = seed >> 32 if jnp.asarray(seed).dtype.itemsize == 8 else 0
    return jnp.stack([jnp.asarray(word).astype(jnp.uint32) for word in (high, seed)])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    index = jax.lax.iota(jnp.uint32, math.prod(shape))
    return jnp.stack(threefry(key, index, jnp.full_like(index, _SPLIT)), axis=-1).reshape(*shape, 2)


def _fold_in(key: jax.Array, data: jax.Array | int) -> jax.Array:
    first = jnp.asarray(data).astype(jnp.uint32)
    return jnp.stack(threefry(key, first, jnp.full_like(first, _FOLD_IN)))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    in_shape = functools.partial(_in_shape, bit_width=bit_width, shape=shape)
    return _drawn(key, bit_width, shape, lambda bits: bits, in_shape)


def _drawn(
    key: jax.Array,
    bit_width: int,
    shape: tuple[int, ...],
    treat: Callable[[jax.Array], jax.Array],
    on_gpu: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """The bits, treated; `on_gpu` makes the same of the key where the shape allows it."""
    count = -(-math.prod(shape) * bit_width // 64)
    if count > _MOST_COUNTERS:
        raise ValueError(
            f"`shape` must need at most 2**32 counters of one key: got {count} for {shape}. Split the key, and draw in"
            " parts."
        )
    in_one_row = functools.partial(_in_one_row, count=count, bit_width=bit_width, shape=shape, treat=treat)
    if bit_width == 64 or not shape or 0 in shape or shape[0] % (64 // bit_width):
        return in_one_row(key)
    drawn: jax.Array = jax.lax.platform_dependent(key, cuda=on_gpu, rocm=on_gpu, default=in_one_row)
    return drawn


def _in_one_row(
    key: jax.Array, *, count: int, bit_width: int, shape: tuple[int, ...], treat: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    words = _words(key, jax.lax.iota(jnp.uint32, count), bit_width)
    if bit_width == 64:
        return treat(jax.lax.bitcast_convert_type(jnp.stack(words, axis=-1), jnp.dtype("uint64")).reshape(shape))
    pieces, size = [treat(piece) for piece in _pieces(words, bit_width)], math.prod(shape)
    if size and shape and shape[0] % len(pieces) == 0:
        # The same order, seen as rows: XLA's CPU compiler fuses a concatenation, except along the last axis.
        pieces = [piece.reshape(shape[0] // len(pieces), -1) for piece in pieces]
    return jnp.concatenate(pieces).reshape(-1)[:size].reshape(shape)


def _in_shape(key: jax.Array, *, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    # XLA's GPU compiler fuses a concatenation with what uses it if nothing is reshaped in between.
    part = (shape[0] * bit_width // 64, *shape[1:])
    index = jax.lax.iota(jnp.uint32, math.prod(part)).reshape(part)
    # Behind a barrier, which keeps it from hashing half way for each piece again.
    words = jax.lax.optimization_barrier(_words(key, index, bit_width))
    return jnp.concatenate(_pieces(words, bit_width))


def _by_value(key: jax.Array, *, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    # Each value hashes for itself: more to compute than for pieces, and nothing to keep.
    index = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    count, pieces_per_word = math.prod(shape) * bit_width // 64, 32 // bit_width
    piece = index // np.uint32(count)
    first, second = _words(key, index - piece * np.uint32(count), bit_width)
    word = jnp.where(piece < pieces_per_word, first, second)
    shift = (piece % np.uint32(pieces_per_word)) * np.uint32(bit_width)
    return (word >> shift).astype(jnp.dtype(f"uint{bit_width}"))


def _words(key: jax.Array, index: jax.Array, bit_width: int) -> tuple[jax.Array, jax.Array]:
    return _hash(key, index, jnp.full_like(index, bit_width))


# The same operations, which JAX then traces once for each shape, instead of in every draw.
_hash: Callable[..., tuple[jax.Array, jax.Array]] = jax.jit(threefry, inline=True)


def _pieces(words: Sequence[jax.Array], bit_width: int) -> list[jax.Array]:
    """The words, cut up: all first pieces, all second ones, and so on."""
    shifts, dtype = range(0, 32, bit_width), jnp.dtype(f"uint{bit_width}")
    return [(word >> np.uint32(shift)).astype(dtype) for word in words for shift in shifts]


STREAM = jax_prng.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="grain_datarax",
    tag="gdx",
)
