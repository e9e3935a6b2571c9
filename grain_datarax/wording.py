"""What errors show of a value: as Python writes it, but never long, and of any value at all."""

import reprlib
from typing import Any

# In characters: of one text in it, and of all.
_MOST_OF_A_TEXT, _MOST = 80, 200


class MissingField(KeyError):
    """A field that is not there; its words are printed as they are, not quoted like the key of a `KeyError`."""

    def __str__(self) -> str:
        return str(self.args[0])


def shown(value: Any) -> str:
    """A value for an error, as `repr` writes it where that is short.

    Of what is long, or deep, it has the beginning; of what has no `repr`, as integers of thousands of digits, the type.

    Example:
      >>> shown((0.5, "mean")), shown([0] * 1000), shown(10**5000)
      ("(0.5, 'mean')", '[0, 0, 0, 0, 0, 0, 0, 0, ...]', 'an int of 16610 bits')
    """
    text = _BRIEF.repr(value)
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxstring = self.maxother = self.maxlong = _MOST_OF_A_TEXT
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 8

    def repr_int(self, x: int, level: int) -> str:
        # Python writes none of more than 4300 digits in decimal.
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"an int of {x.bit_length()} bits"


_BRIEF = _Brief()
