"""Which steps of a pipeline draw, and from what."""

from grain_datarax.augmenter import Augmenter
from grain_datarax.compiled import Launcher
from grain_datarax.pipelines import Kind, Numbers, Step
from grain_datarax.seeding import SeedChildren, SeedRecords
from grain_datarax.transforms import AugmentBatch, AugmentRecord


def uses_generator(step: Step) -> bool:
    """Whether a step draws from the generator that Grain gives it."""
    if step.kind is not Kind.RANDOM_MAP:
        return False
    if isinstance(step.transform, SeedRecords):
        return step.transform._key is None
    seeded = any(isinstance(each.transform, SeedRecords | SeedChildren) for each in step.before())
    return not (isinstance(step.transform, AugmentRecord) and seeded)


def takes_position(step: Step) -> bool:
    """Whether its numbers follow where a record stands in a dataset."""
    return uses_generator(step) and step.numbers in (Numbers.POSITION, Numbers.COUNT)


def place_of(step: Step) -> str:
    """What the numbers of such a step follow, in words."""
    return "a record's place" if step.numbers is Numbers.POSITION else "how many records came before one"


def launcher_of(step: Step) -> Launcher | None:
    """What augments in a step; None if nothing does."""
    if isinstance(step.transform, AugmentBatch | AugmentRecord):
        return step.transform._augmenter.launcher
    return step.transform.launcher if isinstance(step.transform, Augmenter) else None
