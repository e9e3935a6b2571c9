"""What decides the pixels, kept in a checkpoint and compared when it is restored."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from grain_datarax.chain import Chain
from grain_datarax.effects import EFFECTS
from grain_datarax.effects.effect import as_json
from grain_datarax.effects.gaussian_noise import GaussianNoise
from grain_datarax.random.keys import STREAM_VERSION
from grain_datarax.states import require_fingerprint
from grain_datarax.wording import shown

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
        for setting in sorted(got.keys() | wanted.keys(), key=str):
            pair = got.get(setting, "nothing"), wanted.get(setting, "nothing")
            for path, value, other in _leaves_apart(str(setting), *pair):
                result.append(f"`{path:.80}` {shown(value)} for {shown(other)} in {name:.80}")
    return result


def _leaves_apart(path: str, got: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two settings differ, as deep inside as both have the same form, with both values."""
    if json.dumps(got) == json.dumps(wanted):  # to Python 1, 1.0 and True are equal
        return
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        for name in got:
            yield from _leaves_apart(f"{path}.{name}", got[name], wanted[name])
    elif isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted) and not _plain(got):
        for index, pair in enumerate(zip(got, wanted, strict=True)):
            yield from _leaves_apart(f"{path}[{index}]", *pair)
    else:
        yield path, got, wanted


def _plain(values: list[Any]) -> bool:
    """Whether they are numbers or words, as a range's ends, which are read together."""
    return not any(isinstance(value, dict | list) for value in values)


def by_link(fingerprint: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A part for each operator, or for each effect and the chain, as the fingerprint of a sequence of them has it."""
    whole = [("the chain", _whole(fingerprint))] if "chain" in fingerprint else []
    return [{**settings, "name": name} for name, settings in [*_links(fingerprint), *whole]]


def _links(fingerprint: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The operators or effects in their order, by what they are called."""
    if "chain" in fingerprint:
        effects = [_with_defaults(effect) for effect in fingerprint["chain"]["effects"]]
        return [(effect.get("name") or effect["effect"], effect) for effect in effects]
    return [(operator["name"], operator) for operator in fingerprint["operators"]]


def _whole(fingerprint: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a chain says once for all its effects."""
    if "chain" not in fingerprint:
        return {}
    whole = {**Chain([GaussianNoise()], seed=0).to_dict(), **fingerprint["chain"]}
    return {name: setting for name, setting in whole.items() if name not in ("effects", "draws")}  # which only tells


def _with_defaults(effect: Mapping[str, Any]) -> Mapping[str, Any]:
    """An effect's text, with the settings that came with a later release: by default all is as it was before."""
    cls = EFFECTS.get(effect["effect"])
    if cls is None:
        return effect
    defaults = {field.name: as_json(field.default) for field in dataclasses.fields(cls)}
    filled = {**{name: value for name, value in defaults.items() if value is not dataclasses.MISSING}, **effect}
    return (
        {**filled, "effects": [_with_defaults(each) for each in effect["effects"]]} if "effects" in effect else filled
    )
