"""record, seed -> what it drew, and its pixels once more."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.chain import Chain
from grain_datarax.containers import RECORD_DRAWS, RECORD_SEED, Record, SameRecord, require_record, without
from grain_datarax.guard import check_batch, check_seed
from grain_datarax.images import hwc_shape
from grain_datarax.records import Augmentation
from grain_datarax.transforms import AugmentRecord

# No field of anybody's.
_MARK = "draws that are told"


def draws(chain: Chain, record_seed: Any, shape: Sequence[int]) -> dict[str, dict[str, np.ndarray]]:
    """What records draw, without their pixels: by their seeds alone.

    Args:
      chain: The chain.
      record_seed: `uint32 (2,)` of one record, or `(B, 2)` of several.
      shape: That of an image as the chain takes it, before crops, in the chain's axes, without the batch. Of several
        images it is that of the first.

    Returns:
      By the name of each effect, with `_` for each dot: `applied`, whether it treats the record; its strengths that are
      ranges, by their names; and what it tells of its draw, such as `positions`, as in a batch of this chain; with the
      batch as axis 0 if there is one.

    Raises:
      ValueError: If a seed or a shape is none of the chain's.

    Example:
      >>> import grain_datarax as gdx
      >>> chain = gdx.Chain([gdx.GaussianNoise(std=(0.1, 0.2), p=0.5)], seed=0)
      >>> drawn = draws(chain, np.uint32([[1, 2], [1, 3]]), (8, 8, 3))["GaussianNoise"]
      >>> drawn["applied"].shape, bool((0.1 <= drawn["std"]).all())
      ((2,), True)
    """
    given: Any = getattr(record_seed, "shape", ())
    dtype = getattr(record_seed, "dtype", None)
    if len(given) not in (1, 2) or given[-1] != 2 or dtype != np.uint32:
        raise ValueError(
            f"`record_seed` must be uint32 of shape (2,) or (B, 2): got"
            f" {type(record_seed).__name__ if dtype is None else dtype} of shape {given}. Pass that of a batch"
            " made with keep_seed=True."
        )
    seeds = np.asarray(record_seed)
    if len(shape) != len(chain.axes):
        raise ValueError(f"`shape` must be of the axes {chain.axes!r}: got {tuple(shape)}. Pass that of one image.")
    alone = dataclasses.replace(chain, image=chain.images[0], masks=(), boxes=(), keypoints=(), labels=(), draws=_MARK)
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    size = dict.fromkeys(alone.sizes, jax.ShapeDtypeStruct((1, 2), np.int32))
    check_batch(alone, {**dict.fromkeys((*alone.images, *alone.partners), image), **size})
    drawn = _drawn(Augmentation.of(alone, in_place=False), tuple(shape), jax.device_put(np.atleast_2d(seeds)))
    result: dict[str, dict[str, np.ndarray]] = jax.device_get(drawn)
    return result if seeds.ndim == 2 else jax.tree.map(lambda rows: rows[0], result)


@functools.partial(jax.jit, static_argnames=("augmentation", "shape"))
def _drawn(augmentation: Augmentation, shape: tuple[int, ...], seeds: jax.Array) -> Any:
    # What becomes of the pixels is not computed, as nobody asks for it.
    image, chain = jnp.zeros((len(seeds), *shape), jnp.float32), augmentation.chain
    size = np.array(hwc_shape(shape, chain.axes)[:2], np.int32)
    fields = dict.fromkeys((*chain.images, *chain.partners), image)
    fields |= dict.fromkeys(chain.sizes, jnp.broadcast_to(size, (len(seeds), 2)))
    return augmentation.augment(fields, seeds)[0][_MARK]


@overload
def replay(record: tuple[Any, ...], record_seed: Any, chain: Chain) -> Record: ...
@overload
def replay(record: SameRecord, record_seed: Any, chain: Chain) -> SameRecord: ...
def replay(record: Record, record_seed: Any, chain: Chain) -> Record:
    """One record, augmented once more: the pixels that it had in any batch, bit for bit.

    Args:
      record: The record before augmentation, without a batch axis.
      record_seed: `uint32 (2,)`, its seed: from a batch made with `keep_seed=True`, for example.
      chain: The chain.

    Returns:
      A new record of the same type and fields, in NumPy where they are written.

    Example:
      >>> import grain_datarax as gdx
      >>> chain = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
      >>> record = {"image": np.zeros((8, 8, 3), np.uint8)}
      >>> replay(record, np.uint32([1, 2]), chain)["image"].shape
      (8, 8, 3)
    """
    check_seed(record_seed)
    require_record(record)
    return AugmentRecord(chain).augmented(without(record, RECORD_SEED, RECORD_DRAWS), np.asarray(record_seed))
