"""record -> seeded record: every record takes 64 bits of its own generator along."""

from collections.abc import Mapping
from typing import Any, overload

import grain
import numpy as np

from grain_datarax.containers import MISSING, Container, Record, SameRecord, carrying, record_container_of, refusal_of
from grain_datarax.containers import RECORD_DRAWS as RECORD_DRAWS
from grain_datarax.containers import RECORD_SEED as RECORD_SEED


class SeedRecords(grain.transforms.RandomMap):
    """Adds `record_seed`, uint32 `(2,)`, to each record: 64 bits of the generator that Grain gives it.

    Place it before `Batch`: Grain drops the generators there. Every augmentation of the record follows from its seed,
    and on that alone. Nothing else is drawn, copied or changed, and no JAX backend starts.

    A mapping carries its seed as the field `record_seed`, a tuple or a list as its last item, a NamedTuple or a
    dataclass as the attribute `record_seed`, which its class declares: `record_seed: Any = None`. The augmentation
    takes it out again: `(image, label)` comes out as `(image, label)`. In a tuple or a list it is known by its type: a
    last item that is uint32 of shape `(2,)`, or `(B, 2)` in a batch, is taken for a seed.

    Grain seeds a record by the sum of the sampler's seed and the record's position in the epochs: samplers with
    neighbouring seeds share their streams, shifted by one. Give the chain of each pipeline a seed of its own.

    Example:
      >>> source = grain.MapDataset.source([{"label": 3}])
      >>> record = source.random_map(SeedRecords(), seed=7)[0]
      >>> record["label"], record["record_seed"].dtype, record["record_seed"].shape
      (3, dtype('uint32'), (2,))
      >>> [type(part).__name__ for part in grain.MapDataset.source([("a", 3)]).random_map(SeedRecords(), seed=7)[0]]
      ['str', 'int', 'ndarray']
    """

    # Grain's own returns nothing: it is abstract.
    @overload
    def random_map(self, element: tuple[Any, ...], rng: np.random.Generator) -> Record: ...
    @overload
    def random_map(self, element: SameRecord, rng: np.random.Generator) -> SameRecord: ...
    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        """The record with its seed.

        Args:
          element: A mapping from field names to anything, a tuple, a list, a NamedTuple or a dataclass.
          rng: The record's own generator.

        Returns:
          A new record of the same type and fields, the same objects, and `record_seed`.

        Raises:
          TypeError: If the record has no fields, or no place for its seed.
          ValueError: If the record has a `record_seed` already, or there is no generator.
        """
        return _place_in(element).put(element, RECORD_SEED, draw_seed(rng))

    def __repr__(self) -> str:
        return "SeedRecords()"

    def output_spec(self, input_spec: Record) -> Record:
        """The spec of a seeded record, for `grain.experimental.get_element_spec`."""
        return carrying(input_spec, RECORD_SEED, grain.experimental.ShapeDtypeStruct(shape=(2,), dtype=np.uint32))


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


def _place_in(element: Record) -> Container:
    """How a record is written into; raises unless it has fields, and a place for a seed that is free."""
    container = record_container_of(element)
    if container is None:
        raise refusal_of(element)
    if container.get(element, RECORD_SEED) is not MISSING:
        raise ValueError(
            f"`{RECORD_SEED}` must not be in the record before SeedRecords: got the fields"
            f" {', '.join(name for name, _ in container.items(element))}. Apply SeedRecords once, or rename that field."
        )
    if type(element) is dict and {*map(type, element)} <= {str}:  # as nearly always, and fast
        return container
    if isinstance(element, Mapping) and not all(isinstance(name, str) for name in element):
        raise TypeError(
            f"`element` must have names that are strings, to be sorted beside `{RECORD_SEED}`: got {list(element)}."
            " Rename them before: .map(lambda record: {str(name): field for name, field in record.items()})."
        )
    return container
