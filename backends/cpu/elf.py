"""The symbols of an ELF64 little-endian relocatable object, read with every offset checked."""

import struct
from dataclasses import dataclass

from nybble.dialects.errors import NybbleError

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
SYMTAB, UNDEFINED, LOCAL = 2, 0, 0
MACHINES = {62: "x86_64", 183: "aarch64"}


class ObjectError(NybbleError):
    """Bytes that are not an object file, or one that cannot be used here."""


@dataclass(frozen=True)
class Symbols:
    """machine: architecture name; defined, undefined: names of the global symbols."""

    machine: str
    defined: frozenset[str]
    undefined: frozenset[str]


def symbols(data: bytes) -> Symbols:
    """The global symbols of the object file `data`; raises ObjectError if it is not one."""
    try:
        return _symbols(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ObjectError(f"truncated or damaged object file: {error}") from None


def _symbols(data: bytes) -> Symbols:
    header = HEADER.unpack_from(data)
    ident, kind, machine, sections_at = header[0], header[1], header[2], header[6]
    if ident[:6] != b"\x7fELF\x02\x01" or kind != 1 or machine not in MACHINES:
        raise ObjectError(
            "not a relocatable object file of a known machine",
            accepted="ELF64 little-endian for x86_64 or aarch64",
        )
    size, count = header[11], header[12]
    if size != SECTION.size:
        raise ObjectError(f"section headers of {size} bytes", accepted=str(SECTION.size))
    sections = [SECTION.unpack_from(data, sections_at + i * size) for i in range(count)]
    defined: set[str] = set()
    undefined: set[str] = set()
    for section in sections:
        if section[1] != SYMTAB:
            continue
        at, length, strings = section[4], section[5], sections[section[6]]
        if at + length > len(data):
            raise ObjectError(f"symbol table of {length} bytes at {at} of {len(data)}")
        names = data[strings[4] : strings[4] + strings[5]]
        for symbol in SYMBOL.iter_unpack(data[at : at + length]):
            if symbol[1] >> 4 == LOCAL:
                continue
            name = names[symbol[0] : names.index(b"\0", symbol[0])].decode()
            (undefined if symbol[3] == UNDEFINED else defined).add(name)
    return Symbols(MACHINES[machine], frozenset(defined), frozenset(undefined))
