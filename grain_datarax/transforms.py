"""seeded records -> augmented records, host batch -> augmented batch: chains as Grain transforms."""

from typing import Any, Literal, overload

import grain
import jax
import numpy as np

from grain_datarax import workers
from grain_datarax.augmenter import Augmenter, Operators
from grain_datarax.compiled import CompiledChain
from grain_datarax.containers import RECORD_SEED, Record, SameRecord, carried, require_record
from grain_datarax.fields import get_field, replace_fields, set_field, set_fields
from grain_datarax.guard import check_seed
from grain_datarax.many_sizes import ManySizes, may_be_padded
from grain_datarax.seeding import draw_seed


@overload
def augment(
    operators: Operators, batch: tuple[Any, ...], *, keep_seed: bool = False, counts: Literal[False] = False
) -> Record: ...
@overload
def augment(
    operators: Operators, batch: tuple[Any, ...], *, keep_seed: bool = False, counts: Literal[True]
) -> tuple[Record, dict[str, dict[str, jax.Array]]]: ...
@overload
def augment(
    operators: Operators, batch: SameRecord, *, keep_seed: bool = False, counts: Literal[False] = False
) -> SameRecord: ...
@overload
def augment(
    operators: Operators, batch: SameRecord, *, keep_seed: bool = False, counts: Literal[True]
) -> tuple[SameRecord, dict[str, dict[str, jax.Array]]]: ...
def augment(operators: Operators, batch: Record, *, keep_seed: bool = False, counts: bool = False) -> Any:
    """Applies a chain to a batch inside a function of one's own, such as a training step: `AugmentBatch`, but pure.

    Records get the pixels that they get anywhere else. Nothing is kept: operators stay as they are. It works under
    `jax.jit`, `nnx.jit`, `jax.shard_map`, `jax.grad` and in the body of `jax.lax.scan`. Inside `jax.jit` over several
    devices prefer operators with `batch_strategy="vmap"`: JAX gathers a batch that it is to scan.

    Args:
      operators: A `Chain` or an operator, of ours or of the package datarax; or a list of them, applied in that order.
      batch: A batch: images with the batch as axis 0, `record_seed` uint32 `(B, 2)`, and anything else. It comes from
        `DeviceLoader(source, keep_seed=True)`, for example.
      keep_seed: Keep `record_seed` in the batch; beside it `record_draws` names who has drawn from it.
      counts: Return what is to be counted, too. From inside `jax.jit` no warning tells of values outside the range,
        which are clipped there all the same.

    Returns:
      A new batch of the same type and fields without `record_seed`. With `counts` a pair: that, and for the name of
      each link where it depends on the data, `applied`, whether it treated the record, and `outside`, how many of its
      values lay outside the range, `int32 (B,)`.

    Raises:
      As `AugmentBatch` and its `map`.

    Example:
      >>> import grain_datarax as gdx, jax.numpy as jnp
      >>> chain = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
      >>> batch = {"image": jnp.full((4, 8, 8, 3), 0.5), "record_seed": jnp.zeros((4, 2), jnp.uint32)}
      >>> loss = jax.jit(lambda scale: (scale * augment(chain, batch)["image"]).mean())
      >>> loss(2.0).shape
      ()
      >>> augment(chain, batch, counts=True)[1]["GaussianNoise"]["outside"].tolist()
      [0, 0, 0, 0]
    """
    augmented, by_record = Augmenter(operators, keep_seed=keep_seed).pure(batch, counts=counts)
    return (augmented, by_record) if counts else augmented


class _Transform:
    """A transform of Grain's that augments."""

    _augmenter: Augmenter

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._augmenter.launcher!r})"

    def counts(self) -> dict[str, dict[str, int]]:
        """By the name of each link: records `applied` and `skipped`, and values `outside` the range; of this process.

        Waits for the batches that are under way. The first values outside the range are told of by a warning besides.
        """
        return self._augmenter.launcher.counts()


class AugmentBatch(_Transform, grain.transforms.Map):
    """Applies a chain to batches of seeded records; goes behind `Batch`.

    In the main process the batch is put on the default device and augmented there, by one function compiled once for
    each shape; `map` does not wait for the device, and the fields that are written come out as `jax.Array`. Until they
    are ready the batch is not to be written to: on the CPU JAX reads NumPy arrays where they are. In a Grain worker
    process it runs on the CPU and returns NumPy. All other fields come out as they are, the same objects.

    Effects and operators draw independently. Their `name` tells them apart, or else their class and what they draw;
    unnamed ones that agree in both are numbered in their order, so name those whose neighbours may change. An operator
    that computes statistics of the batch (`batch_stats_fn`) ends one compiled function and begins the next.

    Records of a host batch that share a seed would get the same noise, and so would a second pass over the source: a
    warning says so, once.

    Args:
      operators: A `Chain` or an operator, of ours or of the package datarax; or a list of them, applied in that order.
      keep_seed: Keep `record_seed` in the batch; beside it `record_draws` names who has drawn from it, so that no other
        stage draws the same: a field, the item of a tuple behind the seed, or an attribute that the class declares.
      donate: Overwrite the buffers of `jax.Array`s in the batch where that saves memory: they can't be used
        afterwards. NumPy arrays are never overwritten.

    Raises:
      TypeError, ValueError: If `operators` holds something else or nothing.

    Example:
      >>> import grain_datarax as gdx
      >>> chain = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
      >>> source = grain.MapDataset.source([{"image": np.zeros((8, 8, 3), np.uint8), "label": 3}] * 4)
      >>> batches = source.random_map(gdx.SeedRecords(), seed=7).batch(2).map(gdx.AugmentBatch(chain))
      >>> {name: (type(field).__name__, field.shape) for name, field in batches[0].items()}
      {'image': ('ArrayImpl', (2, 8, 8, 3)), 'label': ('ndarray', (2,))}
    """

    def __init__(self, operators: Operators, *, keep_seed: bool = False, donate: bool = False) -> None:
        self._augmenter = Augmenter(operators, keep_seed=keep_seed, donate=donate, watch_passes=True)

    @overload
    def map(self, element: tuple[Any, ...]) -> Record: ...
    @overload
    def map(self, element: SameRecord) -> SameRecord: ...
    def map(self, element: Record) -> Record:
        """The augmented batch.

        Args:
          element: A batch, in the type of its records: images with the batch as axis 0, `record_seed` uint32 `(B, 2)`,
            and anything else.

        Returns:
          A new batch of the same type and fields without `record_seed`.

        Raises:
          TypeError: If the batch has no fields, or an image's dtype can't be treated.
          KeyError: If the seeds or a field are missing.
          ValueError: If a shape, or in the first host batch of a dtype a value, can't be treated.
        """
        return self._augmenter(element)

    def output_spec(self, input_spec: Record) -> Record:
        """The spec of an augmented batch, for `grain.experimental.get_element_spec`."""
        spec = self._augmenter.launcher.output_spec(input_spec)
        seeds = carried(spec, RECORD_SEED)
        shape = () if seeds is None else tuple(seeds.shape)[:1]
        drawn = grain.experimental.ShapeDtypeStruct(shape=shape, dtype=np.bool_)
        return self._augmenter.with_draws(spec, drawn)


class AugmentRecord(_Transform, grain.transforms.RandomMap):
    """Applies a chain to single records: the same pixels as `SeedRecords`, `Batch` and `AugmentBatch` give.

    Each record takes one run of the compiled function, for a batch of one; prefer batches where there are any. Images
    of many sizes are padded to few, and cut out again, which changes no pixel, instead of compiled for each. A
    record that carries a `record_seed` draws from that and keeps it, with `record_draws` beside it; another one draws
    from its own generator. What is written comes out as NumPy. An array is a record, too, of the one field that the
    operators read.

    Args:
      operators: A `Chain` or an operator, of ours or of the package datarax; or a list of them, applied in that order.

    Raises:
      TypeError, ValueError: If `operators` holds something else or nothing.

    Example:
      >>> import grain_datarax as gdx
      >>> chain = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
      >>> source = grain.MapDataset.source([{"image": np.zeros((8, 8, 3), np.uint8), "label": 3}])
      >>> record = source.random_map(gdx.AugmentRecord(chain), seed=7)[0]
      >>> record["image"].dtype, record["image"].shape
      (dtype('uint8'), (8, 8, 3))
    """

    def __init__(self, operators: Operators) -> None:
        self._augmenter = Augmenter(operators, keep_seed=True)
        launcher = self._augmenter.launcher
        self._treat = (
            ManySizes(launcher) if isinstance(launcher, CompiledChain) and may_be_padded(launcher) else launcher
        )

    @overload
    def random_map(self, element: tuple[Any, ...], rng: np.random.Generator) -> Record: ...
    @overload
    def random_map(self, element: SameRecord, rng: np.random.Generator) -> SameRecord: ...
    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        """The augmented record.

        Args:
          element: A record: images without a batch axis, and anything else.
          rng: The record's own generator.

        Returns:
          A new record of the same type and fields; an array if it was one.

        Raises:
          As `AugmentBatch.map`; ValueError also if there is no generator.
        """
        if isinstance(element, np.ndarray | jax.Array):
            path = self._only_field()
            return get_field(self.random_map(set_field({}, path, element), rng), path)
        require_record(element)
        seed = carried(element, RECORD_SEED)
        return self.augmented(element, draw_seed(rng) if seed is None and self._augmenter.launcher.seeded else seed)

    def augmented(self, element: Record, seed: Any) -> Record:
        """The augmented record, from this seed, `uint32 (2,)`, which may be None if nothing draws."""
        written = workers.run(lambda: self._launch(element, seed))
        # Copied: a view of JAX's memory is read-only, and records are for other transforms to work on.
        result = replace_fields(element, jax.tree.map(lambda field: np.array(field[0]), jax.device_get(written)))
        return self._augmenter.with_draws(result, np.array(True))

    def _launch(self, element: Record, seed: Any) -> dict[str, Any]:
        launcher = self._augmenter.launcher
        if launcher.seeded:
            check_seed(seed)
        self._augmenter.check(element)
        paths = launcher.paths_in(element)
        batch = set_fields(element, {path: _batch_of_one(get_field(element, path)) for path in paths})
        return self._treat(batch, np.asarray(seed)[None] if launcher.seeded else None)

    def _only_field(self) -> str:
        reads = self._augmenter.launcher.reads
        if len(reads) != 1:
            raise TypeError(
                f"`element` must have fields for operators that read {list(reads)}: got an array. Name them in the"
                ' transform before: .map(lambda image: {"image": image}).'
            )
        return reads[0]

    def output_spec(self, input_spec: Record) -> Record:
        """The spec of an augmented record, for `grain.experimental.get_element_spec`."""
        drawn = grain.experimental.ShapeDtypeStruct(shape=(), dtype=np.bool_)
        return self._augmenter.with_draws(self._augmenter.launcher.record_spec(input_spec), drawn)


def _batch_of_one(field: Any) -> Any:
    if isinstance(field, bool | int | float | np.generic):
        field = np.asarray(field)
    return field[None] if isinstance(field, np.ndarray | jax.Array) else field
