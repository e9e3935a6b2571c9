"""What decides the pixels, kept in a checkpoint and compared when it is restored."""

from collections.abc import Mapping
from typing import Any

from grain_datarax.random.keys import STREAM_VERSION
from grain_datarax.states import require_fingerprint

# That of batches that are placed only.
NOTHING: dict[str, Any] = {"stream_version": STREAM_VERSION, "operators": []}


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints, each in words; empty if nothing does.

    Raises:
      ValueError: If `saved` or `current` is no fingerprint.
    """
    require_fingerprint(saved)
    require_fingerprint(current)
    if saved["stream_version"] != current["stream_version"]:
        return [f"STREAM_VERSION {current['stream_version']} for {saved['stream_version']}"]
    now, before = _links(current), _links(saved)
    names = [[name for name, _ in links] for links in (now, before)]
    if names[0] != names[1]:
        return [f"the operators {names[0]} for {names[1]}"]
    result = []
    for (name, got), (_, wanted) in zip(
        [*now, ("the chain", _whole(current))], [*before, ("", _whole(saved))], strict=True
    ):
        for setting in sorted(got.keys() | wanted.keys()):
            pair = got.get(setting, "nothing"), wanted.get(setting, "nothing")
            if pair[0] != pair[1]:
                result.append(f"`{setting}` {pair[0]!r} for {pair[1]!r} in {name}")
    return result


def by_link(fingerprint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A part for each operator, or for each effect and the chain, as the fingerprint of a sequence of them has it."""
    whole = [("the chain", _whole(fingerprint))] if "chain" in fingerprint else []
    return [{**settings, "name": name} for name, settings in [*_links(fingerprint), *whole]]


def _links(fingerprint: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The operators or effects in their order, by what they are called."""
    if "chain" in fingerprint:
        return [(effect.get("name") or effect["effect"], effect) for effect in fingerprint["chain"]["effects"]]
    return [(operator["name"], operator) for operator in fingerprint["operators"]]


def _whole(fingerprint: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a chain says once for all its effects."""
    return {name: setting for name, setting in fingerprint.get("chain", {}).items() if name != "effects"}
