"""Reads from a compiled program's text what it moves: bytes and collectives."""

import math
import re
from collections import Counter
from collections.abc import Iterator

_INSTRUCTION = re.compile(r"^ +(?:ROOT )?(%\S+) = (.+?) ([a-z][a-z0-9-]*)\((.*?)\)")
_ARRAY = re.compile(r"([a-z]+)(\d*)\[([\d,]*)\](?:\{([^}]*)\})?")
_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?"
)
_MOVES_NOTHING = re.compile(
    r"parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|.*-done"
)


def instructions(hlo: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yields the name, type, opcode and operands of each instruction of an HLO text."""
    for line in hlo.splitlines():
        if match := _INSTRUCTION.match(line):
            name, kind, opcode, operands = match.groups()
            yield name, kind, opcode, re.findall(r"%[^\s,]+", operands)


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """Returns the number and the operands' bytes of each kind of collective."""
    types = {name: kind for name, kind, _, _ in instructions(hlo)}
    number: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for _, _, opcode, operands in instructions(hlo):
        if match := _COLLECTIVE.fullmatch(opcode):
            number[match[1]] += 1
            size[match[1]] += sum(_bytes(types[name]) for name in operands)
    return {kind: (number[kind], size[kind]) for kind in number}


def hbm_bytes(hlo: str) -> int:
    """Returns the bytes that the entry computation reads from HBM and writes to it.

    Whatever XLA prefetches into the core's own memory, `S(1)` in the text, is counted
    once, when it crosses; `cost_analysis` also counts each access to the copy.
    """
    entry = hlo[hlo.index("\nENTRY") :]
    types, total = {}, 0
    for name, kind, opcode, operands in instructions(entry):
        types[name] = kind
        if _MOVES_NOTHING.fullmatch(opcode):
            continue
        if opcode == "slice-start":  # ((operand), slice, flag): the slice is read
            total += _bytes(kind.split("), ", 1)[1])
        elif opcode == "copy-start":  # (copy, operand, flag)
            total += _bytes(kind, hbm_only=True)
        else:
            arrays = [kind, *(types[operand] for operand in operands)]
            total += sum(_bytes(array, hbm_only=True) for array in arrays)
    return total


def _bytes(kind: str, *, hbm_only: bool = False) -> int:
    """Returns the bytes of the arrays in an HLO type, without flags."""
    return sum(
        int(bits or 8) // 8 * math.prod(map(int, filter(None, shape.split(","))))
        for _, bits, shape, layout in _ARRAY.findall(kind)
        if "S(2)" not in layout and not (hbm_only and "S(" in layout)
    )


def summary(found: dict[str, tuple[int, int]]) -> str:
    """Returns the result of `collectives` in words."""
    words = (f"{n} {kind} of {size:,} B" for kind, (n, size) in found.items())
    return ", ".join(words) or "none"
