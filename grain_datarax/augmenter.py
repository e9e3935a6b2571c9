"""seeded batch -> augmented batch: what is asked of it on the host, and the fields that are written put into it."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx

from grain_datarax import workers
from grain_datarax.adapters import is_of_datarax
from grain_datarax.chain import Chain
from grain_datarax.compiled import CompiledChain, Launcher, RowCounts
from grain_datarax.containers import RECORD_DRAWS, RECORD_SEED, Record, carried, carrying, require_record, without
from grain_datarax.effects.effect import Effect
from grain_datarax.fields import field_names, replace_fields
from grain_datarax.links import CompiledDatarax, LaunchedInTurn, names_of
from grain_datarax.pages.launch import CompiledOperators
from grain_datarax.pages.launch import names_of as names_of_pages
from grain_datarax.pages.modality import ModalityOperator
from grain_datarax.repeats import SeedWatch
from grain_datarax.wording import MissingField, shown

Operators: TypeAlias = Chain | nnx.Module | Sequence[Chain | nnx.Module]


def launcher_of(operators: Operators) -> Launcher:
    """What runs a chain, one operator or several; raises `TypeError` for anything else, and `ValueError` for none."""
    links: tuple[Any, ...] = tuple(operators) if isinstance(operators, Sequence) else (operators,)
    if not links:
        raise ValueError(f"`operators` must hold at least one operator: got {shown(operators)}. Pass one or a list.")
    datarax_names = iter(names_of([link for link in links if _kind_of(link) is CompiledDatarax]))
    pages_names = iter(names_of_pages([link for link in links if _kind_of(link) is CompiledOperators]))
    launchers: list[Launcher] = []
    for kind, group in itertools.groupby(links, key=_kind_of):
        members = tuple(group)
        if kind is CompiledOperators:  # compiled as one
            launchers.append(CompiledOperators(members, tuple(itertools.islice(pages_names, len(members)))))
        elif kind is CompiledDatarax:
            launchers += [CompiledDatarax(link, next(datarax_names)) for link in members]
        else:
            launchers += [CompiledChain(link) for link in members]
    return launchers[0] if len(launchers) == 1 else LaunchedInTurn(launchers)


def _kind_of(link: Any) -> type[Launcher]:
    if isinstance(link, Chain):
        return CompiledChain
    if isinstance(link, ModalityOperator):
        return CompiledOperators
    if is_of_datarax(link):
        return CompiledDatarax
    if isinstance(link, Effect):
        raise TypeError(f"`operators` must be operators or a Chain: got {link!r:.80}. Pass Chain([...], seed=0).")
    raise TypeError(
        f"`operators` must be operators: got {link!r:.80}. Pass a Chain, a ModalityOperator, an operator of the package"
        " datarax, or a list of these."
    )


class Augmenter:
    """What the transforms, `DeviceLoader` and `augment` share.

    Args:
      operators: A `Chain`, or one operator, or a list of them.
      keep_seed: Keep `record_seed` in the batch, and beside it who has drawn from it.
      donate: Overwrite the buffers of `jax.Array`s in the batch where that saves memory.
      watch_passes: Whether host batches come in the order of the source, so that the first one again is a second pass.

    Attributes:
      launcher: What runs them.
    """

    def __init__(
        self, operators: Operators, *, keep_seed: bool = False, donate: bool = False, watch_passes: bool = False
    ) -> None:
        self.launcher: Launcher = launcher_of(operators)
        self._keep_seed = keep_seed
        self._donate = donate
        self._watch = SeedWatch(passes=watch_passes)

    def __call__(self, batch: Record, counted: int | None = None) -> Record:
        """The augmented batch; the rows from `counted` on are padding, augmented like the others but not counted."""
        written = workers.run(
            lambda: self.launcher(batch, self._checked_seeds(batch), donate=self._donate, counted=counted)
        )
        return self._with_fields(batch, written)

    def pure(self, batch: Record, *, counts: bool) -> tuple[Record, RowCounts]:
        """The augmented batch, and what is to be counted, if that is asked for; nothing is."""
        written, by_record = self.launcher.pure(batch, self._checked_seeds(batch), counts=counts)
        return self._with_fields(batch, written), by_record

    def check(self, element: Record) -> None:
        """Raises unless a batch or a record can be treated as far as is seen on the host.

        It looks once at the values of each field and dtype, and not at those of JAX arrays.
        """
        self.launcher.check_values(element)
        seeds, drawn = carried(element, RECORD_SEED), carried(element, RECORD_DRAWS)
        if self.launcher.seeded and isinstance(seeds, np.ndarray):
            self._watch.look(seeds)
        if drawn and (again := [mark for mark in self.launcher.draw_marks if mark in drawn]):
            raise ValueError(
                f"`name` must not be that of an effect that drew from the same seeds before: got"
                f" {[mark.rpartition('@')[0] for mark in again]}. It would draw the same again: name the effects of"
                " each stage, or give the stages different seeds."
            )

    def _checked_seeds(self, batch: Record) -> Any:
        require_record(batch)
        seeds = carried(batch, RECORD_SEED)
        if self.launcher.seeded and seeds is None:
            raise MissingField(
                f"`{RECORD_SEED}` must be in the batch: got the fields {field_names(batch)}. Add"
                " grain_datarax.SeedRecords() before Batch; where it is there already, augment once, or pass"
                " keep_seed=True to what comes first."
            )
        self.check(batch)
        return seeds

    def _with_fields(self, batch: Record, written: Mapping[str, Any]) -> Record:
        """The batch with the fields that were written, and with its seeds or without."""
        seeds, drawn = carried(batch, RECORD_SEED), None
        if self._keep_seed and seeds is not None:
            drawn = _true_for_each(seeds) if isinstance(seeds, jax.Array) else np.ones(len(seeds), bool)
        return self.with_draws(replace_fields(batch, written), drawn)

    def with_draws(self, element: Record, drawn: Any) -> Record:
        """Adds who has drawn from it to a seed that is kept, or else drops both.

        It is noted as names of fields, each with the value `drawn`, since values are not known under jit.
        """
        if not self._keep_seed:
            return without(element, RECORD_SEED, RECORD_DRAWS)
        if not self.launcher.seeded or carried(element, RECORD_SEED) is None:
            return element
        marks = {**(carried(element, RECORD_DRAWS) or {}), **dict.fromkeys(self.launcher.draw_marks, drawn)}
        return carrying(element, RECORD_DRAWS, marks)


@jax.jit  # by itself an operation transfers its constants implicitly, which jax_transfer_guard may disallow
def _true_for_each(seeds: jax.Array) -> jax.Array:
    return (seeds >= 0).all(axis=1)  # not ones_like, which has no sharding on Explicit meshes
