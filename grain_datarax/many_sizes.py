"""Single records of many sizes: padded to few, so that few functions are compiled, and cut out again."""

import dataclasses
from typing import Any

import numpy as np

from grain_datarax.compiled import CompiledChain
from grain_datarax.containers import Record
from grain_datarax.fields import get_field
from grain_datarax.guard import require_array

# No field of anybody's, and no path that dots lead into.
_SIZE = "height and width without padding"


class ManySizes:
    """A chain on batches of one record of any size: of the first size as it is, of others padded; the same pixels.

    Args:
      exact: The chain.
    """

    def __init__(self, exact: CompiledChain) -> None:
        self._exact = exact
        masks = {path: fill for path, fill in exact.chain.fills.items() if fill is not None}
        self._padded = exact.sharing_counts(dataclasses.replace(exact.chain, masks=masks, size=_SIZE))
        self._to_pad = (*exact.chain.images, *masks)
        self._first: tuple[int, ...] | None = None

    def __reduce__(self) -> Any:  # so that a copy counts in one place, too
        return ManySizes, (self._exact,)

    def __call__(self, data: Record, seeds: Any) -> dict[str, Any]:
        """As a call of the chain's launcher."""
        chain = self._exact.chain
        image = get_field(data, chain.images[0])
        require_array(image, chain.images[0])
        shape = tuple(image.shape)
        self._first = self._first or shape
        if shape == self._first:
            return self._exact(data, seeds)
        fields = self._exact.require_treatable(data)  # at its own size
        own = dict(zip("B" + chain.axes, shape, strict=True))
        padded = {path: self._resized(fields[path], bucket(own["H"]), bucket(own["W"])) for path in self._to_pad}
        size = np.array([[own["H"], own["W"]]], np.int32)
        written = self._padded({**fields, **padded, _SIZE: size}, seeds)
        return {
            path: self._resized(field, own["H"], own["W"]) if path in padded else field
            for path, field in written.items()
        }

    def _resized(self, field: Any, height: int, width: int) -> Any:
        """Images or masks of a batch, padded or cut at the bottom and the right."""
        axes = self._exact.chain.axes
        axes = "B" + (axes if field.ndim == 1 + len(axes) else axes.replace("C", ""))
        shape = list(field.shape)
        shape[axes.index("H")], shape[axes.index("W")] = height, width
        shared = tuple(slice(min(pair)) for pair in zip(shape, field.shape, strict=True))
        if np.prod(shape) <= field.size:
            return field[shared]
        result = np.zeros(shape, field.dtype)
        result[shared] = field
        return result


def may_be_padded(launcher: CompiledChain) -> bool:
    """Whether a chain's images may be padded, and are not yet."""
    chain = launcher.chain
    # What is told of draws is more for padded images.
    return not chain.size and not chain.draws and all(link.may_be_padded for link in chain.links)


def bucket(length: int) -> int:
    """The least power of two, or three halves of one, that is not below.

    Example:
      >>> [bucket(length) for length in (1, 5, 7, 48, 300, 400)]
      [8, 8, 8, 48, 384, 512]
    """
    whole = 8
    while whole < length:
        if whole * 3 // 2 >= length:
            return whole * 3 // 2
        whole *= 2
    return whole
