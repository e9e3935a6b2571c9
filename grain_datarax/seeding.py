"""record -> seeded record: every record takes 64 bits of its own generator along."""

from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

# The field in which a record carries its seed through Batch.
RECORD_SEED = "record_seed"
# Beside a seed that is kept: who has drawn from it already, each a field of its own, so that it is seen under jit too.
RECORD_DRAWS = "record_draws"


class SeedRecords(grain.transforms.RandomMap):
    """Adds `record_seed`, uint32 `(2,)`, to each record: 64 bits of the generator that Grain gives it.

    Place it before `Batch`: Grain drops the generators there. Every augmentation of the record follows from its seed,
    and on that alone. Nothing else is drawn, copied or changed, and no JAX backend starts.

    Grain seeds a record by the sum of the sampler's seed and the record's position in the epochs: samplers with
    neighbouring seeds share their streams, shifted by one. Give the chain of each pipeline a seed of its own.

    Example:
      >>> source = grain.MapDataset.source([{"label": 3}])
      >>> record = source.random_map(SeedRecords(), seed=7)[0]
      >>> record["label"], record["record_seed"].dtype, record["record_seed"].shape
      (3, dtype('uint32'), (2,))
    """

    # Grain's own returns nothing: it is abstract.
    def random_map(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, element: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        """The record with its seed.

        Args:
          element: A mapping from field names to anything.
          rng: The record's own generator.

        Returns:
          A new dict of the same fields, the same objects, and `record_seed`.

        Raises:
          TypeError: If the record is no mapping.
          ValueError: If the record has a `record_seed` already, or there is no generator.
        """
        require_mapping(element)
        if RECORD_SEED in element:
            raise ValueError(
                f"`{RECORD_SEED}` must not be in the record before SeedRecords: got the fields"
                f" {', '.join(map(str, element))}. Apply SeedRecords once, or rename that field."
            )
        return {**element, RECORD_SEED: draw_seed(rng)}

    def __repr__(self) -> str:
        return "SeedRecords()"

    def output_spec(self, input_spec: Mapping[str, Any]) -> dict[str, Any]:
        """The spec of a seeded record, for `grain.experimental.get_element_spec`."""
        return {**input_spec, RECORD_SEED: grain.experimental.ShapeDtypeStruct(shape=(2,), dtype=np.uint32)}


def draw_seed(rng: np.random.Generator) -> np.ndarray:
    """64 bits of a record's generator, as uint32 `(2,)`.

    Two words, not one of 64 bits: JAX cuts 64-bit integers to 32 by default.
    """
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"`rng` must be the record's generator: got {rng!r}. Give the sampler or dataset a seed, such as"
            " grain.samplers.IndexSampler(..., seed=0), and draw before Batch and FlatMap."
        )
    # The bit generator itself: Generator.integers takes 4 us, where this takes half a microsecond.
    return rng.bit_generator.random_raw(1).view(np.uint32)


def require_mapping(element: Any) -> None:
    """Raises `TypeError` unless a record or batch is a mapping from field names."""
    if not isinstance(element, Mapping):
        raise TypeError(
            f"`element` must be a mapping from field names: got {type(element).__name__}. Return a dict from the"
            ' transform before, such as {"image": image, "label": label}.'
        )
