"""host batch -> device batch -> augmented batch, as a `DeviceLoader` does it."""

import jax

from grain_datarax.augmenter import Augmenter
from grain_datarax.containers import RECORD_DRAWS, RECORD_SEED, Record, require_record, without
from grain_datarax.fields import get_field, set_field
from grain_datarax.leaves import require_pytree
from grain_datarax.placement import VALID, RowSharding


class Stage:
    """host batch -> device batch -> augmented batch, for one iterator."""

    def __init__(self, rows: RowSharding, augment: Augmenter | None, keep_seed: bool, pad_last_batch: bool) -> None:
        self._rows = rows
        self._augment = augment
        self._keep_seed = keep_seed
        self._pad_last_batch = pad_last_batch
        self.group_count = rows.group_count
        self.largest = 0  # how many records the largest batch had: to that length others are padded

    def __call__(self, batch: Record) -> tuple[Record, int]:
        """The batch, and how many records of this process are in it."""
        require_record(batch)
        require_pytree(batch)
        if self._augment is not None:
            self._augment.check(batch)
        elif not self._keep_seed:
            batch = without(batch, RECORD_SEED, RECORD_DRAWS)
        placed, count = self._rows.place(batch, self.largest if self._pad_last_batch else None)
        self.largest = max(self.largest, count)
        if self._augment is not None:
            valid = get_field(placed, VALID) if self._pad_last_batch else None
            placed = placed if valid is None else without(placed, VALID)  # no field of the records
            with jax.set_mesh(self._rows.local_mesh):  # not that of the training step, which may be set
                placed = self._augment(placed, counted=count)
            placed = placed if valid is None else set_field(placed, VALID, valid)
        return self._rows.assemble(placed), count
