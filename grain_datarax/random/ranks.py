"""Which come first: the ranks of random levels, for choices without replacement."""

import jax
import jax.numpy as jnp
import numpy as np

# Up to so many are compared with each other, which is cheaper than to sort them.
_FEW = 64


def ranks(levels: jax.Array) -> jax.Array:
    """The place of each level among all, from 0; of equal ones the first comes first: `int32 (n,)`.

    Example:
      >>> ranks(jnp.float32([0.5, 0.25, 0.5])).tolist()
      [1, 0, 2]
    """
    count = len(levels)
    if count > _FEW:
        order = jnp.argsort(levels, stable=True)
        _, place = jax.lax.sort((order.astype(jnp.int32), jnp.arange(count, dtype=jnp.int32)), num_keys=1)
        return place
    index = np.arange(count)
    earlier = (levels[None] < levels[:, None]) | ((levels[None] == levels[:, None]) & (index[None] < index[:, None]))
    return earlier.sum(axis=1, dtype=jnp.int32)
