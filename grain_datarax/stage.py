"""host batch -> device batch -> augmented batch, as a `DeviceLoader` does it."""

import grain
import jax
import numpy as np

from grain_datarax.augmenter import Augmenter
from grain_datarax.containers import RECORD_DRAWS, RECORD_SEED, Record, carried, require_record, without
from grain_datarax.fields import get_field, set_field
from grain_datarax.leaves import require_pytree
from grain_datarax.placement import VALID, RowSharding


class Stage:
    """host batch -> device batch -> augmented batch, for one iterator."""

    def __init__(self, rows: RowSharding, augment: Augmenter | None, keep_seed: bool, pad_last_batch: bool) -> None:
        self._rows = rows
        self._augment = augment
        self._keep_seed = keep_seed
        self.pads = pad_last_batch
        self.group_count = rows.group_count
        self.largest = 0  # how many records the largest batch had: to that length others are padded

    def __call__(self, batch: Record) -> tuple[Record, int]:
        """The batch, and how many records of this process the largest had so far."""
        require_record(batch)
        require_pytree(batch)
        if self._augment is not None:
            self._augment.check(batch)
        elif not self._keep_seed:
            batch = without(batch, RECORD_SEED, RECORD_DRAWS)
        placed, count = self._rows.place(batch, self.largest if self.pads else None)
        self.largest = max(self.largest, count)
        if self._augment is not None:
            valid = get_field(placed, VALID) if self.pads else None
            placed = placed if valid is None else without(placed, VALID)  # no field of the records
            with jax.set_mesh(self._rows.local_mesh):  # not that of the training step, which may be set
                placed = self._augment(placed, counted=count)
            placed = placed if valid is None else set_field(placed, VALID, valid)
        return self._rows.assemble(placed), self.largest

    def output_spec(self, spec: Record) -> Record:
        """The spec of a batch, from that of a host batch, for `grain.experimental.get_element_spec`."""
        if self._augment is not None:
            spec = self._augment.launcher.output_spec(spec)
            seed = carried(spec, RECORD_SEED)
            shape = () if seed is None else tuple(seed.shape)[:1]
            drawn = grain.experimental.ShapeDtypeStruct(shape=shape, dtype=np.dtype(np.bool_))
            spec = self._augment.with_draws(spec, drawn)
        elif not self._keep_seed:
            spec = without(spec, RECORD_SEED, RECORD_DRAWS)
        result = self._rows.spec_of(spec)
        if self.pads:
            valid = grain.experimental.ShapeDtypeStruct(shape=(None,), dtype=np.dtype(np.bool_))
            result = set_field(result, VALID, valid)
        return result
