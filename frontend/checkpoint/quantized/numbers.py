"""Numbers of safetensors as arrays, and small integers out of 32-bit words."""

import numpy as np
from numpy.typing import NDArray

from nybble.dialects.lowbit.formats.numeric import decode_floats
from nybble.dialects.lowbit.formats.table_element import SmallFloat
from nybble.frontend.checkpoint.safetensors_file import StoredTensor

Floats = NDArray[np.float32]
Integers = NDArray[np.int8 | np.uint8 | np.int32 | np.int64]
U8 = NDArray[np.uint8]
_INTEGERS = {"i8": "<i1", "u8": "<u1", "i32": "<i4", "i64": "<i8"}
_SMALL_FLOATS = {"e4m3": SmallFloat(4, 3), "e5m2": SmallFloat(5, 2)}
_E8M0_NAN = 255


def floats(tensor: StoredTensor) -> Floats:
    """The numbers of a tensor of floats as f32, in its shape; NaN where they are."""
    if tensor.dtype in _SMALL_FLOATS:
        found = _SMALL_FLOATS[tensor.dtype].values[tensor.data]
    else:
        found = decode_floats(tensor.dtype, np.ascontiguousarray(tensor.data))
        if tensor.dtype == "e8m0":
            found[tensor.data == _E8M0_NAN] = np.nan
    return found.reshape(tensor.shape)


def integers(tensor: StoredTensor) -> Integers:
    """The integers of a tensor in their own type, in its shape."""
    data = np.ascontiguousarray(tensor.data)
    return data.view(_INTEGERS[tensor.dtype]).reshape(tensor.shape)


def codes_of(tensor: StoredTensor) -> U8:
    """The bytes of a tensor of 8-bit numbers, in its shape."""
    return np.ascontiguousarray(tensor.data).reshape(tensor.shape)


def unpack_bits(stream: U8, bits: int, count: int) -> U8:
    """The first `count` integers of each row of a stream of `bits`-bit ones, low bits first.

    stream: u8 [rows, bytes] of count * bits bits or more; an integer may lie across two bytes.
    Returns u8 [rows, count].
    """
    start = np.arange(count) * bits
    first, shift = start // 8, (start % 8).astype(np.uint16)
    following = np.minimum(first + 1, stream.shape[1] - 1)
    pair = stream[:, following].astype(np.uint16)
    pair <<= np.uint16(8)
    pair |= stream[:, first]
    pair >>= shift
    pair &= np.uint16(2**bits - 1)
    return pair.astype(np.uint8)


def unpack_words(words: Integers, bits: int, count: int) -> U8:
    """`unpack_bits` of 32-bit words: i32 [rows, words] to u8 [rows, count]."""
    return unpack_bits(np.ascontiguousarray(words, "<i4").view(np.uint8), bits, count)


def words_of(count: int, bits: int) -> int:
    """How many 32-bit words so many integers of `bits` bits fill."""
    return -(-count * bits // 32)
