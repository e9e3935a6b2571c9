"""host batch -> device batch -> augmented batch, as a `DeviceLoader` does it."""

from collections.abc import Mapping
from typing import Any

import jax

from grain_datarax.operators.modality import ModalityOperator
from grain_datarax.placement import RowSharding
from grain_datarax.seeding import RECORD_SEED, require_mapping
from grain_datarax.transforms import AugmentBatch


class Stage:
    """host batch -> device batch -> augmented batch, for one iterator."""

    def __init__(
        self, rows: RowSharding, operators: tuple[ModalityOperator, ...], keep_seed: bool, pad_last_batch: bool
    ) -> None:
        self._rows = rows
        self._augment = AugmentBatch(operators, keep_seed=keep_seed, donate=True) if operators else None
        self._keep_seed = keep_seed
        self._pad_last_batch = pad_last_batch
        self.group_count = rows.group_count
        self.largest = 0  # how many records the largest batch had: to that length others are padded

    def __call__(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The batch, and how many records of this process are in it."""
        try:
            return self._treat(batch)
        except StopIteration as error:  # to Grain it would be the end of the data
            raise RuntimeError(
                f"`operators` must not raise StopIteration: got {error!r} on a batch. Catch it in the operator, or use"
                " next(iterator, default)."
            ) from error

    def _treat(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        require_mapping(batch)
        if self._augment is not None:
            self._augment.check_values(batch)
        elif not self._keep_seed:
            batch = {name: field for name, field in batch.items() if name != RECORD_SEED}
        placed, count = self._rows.place(batch, self.largest if self._pad_last_batch else None)
        self.largest = max(self.largest, count)
        if self._augment is not None:
            with jax.set_mesh(self._rows.local_mesh):  # not that of the training step, which may be set
                placed = self._augment.augment(placed, counted=count)
        return self._rows.assemble(placed), count
