"""What was tried and what came of it, as a table."""

import dataclasses
from collections.abc import Hashable, Sequence

# How many keys a line lists.
_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Line:
    """What came of one thing that was tried.

    Attributes:
      axis: What was varied, such as `"batch_size"`.
      tried: How, such as `"batch_size=1"`.
      compared: How many records were compared.
      changed: The keys of those that differ, or that repeat what must differ.
      missing: The keys of those that are lost.
      extra: The keys of those that were not there before.
      faults: What is wrong, a sentence each; empty if all is well.
    """

    axis: str
    tried: str
    compared: int
    changed: tuple[Hashable, ...] = ()
    missing: tuple[Hashable, ...] = ()
    extra: tuple[Hashable, ...] = ()
    faults: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
    """All that was tried of a pipeline; `str` makes it a table.

    Attributes:
      subject: What was looked at.
      lines: What was tried.
      notes: What was not looked at, and why.
      columns: What the table calls the numbers of records compared, changed, missing and extra, as far as they count.
    """

    subject: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ("compared", "changed", "missing", "extra")

    @property
    def faulty(self) -> tuple[str, ...]:
        """The axes in which something is wrong, each once."""
        return tuple(dict.fromkeys(line.axis for line in self.lines if line.faults))

    def __str__(self) -> str:
        rows = [("", "tried", *self.columns), *(_cells(line, len(self.columns)) for line in self.lines)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = [_aligned(row, widths) for row in rows]
        faults = [f"{line.tried}: {fault}" for line in self.lines for fault in line.faults]
        return "\n".join([self.subject, "", *table, "", *faults, *self.notes]).rstrip()

    def require(self) -> "Report":
        """The report itself; raises an `AssertionError` that holds it if something is wrong."""
        if self.faulty:
            raise AssertionError(self)
        return self


def listed(keys: Sequence[Hashable]) -> str:
    """The first keys, and how many more there are."""
    names = [repr(key) for key in dict.fromkeys(keys)]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _cells(line: Line, columns: int) -> tuple[str, ...]:
    counts = (line.compared, len(line.changed), len(line.missing), len(line.extra))[:columns]
    return ("WRONG" if line.faults else "ok", line.tried, *map(str, counts))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    words = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join([*words, *numbers])
