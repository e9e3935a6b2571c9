"""The bit stream: Threefry-2x32 with 20 rounds, as a JAX PRNG implementation with a layout of its own.

JAX's own streams change with `jax_default_prng_impl` and `jax_threefry_partitionable`. Keys of `STREAM` do not, and
`jax.random.normal`, `uniform`, `randint`, `bits`, `split` and `fold_in` run on them unchanged.

Layout, for a key `(k0, k1)`; `hash` is Threefry under that key, two counter words in, two words out:

- a draw of `n` 32-bit words (rounded up to even) takes `hash(i, i + n / 2)` for `i < n / 2`: first all first words,
  then all second words. 8- and 16-bit draws cut these words up, low bits first; 64-bit draws join two.
- `split` gives key `i` the words `hash(0, i)`, whatever the number of keys asked for.
- `fold_in(data)` is `hash(0, data)`.

Source: Salmon et al., SC 2011.
"""

import math

import jax
import jax.numpy as jnp
from jax.extend import random as jax_prng


def threefry(key: jax.Array, counter: jax.Array) -> jax.Array:
    """Hashes counters under one key; a bijection of each counter pair.

    Args:
      key: `uint32 (2,)`.
      counter: `uint32 (2 n,)`; element `i` is hashed together with element `n + i`.

    Returns:
      `uint32 (2 n,)`, in the order of the counters.

    Example:
      >>> [hex(word) for word in threefry(jnp.zeros(2, jnp.uint32), jnp.zeros(2, jnp.uint32)).tolist()]
      ['0x6b200159', '0x99ba4efe']
    """
    return jax_prng.threefry_2x32((key[0], key[1]), counter)


def uniform_levels(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform levels in the open interval (0, 1), `float32`: odd multiples of 2**-24, symmetric about 1/2."""
    return jax.random.uniform(key, shape, jnp.float32) + 2.0**-24


def _seed(seed: jax.Array | int) -> jax.Array:
    return jnp.stack([jnp.uint32(0), jnp.asarray(seed).astype(jnp.uint32)])


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    index = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    words = threefry(key, jnp.concatenate([jnp.zeros_like(index), index]))
    return words.reshape(2, -1).T.reshape(*shape, 2)


def _fold_in(key: jax.Array, data: jax.Array | int) -> jax.Array:
    return threefry(key, _seed(data))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    size = math.prod(shape)
    word_count = -(-size * bit_width // 32)
    words = threefry(key, jnp.arange(word_count + word_count % 2, dtype=jnp.uint32))[:word_count]
    if bit_width == 64:
        words = words.reshape(-1, 2)
    bits = jax.lax.bitcast_convert_type(words, jnp.dtype(f"uint{bit_width}"))
    return bits.reshape(-1)[:size].reshape(shape)


STREAM = jax_prng.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="grain_datarax",
    tag="gdx",
)
