"""From a record's seed to the key of one operator on that record.

    root key (an `nnx.Rngs` stream) --namespace--> operator key --record seed--> record key

Both arrows are one Threefry hash, a bijection of its 64-bit counter: under one operator, different seeds never share a
key.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.bits import STREAM, threefry

# The mapping seed -> key -> bits -> pixels. The golden vectors in tests/ pin it.
STREAM_VERSION = 1


def as_stream_key(key: jax.Array) -> jax.Array:
    """Carries a key, or an array of keys, of any JAX implementation over to `STREAM`.

    Args:
      key: Typed keys of any shape, or raw key data `uint32 (..., words)`.

    Returns:
      Typed `STREAM` keys of the same shape, made of each key's first two words: those are the same for one integer
      seed under JAX's `threefry2x32`, `rbg` and `unsafe_rbg`.

    Raises:
      TypeError: If `key` is neither.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if dtype != jnp.uint32 or key.ndim == 0:
            raise TypeError(f"`key` must be a JAX PRNG key: got {key!r}. Pass jax.random.key(seed).")
        return jax.random.wrap_key_data(key[..., :2], impl=STREAM)
    return jax.random.wrap_key_data(jax.random.key_data(key)[..., :2], impl=STREAM)


def operator_key(root_key: jax.Array, namespace: str) -> jax.Array:
    """The key of one operator: a function of its root key and its namespace.

    Args:
      root_key: One PRNG key, as read from a stream of `nnx.Rngs`.
      namespace: What tells this operator from others with the same root key.

    Returns:
      One typed `STREAM` key.
    """
    words = np.frombuffer(hashlib.blake2b(namespace.encode(), digest_size=8).digest(), "<u4").astype(np.uint32)
    root = jax.random.key_data(as_stream_key(root_key))
    return jax.random.wrap_key_data(jnp.stack(threefry(root, *jnp.asarray(words))), impl=STREAM)


def record_keys(key: jax.Array, record_seed: jax.Array) -> jax.Array:
    """The key of every record under one operator.

    Args:
      key: One typed `STREAM` key, of the operator.
      record_seed: `uint32 (B, 2)`.

    Returns:
      Typed `STREAM` keys `(B,)`.
    """
    words = threefry(jax.random.key_data(key), record_seed[:, 0], record_seed[:, 1])
    return jax.random.wrap_key_data(jnp.stack(words, axis=-1), impl=STREAM)
