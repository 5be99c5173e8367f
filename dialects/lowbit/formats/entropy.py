"""Lossless coding of bf16: canonical Huffman codes for the exponents, in blocks (DFloat11).

Source: DFloat11, arXiv 2504.11651: the 8 exponent bits of trained weights carry 2 to 3 bits of
information, sign and mantissa are stored as they are. This layout is made for CPUs, where lanes of
a vector decode blocks of different rows in step, every lane the same number of symbols:

- a row is cut in blocks of `block` columns (the last may be shorter); the code words of a block
  are written one after the other, the first at bit 0 of the block's first byte, upwards. `starts`
  has the first byte of every block and, last, the number of bytes;
- code words have 1 to 11 bits and are stored with their first bit lowest, so that the low bits of a
  window index `decode_table` directly: its entry is the symbol and how many bits to skip;
- a window of 32 bits from any byte on holds at least 2 code words, one of 64 bits at least 5.
  `bits` ends with 8 bytes of zeros, so that a window may be read anywhere;
- a sign-and-mantissa byte per weight, sign in bit 7, in row order.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import U8
from nybble.dialects.lowbit.formats.errors import FormatError

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
MAX_LENGTH = 11
BLOCK = 512
WINDOW = 8
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Coded:
    """Symbols [rows, cols] as code words.

    lengths: u8 [256], bits of each symbol's code word, 0 for one that does not occur.
    starts: u32 [rows * blocks + 1], byte offsets into `bits`. bits: u8, the code words.
    """

    lengths: U8
    starts: U32
    bits: U8


def code_lengths(counts: I64) -> U8:
    """Bits of an optimal prefix code of at most 11 bits: u8 [256] of i64 [256] occurrences.

    Source: package-merge (Larmore and Hirschberg, 1990). A single symbol gets 1 bit.
    """
    lengths = np.zeros(256, np.uint8)
    leaves = sorted((int(counts[symbol]), (symbol,)) for symbol in np.flatnonzero(counts).tolist())
    if len(leaves) == 1:
        lengths[leaves[0][1][0]] = 1
        return lengths
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(MAX_LENGTH):
        merged = sorted(leaves + packages)
        packages = [
            (first[0] + second[0], first[1] + second[1])
            for first, second in zip(merged[::2], merged[1::2], strict=False)
        ]
    for _, symbols in packages[: max(len(leaves) - 1, 0)]:
        np.add.at(lengths, list(symbols), 1)
    return lengths


def code_words(lengths: U8) -> U16:
    """The canonical code of u8 [256] lengths, first bit lowest: u16 [256].

    Shorter codes first, equally long ones by symbol. Raises FormatError for lengths that are no
    prefix code of at most 11 bits.
    """
    wide = lengths.astype(np.int64)
    used = np.flatnonzero(wide)
    room = np.left_shift(1, MAX_LENGTH - wide[used]).sum() if used.size else 0
    if wide.max(initial=0) > MAX_LENGTH or room > 1 << MAX_LENGTH:
        raise FormatError(
            f"Huffman code lengths of up to {wide.max()} bits that overlap or are too long",
            accepted=f"a prefix code of at most {MAX_LENGTH} bits",
        )
    words = np.zeros(256, np.uint16)
    code = last = 0
    for symbol in sorted(used.tolist(), key=lambda one: (wide[one], one)):
        length = int(wide[symbol])
        code <<= length - last
        last = length
        words[symbol] = int(f"{code:0{length}b}"[::-1], 2)
        code += 1
    return words


def decode_table(lengths: U8) -> U16:
    """u16 [2048]: for each window of 11 bits, the symbol in the low byte, the length above it.

    Windows that begin no code word have length 0.
    """
    words = code_words(lengths)
    table = np.zeros(1 << MAX_LENGTH, np.uint16)
    for symbol in np.flatnonzero(lengths).tolist():
        length = int(lengths[symbol])
        table[int(words[symbol]) :: 1 << length] = symbol | length << 8
    return table


def encode(symbols: U8, block: int = BLOCK) -> Coded:
    """Code u8 [rows, cols] in blocks of `block` columns."""
    rows, cols = symbols.shape
    lengths = code_lengths(np.bincount(symbols.reshape(-1), minlength=256).astype(np.int64))
    words = code_words(lengths).astype(np.int64)
    step = max(1, _CHUNK // max(cols, 1))
    parts = [
        _encode_rows(symbols[row : row + step], lengths, words, block)
        for row in range(0, rows if cols else 0, step)
    ]
    sizes = np.concatenate([np.zeros(1, np.int64), *(size for size, _ in parts)])
    starts = np.cumsum(sizes)
    if starts[-1] >= 1 << 32:
        raise FormatError(f"{starts[-1]} bytes of code words", accepted="less than 2**32")
    bits = np.concatenate([*(coded for _, coded in parts), np.zeros(WINDOW, np.uint8)])
    return Coded(lengths, starts.astype(np.uint32), bits)


def _encode_rows(symbols: U8, lengths: U8, words: I64, block: int) -> tuple[I64, U8]:
    """Bytes of each block, and the code words of some rows."""
    cols = symbols.shape[1]
    taken = lengths[symbols].astype(np.int64)
    edges = np.arange(0, cols, block)
    sizes = ((np.add.reduceat(taken, edges, axis=1) + 7) // 8).reshape(-1)
    starts = np.cumsum(sizes) - sizes
    within = np.cumsum(taken, axis=1) - taken
    first = starts.reshape(-1, len(edges)) * 8 - within[:, edges]
    place = (within + first[:, np.arange(cols) // block]).reshape(-1)
    shifted = words[symbols].reshape(-1) << (place & 7)
    size = int(sizes.sum())
    coded = np.zeros(size + 2)
    for step in range(3):  # 11 bits from bit 7 on end in the third byte; no two bits coincide
        coded += np.bincount((place >> 3) + step, (shifted >> 8 * step) & 255, size + 2)
    return sizes, coded[:size].astype(np.uint8)


def decode(coded: Coded, rows: int, cols: int, block: int = BLOCK) -> U8:
    """The symbols u8 [rows, cols], all blocks in step.

    Raises FormatError for code words that are none, or that do not end where their block does.
    """
    symbols = np.zeros((rows, cols), np.uint8)
    if not symbols.size:
        return symbols
    blocks = -(-cols // block)
    _check_starts(coded, rows * blocks)
    table = decode_table(coded.lengths)
    bits = coded.bits.astype(np.uint32)
    place = coded.starts[:-1].astype(np.int64).reshape(rows, blocks) * 8
    end = coded.starts[1:].astype(np.int64).reshape(rows, blocks) * 8
    for column in range(min(block, cols)):
        live = -(-(cols - column) // block)
        where = place[:, :live] >> 3
        window = bits[where] | bits[where + 1] << np.uint32(8) | bits[where + 2] << np.uint32(16)
        entry = table[(window >> (place[:, :live] & 7).astype(np.uint32)) & (len(table) - 1)]
        symbols[:, column::block] = entry & 255
        place[:, :live] += np.where(entry >> 8, entry >> 8, 1 << 20)
        if (place[:, :live] > end[:, :live]).any():
            raise FormatError("code words that do not end with their block")
    if ((place + 7) // 8 * 8 != end).any():
        raise FormatError("code words that do not end with their block")
    return symbols


def _check_starts(coded: Coded, blocks: int) -> None:
    starts = coded.starts.astype(np.int64)
    ends_right = len(starts) == blocks + 1 and starts[-1] + WINDOW == len(coded.bits)
    if not ends_right or starts[0] or (np.diff(starts) < 0).any():
        raise FormatError(
            f"{len(starts)} block offsets for {len(coded.bits)} bytes of code words",
            accepted=f"{blocks + 1} rising offsets from 0 to {len(coded.bits) - WINDOW}",
        )


def split_bf16(patterns: U16) -> tuple[U8, U8]:
    """Exponents and sign-and-mantissa bytes, u8 [rows, cols] each, of u16 bf16 patterns."""
    exponents = (patterns >> 7 & 255).astype(np.uint8)
    rest = ((patterns >> 8 & 128) | (patterns & 127)).astype(np.uint8)
    return exponents, rest


def join_bf16(exponents: U8, rest: U8) -> U16:
    """The inverse of `split_bf16`."""
    wide = rest.astype(np.uint16)
    joined = (wide & 128) << 8 | exponents.astype(np.uint16) << 7 | (wide & 127)
    return joined.astype(np.uint16)
