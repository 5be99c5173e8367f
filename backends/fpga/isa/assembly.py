"""Instructions as text, one a line: `mv wait=ld release=ld bits=4 keep=8 ...`."""

import re
from collections.abc import Iterable, Iterator

from nybble.backends.fpga.isa.encoding import Instruction
from nybble.backends.fpga.isa.instructions import INSTRUCTIONS, UNITS, Field
from nybble.dialects.errors import NybbleError

_PAIR = re.compile(r"([a-z_]+)=([a-z0-9+]+)")
COMMENT = "#"


class AssemblyError(NybbleError):
    """A line that is no instruction."""


def disassemble(program: Iterable[Instruction]) -> Iterator[str]:
    """The lines of a program; fields of value 0 are left out, loops are indented."""
    depth = 0
    for one in program:
        if one.unit == "sys" and one.named("action") == "end":
            depth -= 1
        yield "  " * depth + line_of(one)
        if one.unit == "sys" and one.named("action") == "loop":
            depth += 1


def line_of(one: Instruction) -> str:
    """One instruction as text."""
    masks = [
        f"{name}={'+'.join(unit for unit in UNITS if unit in units)}"
        for name, units in (("wait", one.wait), ("release", one.release))
        if units
    ]
    fields = [
        f"{known.name}={known.names[one[known.name]] if known.names else one[known.name]}"
        for known in one.layout.fields[3:]
        if one[known.name]
    ]
    return " ".join([one.unit, *masks, *fields])


def assemble(text: str) -> Iterator[Instruction]:
    """The instructions of text; what follows a `#` is a comment. AssemblyError names the line."""
    for number, whole in enumerate(text.splitlines(), 1):
        line = whole.partition(COMMENT)[0].split()
        if line:
            yield _instruction(line, number)


def _instruction(words: list[str], number: int) -> Instruction:
    unit, *pairs = words
    if unit not in INSTRUCTIONS:
        raise AssemblyError(f"line {number}: '{unit[:20]}'", accepted=", ".join(INSTRUCTIONS))
    fields = {one.name: one for one in INSTRUCTIONS[unit].fields[1:]}
    values: dict[str, int] = {}
    masks: dict[str, frozenset[str]] = {"wait": frozenset(), "release": frozenset()}
    for pair in pairs:
        match = _PAIR.fullmatch(pair)
        if match is None or match[1] not in fields:
            raise AssemblyError(f"line {number}: '{pair[:40]}'", accepted=f"{', '.join(fields)}")
        name, text = match[1], match[2]
        if name in masks:
            masks[name] = _units(text, number)
        else:
            values[name] = _value(fields[name], text, number)
    return Instruction(unit, values, masks["wait"], masks["release"])


def _units(text: str, number: int) -> frozenset[str]:
    for one in text.split("+"):
        if one not in UNITS:
            raise AssemblyError(f"line {number}: unit '{one[:20]}'", accepted=", ".join(UNITS))
    return frozenset(text.split("+"))


def _value(known: Field, text: str, number: int) -> int:
    if text in known.names:
        return known.names.index(text)
    if known.names or not text.isdecimal():
        accepted = ", ".join(known.names) or "a number"
        raise AssemblyError(f"line {number}: {known.name}={text[:20]}", accepted=accepted)
    return int(text)
