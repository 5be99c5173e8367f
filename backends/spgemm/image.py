"""The memory image of a problem: descriptor, matrices, and room for the result and the scratchpad.

It becomes a segment of a copy of the program's ELF file, so that any simulator loads both at once.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.spgemm.problem import PROBLEM, STAGE, Word
from nybble.backends.spgemm.windows import Windows
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.schedule import Schedule

SCRATCHPAD = 0x7000_0000
"""Where the scratchpad is on a machine that has one; else it lies with the problem."""
ALIGNMENT = 64
PAGE = 4096
MOST_BYTES = 1 << 30
HARTS = (1, 64)
VALUES = (np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.int64))


@dataclass(frozen=True)
class Region:
    """Bytes of memory: name of what is there, first address, and the one after the last."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Image:
    """data: bytes from PROBLEM on; size: with what is zero at first. shape, dtype: the result's.

    regions: by the name of the word that points to it.
    """

    data: bytes
    size: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    regions: Mapping[str, Region]


@dataclass(frozen=True)
class Setup:
    """harts: how many take part. report: whether the result is written to file 1.

    own_scratchpad: whether the machine has one. scratchpad: its bytes. entries: of a fragment.
    """

    harts: int = 1
    entries: int = 1024
    report: bool = False
    own_scratchpad: bool = False
    scratchpad: int = 4 << 20


@dataclass
class _Layout:
    """Hands out addresses; arrays that are given at once come before what is zero."""

    at: int
    regions: dict[str, Region] = field(default_factory=dict[str, Region])

    def take(self, name: str, size: int) -> int:
        """The address of `size` bytes."""
        start = -(-self.at // ALIGNMENT) * ALIGNMENT
        self.at = start + max(1, size)
        self.regions[name] = Region(name, start, self.at)
        return start


def make_image(
    factors: tuple[SparseMatrix, SparseMatrix],
    how: Schedule,
    windows: Windows,
    setup: Setup,
    mask: SparseMatrix | None = None,
) -> Image:
    """The image of a product, at a checked mask; raises SparseError for what no program takes.

    Factors must be checked matrices of one dtype of VALUES and fit indices of 32 bits.
    """
    lhs, rhs = factors
    _check(lhs, rhs, setup)
    left, right = lhs.with_index(32), rhs.with_index(32)
    given = {
        Word.WINDOW_TABLE: windows.rows,
        Word.A_INDPTR: left.indptr, Word.A_INDICES: left.indices, Word.A_VALUES: left.values,
        Word.B_INDPTR: right.indptr, Word.B_INDICES: right.indices, Word.B_VALUES: right.values,
    }  # fmt: skip
    if mask is not None:
        seen = mask.with_index(32)
        given |= {Word.M_INDPTR: seen.indptr, Word.M_INDICES: seen.indices}
    layout = _Layout(PROBLEM)
    layout.take("DESCRIPTOR", 8 * Word.COUNT)
    words = {word: layout.take(word.name, array.nbytes) for word, array in given.items()}
    written = layout.at - PROBLEM
    width = lhs.values.dtype.itemsize
    words[Word.OUT_KEYS] = layout.take("OUT_KEYS", 8 * windows.capacity)
    words[Word.OUT_VALUES] = layout.take("OUT_VALUES", width * windows.capacity)
    near = _Layout(SCRATCHPAD) if setup.own_scratchpad else layout
    base = near.at
    for word, size in scratchpad_sizes(how, width, setup).items():
        words[word] = near.take(word.name, size)
    if near.at - base > setup.scratchpad:
        raise SparseError(
            f"accumulators of {near.at - base} bytes in a scratchpad of {setup.scratchpad}",
            accepted="fewer bits",
        )
    numbers = {
        Word.HARTS: setup.harts, Word.REPORT: int(setup.report),
        Word.WINDOWS: len(windows.rows), Word.ELEMENT_BYTES: width, Word.ENTRIES: setup.entries,
    }  # fmt: skip
    data = bytearray(written)
    for word, number in (words | numbers).items():
        struct.pack_into("<q", data, 8 * word, number)
    for word, array in given.items():
        start = words[word] - PROBLEM
        data[start : start + array.nbytes] = array.tobytes()
    size = layout.at - PROBLEM
    if size > MOST_BYTES:
        raise SparseError(f"a problem of {size} bytes", accepted=f"at most {MOST_BYTES}")
    shape = (lhs.shape[0], rhs.shape[1])
    return Image(bytes(data), size, shape, lhs.values.dtype, layout.regions | near.regions)


def scratchpad_sizes(how: Schedule, width: int, setup: Setup) -> dict[Word, int]:
    """Bytes of each part of the scratchpad. width: bytes of a value."""
    slots, harts = how.slots, setup.harts
    sizes = {Word.SYNC: 8 * 24, Word.SUMS: width * slots, Word.KEYS: 8 * slots}
    if how.accumulator == "dense":
        sizes[Word.KEYS] = slots
    if how.accumulator in ("fragments", "masked"):
        sizes = {
            Word.SYNC: 8 * 24, Word.SUMS: width * setup.entries * harts,
            Word.FRAGMENT_KEYS: 8 * setup.entries * harts, Word.POINTERS: 2 * slots * harts,
        }  # fmt: skip
    if how.accumulator == "masked":
        sizes[Word.KEYS] = setup.entries * harts
    if how.transfer == "dma":
        sizes |= {
            Word.STAGE_INDICES: 4 * STAGE * harts, Word.STAGE_VALUES: width * STAGE * harts,
        }  # fmt: skip
    return sizes


def most_bits(how: Schedule, width: int, setup: Setup) -> int:
    """The largest `bits` of a schedule whose accumulator fits the scratchpad."""
    bits = 24
    slack = ALIGNMENT * len(Word)
    while bits > 4:
        sizes = scratchpad_sizes(how.with_bits(bits), width, setup)
        if sum(sizes.values()) + slack <= setup.scratchpad:
            break
        bits -= 1
    return bits


def _check(lhs: SparseMatrix, rhs: SparseMatrix, setup: Setup) -> None:
    lhs.check()
    rhs.check()
    for matrix in (lhs, rhs):
        if matrix.values.dtype not in VALUES or matrix.values.dtype != lhs.values.dtype:
            raise SparseError(
                f"a program of {lhs.values.dtype} times {rhs.values.dtype}",
                accepted="f64, f32 or i64, the same for both",
            )
    least, most = HARTS
    if not least <= setup.harts <= most:
        raise SparseError(f"{setup.harts} harts", accepted=f"{least} to {most}")


def result(image: Image, keys: NDArray[np.int64], values: NDArray[Any]) -> SparseMatrix:
    """The matrix of the entries that a program wrote, in any order; those of a place are added."""
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(first)
    sums = np.add.reduceat(values, starts) if len(starts) else values
    rows, columns = keys[first] >> 32, keys[first] & 0xFFFF_FFFF
    counts = np.bincount(rows, minlength=image.shape[0])
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return SparseMatrix(image.shape, indptr, columns.astype(np.int32), sums).check()


def bind(elf: bytes, image: Image) -> bytes:
    """The ELF file with the image as its segment for problems (its program header of type 0)."""
    offset = struct.unpack_from("<Q", elf, 32)[0]
    size, count = struct.unpack_from("<HH", elf, 54)
    for index in range(count):
        header = offset + index * size
        if struct.unpack_from("<I", elf, header)[0] == 0:
            break
    else:
        raise ValueError("the ELF file has no segment for a problem")
    start = -(-len(elf) // PAGE) * PAGE
    fields = (1, 6, start, PROBLEM, PROBLEM, len(image.data), image.size, PAGE)
    made = bytearray(elf.ljust(start, b"\0") + image.data)
    struct.pack_into("<IIQQQQQQ", made, header, *fields)
    return bytes(made)
