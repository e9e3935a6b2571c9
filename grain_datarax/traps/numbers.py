"""Traps of Grain's random numbers: hosts, workers, stages or datasets that draw the same, or others than before."""

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator, Sized

from grain_datarax.pipelines import Kind, Numbers, Step, is_share, share_of, written
from grain_datarax.seeding import SeedRecords
from grain_datarax.traps.drawing import place_of, takes_position, uses_generator
from grain_datarax.traps.finding import Finding, Surroundings

# As many as a run may have that says no number of epochs.
_EPOCHS_WITHOUT_END = 100


def drawn_on_a_share(last: Step, around: Surroundings) -> Iterator[Finding]:
    """Random maps behind the slice of a host."""
    for step in last.chain():
        shares = [each for each in step.before() if is_share(each)] if takes_position(step) else []
        for share in shares[:1]:
            kept = ", while it is a MapDataset" if step.numbers is Numbers.COUNT else ""
            yield Finding(
                "random_map on the share of a host",
                f"{step.where} behind {share.where}",
                f"its numbers follow {place_of(step)} in this share: all hosts draw the same, record for record, and"
                " with another number of hosts all records get others.",
                f"Draw first, and deal out then{kept}: dataset.random_map({written(step.transform)}, seed=...)[i::n].",
                worst=around.processes > 1 and _is_one_in(around.processes, share),
            )


def drawn_behind_a_filter(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Random maps that count records, behind a step that changes how many there are."""
    for step in last.chain():
        counts = step.numbers is Numbers.COUNT and takes_position(step)
        filters = [each for each in step.before() if each.kind in (Kind.FILTER, Kind.FLAT_MAP)] if counts else []
        for other in filters[:1]:
            yield Finding(
                "random_map behind a filter",
                f"{step.where} behind {other.where}",
                "its numbers follow how many records of its worker came before: with other workers all records get"
                " others.",
                f"Draw first, while it is a MapDataset: dataset.random_map({written(step.transform)}, seed=...), and"
                f" {other.kind.value} behind it.",
                worst=any(each.kind is Kind.WORKERS for each in last.chain()),
            )


def drawn_behind_batch(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Random maps of whole batches."""
    for step in last.chain():
        batches = [each for each in step.before() if each.kind is Kind.BATCH] if uses_generator(step) else []
        for batch in batches[:1]:
            given = "the generator of its last record" if step.numbers is Numbers.RECORD else "one generator"
            yield Finding(
                "RandomMap behind Batch",
                f"{step.where} behind {batch.where}",
                f"a batch has {given}: what a record gets depends on the batch size, and on its neighbours.",
                "Put it in front of Batch; or put gdx.SeedRecords() there, and a chain behind it.",
                worst=True,
            )


def repeated(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Epochs that begin anew behind what draws."""
    for step in last.chain():
        anew = step.kind is Kind.REPEAT and not getattr(step.node, "_reseed_each_epoch", False)
        drawn = [each for each in step.before() if takes_position(each)] if anew else []
        for other in drawn[-1:]:
            yield Finding(
                "epochs that repeat",
                f"{other.where} in front of {step.where}",
                "each epoch begins anew: all records get the numbers that they had in the last one.",
                "Repeat while it is a MapDataset, dataset.repeat(num_epochs), whose epochs draw anew.",
                worst=True,
            )


def one_seed_for_stages(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Two random maps of one pipeline with one seed."""
    for step in last.chain():
        for other in step.before():
            both = takes_position(step) and takes_position(other) and step.numbers is other.numbers
            if both and step.seed is not None and step.seed == other.seed:
                yield Finding(
                    "one seed for two stages",
                    f"{other.where} and {step.where}, both seeded by {step.seed}",
                    "both are given the same generator, and draw the same numbers.",
                    f"Seed them apart, seed={step.seed} and seed={step.seed + 1}; or call dataset.seed(...) once, and"
                    " give them none.",
                    worst=True,
                )


def one_seed_for_mixed(last: Step, _: Surroundings) -> Iterator[Finding]:
    """Random maps with one seed in datasets that are mixed behind them."""
    for step in last.chain():
        pairs = itertools.combinations(step.parents, 2) if step.kind is Kind.MIX else ()
        shared = itertools.chain.from_iterable(itertools.starmap(shared_numbers, pairs))
        for finding in itertools.islice(shared, 1):
            yield dataclasses.replace(
                finding,
                trap="one seed for mixed datasets",
                change="Draw behind the mixture, or give each gdx.SeedRecords(salt=...) of its own.",
                worst=True,
            )


def shared_numbers(first: Step, second: Step) -> Iterator[Finding]:
    """What two pipelines, or two branches of one, draw in common; a step that is in both is one step."""
    common = {*first.chain()} & {*second.chain()}
    for one, other in itertools.product(first.chain(), second.chain()):
        if one in common or other in common or not (uses_generator(one) and uses_generator(other)):
            continue
        shift = _shift(one, other)
        if shift is None or _salt_of(one) != _salt_of(other) or _are_apart(_places(one, first), _places(other, second)):
            continue
        follow = "the sum of seed and index" if one.numbers is Numbers.RECORD else f"the seed and {place_of(one)}"
        yield Finding(
            "neighbouring seeds",
            f"{one.where}, seeded by {one.seed}, and {other.where}, seeded by {other.seed}",
            f"Grain's numbers follow {follow}: both draw the same" + (f", {shift} records apart." if shift else "."),
            'Pass each its own gdx.SeedRecords(salt="train"); or seeds that lie further apart than there are records in'
            " all epochs.",
        )


def _shift(one: Step, other: Step) -> int | None:
    """How many records lie between the same numbers in two steps; None if they have none in common."""
    if one.seed is None or other.seed is None or one.numbers is not other.numbers:
        return None
    shift = abs(one.seed - other.seed)
    if one.numbers is not Numbers.RECORD:
        return 0 if shift == 0 else None
    earlier = one if one.seed <= other.seed else other  # whose numbers come to where the other's begin
    return shift if shift < _length_of_stream(earlier) else None


def _places(step: Step, last: Step) -> range | None:
    """Where a random step draws for what comes out at the last one; None if that is not known, or no place."""
    if step.numbers is not Numbers.POSITION:
        return None
    places = range(len(step.node))
    for each in reversed(list(last.chain())):
        share = share_of(each)
        if step in each.before() and share is not None and share[3] == len(places):
            places = places[slice(*share[:3])]
        elif step in each.before() and each.kind in (Kind.SHUFFLE, Kind.REPEAT, Kind.FLAT_MAP, Kind.MIX, Kind.ZIP):
            return None
    return places


def _are_apart(places: range | None, others: range | None) -> bool:
    """Whether places are known to have none in common."""
    if places is None or others is None:
        return False
    if not places or not others or places[-1] < others[0] or others[-1] < places[0]:
        return True
    return (places[0] - others[0]) % math.gcd(places.step, others.step) != 0


def _length_of_stream(step: Step) -> int:
    sampler = next((each.node for each in step.before() if each.kind is Kind.SAMPLER), None)
    length = len(sampler) if isinstance(sampler, Sized) else sys.maxsize
    return length if length < sys.maxsize else int(getattr(sampler, "_num_records", 1)) * _EPOCHS_WITHOUT_END


def _salt_of(step: Step) -> str:
    return step.transform._salt if isinstance(step.transform, SeedRecords) else ""


def _is_one_in(processes: int, step: Step) -> bool:
    share = share_of(step)
    return share is not None and share[2] % processes == 0
