"""Words of bits as numpy sees them: fields of integers, the first in the lowest bits."""

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


def to_words(fields: Integers, field_bits: int, word_bits: int) -> U8:
    """Fields [words, lanes] of non-negative integers to bytes [words, word_bits / 8]."""
    words, lanes = fields.shape
    bits = (fields[:, :, None] >> np.arange(field_bits) & 1).astype(np.uint8)
    padded = np.zeros((words, word_bits), np.uint8)
    padded[:, : lanes * field_bits] = bits.reshape(words, -1)
    return np.packbits(padded, axis=1, bitorder="little")


def from_words(words: U8, field_bits: int, lanes: int) -> Integers:
    """The first `lanes` fields of words, [words, lanes]: the inverse of `to_words`."""
    count = lanes * field_bits
    bits = np.unpackbits(words, axis=1, bitorder="little")[:, :count]
    weights = np.left_shift(1, np.arange(field_bits), dtype=np.int64)
    return bits.reshape(len(words), lanes, field_bits).astype(np.int64) @ weights


def power_of_two(bits: int) -> int:
    """The least power of two from `bits` on, 8 at least: a width that a bus can have."""
    return max(8, 1 << (bits - 1).bit_length())
