"""One record and a batch of records, as pytrees."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grain_datarax.leaves import record_count


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Element:
    """One record.

    Attributes:
      data: The fields of the record; images are `(H, W)` or `(H, W, C)`.
      state: What operators keep about the record.
      metadata: What describes the record; operators pass it through.
    """

    data: dict[str, Any]
    state: dict[str, Any] = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch of records: the fields of `Element`, each leaf with the batch as axis 0.

    Example:
      >>> batch = Batch.from_elements([Element({"image": np.zeros((4, 4))}), Element({"image": np.ones((4, 4))})])
      >>> batch.batch_size, batch[1].data["image"].mean()
      (2, np.float64(1.0))
    """

    data: dict[str, Any]
    state: dict[str, Any] = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_elements(cls, elements: Sequence[Element]) -> "Batch":
        """Stacks the leaves of one or more elements with the same structure."""
        if not elements:
            raise ValueError("`elements` must hold at least one Element: got none. Build Batch(data=...) of arrays.")
        stacked = jax.tree.map(_stack, *elements)
        return cls(stacked.data, stacked.state, stacked.metadata)

    @property
    def batch_size(self) -> int:
        """The number of records, from the leaves of `data`."""
        return record_count(self.data)

    def __len__(self) -> int:
        return self.batch_size

    def __getitem__(self, index: int) -> Element:
        if not -len(self) <= index < len(self):  # JAX clamps, and a `for` loop would never end
            raise IndexError(f"`index` must be in a batch of {len(self)}: got {index}.")
        record = jax.tree.map(lambda leaf: leaf[index], self)
        return Element(record.data, record.state, record.metadata)


def _stack(*leaves: Any) -> Any:
    return jnp.stack(leaves) if isinstance(leaves[0], jax.Array) else np.stack(leaves)
