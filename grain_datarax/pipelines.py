"""What a Grain loader or dataset is made of, step by step, from its source on, without reading a record."""

import dataclasses
import enum
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any

import grain
import numpy as np

from grain_datarax.seeding import SeedRecords


class Kind(enum.Enum):
    """What a step does; the value is Grain's word for it."""

    SOURCE = "source"
    SAMPLER = "sampler"
    SHUFFLE = "shuffle"
    SLICE = "slice"
    MAP = "map"
    RANDOM_MAP = "random_map"
    FILTER = "filter"
    FLAT_MAP = "flat_map"
    BATCH = "batch"
    REPEAT = "repeat"
    MIX = "mix"
    ZIP = "zip"
    READ = "to_iter_dataset"
    WORKERS = "mp_prefetch"
    DEVICE = "DeviceLoader"
    OTHER = "other"


class Numbers(enum.Enum):
    """What a random step's numbers follow."""

    RECORD = "the sampler's index"
    POSITION = "the place in a MapDataset"
    COUNT = "how many elements came before"


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A step of a pipeline.

    Attributes:
      kind: What it does.
      where: Words that find it in the program, such as `operations[1] of the DataLoader, SeedRecords()`.
      parents: The steps it reads from: none for a source, several where datasets are mixed.
      node: Grain's object.
      transform: What the user gave it: a transform of Grain's or a function.
      seed: That of its random numbers, where it has one.
      numbers: What these follow, of a random step.
      workers: How many processes run the steps before this one.
    """

    kind: Kind
    where: str
    parents: tuple["Step", ...] = ()
    node: Any = None
    transform: Any = None
    seed: int | None = None
    numbers: Numbers | None = None
    workers: int = 1

    def chain(self) -> Iterator["Step"]:
        """All steps that lead here, each once, this one first, and none before what it feeds."""
        seen: set[int] = set()
        waiting: list[Step] = [self]
        while waiting:
            step = waiting.pop(0)
            if id(step) not in seen:
                seen.add(id(step))
                yield step
                waiting += step.parents

    def before(self) -> list["Step"]:
        """All steps that lead here but this one."""
        return list(self.chain())[1:]


# Those of Grain 0.2.18, which keeps most of them to itself; a class that is not here is seen as another.
_KINDS = {
    "SourceMapDataset": Kind.SOURCE,
    "RangeMapDataset": Kind.SOURCE,
    "_SamplerMapDataset": Kind.SAMPLER,
    "ShuffleMapDataset": Kind.SHUFFLE,
    "WindowShuffleMapDataset": Kind.SHUFFLE,
    "WindowShuffleIterDataset": Kind.SHUFFLE,
    "InterleaveIterDataset": Kind.MIX,
    "SliceMapDataset": Kind.SLICE,
    "MapMapDataset": Kind.MAP,
    "MapIterDataset": Kind.MAP,
    "MapWithIndexMapDataset": Kind.MAP,
    "MapWithIndexIterDataset": Kind.MAP,
    "RandomMapMapDataset": Kind.RANDOM_MAP,
    "RandomMapIterDataset": Kind.RANDOM_MAP,
    "FilterMapDataset": Kind.FILTER,
    "FilterIterDataset": Kind.FILTER,
    "FlatMapMapDataset": Kind.FLAT_MAP,
    "FlatMapIterDataset": Kind.FLAT_MAP,
    "BatchMapDataset": Kind.BATCH,
    "BatchIterDataset": Kind.BATCH,
    "RepeatMapDataset": Kind.REPEAT,
    "RepeatIterDataset": Kind.REPEAT,
    "MixedMapDataset": Kind.MIX,
    "MixedIterDataset": Kind.MIX,
    "ConcatenateMapDataset": Kind.MIX,
    "ZipMapDataset": Kind.ZIP,
    "ZipIterDataset": Kind.ZIP,
    "PrefetchIterDataset": Kind.READ,
    "ProcessPrefetchIterDataset": Kind.WORKERS,
}
# Which change no element, and hand on what they read.
_TRANSPARENT = (
    "_WithSeedMapDataset",
    "_WithSeedIterDataset",
    "WithOptionsIterDataset",
    "ThreadPrefetchIterDataset",
    "_LazyWorkerSliceIterDataset",
    "_MpContextIterDataset",
    "_OutputIterDataset",
    "LimitIterDataset",
    "CacheIterDataset",
)


def read_pipeline(source: Any, expand: Callable[[Any], Step | None] | None = None) -> Step:
    """The last step of a loader or dataset, which knows those before it.

    Args:
      source: A `grain.DataLoader`, `MapDataset` or `IterDataset`.
      expand: Makes a step of a node that is none of Grain's; None of others.
    """
    return _Reader(expand).step(source)


class _Reader:
    def __init__(self, expand: Callable[[Any], Step | None] | None) -> None:
        self._expand = expand
        self._steps: dict[int, Step] = {}  # by node, as one dataset may be read by several

    def step(self, node: Any) -> Step:
        if id(node) not in self._steps:
            self._steps[id(node)] = self._read(node)
        return self._steps[id(node)]

    def _read(self, node: Any) -> Step:
        if self._expand is not None and (step := self._expand(node)) is not None:
            return step
        if isinstance(node, grain.DataLoader):
            return loader_step(node)
        name = type(node).__name__
        parents = tuple(map(self.step, parents_of(node)))
        if name in _TRANSPARENT and len(parents) == 1:
            return parents[0]
        if all(parent.kind is Kind.WORKERS for parent in parents) and len({parent.parents for parent in parents}) == 1:
            return dataclasses.replace(parents[0], workers=len(parents))  # each reads a share of the same dataset
        kind = _KINDS.get(name, Kind.OTHER)
        return Step(
            kind=kind,
            where=_described(kind, node),
            parents=parents,
            node=node,
            transform=getattr(node, "_transform", getattr(node, "_filter_fn", None)),
            seed=_seed_of(node),
            numbers=_numbers_of(kind, node),
        )


def parents_of(node: Any) -> Sequence[Any]:
    """The datasets that a dataset reads from; Grain does not tell of all of them."""
    if isinstance(node, grain.experimental.ElasticIterator):
        return (node._ds,)
    datasets = getattr(node, "_datasets", None)  # those of an interleaving, and so of worker processes
    return tuple(datasets) if datasets is not None else tuple(node.parents)


def loader_step(loader: grain.DataLoader) -> Step:
    """The steps of a `DataLoader`: source, sampler, operations, workers."""
    source = Step(Kind.SOURCE, "data_source of the DataLoader", node=loader._data_source)
    sampler = loader._sampler
    seed = getattr(sampler, "_seed", None)
    step = Step(Kind.SAMPLER, f"sampler of the DataLoader, {type(sampler).__name__}", (source,), sampler, seed=seed)
    step = Step(Kind.READ, "read_options of the DataLoader", (step,), loader)
    for place, operation in enumerate(loader._operations):
        kind = next((kind for transform, kind in _TRANSFORMS.items() if isinstance(operation, transform)), Kind.OTHER)
        step = Step(
            kind=kind,
            where=f"operations[{place}] of the DataLoader, {written(operation)}",
            parents=(step,),
            node=operation,
            transform=operation,
            seed=seed if kind is Kind.RANDOM_MAP else None,
            numbers=Numbers.RECORD if kind is Kind.RANDOM_MAP else None,
        )
    workers = loader.multiprocessing_options.num_workers
    if not workers:
        return step
    return Step(Kind.WORKERS, f"worker_count={workers} of the DataLoader", (step,), loader, workers=workers)


_TRANSFORMS: Mapping[type, Kind] = {
    grain.transforms.Map: Kind.MAP,
    grain.transforms.RandomMap: Kind.RANDOM_MAP,
    grain.transforms.Filter: Kind.FILTER,
    grain.experimental.FlatMapTransform: Kind.FLAT_MAP,
    grain.transforms.Batch: Kind.BATCH,
}


def share_of(step: Step) -> tuple[int, int, int, int] | None:
    """Start, stop, step and length of a slice; None of another step, or if Grain does not tell."""
    names = ("_start", "_stop", "_step", "_parent_length")
    if step.kind is not Kind.SLICE or not all(isinstance(getattr(step.node, name, None), int) for name in names):
        return None
    start, stop, stride, length = (getattr(step.node, name) for name in names)
    return start, stop, stride, length


def _described(kind: Kind, node: Any) -> str:
    transform = getattr(node, "_transform", getattr(node, "_filter_fn", None))
    if kind is Kind.SLICE and (share := share_of(Step(kind, "", node=node))):
        return "dataset[{}:{}:{}]".format(*share[:3])
    if kind is Kind.OTHER:
        return type(node).__name__
    if kind is Kind.BATCH:
        return f"batch({getattr(node, '_batch_size', '')})"
    return kind.value if transform is None else f"{kind.value}({written(transform)})"


def name_of(transform: Any) -> str:
    """What the user calls a function, or the class of a transform."""
    name = getattr(transform, "__qualname__", type(transform).__name__)
    return str(name).rpartition("<locals>.")[2]


def written(transform: Any) -> str:
    """A transform as a program has it."""
    if isinstance(transform, SeedRecords):
        return repr(transform)
    return name_of(transform) + ("" if hasattr(transform, "__qualname__") else "(...)")


def _seed_of(node: Any) -> int | None:
    pool = getattr(node, "_rng_pool", None)
    seed = getattr(node, "_seed", None) if pool is None else getattr(pool, "_seed", None)
    return int(seed) if isinstance(seed, int | np.integer) else None


def _numbers_of(kind: Kind, node: Any) -> Numbers | None:
    if kind is not Kind.RANDOM_MAP:
        return None
    return Numbers.POSITION if isinstance(node, grain.MapDataset) else Numbers.COUNT


def is_share(step: Step) -> bool:
    """Whether a slice may be the share of a host: one record in several, or all of them, as where there is one host."""
    share = share_of(step)
    return share is not None and (share[2] > 1 or (share[0] == 0 and share[1] == share[3]))


def is_sharded(options: Any) -> bool:
    """Whether shard options deal out the data, here or where there are more processes."""
    return isinstance(options, grain.sharding.ShardByJaxProcess) or getattr(options, "shard_count", 1) > 1


def is_shuffled(last: Step) -> bool:
    """Whether the data come in a drawn order."""
    return any(
        step.kind is Kind.SHUFFLE or (step.kind is Kind.SAMPLER and getattr(step.node, "_shuffle", False))
        for step in last.chain()
    )


def count_of(step: Step) -> int | None:
    """How many elements a step gives, `sys.maxsize` without an end; None if that is not known before they are read."""
    if any(each.kind in (Kind.FILTER, Kind.FLAT_MAP, Kind.OTHER) for each in step.chain()):
        return None
    if isinstance(step.node, grain.MapDataset):
        return len(step.node)
    if step.kind is Kind.READ and isinstance(step.node, grain.DataLoader):
        sampler, options = step.node._sampler, step.node._shard_options
        assert options is not None  # the sampler's own, if the loader was given none
        return len(sampler) // options.shard_count if isinstance(sampler, Sized) else sys.maxsize
    one_for_one = step.kind in (Kind.READ, Kind.MAP, Kind.RANDOM_MAP, Kind.SHUFFLE, Kind.WORKERS)
    return count_of(step.parents[0]) if one_for_one else None
