"""What an error of this package looks like, whatever the input was."""

import re

from grain_datarax.wording import MissingField

FORM = re.compile(r"`.+`.* must .+: got .*\. \S.*", re.DOTALL)
REFUSALS = (ValueError, TypeError, MissingField, FileNotFoundError)


def require_refusal(error, *, longest=20_000):
    """Fails unless an error says what is wrong in the package's words: a name, its rule, what was got, what to do."""
    assert type(error) in REFUSALS, repr(error)
    (message,) = error.args
    assert FORM.fullmatch(message), message
    assert len(message) <= longest, f"{message[:200]}... of {len(message)} characters"
