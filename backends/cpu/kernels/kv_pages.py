"""Where the codes of a key-value cache lie, and the cache as a whole: codes and a ring of floats.

A vector of 16 numbers is 16 codes; codes of less than 8 bits lie as planes in the 16 bytes of
8 / bits vectors that follow each other: bits `i * bits ..` of byte `lane` are lane `lane` of
vector i. Vectors are 16 keys of one component, and 16 components of one value:

    key codes    [kv_heads][context / span][head_dim][16 bytes]    span: 16 * 8 / bits keys
    key scales   f16 [kv_heads][context / key group][scale, minimum][head_dim]
    value codes  [kv_heads][context][chunks][16 bytes]             a chunk has span components
    value scales f16 [kv_heads][value groups][scale, minimum][context]

Tokens that are no codes yet are in the ring, as in `kv`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f16, i8, i32
from nybble.backends.cpu.kernels.kv import KEY_BLOCK, KvCache, padded_positions
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.sparse_attn.kv import KEYS, VALUES, KvError, KvFormat

PARTS = 3
"""Buffers of keys, and of values: ring, codes, scales."""
Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class KvPages:
    """A cache with codes. room: tokens of the ring, at least; see `KvFormat.room`.

    Raises KvError for a format that these kernels do not compute.
    """

    kv_heads: int
    head_dim: int
    context: int
    format: KvFormat
    room: int

    def __post_init__(self) -> None:
        self.format.check(self.context, self.head_dim)
        if self.format.page % self.span:
            raise KvError(
                f"{self.format} on a CPU: pages of {self.format.page} tokens",
                accepted=f"a multiple of {self.span} for {self.format.bits} bits",
            )

    @property
    def planes(self) -> int:
        """Vectors in the same 16 bytes."""
        return 8 // self.format.bits

    @property
    def span(self) -> int:
        """Numbers in 16 bytes."""
        return KEY_BLOCK * self.planes

    @property
    def padded(self) -> int:
        """Positions that have room for codes."""
        return padded_positions(self.context)

    @cached_property
    def exact(self) -> KvCache:
        """The ring."""
        form = self.format
        return KvCache(
            self.kv_heads, self.head_dim, self.room, form.exact, ring=True, pinned=form.pinned
        )

    @property
    def dtype(self) -> str:
        """Of what is in the ring."""
        return self.exact.dtype

    @property
    def chunks(self) -> int:
        """16-byte chunks of a value."""
        return -(-self.head_dim // self.span)

    @property
    def value_group(self) -> int:
        """Components of a value that share a scale."""
        return self.format.value_group(self.head_dim)

    @property
    def value_groups(self) -> int:
        """How many of these a value has."""
        return self.head_dim // self.value_group

    @property
    def key_groups(self) -> int:
        """How many groups of tokens a component of keys has."""
        return self.padded // self.format.key_group

    def buffers_of(self, side: str) -> list[BufferSpec]:
        """Ring, codes and scales of keys or of values."""
        if side == KEYS:
            codes = self.padded // self.span * self.head_dim
            scales = self.key_groups * self.head_dim
        else:
            codes = self.padded * self.chunks
            scales = self.value_groups * self.padded
        name = side[0]
        return [
            BufferSpec(name, self.exact.size, self.exact.element),
            BufferSpec(f"{name}_codes", self.kv_heads * codes * KEY_BLOCK, i8),
            BufferSpec(f"{name}_scales", self.kv_heads * scales * 2, f16),
        ]

    @property
    def buffers(self) -> list[BufferSpec]:
        """Those of keys, then those of values."""
        return [*self.buffers_of(KEYS), *self.buffers_of(VALUES)]

    # -- places

    def key_codes(self, head: Value, span: Value, component: Value) -> Value:
        """Index of the bytes of a component in the keys of a span (position / span)."""
        per_head = self.padded // self.span
        return ((head * per_head + span) * self.head_dim + component) * KEY_BLOCK

    def key_scales(self, head: Value, group: Value) -> Value:
        """Index of the scales of a group of keys; the minima are head_dim further on."""
        return (head * self.key_groups + group) * (2 * self.head_dim)

    def value_codes(self, head: Value, position: Value) -> Value:
        """Index of the bytes of a value."""
        return (head * self.padded + position) * (self.chunks * KEY_BLOCK)

    def value_scales(self, head: Value, group: int, position: Value) -> Value:
        """Index of a value's scale in a group; the minimum is `padded` further on."""
        return (head * self.value_groups + group) * (2 * self.padded) + position

    def boundary(self, b: KernelBuilder, query: Value) -> Value:
        """`KvFormat.boundary` of an index."""
        page, recent = self.format.page, self.format.recent
        before = b.select(query > recent, query - recent, 0) if recent else query
        return before // page * page

    def boundary_lanes(self, b: KernelBuilder, query: Value) -> Value:
        """`KvFormat.boundary` of a vector of i32."""
        before = query - self.format.recent
        return b.select(before > 0, before, 0) & -self.format.page

    # -- codes

    def plane(self, b: KernelBuilder, code_bytes: Value, plane: int | Value) -> Value:
        """The codes of one vector out of 16 bytes, i32."""
        words = b.zext(code_bytes, i32)
        bits = self.format.bits
        if isinstance(plane, Value):
            shift = b.broadcast(b.from_index(plane * bits, i32), KEY_BLOCK)
            words = words.shr(shift)
        elif plane:
            words = words.shr(plane * bits)
        last = isinstance(plane, int) and plane == self.planes - 1
        return words if last else words & (2**bits - 1)

    def joined(self, b: KernelBuilder, codes: list[Value]) -> Value:
        """The 16 bytes of up to `planes` vectors of codes, i32."""
        joined = codes[0]
        for plane, one in enumerate(codes[1:], 1):
            joined = joined | (one << (plane * self.format.bits))
        return b.trunc(joined, i8)

    # -- arrays

    def pack(self, side: str, cache: KvArray, end: int) -> dict[str, npt.NDArray[np.generic]]:
        """The buffers of keys or values, f16 [kv_heads, context, head_dim], after `end` tokens.

        All whole pages up to `end` are codes, whether queries see them as such already or not.
        """
        ring = np.zeros((self.kv_heads, self.exact.slots, self.head_dim), np.float16)
        held, slots = self.exact.places(end)
        ring[:, slots] = cache[:, held]
        whole = end // self.format.page * self.format.page
        names = [spec.name for spec in self.buffers_of(side)]
        rows = np.zeros((self.kv_heads, self.padded, self.head_dim), np.float32)
        rows[:, :whole] = cache[:, :whole]
        coded = self.format.coded(side, rows.reshape(-1, self.head_dim))
        if side == KEYS:
            return dict(
                zip(names, (self.exact.keys_from_rows(ring), *self._keys(coded)), strict=True)
            )
        return dict(zip(names, (ring.reshape(-1), *self._values(coded)), strict=True))

    def _planes(self, codes: Bytes) -> npt.NDArray[np.int8]:
        """u8 [.., planes, 16] as bytes [.., 16]."""
        shifts = np.arange(codes.shape[-2], dtype=np.uint8)[:, None] * np.uint8(self.format.bits)
        return np.bitwise_or.reduce(codes << shifts, axis=-2).view(np.int8)

    def _keys(self, coded: Weight) -> tuple[npt.NDArray[np.int8], Halves]:
        shape = (self.kv_heads, -1, self.planes, KEY_BLOCK, self.head_dim)
        codes = coded.require_codes().reshape(shape).transpose(0, 1, 4, 2, 3)
        scales = self._scales(coded).reshape(2, self.kv_heads, self.key_groups, self.head_dim)
        return self._planes(codes).reshape(-1), _flat(scales.transpose(1, 2, 0, 3))

    def _values(self, coded: Weight) -> tuple[npt.NDArray[np.int8], Halves]:
        rows = self.kv_heads * self.padded
        codes = np.zeros((rows, self.chunks * self.span), np.uint8)
        codes[:, : self.head_dim] = coded.require_codes()
        planes = codes.reshape(rows, self.chunks, self.planes, KEY_BLOCK)
        scales = self._scales(coded).reshape(2, self.kv_heads, self.padded, self.value_groups)
        return self._planes(planes).reshape(-1), _flat(scales.transpose(1, 3, 0, 2))

    @staticmethod
    def _scales(coded: Weight) -> Halves:
        assert coded.zero is not None
        return np.stack([coded.scale, coded.zero]).astype(np.float16)


def _flat(values: Halves) -> Halves:
    return np.ascontiguousarray(values).reshape(-1)


Cache = KvCache | KvPages
