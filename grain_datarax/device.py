"""host batches -> augmented device batches, ahead of the training step."""

import itertools
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from grain_datarax.agreement import Agreement
from grain_datarax.augmenter import Augmenter, Operators
from grain_datarax.equalize import MODES, Equalized
from grain_datarax.fingerprint import NOTHING
from grain_datarax.iterators import DeviceDatasetIterator, DeviceIterator
from grain_datarax.pipelines import Kind, Step, read_pipeline
from grain_datarax.placement import RowSharding
from grain_datarax.prefetch import prefetched
from grain_datarax.repeats import PassWatch
from grain_datarax.seeding import SeedRecords
from grain_datarax.shardings import Spread
from grain_datarax.shutdown import close_at_exit
from grain_datarax.sources import host_batches, is_above_an_elastic_iterator, kind_of, may_have_workers
from grain_datarax.stage import Stage
from grain_datarax.traps import SILENT, find_traps
from grain_datarax.traps.finding import Surroundings
from grain_datarax.traps.program import Program, traps_of_program
from grain_datarax.wording import shown

Tree = TypeVar("Tree")

# What iterators have, and Orbax asks for.
_OF_ITERATORS = ("get_state", "set_state", "start_prefetch", "save", "load")
_numbers = itertools.count()  # of the loaders that equalize
_NOT_ITSELF = (
    "`{}` must be asked of an iterator: got a DeviceLoader. Call `batches = iter(loader)` first, keep it, and ask that."
)


class DeviceLoader(grain.IterDataset[Any]):
    """Augmented batches on the devices, from a Grain loader or dataset of seeded host batches.

    It is a `grain.IterDataset`: `map`, `grain.IterDataset.mix` and the rest of Grain go on top of it, and resume there
    as anywhere. Each `iter(loader)` is an iterator of its own, from the start; a second pass repeats every pixel, as
    Grain draws the same again, and a warning says so once.

    Every process places its rows on its own devices, augments them there by one compiled function, its input donated,
    and puts the global arrays together: without copies, and without a word to other processes. A thread of Grain's
    does so ahead of the training step. Arrays of numbers become `jax.Array`s that are sharded over axis 0; those of 64
    bits take 32, as everywhere in JAX, but images that an operator treats must not have 64. Anything else stays on the
    host, in step with its batch. A batch has the type of its records, which must be pytrees. On the CPU, arrays may
    share the memory of those of the source, as with `jax.device_put`.

    Over several processes give each its own records: `shard_options=grain.sharding.ShardByJaxProcess()` in the
    `grain.DataLoader`, and a sampler without shards. Processes whose devices hold the same rows, because another axis
    of the mesh spans them, must be given the same records.

    An iterator's state is that of Grain's iterator after the batch that was handed out last: bytes over a
    `grain.DataLoader`, a dict over a dataset. Either restores the other's. It has one more key, a fingerprint of the
    operators, so that a checkpoint is refused where the augmentation would go on as another. An error moves nothing:
    the next `next` makes the same batch again. `close` an iterator, or use it or the loader in a `with` statement, to
    end its thread and its workers at once; they end with the program at the latest, however it was killed. One thread
    at a time may use an iterator.

    Args:
      source: A `grain.DataLoader`, `grain.IterDataset` or `grain.MapDataset` of batches that carry the seeds of
        `SeedRecords`. A `MapDataset` is read by `buffer_size` threads, at most 16. Grain's workers need a program under
        `if __name__ == "__main__":` that has parsed absl's flags: `absl.flags.FLAGS.mark_as_parsed()` does.
      operators: A `Chain` or an operator, of ours or of the package datarax; or a list of them, applied in that order;
        none: batches are placed only.
      sharding: How rows are spread: a `NamedSharding` whose spec names axes of the mesh for axis 0 alone, such as
        `P("data")`, `P(("data", "fsdp"))` or `P("data", None, None, None)`, whatever axes a field has; that spec
        itself where `jax.set_mesh` has set the mesh; or a `SingleDeviceSharding`. None spreads them over all devices of
        all processes. With `P()` every device holds all rows, and all processes must be given the same records.
      buffer_size: How many batches are made ahead; one more is in the making. 0 starts no thread.
      keep_seed: Keep `record_seed` in the batch, for `grain_datarax.augment` in the training step.
      pad_last_batch: Fill up batches that are smaller than those before, or don't divide over the devices, with rows of
        zeros, and mark the rows that are records in a boolean field `valid`, for which tuples and lists have no place.
        Fields on the host are not filled up.
      fingerprint: Keep the fingerprint in the state. Without it the state equals that of Grain's iterator, byte for
        byte, and a restored one is not compared; nor can a dataset's then go on with other processes or workers, and
        padding takes its size from the batches after it.
      strict: A state with another fingerprint is an error; False: a warning.
      equalize: What becomes of the last batches where a Filter leaves processes unequal numbers of them, with which the
        training steps would wait for each other for ever. "drop": all end behind the last batch that all have. "pad":
        those that have run out hand out batches of padding, all `valid` False, until the last has; as with
        `pad_last_batch`, which it implies, every batch has `valid`: each record counts once in an evaluation. The
        processes hear of each other through `jax.distributed`, in the thread that makes batches ahead: all must make
        the same loaders and iterators, in the same order, and stop at the same batch. An error in one is raised in all;
        so is that one has not been heard of for half an hour. One process needs none of this.

    Raises:
      TypeError, ValueError: If an argument has the wrong type or value.

    Example:
      >>> import numpy as np
      >>> import grain_datarax as gdx
      >>> chain = gdx.Chain([gdx.GaussianNoise(std=0.1)], seed=0)
      >>> source = grain.MapDataset.source([{"image": np.zeros((8, 8, 3), np.uint8), "label": 3}] * 32)
      >>> with DeviceLoader(source.random_map(gdx.SeedRecords(), seed=7).batch(16), chain) as loader:
      ...     for batch in loader:
      ...         print(type(batch["image"]).__name__, batch["image"].shape, batch["label"].dtype)
      ArrayImpl (16, 8, 8, 3) int32
      ArrayImpl (16, 8, 8, 3) int32
    """

    def __init__(
        self,
        source: grain.DataLoader | grain.IterDataset[Any] | grain.MapDataset[Any],
        operators: Operators = (),
        *,
        sharding: Spread | None = None,
        buffer_size: int = 2,
        keep_seed: bool = False,
        pad_last_batch: bool = False,
        fingerprint: bool = True,
        strict: bool = True,
        equalize: Literal["pad", "drop"] | None = None,
    ) -> None:
        if not isinstance(source, grain.DataLoader | grain.IterDataset | grain.MapDataset):
            raise TypeError(
                f"`source` must be a grain.DataLoader, IterDataset or MapDataset: got {type(source).__name__}. Pass the"
                " loader or dataset itself, not its iterator."
            )
        if isinstance(buffer_size, bool) or not isinstance(buffer_size, int):
            raise TypeError(f"`buffer_size` must be an int: got {shown(buffer_size)}. Pass a number of batches.")
        if not buffer_size >= 0:
            raise ValueError(f"`buffer_size` must not be negative: got {buffer_size}. Pass 0 to make nothing ahead.")
        if equalize is not None and equalize not in MODES:
            raise ValueError(f'`equalize` must be "pad", "drop" or None: got {shown(equalize)}. Pass one of these.')
        super().__init__(() if isinstance(source, grain.DataLoader) else source)
        self._source = source
        nothing = isinstance(operators, Sequence) and not operators
        self._augment = None if nothing else Augmenter(operators, keep_seed=keep_seed, donate=True)
        self._rows = RowSharding(sharding)
        pad_last_batch = pad_last_batch or equalize == "pad"
        # Its collectives must not run beside those of the training step: that gives wrong values, silently.
        several = pad_last_batch or self._rows.sharding.num_devices > 1
        if self._augment is not None and self._augment.launcher.needs_whole_batches and several:
            raise ValueError(
                f"`batch_stats_fn` must be None over several devices or with padding: got one in {operators}. Use"
                " grain_datarax.augment in the training step, which has the whole batch."
            )
        if isinstance(source, grain.IterDataset) and is_above_an_elastic_iterator(source):
            raise ValueError(
                f"`source` must not be built on an ElasticIterator, whose one iterator cannot be read ahead: got"
                f" {source}. Pass the ElasticIterator itself, and map its dataset before."
            )
        self._buffer_size = buffer_size
        self._keep_seed = keep_seed
        self._pad_last_batch = pad_last_batch
        self._fingerprint = fingerprint
        self._strict = strict
        self._equalize = equalize if jax.process_count() > 1 else None
        # In all processes the same, if they make the same loaders and iterators.
        self._number = next(_numbers) if self._equalize else 0
        self._starts = itertools.count()
        self._said_traps = False
        draws = keep_seed or (self._augment is not None and self._augment.launcher.draws)
        # Seeds of the records' own names are to come again, as in each evaluation.
        seeders = [each.transform for each in self._step().chain() if isinstance(each.transform, SeedRecords)]
        named = any(seeder._key is not None for seeder in seeders)
        self._passes = PassWatch() if draws and not named else None
        self._open: weakref.WeakSet[DeviceDatasetIterator] = weakref.WeakSet()
        # Grain's datasets call `parent.__iter__()`, which finds this, and need states that are dicts; `iter(loader)`
        # looks at the class alone. Without `has_child` Grain would put a dataset of its own in between.
        object.__setattr__(self, "__iter__", self._batches)
        self.has_child = True

    @property
    def sharding(self) -> NamedSharding:
        """That of the batches. Put a model that was restored on `sharding.mesh` too: JAX mixes no other devices."""
        return self._rows.sharding

    def replicate(self, tree: Tree) -> Tree:
        """A tree of arrays, such as a model's state, whole on every device of the batches, over all processes.

        What is trained on the batches must be there: JAX computes with no arrays of other devices, such as those that a
        checkpoint restored onto one. Do it before the state is first used, saved or restored: Orbax restores to where
        the state is that it is given. All processes must hand in the same values.

        Example:
          >>> import numpy as np
          >>> from flax import nnx
          >>> model = nnx.Linear(8, 2, rngs=nnx.Rngs(0))
          >>> loader = DeviceLoader(grain.MapDataset.source([{"image": np.zeros((8, 8, 3), np.uint8)}]).batch(1))
          >>> nnx.update(model, loader.replicate(nnx.state(model)))
        """
        everywhere = NamedSharding(self.sharding.mesh, jax.P())

        def placed(leaf: Any) -> Any:
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(placed(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
            # To devices of other processes, as of JAX 0.12, device_put takes neither keys nor what is on one of ours.
            on_host = jax.process_count() > 1 and isinstance(leaf, jax.Array) and leaf.is_fully_addressable
            return jax.device_put(np.asarray(leaf) if on_host else leaf, everywhere)

        replicated: Tree = jax.tree.map(placed, tree)
        return replicated

    def __iter__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> "DeviceIterator | DeviceDatasetIterator":
        """A new iterator: a `grain.DatasetIterator` over a dataset; over a `DataLoader` one whose states are bytes."""
        batches = self._batches()
        return DeviceIterator(batches) if isinstance(self._source, grain.DataLoader) else batches

    def _step(self, expand: Callable[[Any], Step | None] | None = None) -> Step:
        """This loader as the last step of a pipeline, see `grain_datarax.pipelines`."""
        source = read_pipeline(self._source, expand)
        return Step(Kind.DEVICE, "DeviceLoader", (source,), self, transform=self._augment)

    def _batches(self) -> DeviceDatasetIterator:
        self._warn_of_traps()
        stage = self._stage()
        host, agreement = host_batches(self._source, self._buffer_size), None
        if self._equalize is None:
            batches = host.map(stage)
        else:
            agreement = Agreement(f"grain_datarax/{self._number}/{next(self._starts)}")
            batches = Equalized(host, stage, agreement, self._equalize)
        dataset = prefetched(batches, self._buffer_size)
        whole = NOTHING if self._augment is None else self._augment.launcher.fingerprint()
        entry = whole if self._fingerprint else None
        iterator = DeviceDatasetIterator(
            iter(dataset), stage, entry, self._strict, self._source, agreement, self._passes
        )
        self._open.add(iterator)
        close_at_exit(iterator, may_have_workers(self._source))
        return iterator

    def _warn_of_traps(self) -> None:
        """Says the worst traps that the source is in, once, before workers start."""
        if self._said_traps:
            return
        self._said_traps = True
        last = self._step()
        found = find_traps(last, Surroundings(processes=jax.process_count()), SILENT)
        if may_have_workers(self._source):
            found += traps_of_program(last, Program.running())
        for finding in found:
            if finding.worst:
                warnings.warn(
                    f"`source` must be free of traps: got {finding.trap}, {finding.where}: {finding.why}"
                    f" {finding.change} See grain_datarax.check_pipeline.",
                    stacklevel=4,
                )

    def _stage(self) -> Stage:
        return Stage(self._rows, self._augment, self._keep_seed, self._pad_last_batch)

    def __len__(self) -> int:
        """How many batches there are in all, over a `MapDataset`; a TypeError over others, which Grain can't count."""
        if not isinstance(self._source, grain.MapDataset) or self._equalize:
            kind = kind_of(self._source) + (" with `equalize`" if self._equalize else "")
            raise TypeError(
                f"`len(loader)` must be that of a MapDataset: got a loader over {kind}, whose batches Grain does not"
                " count. Count them as they come, or pass a MapDataset that is batched by `batch`."
            )
        return len(self._source)

    def __bool__(self) -> bool:  # not by its length, which may be unknown
        return True

    def __next__(self) -> NoReturn:
        raise TypeError(_NOT_ITSELF.format("next(loader)"))

    if not TYPE_CHECKING:  # which would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            if name in _OF_ITERATORS:
                raise AttributeError(_NOT_ITSELF.format(f"loader.{name}"))
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _element_spec(self) -> Any:  # asked for by grain.experimental.get_element_spec
        if isinstance(self._source, grain.DataLoader):
            raise NotImplementedError(
                "`source` must be a dataset for an element spec: got a DataLoader, of which Grain knows none. Take the"
                " shapes of a batch: jax.eval_shape(lambda batch: batch, next(iter(loader)))."
            )
        return self._stage().output_spec(grain.experimental.get_element_spec(self._source))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "`DeviceLoader` must stay in the process that has the devices: got pickled. Call `mp_prefetch` on the"
            " dataset below it, which the loader takes as its `source`."
        )

    def __repr__(self) -> str:
        operators = "[]" if self._augment is None else self._augment.launcher.described()
        sharding = f"{self.sharding.spec} over {self.sharding.num_devices} devices"
        return (
            f"DeviceLoader(source={kind_of(self._source)}, operators={operators},\n"
            f"             sharding={sharding}, buffer_size={self._buffer_size})"
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """What its iterators did to the records of this process so far, see `AugmentBatch.counts`; waits for them."""
        return {} if self._augment is None else self._augment.launcher.counts()

    def close(self) -> None:
        """Closes all iterators of this loader: ends their threads and worker processes, and waits for them."""
        for iterator in list(self._open):
            iterator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
