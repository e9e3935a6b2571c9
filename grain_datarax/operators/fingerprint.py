"""What decides the pixels of a chain, to be kept in a checkpoint and compared when it is restored."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from grain_datarax.operators.chain import namespaces
from grain_datarax.operators.modality import ModalityOperator
from grain_datarax.random.keys import STREAM_VERSION, as_stream_key
from grain_datarax.states import require_fingerprint

# Settings that change how pixels are computed, not which; the statistics have a digest among the settings.
_WITHOUT_EFFECT = ("batch_strategy", "cacheable", "precomputed_stats")


def fingerprint(operators: Sequence[ModalityOperator]) -> dict[str, Any]:
    """Names, classes, settings and root keys of the operators in their order, and `STREAM_VERSION`: JSON's types only.

    Arrays of `precomputed_stats` are there as a digest, functions by their names. Parameters that an operator learns
    are not: they belong to the model's checkpoint.
    """
    parts = [_part(operator, name) for operator, name in zip(operators, namespaces(operators), strict=True)]
    return {"stream_version": STREAM_VERSION, "operators": parts}


def _part(operator: ModalityOperator, name: str) -> dict[str, Any]:
    config = operator.config
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for without_effect in _WITHOUT_EFFECT:
        del settings[without_effect]
    root_key = None
    if operator.stochastic:
        root_key = np.asarray(jax.random.key_data(as_stream_key(operator.root_key()))).tolist()
    part = {"name": name, "class": type(operator).__qualname__, "root_key": root_key, **settings}
    return json.loads(json.dumps(part, default=_describe))


def _describe(setting: Any) -> Any:
    """What JSON does not know by itself. Not the repr: that of a function or of a module holds its address."""
    if isinstance(setting, np.generic):
        return setting.item()
    if isinstance(setting, np.ndarray | jax.Array):
        array = np.asarray(setting)
        return [str(array.dtype), array.shape, hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()]
    if dataclasses.is_dataclass(setting) and not isinstance(setting, type):
        return {field.name: getattr(setting, field.name) for field in dataclasses.fields(setting)}
    named = setting if hasattr(setting, "__qualname__") else type(setting)
    return f"{named.__module__}.{named.__qualname__}"


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints, each in words; empty if nothing does.

    Raises:
      ValueError: If `saved` or `current` is no fingerprint.
    """
    require_fingerprint(saved)
    require_fingerprint(current)
    if saved["stream_version"] != current["stream_version"]:
        return [f"STREAM_VERSION {current['stream_version']} for {saved['stream_version']}"]
    names = [[part["name"] for part in side["operators"]] for side in (current, saved)]
    if names[0] != names[1]:
        return [f"the operators {names[0]} for {names[1]}"]
    result = []
    for now, before in zip(current["operators"], saved["operators"], strict=True):
        for setting in sorted(now.keys() | before.keys()):
            got, wanted = now.get(setting, "nothing"), before.get(setting, "nothing")
            if got != wanted:
                result.append(f"`{setting}` {got!r} for {wanted!r} in {now['name']}")
    return result
