"""Functions that are to be pure: found out where NumPy's or Python's global generator decides what they return."""

import functools
import pickle
import random
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


@functools.cache
def kind_of(dtype: Any) -> Any:
    """The kind of numbers that a type of array holds; None if JAX has no such numbers."""
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating, jax.dtypes.prng_key)
    kind = next((kind for kind in kinds if jnp.issubdtype(dtype, kind)), None)
    return kind if getattr(dtype, "isnative", True) else None


def same_each_time(name: str, compute: Callable[[], Any]) -> Any:
    """Calls a function that is to be pure, and raises `ValueError` if NumPy's or Python's generator decides the result.

    Those are asked when JAX traces it: all records would get the same. Where they have moved, it is traced again, since
    another thread may have moved them.
    """
    before = _global_generators()
    result = compute()
    if _global_generators() != before and len({_constants(compute) for _ in range(8)}) > 1:
        raise ValueError(
            f"`{name}` must draw from its key alone: got numbers of NumPy's or Python's global generator, the same for"
            " all records. Use jax.random with the key that `draw` is given."
        )
    return result


def _global_generators() -> tuple[Any, ...]:
    return pickle.dumps(np.random.get_state(legacy=False)), random.getstate()


def _constants(compute: Callable[[], Any]) -> tuple[Any, ...]:
    """What a traced function says, and the arrays in it, but for the addresses of the functions that it names."""
    traced = jax.make_jaxpr(lambda: compute())()  # a new function: JAX keeps what it has traced
    arrays = [leaf for leaf in traced.consts if not isinstance(leaf, Tracer)]
    held = [np.asarray(leaf).tobytes() for leaf in arrays if kind_of(leaf.dtype) is not jax.dtypes.prng_key]
    return re.sub("0x[0-9a-f]+", "", str(traced)), *held
