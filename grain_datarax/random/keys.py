"""From a record's seed to the key of one operator on that record.

    root key (an `nnx.Rngs` stream) --namespace--> operator key --record seed--> record key

Both arrows are one Threefry hash, a bijection of its 64-bit counter: under one operator, different seeds never share a
key.
"""

import collections
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.random.bits import STREAM, threefry
from grain_datarax.random.sized import is_sized
from grain_datarax.wording import shown

# The mapping seed -> key -> bits -> pixels. The golden vectors in tests/ pin it.
STREAM_VERSION = 1


def as_stream_key(key: jax.Array) -> jax.Array:
    """Carries a key, or an array of keys, of any JAX implementation over to `STREAM`.

    Args:
      key: Typed keys of any shape, or raw key data `uint32 (..., words)`. A `sized_key` stays as it is.

    Returns:
      Typed `STREAM` keys of the same shape, made of each key's first two words: those are the same for one integer
      seed under JAX's `threefry2x32`, `rbg` and `unsafe_rbg`.

    Raises:
      TypeError: If `key` is neither.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if is_sized(key):
            return key
        key = jax.random.key_data(key)
    elif dtype != jnp.uint32 or key.ndim == 0:
        raise TypeError(f"`key` must be a JAX PRNG key: got {shown(key)}. Pass jax.random.key(seed).")
    return _typed(key[..., :2])


def stream_words(key: jax.Array) -> np.ndarray:
    """The two words of what `as_stream_key` makes of one key, on the host."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words: np.ndarray = jax.device_get(jax.random.key_data(key) if typed else key)
    return words[:2]


def operator_key(root_key: jax.Array, namespace: str) -> jax.Array:
    """The key of one operator: a function of its root key and its namespace.

    Args:
      root_key: One PRNG key, as read from a stream of `nnx.Rngs`.
      namespace: What tells this operator from others with the same root key.

    Returns:
      One typed `STREAM` key.
    """
    root = jax.random.key_data(as_stream_key(root_key))
    return _typed(jnp.stack(threefry(root, *jnp.asarray(_words(namespace)))))


def effect_words(root: np.ndarray, namespace: str) -> np.ndarray:
    """The words of the same key, from those of the root key, without JAX: `uint32 (2,)`."""
    first, second = _words(namespace)[:, None]
    return np.concatenate(threefry(root[:, None], first, second))  # of one-element arrays, which wrap around in silence


def draw_mark(name: str, words: np.ndarray) -> str:
    """What tells the draws of one link from all others': its name, and the beginning of its key."""
    return f"{name}@{words[0]:08x}"


def _words(namespace: str) -> np.ndarray:
    return np.frombuffer(hashlib.blake2b(namespace.encode(), digest_size=8).digest(), "<u4").astype(np.uint32)


def distinct_names(namespaces: Sequence[tuple[str, bool]]) -> tuple[str, ...]:
    """The namespace of each link of a chain; unnamed ones that would share theirs are numbered in their order.

    Args:
      namespaces: For each link its own namespace, and whether nobody has named it.

    Raises:
      ValueError: If a name is there twice.
    """
    seen: collections.Counter[str] = collections.Counter()
    result = []
    for namespace, unnamed in namespaces:
        seen[namespace] += 1
        result.append(f"{namespace}#{seen[namespace]}" if unnamed and seen[namespace] > 1 else namespace)
    if len(set(result)) != len(result):
        raise ValueError(f"`name` must be unique in a chain: got {result}. The same name would draw the same twice.")
    return tuple(result)


def record_keys(key: jax.Array, record_seed: jax.Array) -> jax.Array:
    """The key of every record under one operator.

    Args:
      key: One typed `STREAM` key, of the operator.
      record_seed: `uint32 (B, 2)`.

    Returns:
      Typed `STREAM` keys `(B,)`.
    """
    words = threefry(jax.random.key_data(key), record_seed[:, 0], record_seed[:, 1])
    return _typed(jnp.stack(words, axis=-1))


def _typed(words: jax.Array) -> jax.Array:
    keys: jax.Array = jax.random.wrap_key_data(words, impl=STREAM)
    return keys
