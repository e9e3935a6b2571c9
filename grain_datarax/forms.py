"""batch -> its form, in JSON's types -> a batch of that form without records."""

from typing import Any

import jax
import numpy as np


def form_of(part: Any) -> Any:
    """What a batch without records is made of: names, shapes and dtypes; what is no array is left out."""
    if isinstance(part, dict):
        return {"fields": {name: form_of(field) for name, field in part.items()}}
    if type(part) in (list, tuple):
        return {"items": [form_of(item) for item in part], "tuple": isinstance(part, tuple)}
    if isinstance(part, np.ndarray | jax.Array):
        dtype = np.dtype(part.dtype)
        # Those of ml_dtypes have a name alone.
        return {"shape": part.shape, "dtype": dtype.name if dtype.kind == "V" else dtype.str}
    return None if jax.tree_util.all_leaves([part]) else {"class": type(part).__name__}


def without_records(form: Any) -> Any:
    """A batch of that form, of arrays whose axis 0 is empty; None where it had no array."""
    if form is None:
        return None
    if "class" in form:
        raise TypeError(
            f"`equalize` must have batches of dicts, lists and tuples where a process has none of its own: got"
            f" {form['class']}. Make records dicts, or give every process a batch at least."
        )
    if "fields" in form:
        return {name: without_records(field) for name, field in form["fields"].items()}
    if "items" in form:
        items = [without_records(item) for item in form["items"]]
        return tuple(items) if form["tuple"] else items
    shape = (0, *form["shape"][1:]) if form["shape"] else ()
    return np.zeros(shape, np.dtype(form["dtype"]))
