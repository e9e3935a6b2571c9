"""What all processes say in a round, told to each of them, without an operation on their devices."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax._src.distributed import global_state

Word: TypeAlias = dict[str, Any]
Fold: TypeAlias = Callable[[list[Word]], Word]

# How many seconds a process waits for the others: they may be saving a checkpoint, or starting workers.
PATIENCE = 1800
_POLL_MS = 1000


class Interrupted(Exception):
    """The wait was ended by this process itself."""


class Agreement:
    """Rounds in which every process says a word, in JSON's types, and hears what all words come to.

    It goes through the key-value store of `jax.distributed`, as Orbax's barriers do, since a collective operation must
    not be launched beside those of the training step: that gives wrong values, silently. JAX has no public name for it:
    https://github.com/google/orbax/blob/main/checkpoint/orbax/checkpoint/_src/multihost/multihost.py

    Args:
      name: The same in all processes, and that of nothing else.

    Raises:
      RuntimeError: If there is no `jax.distributed`.
    """

    def __init__(self, name: str) -> None:
        if global_state.client is None:
            raise RuntimeError(
                "`equalize` must have jax.distributed to agree over several processes: got none. Call"
                " jax.distributed.initialize() first, or pass equalize=None."
            )
        self._client: Any = global_state.client
        self._name = name
        self._start = 0
        self._round = 0
        self._interrupted = threading.Event()

    def meet(self, word: Word, fold: Fold) -> Word:
        """Says a word, and waits for what the words of all come to.

        Raises:
          RuntimeError: If another process has not come after `PATIENCE` seconds, or the store can't be reached.
        """
        key = self.say(word, fold)
        deadline = time.monotonic() + PATIENCE
        while not self._interrupted.is_set():
            try:
                result: Word = json.loads(self._client.blocking_key_value_get(f"{key}/result", _POLL_MS))
                return result
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise RuntimeError(
                        "`jax.distributed` must go on while batches are read: got the error above. See the log of"
                        " process 0, which holds its key-value store, and restart from a checkpoint."
                    ) from error
            if time.monotonic() > deadline:
                words = self._words(key)
                if jax.process_index() not in words:  # published by now
                    continue
                missing = sorted(set(range(jax.process_count())) - words.keys())
                if not missing:  # one has died between its word and what was to follow; the next round will miss it
                    self._publish(key, fold)
                    continue
                raise RuntimeError(
                    f"`equalize` must hear from all processes: got no word of processes {missing} within {PATIENCE}"
                    " seconds. See whether they have ended, and let all of them make the same loaders and iterators,"
                    " in the same order, and read on to the end or stop at the same batch."
                )
        raise Interrupted

    def say(self, word: Word, fold: Fold) -> str:
        """Says a word in the next round, and does not wait; returns the round's key."""
        key = f"{self._name}/{self._start}/{self._round}"
        self._client.key_value_set(f"{key}/words/{jax.process_index()}", json.dumps(word))
        if self._client.key_value_increment(f"{key}/arrived", 1) == jax.process_count():
            self._publish(key, fold)
            self._client.key_value_delete(f"{key}/words")
            # All have come here, so that nobody asks for what was before: no more than two rounds are kept.
            if self._round:
                self._client.key_value_delete(f"{self._name}/{self._start}/{self._round - 1}")
            elif self._start:
                self._client.key_value_delete(f"{self._name}/{self._start - 1}")
        self._round += 1
        return key

    def leave(self) -> None:
        """Ends the rounds, until `restart`; the last process to leave clears the store."""
        key = f"{self._name}/{self._start}"
        if self._client.key_value_increment(f"{key}/left", 1) == jax.process_count():
            self._client.key_value_delete(key)

    def interrupt(self) -> None:
        """Ends the wait of a thread, which raises `Interrupted`, and all that follow."""
        self._interrupted.set()

    def restart(self) -> None:
        """Begins anew, with the next start of all other processes, once no thread waits."""
        self._start, self._round = self._start + 1, 0
        self._interrupted.clear()

    def _publish(self, key: str, fold: Fold) -> None:
        words = self._words(key)
        result = fold([words[process] for process in sorted(words)])
        self._client.key_value_set(f"{key}/result", json.dumps(result), allow_overwrite=True)

    def _words(self, key: str) -> dict[int, Word]:
        """By process, of those that have come."""
        entries = self._client.key_value_dir_get(f"{key}/words")
        return {int(name.rpartition("/")[2]): json.loads(word) for name, word in entries}
