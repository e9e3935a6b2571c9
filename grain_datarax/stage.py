"""host batch -> device batch -> augmented batch, as a `DeviceLoader` does it."""

from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np

from grain_datarax.augmenter import Augmenter
from grain_datarax.placement import VALID, RowSharding
from grain_datarax.seeding import RECORD_DRAWS, RECORD_SEED, require_mapping


class Stage:
    """host batch -> device batch -> augmented batch, for one iterator."""

    def __init__(self, rows: RowSharding, augment: Augmenter | None, keep_seed: bool, pad_last_batch: bool) -> None:
        self._rows = rows
        self._augment = augment
        self._keep_seed = keep_seed
        self.pads = pad_last_batch
        self.group_count = rows.group_count
        self.largest = 0  # how many records the largest batch had: to that length others are padded

    def __call__(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """The batch, and how many records of this process the largest had so far."""
        require_mapping(batch)
        if self._augment is not None:
            self._augment.check(batch)
        elif not self._keep_seed:
            batch = {name: field for name, field in batch.items() if name not in (RECORD_SEED, RECORD_DRAWS)}
        placed, count = self._rows.place(batch, self.largest if self.pads else None)
        self.largest = max(self.largest, count)
        if self._augment is not None:
            marks = {VALID: placed.pop(VALID)} if self.pads else {}  # no field of the records
            with jax.set_mesh(self._rows.local_mesh):  # not that of the training step, which may be set
                placed = {**self._augment(placed, counted=count), **marks}
        return self._rows.assemble(placed), self.largest

    def output_spec(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The spec of a batch, from that of a host batch, for `grain.experimental.get_element_spec`."""
        if self._augment is not None:
            spec = self._augment.launcher.output_spec(spec)
            shape = tuple(spec[RECORD_SEED].shape)[:1] if RECORD_SEED in spec else ()
            drawn = grain.experimental.ShapeDtypeStruct(shape=shape, dtype=np.dtype(np.bool_))
            spec = self._augment.with_draws(dict(spec), drawn)
        elif not self._keep_seed:
            spec = {name: field for name, field in spec.items() if name not in (RECORD_SEED, RECORD_DRAWS)}
        result: dict[str, Any] = self._rows.spec_of(spec)
        if self.pads:
            result[VALID] = grain.experimental.ShapeDtypeStruct(shape=(None,), dtype=np.dtype(np.bool_))
        return result
