"""`check_pipeline`: reads a user's pipelines, and names the traps that they are in."""

import dataclasses
import importlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import grain
import jax

from grain_datarax.device import DeviceLoader
from grain_datarax.pipelines import Kind, Step, is_share, name_of, read_pipeline
from grain_datarax.seeding import SeedChildren, SeedRecords
from grain_datarax.transforms import AugmentBatch, AugmentRecord
from grain_datarax.traps import find_traps
from grain_datarax.traps.finding import Finding, Surroundings
from grain_datarax.traps.numbers import shared_numbers
from grain_datarax.traps.program import Program, traps_of_program

_OURS = (SeedRecords, SeedChildren, AugmentBatch, AugmentRecord)
_RUN_FUNCTIONS = (Kind.MAP, Kind.RANDOM_MAP, Kind.FILTER, Kind.FLAT_MAP)


@dataclasses.dataclass(frozen=True)
class Report:
    """What `check_pipeline` found; printed, it says it in words.

    Attributes:
      findings: The traps, each with where it is, why it matters, and the line to change.
      unseen: What could not be seen, and may hold others.
    """

    findings: tuple[Finding, ...]
    unseen: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.findings)
        found = f"{count or 'No'} trap{'s' * (count != 1)} found{':' if count else '.'}"
        return "\n".join([found, *map(str, self.findings), *(f"Not seen: {each}" for each in self.unseen)])


def check_pipeline(*pipelines: Any, accelerator: bool | None = None) -> Report:
    """Reads how pipelines are built, and names each trap of Grain's that they are in.

    Found are: a `random_map` on the share of a host, or behind a filter where it counts records, or behind `Batch`; one
    seed for two stages, or for datasets that are mixed; seeds of two pipelines that overlap; sharding in the sampler;
    `SeedRecords` missing, twice, or behind a shuffle; children that share a seed; a chain that draws nothing in front
    of shuffled data; augmentation in workers beside an accelerator; `ReadOptions` that cost more than the work;
    `drop_remainder=False` with a sharding; unparsed absl flags and a missing `__main__` guard where there are workers.

    It reads a dozen records of the source, in this process, for the time that this takes; otherwise it looks at what
    loaders and datasets are made of, and runs nothing. What it can't see, such as what functions do inside, it says.

    Args:
      *pipelines: What is used in one program, such as for training and for validation: `grain.DataLoader`s, datasets,
        `DeviceLoader`s.
      accelerator: Whether the machine that they are for has one; None: whether JAX finds one here.

    Returns:
      A `Report`.

    Raises:
      TypeError: If a pipeline is something else, such as an iterator.
      ValueError: If there is none.

    Example:
      >>> class AddNoise(grain.transforms.RandomMap):
      ...     def random_map(self, element, rng):
      ...         return element + rng.normal()
      >>> dataset = grain.MapDataset.range(64)
      >>> report = check_pipeline(dataset[0::2].random_map(AddNoise(), seed=1))
      >>> print(report.findings[0])
      random_map on the share of a host: random_map(AddNoise(...)) behind dataset[0:64:2]
        why: its numbers follow a record's place in this share: all hosts draw the same, record for record, and with \
another number of hosts all records get others.
        change: Draw first, and deal out then: dataset.random_map(AddNoise(...), seed=...)[i::n].
      >>> check_pipeline(dataset.random_map(AddNoise(), seed=1)[0::2]).findings
      ()
    """
    return report_of(pipelines, Program.running(), accelerator)


def report_of(pipelines: Sequence[Any], program: Program, accelerator: bool | None = None) -> Report:
    """As `check_pipeline`, for this program."""
    if not pipelines:
        raise ValueError("`pipelines` must hold at least one: got none. Pass a loader or a dataset.")
    for pipeline in pipelines:
        if not isinstance(pipeline, grain.DataLoader | grain.MapDataset | grain.IterDataset):
            raise TypeError(
                f"`pipelines` must be loaders or datasets: got {type(pipeline).__name__}. Pass a grain.DataLoader,"
                " MapDataset, IterDataset or DeviceLoader itself, not its iterator."
            )
    around = Surroundings(has_accelerator=_finds_accelerator if accelerator is None else lambda: accelerator)
    steps = [read_pipeline(pipeline, _device_step) for pipeline in pipelines]
    names = [f"pipeline {place}, " if len(steps) > 1 else "" for place in range(1, len(steps) + 1)]
    findings: list[Finding] = []
    for name, last in zip(names, steps, strict=True):
        found = [*find_traps(last, around), *traps_of_program(last, program)]
        findings += [dataclasses.replace(each, where=name + each.where) for each in found]
    for first, second in itertools.combinations(steps, 2):
        findings += itertools.islice(shared_numbers(first, second), 1)
    return Report(tuple(findings), tuple(dict.fromkeys(_unseen(steps, program))))


def pipelines_of(reference: str) -> tuple[tuple[Any, ...], pathlib.Path | None]:
    """The pipelines that a function returns, one or several, and the file that it is in.

    Args:
      reference: Its module and its name, such as `"training.data:make_loader"`; it is called without arguments.

    Raises:
      ValueError: If there is no such function, or it can't be called.
    """
    name, separator, path = reference.partition(":")
    if not (name and separator and path):
        raise ValueError(f"`function` must be module:function: got {reference!r}. Pass training.data:make_loader.")
    try:
        module = function = importlib.import_module(name)
        for part in path.split("."):
            function = getattr(function, part)
        made = function()  # type: ignore[operator]
    # Whatever a user's module raises, also a SystemExit of a parser of arguments.
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"`function` must be one that can be imported and called without arguments: got {reference!r}, which raised"
            f" {type(error).__name__}: {error}. Name a function that returns a loader, a dataset, or several."
        ) from error
    file = getattr(module, "__file__", None)
    several = made.values() if isinstance(made, Mapping) else made if isinstance(made, list | tuple) else (made,)
    return tuple(several), pathlib.Path(file) if file else None


def _device_step(node: Any) -> Step | None:
    return node._step(_device_step) if isinstance(node, DeviceLoader) else None


def _finds_accelerator() -> bool:
    return jax.default_backend() != "cpu"


def _unseen(steps: Iterable[Step], program: Program) -> Iterator[str]:
    steps = list(steps)
    every = [step for last in steps for step in reversed(list(last.chain()))]
    functions = [name_of(step.transform) for step in every if _is_users(step)]
    if functions:
        yield (
            f"what is done inside {', '.join(dict.fromkeys(functions))}: numbers that are not of their `rng`, such as"
            " np.random's, and what they write into records."
        )
    for step in every:
        if step.kind is Kind.OTHER:
            yield f"what {step.where} does."
        if step.kind is Kind.SAMPLER and not hasattr(step.node, "_seed"):
            yield f"how {type(step.node).__name__} seeds, shuffles and shards."
        if step.kind is Kind.SLICE and not is_share(step):
            yield f"whether {step.where} is the share of a host: then random maps belong in front of it."
    if program.guarded is None and any(step.kind is Kind.WORKERS for step in every):
        yield "whether the program has a `__main__` guard, as its text can't be read."
    if len(steps) == 1:
        yield "other pipelines of the program: pass them too, then their seeds are compared."


def _is_users(step: Step) -> bool:
    return step.kind in (Kind.MAP, Kind.RANDOM_MAP, Kind.FILTER, Kind.FLAT_MAP) and not isinstance(
        step.transform, _OURS
    )
