"""Records to augment. Apart from helpers.py, so that worker processes, which unpickle them, start fast."""

import ml_dtypes
import numpy as np


def images(count, shape=(16, 12, 3), dtype="float32", seed=0):
    """Images that use the whole range of their type, [0, 1] if it is floating point."""
    values = np.random.default_rng(seed).random((count, *shape))
    return (
        (values * 255).round().astype(dtype)
        if dtype == "uint8"
        else values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    )


def records(count, **kwargs):
    return [{"image": image, "label": label} for label, image in enumerate(images(count, **kwargs))]


class Records:
    """A source of records whose repr is the same in every process, as a checkpoint needs it."""

    def __init__(self, count, **kwargs):
        self._records = records(count, **kwargs)

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]

    def __repr__(self):
        return f"Records({len(self)})"
