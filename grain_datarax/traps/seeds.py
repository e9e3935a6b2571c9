"""Traps of records' seeds: missing, drawn twice, moved by a shuffle, shared by children, or drawn for nothing."""

from collections.abc import Iterator

from grain_datarax.compiled import CompiledChain, Launcher
from grain_datarax.containers import RECORD_SEED
from grain_datarax.effects.composition import Sequential
from grain_datarax.effects.effect import Effect
from grain_datarax.pipelines import Kind, Step, is_shuffled, written
from grain_datarax.seeding import SeedChildren, SeedRecords
from grain_datarax.transforms import AugmentRecord
from grain_datarax.traps.drawing import launcher_of, place_of, takes_position
from grain_datarax.traps.finding import Finding, Surroundings


def missing(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Chains that draw, without seeds in front of them."""
    for step in last.chain():
        launcher = launcher_of(step)
        if launcher is None or not launcher.seeded or isinstance(step.transform, AugmentRecord):
            continue
        if not any(map(_may_seed, step.before())):
            yield Finding(
                "SeedRecords missing",
                f"in front of {step.where}",
                f"records carry no `{RECORD_SEED}`, from which the chain draws.",
                "Add gdx.SeedRecords() in front of Batch: operations=[..., gdx.SeedRecords(),"
                " grain.transforms.Batch(...)], or dataset.random_map(gdx.SeedRecords(), seed=7).batch(...).",
            )


def twice(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Records that would get two seeds."""
    for step in last.chain():
        for other in step.before():
            if isinstance(step.transform, SeedRecords) and isinstance(other.transform, SeedRecords):
                yield Finding(
                    "SeedRecords twice",
                    f"{other.where} and {step.where}",
                    f"a record that has its `{RECORD_SEED}` is refused.",
                    "Keep the first alone.",
                )


def behind_shuffle(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Seeds that follow the order of the data."""
    for step in last.chain():
        draws = isinstance(step.transform, SeedRecords) and takes_position(step)
        shuffles = [each for each in step.before() if each.kind is Kind.SHUFFLE] if draws else []
        for shuffle in shuffles[:1]:
            yield Finding(
                "SeedRecords behind shuffle",
                f"{step.where} behind {shuffle.where}",
                f"seeds follow {place_of(step)} in the shuffled data: in another order all records get other pixels.",
                "Draw first: dataset.random_map(gdx.SeedRecords(), seed=7).shuffle(seed=...).",
            )


def shared_by_children(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Records made of one, which share its seed."""
    for step in last.chain():
        bare = step.kind is Kind.FLAT_MAP and not isinstance(step.transform, SeedChildren)
        if bare and any(isinstance(each.transform, SeedRecords) for each in step.before()):
            yield Finding(
                "children with one seed",
                f"{step.where} behind SeedRecords",
                "all children of a record have its seed, and so the same noise.",
                f"Wrap it: gdx.SeedChildren({written(step.transform)}).",
            )


def for_nothing(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Chains that draw nothing, where data are shuffled."""
    launchers = {step: launcher for step in last.chain() if (launcher := launcher_of(step)) is not None}
    if launchers and not any(map(_is_random, launchers.values())) and is_shuffled(last):
        yield Finding(
            "a chain that draws nothing",
            next(iter(launchers)).where,
            "the data are shuffled, as for training, and each epoch shows every record as the last one did.",
            "Put an effect that draws into the chain, or leave shuffling out where this is an evaluation.",
        )


def _is_random(launcher: Launcher) -> bool:
    return any(map(_draws, launcher.chain.effects)) if isinstance(launcher, CompiledChain) else launcher.draws


def _draws(effect: Effect) -> bool:
    """Whether records may come out of an effect unequally."""
    if isinstance(effect, Sequential) and effect.p == 1:
        return any(map(_draws, effect.effects))
    return effect.p > 0 and bool(effect.p < 1 or effect.drawn_settings or type(effect).draw is not Effect.draw)


def _may_seed(step: Step) -> bool:
    """Whether a step gives records their seeds, or is a function that speaks of them."""
    if isinstance(step.transform, SeedRecords | SeedChildren):
        return True
    methods = (step.transform, *(getattr(step.transform, name, None) for name in ("map", "random_map", "flat_map")))
    codes = [code for method in methods if (code := getattr(method, "__code__", None)) is not None]
    words = {str(word) for code in codes for word in (*code.co_consts, *code.co_names)}
    return bool(words & {RECORD_SEED, "RECORD_SEED", "child_seed"})
