"""Object files in one `ar` archive, so that `llvm-objdump -d kernels.a` shows the machine code."""

from collections.abc import Iterable

from nybble.backends.cpu.elf import ObjectError

MAGIC = b"!<arch>\n"
HEADER = 60
END = b"`\n"


def pack(objects: Iterable[bytes]) -> bytes:
    """The archive of these object files, named 0.o, 1.o and so on."""
    parts = [MAGIC]
    for index, data in enumerate(objects):
        fields = f"{f'{index}.o/':16}{0:<12}{0:<6}{0:<6}{'644':8}{len(data):<10}"
        parts += [fields.encode(), END, data, b"\n" * (len(data) % 2)]
    return b"".join(parts)


def unpack(archive: bytes) -> list[bytes]:
    """The members of an archive; raises ObjectError if it is not one that `pack` made."""
    if not archive.startswith(MAGIC):
        raise ObjectError("not an archive of object files")
    members: list[bytes] = []
    at = len(MAGIC)
    while at < len(archive):
        header = archive[at : at + HEADER]
        digits = header[48:58].strip()
        if len(header) != HEADER or header[58:] != END or not digits.isdigit():
            raise ObjectError(f"damaged archive of object files at byte {at}")
        start, size = at + HEADER, int(digits)
        if start + size > len(archive):
            raise ObjectError(f"archive member of {size} bytes at {start} of {len(archive)}")
        members.append(archive[start : start + size])
        at = start + size + size % 2
    return members
