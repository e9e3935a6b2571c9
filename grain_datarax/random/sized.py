"""Keys for padded images: what is drawn in the padded image's shape is what the image would draw by itself.

The bits of a draw are laid out by its shape, so that padding would move them. A key made here knows the image's own
height and width: a draw of the padded shape `(H, W)` or `(H, W, C)` gives each of the image's own values the bits that
it has in a draw of the image's own shape; those of the padding are anything. All else is drawn as with a key of
`STREAM`.
"""

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as jax_prng

from grain_datarax.random.bits import STREAM, threefry


def sized_key(key: jax.Array, size: jax.Array, padded: tuple[int, int]) -> jax.Array:
    """A key for one image.

    Args:
      key: One key of `STREAM`.
      size: The image's own height and width, integers `(2,)`.
      padded: Those with its padding.

    Example:
      >>> key = jax.random.wrap_key_data(jnp.uint32([1, 2]), impl=STREAM)
      >>> padded = jax.random.bits(sized_key(key, jnp.array([2, 3]), (4, 8)), (4, 8), jnp.uint16)
      >>> bool((padded[:2, :3] == jax.random.bits(key, (2, 3), jnp.uint16)).all())
      True
    """
    words = jnp.concatenate([jax.random.key_data(key), size.astype(jnp.uint32)])
    sized: jax.Array = jax.random.wrap_key_data(words, impl=_stream_of(*padded))
    return sized


def is_sized(key: jax.Array) -> bool:
    """Whether a key was made by `sized_key`."""
    return jax.random.key_impl(key) in _STREAMS.values()


_STREAMS: dict[tuple[int, int], Hashable] = {}


def _stream_of(height: int, width: int) -> Hashable:
    if (height, width) not in _STREAMS:  # JAX compiles a function once for each implementation of keys
        _STREAMS[height, width] = _new_stream(height, width)
    return _STREAMS[height, width]


def _new_stream(height: int, width: int) -> Hashable:
    def of_words(key: jax.Array) -> jax.Array:
        words: jax.Array = jax.random.wrap_key_data(key[:2], impl=STREAM)
        return words

    def split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        children = jax.random.key_data(jax.random.split(of_words(key), shape))
        return jnp.concatenate([children, jnp.broadcast_to(key[2:], (*shape, 2))], axis=-1)

    def fold_in(key: jax.Array, data: jax.Array | int) -> jax.Array:
        return jnp.concatenate([jax.random.key_data(jax.random.fold_in(of_words(key), data)), key[2:]])

    def random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
        if len(shape) in (2, 3) and shape[:2] == (height, width):
            return _own_bits(key, bit_width, shape)
        return jax.random.bits(of_words(key), shape, jnp.dtype(f"uint{bit_width}"))

    def seed(_: Any) -> jax.Array:
        raise TypeError(
            "`key` must be made by sized_key for a padded image: got a seed. Call sized_key(key, size, padded)."
        )

    return jax_prng.define_prng_impl(
        key_shape=(4,),
        seed=seed,
        split=split,
        random_bits=random_bits,
        fold_in=fold_in,
        name=f"grain_datarax {height}x{width}",
        tag="gdx-sized",
    )


def _own_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    height, width = key[2], key[3]
    channels, per_hash = np.uint32(shape[2] if len(shape) == 3 else 1), np.uint32(64 // bit_width)
    padded_row = np.uint32(shape[1]) * channels
    place = jax.lax.iota(jnp.uint32, shape[0] * int(padded_row))
    element = place // padded_row * (width * channels) + place % padded_row
    count = (height * width * channels + (per_hash - np.uint32(1))) // per_hash  # of hashes
    piece = jnp.zeros_like(element)
    for last in range(1, int(per_hash)):  # by comparisons, as there is no fast division by a number that is not known
        piece = piece + (element >= count * np.uint32(last)).astype(jnp.uint32)
    counter = element - piece * count
    first, second = threefry(key[:2], counter, jnp.full_like(counter, bit_width))
    if bit_width == 64:
        bits = jax.lax.bitcast_convert_type(jnp.stack([first, second], axis=-1), jnp.dtype("uint64"))
    else:
        in_word = per_hash // np.uint32(2)
        shift = piece % in_word * np.uint32(bit_width)
        bits = (jnp.where(piece < in_word, first, second) >> shift).astype(jnp.dtype(f"uint{bit_width}"))
    # Behind a barrier, which keeps XLA's CPU compiler from hashing in loops over channels.
    behind: jax.Array = jax.lax.optimization_barrier(bits)
    return behind.reshape(shape)
