"""The symbols of an ELF file of 64 bits: where its functions are."""

import struct

_SYMBOLS, _ENTRY = 2, 24


def addresses(elf: bytes) -> dict[str, int]:
    """Name -> address of each symbol, and "name:size" -> its size.

    Layout: System V ABI, ELF-64 object file format, version 1.5.
    """
    (start,) = struct.unpack_from("<Q", elf, 40)
    size, count = struct.unpack_from("<HH", elf, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, start + i * size) for i in range(count)]
    found: dict[str, int] = {}
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != _SYMBOLS:
            continue
        names = sections[link][4]
        for at in range(offset, offset + length, _ENTRY):
            name, _, _, _, value, extent = struct.unpack_from("<IBBHQQ", elf, at)
            end = elf.index(b"\0", names + name)
            text = elf[names + name : end].decode()
            found[text], found[f"{text}:size"] = value, extent
    return found
