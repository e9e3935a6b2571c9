"""What a compiled program does, read off its HLO: its kernels, and the bytes that each of them reads and writes."""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "f16": 16, "bf16": 16, "s32": 32, "u32": 32, "f32": 32}
_BITS |= {"s64": 64, "u64": 64, "f64": 64}
# What moves nothing: other names for what is there.
_NAMES_ONLY = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_SLICES = ("slice", "dynamic-slice", "gather")


@dataclasses.dataclass
class Instruction:
    name: str
    shape: str
    opcode: str
    operands: list[str]
    line: str

    @property
    def size(self) -> int:
        """Bytes of its result."""
        return size_of(self.shape)

    @property
    def calls(self) -> str | None:
        found = re.search(r"(?:calls|body|to_apply)=%?([\w.-]+)", self.line)
        return found[1] if found else None


def size_of(shape: str) -> int:
    """Bytes of a shape as HLO writes it, `f32[2,3]{1,0}`, or of all parts of a tuple."""
    parts = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", shape)
    return sum(_BITS[dtype] * math.prod(map(int, filter(None, sizes.split(",")))) // 8 for dtype, sizes in parts)


def computations(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each computation, in their order, the root last; that of the entry is called `ENTRY`."""
    result: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if header := re.match(r"^(ENTRY )?%?([\w.-]+) .*->.*\{$", line):
            current = result.setdefault("ENTRY" if header[1] else header[2], [])
        elif found := _INSTRUCTION.match(line):
            name, shape, opcode, rest = found.groups()
            arguments = rest.partition("), ")[0]
            current.append(Instruction(name, shape, opcode, re.findall(r"%([\w.-]+)", arguments), line))
    return result


def kernels(text: str) -> Iterator[tuple[str, int]]:
    """The name and the bytes moved of each kernel, as often as it runs where that is known."""
    everything = computations(text)
    yield from _kernels(everything, everything["ENTRY"], 1)


def _kernels(
    everything: dict[str, list[Instruction]], instructions: list[Instruction], times: int
) -> Iterator[tuple[str, int]]:
    by_name = {each.name: each for each in instructions}
    for each in instructions:
        if each.opcode in _NAMES_ONLY or each.opcode.endswith(("-done", "-update")):
            continue
        if each.opcode in ("while", "call") and each.calls:
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', each.line)
            yield from _kernels(everything, everything[each.calls], times * int(trips[1] if trips else 1))
            continue
        if each.opcode == "fusion" and each.calls:
            moved = _moved_by_fusion(everything[each.calls])
        else:
            moved = each.size + sum(by_name[name].size for name in each.operands if name in by_name)
        for _ in range(times):
            yield each.name, moved


def _moved_by_fusion(body: list[Instruction]) -> int:
    """What a fusion reads of its parameters, and writes: what is updated in place is neither read nor written whole."""
    by_name = {each.name: each for each in body}
    updated = {each.operands[0] for each in body if each.opcode in ("scatter", "dynamic-update-slice")}
    moved = 0
    for parameter in (each for each in body if each.opcode == "parameter"):
        names = {parameter.name} | {
            each.name for each in body if each.opcode == "bitcast" and parameter.name in each.operands
        }
        users = [each for each in body if names & set(each.operands) and each.opcode != "bitcast"]
        if users and all(user.opcode in _SLICES and user.operands[0] in names for user in users):
            moved += min(parameter.size, sum(user.size for user in users))
        elif not names & updated or len(users) > 1:
            moved += parameter.size
    root = body[-1]
    written = [by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]
    return moved + sum(_written(each, by_name) for each in written)


def _written(root: Instruction, by_name: dict[str, Instruction]) -> int:
    while root.opcode == "bitcast":
        root = by_name[root.operands[0]]
    if root.opcode in ("scatter", "dynamic-update-slice"):
        update = by_name[root.operands[-1] if root.opcode == "scatter" else root.operands[1]]
        return update.size
    return root.size
