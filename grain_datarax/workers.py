"""Augmenting in Grain's worker processes: on the CPU, to NumPy, and with errors that survive the way back."""

import logging
from collections.abc import Callable
from typing import Any

import jax

from grain_datarax.orphans import in_grain_worker

_log = logging.getLogger(__name__)


def run(augment: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The fields that `augment` writes; in a worker process it runs on the CPU, and arrays come out as NumPy.

    Raises:
      RuntimeError: For a StopIteration, which would end Grain's data in silence; in a worker also for errors of other
        packages.
    """
    try:
        return _on_cpu(augment) if in_grain_worker() else augment()
    except StopIteration as error:  # to Grain it would be the end of the data
        raise RuntimeError(
            f"`operators` must not raise StopIteration: got {error!r} on a batch. Catch it in the operator, or use"
            " next(iterator, default)."
        ) from error


def _on_cpu(augment: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    _stay_off_the_accelerator()
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        try:
            written: dict[str, Any] = jax.device_get(augment())
            return written
        except Exception as error:
            if type(error).__module__ == "builtins":
                raise
            # Grain pickles a worker's exception, and waits for ever if that fails, as with some of JAX's.
            raise RuntimeError(f"{type(error).__name__}: {error}") from None


_told = False


def _stay_off_the_accelerator() -> None:
    global _told
    if _told:
        return
    _told = True
    jax.config.update("jax_platforms", "cpu")
    _log.info(
        "Augmenting on the CPU of a Grain worker process. The accelerator is faster: leave AugmentBatch out of the"
        " operations, and put grain_datarax.DeviceLoader around the loader."
    )
