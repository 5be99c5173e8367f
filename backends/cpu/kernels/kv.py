"""Where a key or a value lies in the KV cache of one layer.

Values are [kv_heads][context][head_dim]. Keys are stored transposed in blocks of 16 positions,
[kv_heads][context / 16][head_dim][16]: a vector holds one component of 16 keys, so that the logits
of 16 keys need no horizontal sum and one load serves every query head of a group. Both have room
for `padded` positions; what was never written is read, but never used. A ring holds the last
positions alone, each at its number modulo `padded`, and behind them the first `pinned` ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Attribute

from nybble.backends.cpu.kernels.builder import (
    BufferSpec,
    KernelBuilder,
    Operand,
    Value,
    bf16,
    f16,
    f32,
)

KEY_BLOCK = 16
PADDING = 128
"""Positions are allocated in multiples of this: attention reads whole blocks of keys."""

Ints = NDArray[np.int_]
Floats = NDArray[np.float32 | np.float16 | np.uint16]
"""Numbers of a cache as they lie in memory: those of bf16 are words of 16 bits."""
_DTYPES: dict[str, tuple[Attribute, type[np.float32 | np.float16 | np.uint16]]] = {
    "f32": (f32, np.float32),
    "f16": (f16, np.float16),
    "bf16": (bf16, np.uint16),
}


def padded_positions(count: int) -> int:
    """`count` rounded up to what is allocated."""
    return -(-count // PADDING) * PADDING


@dataclass(frozen=True)
class KvCache:
    """The cache of one layer: `kv_heads` of `head_dim` over `context` positions.

    dtype: f32, f16 or bf16. ring: whether these are the last positions of a longer text. pinned:
    of a ring, how many positions at the beginning of the text it keeps too.
    """

    kv_heads: int
    head_dim: int
    context: int
    dtype: str = "f32"
    ring: bool = False
    pinned: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"KV cache type '{self.dtype}' is not one of {', '.join(_DTYPES)}")
        if self.head_dim % 16 or not 16 <= self.head_dim <= 256:
            raise ValueError(f"head size {self.head_dim} is not a multiple of 16 up to 256")
        if self.kv_heads < 1 or self.context < 1:
            raise ValueError(f"{self.kv_heads} KV heads over a context of {self.context}")

    @property
    def padded(self) -> int:
        """Positions allocated, but for those that are pinned."""
        return padded_positions(self.context)

    @property
    def slots(self) -> int:
        """Positions allocated."""
        return self.padded + self.pinned

    @property
    def size(self) -> int:
        """Elements of the key cache, and of the value cache."""
        return self.kv_heads * self.slots * self.head_dim

    @property
    def element(self) -> Attribute:
        """The MLIR type stored."""
        return _DTYPES[self.dtype][0]

    @property
    def element_bytes(self) -> int:
        """Of a number stored."""
        return np.dtype(_DTYPES[self.dtype][1]).itemsize

    def buffers_of(self, side: str) -> list[BufferSpec]:
        """k for "keys", v for "values"."""
        return [BufferSpec(side[0], self.size, self.element)]

    @property
    def buffers(self) -> list[BufferSpec]:
        """k, v."""
        return [*self.buffers_of("keys"), *self.buffers_of("values")]

    def slot(self, b: KernelBuilder, position: Value) -> Value:
        """Where a position lies; the next ones of its page follow it."""
        if not self.ring:
            return position
        place = position % self.padded
        if not self.pinned:
            return place
        return b.select(position < self.pinned, position + self.padded, place)

    def places(self, end: int) -> tuple[Ints, Ints]:
        """The positions that a ring holds after `end` of them, and where each lies."""
        first = np.arange(min(self.pinned, end))
        last = np.arange(max(self.pinned, end - self.padded), end)
        slots = [first + self.padded, last % self.padded]
        return np.concatenate([first, last]), np.concatenate(slots)

    def key_vector(self, head: Value, block: Value, component: Operand) -> Value:
        """Index of the 16 values of one component in key block `block` (position / 16)."""
        per_head = self.slots // KEY_BLOCK
        return ((head * per_head + block) * self.head_dim + component) * KEY_BLOCK

    def value_row(self, head: Value, position: Operand) -> Value:
        """Index of the first component of a value."""
        return (head * self.slots + position) * self.head_dim

    def empty(self) -> Floats:
        """A flat array of zeros for the keys or the values."""
        return np.zeros(self.size, _DTYPES[self.dtype][1])

    def keys_as_rows(self, flat: Floats) -> Floats:
        """A copy of a flat key cache as [kv_heads, slots, head_dim]."""
        blocks = flat.reshape(self.kv_heads, self.slots // KEY_BLOCK, self.head_dim, KEY_BLOCK)
        rows = blocks.transpose(0, 1, 3, 2)
        return np.ascontiguousarray(rows).reshape(self.kv_heads, self.slots, self.head_dim)

    def keys_from_rows(self, rows: Floats) -> Floats:
        """The flat key cache of [kv_heads, slots, head_dim]."""
        shape = (self.kv_heads, self.slots // KEY_BLOCK, KEY_BLOCK, self.head_dim)
        return np.ascontiguousarray(rows.reshape(shape).transpose(0, 1, 3, 2)).reshape(-1)
