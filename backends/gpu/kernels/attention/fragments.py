"""How rows of a cache, as they lie in memory, become operands of `mma.m16n8k16`.

A product does not care in which order its inner elements are, if both operands agree. So a lane
reads words where they lie, 16 bytes at a time where there are so many, and the query is put into
the same order once. Lane 4 g + t has part t of the row of key g; of values it has part g of the
rows of keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9.

Codes of fewer bits than 16 become whole numbers in f16 by the bits of 1024, whose last place is 1.
"""

from collections.abc import Callable, Sequence
from typing import cast

from xdsl.dialects.builtin import i32

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder

PAIRS = {
    16: ((0, 1),),
    8: ((0, 1), (2, 3)),
    4: ((0, 4), (1, 5), (2, 6), (3, 7)),
    2: tuple((i, i + 8) for i in range(8)),
}
"""Bits -> which elements of a word its pairs hold, in the order in which `expand` yields them."""
STREAM = "nc.L1::no_allocate.L2::128B"
"""The policy for what is read once."""
LOW_HALVES, HIGH_HALVES = 0x5410, 0x7632
LOW_TWICE, HIGH_TWICE = 0x1010, 0x3232
_MAGIC = 0x64006400
"""1024 twice, in f16."""
_MOST_BYTES = 16


class RowPart:
    """The words of a row of `width` elements that one of `parts` lanes reads."""

    def __init__(self, width: int, bits: int, parts: int) -> None:
        self.bits = bits
        self.words = width * bits // (32 * parts)
        size = self.words * 4
        self.chunk = min(size, _MOST_BYTES)
        self.offsets = [self.chunk * parts * i for i in range(size // self.chunk)]
        """Bytes from the lane's first word to each of its chunks."""
        self.run = self.chunk * 8 // bits
        """Elements of a chunk."""

    def load(self, b: GpuBuilder, row: Value, at: int, policy: str = STREAM) -> list[Value]:
        """The lane's words; its first one lies `at` bytes from `row`."""
        count = self.chunk // 4
        loads = [b.load_words(row, at + more, count, policy) for more in self.offsets]
        return [word for words in loads for word in words]

    def elements(self) -> list[tuple[int, int]]:
        """Which elements the pairs of the expanded words hold, counted from the lane's first."""
        each = 32 // self.bits
        firsts = [
            at * 8 // self.bits + i * each for at in self.offsets for i in range(self.chunk // 4)
        ]
        return [(first + low, first + high) for first in firsts for low, high in PAIRS[self.bits]]

    def expand(self, b: GpuBuilder, words: Sequence[Value]) -> list[Value]:
        """Pairs of f16 (bf16 as it is) of the words, in the order of `elements`."""
        return [pair for word in words for pair in expand(b, word, self.bits)]


def expand(b: GpuBuilder, word: Value, bits: int) -> list[Value]:
    """The pairs of a word of codes, in the order of PAIRS."""
    if bits == 16:
        return [word]
    if bits == 8:
        magic = b.const(_MAGIC, i32)
        raw = [b.permute(word, magic, selector) for selector in (0x5150, 0x5352)]
        return [_add(b, pair, -1024.0) for pair in raw]
    pairs: list[Value] = []
    mask = 0x00010001 * ((1 << bits) - 1)
    for source in (word, word.shr(8)):
        for shift in range(0, 8, bits):
            raw = b.and_or(source, mask << shift, _MAGIC)
            pairs.append(_scaled_back(b, raw, shift))
    return pairs


def _add(b: GpuBuilder, pair: Value, number: float) -> Value:
    return b.ptx("add.rn.f16x2 $0, $1, $2;", [i32], [pair, b.const(_twice(number), i32)])[0]


def _scaled_back(b: GpuBuilder, raw: Value, shift: int) -> Value:
    """code of (1024 + code * 2**shift), exactly."""
    if shift == 0:
        return _add(b, raw, -1024.0)
    factor, less = 2.0**-shift, -1024.0 / 2**shift
    operands = [raw, b.const(_twice(factor), i32), b.const(_twice(less), i32)]
    return b.ptx("fma.rn.f16x2 $0, $1, $2, $3;", [i32], operands)[0]


def _twice(number: float) -> int:
    """The bits of a pair of f16 as a signed i32."""
    import numpy as np

    half = int(np.float16(number).view(np.uint16))
    word = half | half << 16
    return word - (1 << 32) if word >> 31 else word


def across(b: GpuBuilder, first: Value, second: Value) -> tuple[Value, Value]:
    """(a0, a1), (b0, b1) -> (a0, b0), (a1, b1)."""
    return b.permute(first, second, LOW_HALVES), b.permute(first, second, HIGH_HALVES)


def gather(
    row: Value, elements: Sequence[tuple[int, int]], load: Callable[[Value, int], list[Value]]
) -> list[Value]:
    """Pairs of 16-bit elements of a row; row: pointer to the element that counts as 0.

    load(row, at): the four words that lie `at` bytes from there.
    """
    b, loaded = cast(GpuBuilder, row.emitter), dict[int, Value]()

    def word(element: int) -> Value:
        at = element // 2
        if at not in loaded:
            first = at // 4 * 4
            for i, made in enumerate(load(row, 4 * first)):
                loaded[first + i] = made
        return loaded[at]

    pairs: list[Value] = []
    for low, high in elements:
        if low % 2 == 0 and high == low + 1:
            pairs.append(word(low))
        else:
            selector = HIGH_HALVES if low % 2 else LOW_HALVES
            pairs.append(b.permute(word(low), word(high), selector))
    return pairs
