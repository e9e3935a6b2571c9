"""The traps of Grain pipelines: rules, each of which reads the steps of one and says what is wrong, and why."""

from collections.abc import Iterable

from grain_datarax.pipelines import Step
from grain_datarax.traps import numbers, seeds, shares, speed
from grain_datarax.traps.finding import Finding, Rule, Surroundings

# Of these a run may draw wrong numbers without a word.
SILENT: tuple[Rule, ...] = (
    numbers.drawn_on_a_share,
    numbers.drawn_behind_a_filter,
    numbers.drawn_behind_batch,
    numbers.repeated,
    numbers.one_seed_for_stages,
    numbers.one_seed_for_mixed,
    shares.dealt_by_the_sampler,
)
RULES: tuple[Rule, ...] = (
    *SILENT,
    seeds.missing,
    seeds.twice,
    seeds.behind_shuffle,
    seeds.shared_by_children,
    seeds.for_nothing,
    shares.dealt_with_a_rest,
    speed.augmented_in_workers,
    speed.read_ahead_for_nothing,
)


def find_traps(last: Step, around: Surroundings, rules: Iterable[Rule] = RULES) -> list[Finding]:
    """What the rules find in a pipeline, which ends at this step."""
    return [finding for rule in rules for finding in rule(last, around)]
