"""The operands of a PTX instruction, read from their text."""

import re
from collections.abc import Callable

from nybble.backends.gpu.sim.ptx import Address, Group, Name, Number, Operand

_NAME = re.compile(r"[A-Za-z_$%][\w$]*(?:\.[xyzw])?$")
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?$")
_FLOAT = re.compile(r"0[fF][0-9a-fA-F]{8}$|0[dD][0-9a-fA-F]{16}$")
_SUM = re.compile(r"(.+?)\s*\+\s*(-?\w+)$|(.+?)\s*(-\s*\w+)$")

Rename = Callable[[str], str]


def parse_operands(text: str, rename: Rename) -> tuple[Operand, ...]:
    """The operands in a text; ValueError says which is none. rename: for the names of a scope."""
    return tuple(_operand(part, rename) for part in _split(text))


def _split(text: str) -> list[str]:
    """The parts between commas that are outside of brackets."""
    parts: list[str] = []
    depth, start = 0, 0
    for index, mark in enumerate(text):
        if mark in "{[(":
            depth += 1
        elif mark in "}])":
            depth -= 1
        elif mark == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    if depth:
        raise ValueError(f"brackets do not match in '{' '.join(text.split())}'")
    last = text[start:].strip()
    return [*parts, last] if last or parts else []


def _operand(text: str, rename: Rename) -> Operand:
    if text[:1] == "{":
        return Group(tuple(_operand(part, rename) for part in _split(text[1:-1])))
    if text[:1] == "[":
        return _address(text[1:-1].strip(), rename)
    if "|" in text:
        return Group(tuple(_operand(part.strip(), rename) for part in text.split("|")), pair=True)
    if _FLOAT.match(text):
        return Number(int(text[2:], 16), 32 if text[1] in "fF" else 64)
    if _INTEGER.match(text):
        return Number(_integer(text))
    negated = text[:1] == "!"
    name = text[negated:].strip()
    if not _NAME.match(name):
        raise ValueError(f"'{text}' is not an operand")
    return Name(rename(name), negated)


def _integer(text: str) -> int:
    digits = text.rstrip("U")
    is_octal = re.match(r"-?0\d+$", digits)
    return int(digits, 8) if is_octal else int(digits, 0)


def _address(text: str, rename: Rename) -> Address:
    first, *more = _split(text)
    coordinates: tuple[Operand, ...] = ()
    if more:
        group = _operand(more[0], rename)
        coordinates = group.items if isinstance(group, Group) else (group,)
    found = _SUM.match(first)
    base, offset = first, 0
    if found and not _INTEGER.match(first):
        base = (found[1] or found[3]).strip()
        offset = _integer((found[2] or found[4]).replace(" ", ""))
    operand = _operand(base, rename)
    if not isinstance(operand, Name | Number):
        raise ValueError(f"'{text}' is not an address")
    return Address(operand, offset, coordinates)
