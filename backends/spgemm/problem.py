"""The descriptor of a problem: words in memory by which the host and the harts understand each
other.

It begins at the address PROBLEM, where every ELF file has its matrices; see docs/spgemm-isa.md.
"""

from enum import IntEnum

PROBLEM = 0x8100_0000
"""Address of the descriptor; the matrices, the result and the scratchpad follow it."""


class Word(IntEnum):
    """Words of 64 bits of the descriptor. What is not said to be a number is an address."""

    HARTS = 0
    """Number of harts that take part."""
    REPORT = 1
    """Number: whether hart 0 writes the descriptor and the result to file 1 at the end."""
    WINDOWS = 2
    """Number of windows."""
    WINDOW_TABLE = 3
    """i64 [windows, 4]: first row, last row + 1, first column, last column + 1."""
    A_INDPTR = 4
    """i32 [rows + 1]; with the next two the left matrix in compressed rows."""
    A_INDICES = 5
    A_VALUES = 6
    B_INDPTR = 7
    B_INDICES = 8
    B_VALUES = 9
    OUT_KEYS = 10
    """i64: row * 2^32 + column of each entry of the result."""
    OUT_VALUES = 11
    OUT_COUNT = 12
    """Number of entries of the result so far."""
    SPILLED = 13
    """Number of products that found no room in an accumulator."""
    SYNC = 14
    """i64 [24]: words that harts meet at, 8 words apart: barrier, generation, token."""
    KEYS = 15
    """i64 [slots] of a hash table; i8 [places] of a dense accumulator, or [harts, ENTRIES] of
    masked ones: whether a product is there."""
    SUMS = 16
    """Sums of a table's slots, of the places of a dense accumulator, or of [harts, ENTRIES]."""
    POINTERS = 17
    """u16 [harts, columns]: the entry of a column in a hart's fragment, if it has one."""
    FRAGMENT_KEYS = 18
    """i64 [harts, ENTRIES]: the key of each entry of a fragment."""
    ENTRIES = 19
    """Number: entries of a fragment."""
    STAGE_INDICES = 20
    """i32 [harts, STAGE]: what DMA brings of a row."""
    STAGE_VALUES = 21
    ELEMENT_BYTES = 22
    """Number: bytes of a value."""
    M_INDPTR = 23
    """i32 [rows + 1]; with the next the places of a mask, in compressed rows, if there is one."""
    M_INDICES = 24
    COUNT = 25
    """Number of words of the descriptor."""


class Meeting(IntEnum):
    """Words of SYNC."""

    BARRIER = 0
    GENERATION = 8
    TOKEN = 16


STAGE = 256
"""Entries of a row that a hart's buffer takes."""
EMPTY = -1
"""The key of a slot that nothing is in."""
