"""Do hosts, and epochs, draw numbers of their own?"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from grain_datarax.containers import RECORD_SEED, Record
from grain_datarax.fields import field_names, get_field, has_field
from grain_datarax.testing.arguments import Maker, Setting
from grain_datarax.testing.report import Line, Report, listed
from grain_datarax.testing.rows import Key, Reading, Row, passes_unsaid, read
from grain_datarax.wording import MissingField

# What a record drew: the field that holds it, or a function of the record.
Drawn: TypeAlias = str | Callable[[Record], Any]


def assert_hosts_differ(
    make_pipeline: Callable[..., Any],
    *,
    drawn: Drawn = RECORD_SEED,
    key: Key | None = None,
    shard_count: int = 2,
    records: int = 128,
    batched: bool = True,
) -> Report:
    """Raises if one shard draws the numbers of another: then each host augments its records as the others do theirs.

    It happens where shards are cut before the numbers are drawn, as in `dataset[index::count].random_map(...)`, and
    where hosts have neighbouring sampler seeds.

    What was drawn is compared, not what became of it: `drawn` must tell the random part of a record and nothing of the
    record itself. No six records of a shard may have drawn what records of another had, nor one of them a seed; six, as
    fewer may be chance if there are few values. Where these are so few that records of one shard have the same, as with
    a coin that is tossed for each, only shards that agree in all of eight records or more are told of.

    Args:
      make_pipeline: As in `assert_reproducible`; it takes `shard_options`, or `shard_index` and `shard_count`.
      drawn: The field that was drawn, by path, or a function of a record that returns an array, or several, such as
        `lambda record: record["noisy"] - record["clean"]`. By default the seed of `SeedRecords`, which `AugmentBatch`
        and `DeviceLoader` leave in the records with `keep_seed=True`.
      key: What names records in the report. None: their place in the shard.
      shard_count: How many shards are read.
      records: How many of each.
      batched: False: `make_pipeline` returns single records.

    Returns:
      What was compared; as a string it is a table.

    Raises:
      AssertionError: With that table, if draws are shared.
      TypeError, ValueError: If an argument has the wrong type or value, or `make_pipeline` takes no shards.
      KeyError: If there is no such field.

    Example:
      >>> import grain
      >>> def draw(number, rng):
      ...     return {"id": number, "noise": rng.random(3)}
      >>> def make_pipeline(shard_index, shard_count):  # draws, then cuts
      ...     return grain.MapDataset.range(32).random_map(draw, seed=7)[shard_index::shard_count].batch(4)
      >>> print(assert_hosts_differ(make_pipeline, drawn="noise"))
      16, 16 records of make_pipeline:
      <BLANKLINE>
          tried        compared  repeated
      ok  shards 0, 1        16         0
    """
    maker = Maker(make_pipeline)
    if not maker.takes_shards:
        raise TypeError(
            "`make_pipeline` must take `shard_options`, or `shard_index` and `shard_count`: got a function without. Add"
            " them, and shard by them where ShardByJaxProcess() does in your program."
        )
    if not shard_count >= 2:
        raise ValueError(f"`shard_count` must be 2 or more: got {shard_count}. Pass 2.")
    reading = Reading(key, _Drawn(drawn), batched)
    with passes_unsaid():
        shards = [
            read(maker(Setting(shard_index=index, shard_count=shard_count)), reading, records).rows
            for index in range(shard_count)
        ]
    counts = ", ".join(str(len(rows)) for rows in shards)
    if not all(shards):
        raise ValueError(f"`make_pipeline` must have records for each shard: got {counts}. Give it more of them.")
    lines = []
    for (one, rows), (other, others) in itertools.combinations(enumerate(shards), 2):
        fine = _is_fine(rows) and _is_fine(others)
        pairs = _shared(rows, others, fine=fine, enough=_enough(drawn))
        lines.append(_line(f"shards {one}, {other}", min(len(rows), len(others)), pairs))
    return Report(f"{counts} records of {maker.name}:", tuple(lines), columns=_COLUMNS).require()


def assert_epochs_differ(
    make_pipeline: Callable[..., Any],
    *,
    key: Key,
    drawn: Drawn = RECORD_SEED,
    records: int = 128,
    batched: bool = True,
) -> Report:
    """Raises if a record draws the same numbers in a later epoch, or many draw those that others had.

    Epochs are those of `make_pipeline(epoch=0)` and `make_pipeline(epoch=1)`, if it takes `epoch`; else those that one
    pass holds, in which the same keys come again; else a second pass over the same pipeline, which in Grain draws what
    the first drew.

    Args:
      make_pipeline: As in `assert_reproducible`.
      key: What tells records apart: a field or several, by path, or a function of a record.
      drawn: As in `assert_hosts_differ`.
      records: How many are read of each pass. They must reach into a second epoch, if one pass holds several.
      batched: False: `make_pipeline` returns single records.

    Returns:
      What was compared; as a string it is a table.

    Raises:
      AssertionError: With that table, if draws are repeated.
      TypeError, ValueError: If an argument has the wrong type or value, or no record comes twice.
      KeyError: If there is no such field.

    Example:
      >>> import grain
      >>> def draw(number, rng):
      ...     return {"id": number, "noise": rng.random(3)}
      >>> def make_pipeline():
      ...     return grain.MapDataset.range(16).repeat(2).random_map(draw, seed=7).batch(4)
      >>> print(assert_epochs_differ(make_pipeline, key="id", drawn="noise"))
      2 epochs of make_pipeline:
      <BLANKLINE>
          tried               compared  repeated
      ok  epochs in one pass        16         0
    """
    maker = Maker(make_pipeline)
    with passes_unsaid():
        how, rows = _passes(maker, Reading(key, _Drawn(drawn), batched), records)
    epochs = _epochs(rows)
    if len(epochs) < 2:
        raise ValueError(
            f"`make_pipeline` must give records twice: got {len(rows)} in {how}, none of them again. Let it take"
            " `epoch`, or pass more `records`, so that they reach into a second epoch."
        )
    line = _line(how, sum(map(len, epochs[1:])), _again(epochs, enough=_enough(drawn)))
    return Report(f"{len(epochs)} epochs of {maker.name}:", (line,), columns=_COLUMNS).require()


_COLUMNS = ("compared", "repeated")
# Where nothing comes twice on either side, six in common are chance in less than one of 200 cases, however few values
# there are: the chances of both together are highest, 0.0043, where 3.4 in common are to be expected.
_NO_CHANCE = 6
# A coin falls alike eight times in one of 256 cases.
_NO_COIN = 8


def _enough(drawn: Drawn) -> int:
    """How many draws that are alike are no chance: one of 64 bits is none."""
    return 1 if drawn == RECORD_SEED else _NO_CHANCE


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What a record drew."""

    drawn: Drawn

    def __call__(self, record: Record) -> Any:
        if callable(self.drawn):
            return self.drawn(record)
        if self.drawn == RECORD_SEED and not has_field(record, RECORD_SEED):
            raise MissingField(
                f"`drawn` must say what a record drew: got none, and no `{RECORD_SEED}` in the fields"
                f" {field_names(record)}. Name the field that was drawn, pass a function of the record, or let the"
                " augmentation leave the seed there by keep_seed=True."
            )
        return get_field(record, self.drawn)


def _shared(before: Sequence[Row], after: Sequence[Row], *, fine: bool, enough: int) -> list[tuple[Row, Row]]:
    """Those of `after` that drew what one of `before` had drawn, if so many are no chance."""
    if fine:
        rows = {_bits(row): row for row in before}
        pairs = [(rows[bits], row) for row in after if (bits := _bits(row)) in rows]
        return pairs if len(pairs) >= min(enough, len(after)) else []
    pairs = [(row, again) for row, again in zip(before, after, strict=False) if _bits(row) == _bits(again)]
    return pairs if len(pairs) >= max(_NO_COIN, min(len(before), len(after))) else []


def _again(epochs: Sequence[Mapping[Hashable, Row]], *, enough: int) -> list[tuple[Row, Row]]:
    """Those of later epochs that drew what they, or many of them, had drawn before."""
    fine = _is_fine(list(epochs[0].values()))
    found: dict[int, tuple[Row, Row]] = {}
    for before, after in itertools.combinations(epochs, 2):
        both = [key for key in after if key in before]
        pairs = _shared([before[key] for key in both], [after[key] for key in both], fine=fine, enough=1)
        if len(pairs) >= enough or any(row.key == again.key for row, again in pairs):
            found |= {id(again): (row, again) for row, again in pairs}
    return list(found.values())


def _is_fine(rows: Sequence[Row]) -> bool:
    """Whether so many values are possible that none was drawn twice."""
    return len({_bits(row) for row in rows}) == len(rows)


def _passes(maker: Maker, reading: Reading, records: int) -> tuple[str, Sequence[Row]]:
    """Where epochs come from, in words, and their records."""
    if maker.takes("epoch"):
        runs = [read(maker(Setting(epoch=epoch)), reading, records) for epoch in range(2)]
        return "epoch=0, epoch=1", [row for run in runs for row in run.rows]
    pipeline = maker(Setting())
    run = read(pipeline, reading, records)
    if not run.ended or len(_epochs(run.rows)) > 1:
        return "epochs in one pass", run.rows
    return "a second pass", [*run.rows, *read(pipeline, reading, records).rows]


def _epochs(rows: Sequence[Row]) -> Sequence[Mapping[Hashable, Row]]:
    """The first occurrence of each key, the second, and so on."""
    epochs: list[dict[Hashable, Row]] = []
    seen: Counter[Hashable] = Counter()
    for row in rows:
        if seen[row.key] == len(epochs):
            epochs.append({})
        epochs[seen[row.key]][row.key] = row
        seen[row.key] += 1
    return epochs


def _bits(row: Row) -> bytes:
    parts = [(path, np.asarray(leaf)) for path, leaf in row.leaves.items()]
    return b"".join(f"{path} {leaf.dtype} {leaf.shape} ".encode() + leaf.tobytes() for path, leaf in parts)


def _line(tried: str, compared: int, pairs: Sequence[tuple[Row, Row]]) -> Line:
    keys = tuple(again.key for _, again in pairs)
    faults = [
        f"record {again.key!r} drew what record {row.key!r} had drawn. Such are {listed(keys)}" for row, again in pairs
    ]
    return Line(axis=tried, tried=tried, compared=compared, changed=keys, faults=tuple(faults[:1]))
