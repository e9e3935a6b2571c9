"""host batches -> batches of which every process has as many, where their sources have not."""

import contextlib
import copy
from typing import Any

import grain
import jax
import numpy as np

from grain_datarax.agreement import Agreement, Word
from grain_datarax.forms import form_of, without_records
from grain_datarax.leaves import record_count
from grain_datarax.placement import has_rows
from grain_datarax.stage import Stage

MODES = ("pad", "drop")


class Equalized(grain.IterDataset[Any]):
    """What `stage` makes of the batches of `parent`, as many in every process.

    Args:
      parent: Host batches, as many as there are.
      stage: Makes device batches of them.
      agreement: Through which the processes hear of each other.
      mode: "drop" ends behind the last batch that all have; "pad" with the last that any has: the others hand out
        batches without records until then.
    """

    def __init__(self, parent: grain.IterDataset[Any], stage: Stage, agreement: Agreement, mode: str) -> None:
        super().__init__(parent)
        self._settings = (stage, agreement, mode)

    def __iter__(self) -> grain.DatasetIterator[Any]:
        return _EqualizedIterator(self._parent.__iter__(), *self._settings)


class _EqualizedIterator(grain.DatasetIterator[Any]):
    """Its states are those of its parent: one that has run out says so again after a restart."""

    def __init__(self, parent: grain.DatasetIterator[Any], stage: Stage, agreement: Agreement, mode: str) -> None:
        super().__init__(parent)
        self._stage = stage
        self._agreement = agreement
        self._drops = mode == "drop"
        self._padding: Any = None  # a batch without records, like the first that this process or another had
        self._ended = False
        self._before: dict[str, Any] | None = None  # the state before a batch that others don't have

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        before = copy.deepcopy(self._parent.get_state()) if self._drops else None
        batch: Any
        with self._telling_of_errors():
            try:
                batch, word = self._read()
            except StopIteration:
                batch, word = None, {"rows": None}
        told = self._agreement.meet({**word, "size": max(word["rows"] or 0, self._stage.largest)}, _fold)
        if told["error"]:
            raise RuntimeError(
                f"`source` must give batches in every process: got an error in {told['error']}. See the log of that"
                " process, and go on from the last state once it is mended."
            )
        if told["ended"] == jax.process_count() or (told["ended"] and self._drops):
            self._ended, self._before = True, before
            self._agreement.leave()
            raise StopIteration
        if self._padding is None:
            self._padding = without_records(told["form"])
        with self._telling_of_errors():
            self._require_one_size(told)
            self._stage.largest = told["size"]
            return self._stage(self._padding if word["rows"] is None else batch)

    def _read(self) -> tuple[Any, Word]:
        batch = next(self._parent)
        word: Word = {"rows": record_count([leaf for leaf in jax.tree.leaves(batch) if has_rows(leaf)])}
        if self._padding is None:
            self._padding = jax.tree.map(_without_rows, batch)
            word["form"] = form_of(batch)
        return batch, word

    @contextlib.contextmanager
    def _telling_of_errors(self) -> Any:
        """Tells the others of an error, who would wait for this process otherwise."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(Exception):  # the error that there is says more
                self._agreement.say({"error": f"process {jax.process_index()}: {error!r}"}, _fold)
            raise

    def _require_one_size(self, told: Word) -> None:
        if told["least"] != told["most"] and not self._stage.pads:
            raise ValueError(
                f"`source` must give all processes batches of one size: got {told['least']} to {told['most']} records."
                " Drop smaller ones with drop_remainder=True, or pass pad_last_batch=True."
            )

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._parent.get_state() if self._before is None else self._before
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)
        self._padding, self._ended, self._before = None, False, None


def _without_rows(leaf: Any) -> Any:
    if not isinstance(leaf, np.ndarray | jax.Array):
        return None
    return np.zeros((0, *leaf.shape[1:]) if leaf.ndim else (), leaf.dtype)


def _fold(words: list[Word]) -> Word:
    rows = [word["rows"] for word in words if word.get("rows") is not None]
    return {
        "ended": len(words) - len(rows),
        "least": min(rows, default=0),
        "most": max(rows, default=0),
        "size": max(word.get("size", 0) for word in words),
        "form": next((word["form"] for word in words if "form" in word), None),
        "error": next((word["error"] for word in words if "error" in word), None),
    }
