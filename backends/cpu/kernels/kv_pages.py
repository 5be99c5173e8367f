"""Where the codes of a key-value cache lie, and the cache as a whole: codes and a ring of floats.

Codes lie as integer products want them: 64 bytes are 16 lanes of 4 bytes, which hold what is
summed over; codes of less than 8 bits are planes of these bytes: bits `i * bits ..` of byte j are
number `4 i + j` of the lane. Lanes are 16 keys of some components, and 16 components of tokens:

    key codes    [kv_heads][context / 16][head_dim / span][16 keys][4 bytes]    span: 32 / bits
    key scales   f16 [kv_heads][context / key group][scale, minimum][head_dim]
    value codes  [kv_heads][context / span][head_dim / 16][16 components][4 bytes]
    value scales f16 [kv_heads][value groups][scale, minimum][context]

Tokens that are no codes yet are in the ring, as in `kv`; corrections are as in `kv_correct`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Operand, Value, f16, i8
from nybble.backends.cpu.kernels.kv import KEY_BLOCK, KvCache, padded_positions
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.numpy_ref.arrays import KvArray
from nybble.dialects.sparse_attn.kv import KEYS, SIDES, VALUES, KvFormat

Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class KvPages:
    """A cache with codes. room: tokens of the ring, at least; see `KvFormat.room`.

    Raises KvError for a format that does not fit.
    """

    kv_heads: int
    head_dim: int
    context: int
    format: KvFormat
    room: int

    def __post_init__(self) -> None:
        self.format.check(self.context, self.head_dim)

    @property
    def planes(self) -> int:
        """Codes in a byte."""
        return 8 // self.format.bits

    @property
    def span(self) -> int:
        """Codes in a lane: components of a key, tokens of a component of values."""
        return 4 * self.planes

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

    @property
    def codes(self) -> int:
        """How many there are, of keys or of values."""
        return self.kv_heads * self.padded * self.head_dim

    def buffers_of(self, side: str) -> list[BufferSpec]:
        """Of keys or of values: ring, codes and scales, corrections; what the format has."""
        groups = self.key_groups * self.head_dim, self.value_groups * self.padded
        scales = groups[SIDES.index(side)]
        name = side[0]
        specs = [BufferSpec(name, self.exact.size, self.exact.element)]
        if self.format.has_codes(side):
            specs += [
                BufferSpec(f"{name}_codes", self.codes // self.planes, i8),
                BufferSpec(f"{name}_scales", self.kv_heads * scales * 2, f16),
            ]
        size = self.format.correction_size(side, self.head_dim)
        if size:
            count = self.kv_heads * self.padded // self.format.page
            specs.append(BufferSpec(f"{name}_fix", count * size, f16))
        return specs

    @property
    def buffers(self) -> list[BufferSpec]:
        """Those of keys, then those of values."""
        return [*self.buffers_of(KEYS), *self.buffers_of(VALUES)]

    # -- places

    def key_words(self, head: Value, block: Value, component: Operand) -> Value:
        """Index of the lanes of 16 keys (position / 16) that hold a component."""
        per_head, runs = self.padded // KEY_BLOCK, self.head_dim // self.span
        return ((head * per_head + block) * runs + component // self.span) * KEY_BLOCK

    def key_scales(self, head: Value, group: Value) -> Value:
        """Index of the scales of a group of keys; the minima are head_dim further on."""
        return (head * self.key_groups + group) * (2 * self.head_dim)

    def value_words(self, head: Value, position: Value, component: int) -> Value:
        """Index of the lanes of 16 components from this one on that hold a token."""
        per_head, vectors = self.padded // self.span, self.head_dim // KEY_BLOCK
        run = head * per_head + position // self.span
        return (run * vectors + component // KEY_BLOCK) * KEY_BLOCK

    def value_scales(self, head: Value, group: int, position: Value) -> Value:
        """Index of a value's scale in a group; the minimum is `padded` further on."""
        return (head * self.value_groups + group) * (2 * self.padded) + position

    def boundary(self, b: KernelBuilder, query: Value) -> Value:
        """`KvFormat.boundary` of an index."""
        page, recent = self.format.page, self.format.recent
        past = query + 1  # indices are unsigned, and a query may stand at -1
        before = b.select(past > recent + 1, query - recent, 0)
        return before // page * page

    def boundary_lanes(self, b: KernelBuilder, query: Value) -> Value:
        """`KvFormat.boundary` of a vector of i32."""
        before = query - self.format.recent
        return b.select(before > 0, before, 0) & -self.format.page

    # -- codes

    def bit_of(self, number: Value) -> Value:
        """Where in a lane the code of this number of a span begins."""
        return number % 4 * 8 + number // 4 * self.format.bits

    def code(self, words: Value, number: int) -> Value:
        """The codes of this number of a span out of lanes, i32."""
        shift = number % 4 * 8 + number // 4 * self.format.bits
        words = words.shr(shift) if shift else words
        return words & (2**self.format.bits - 1) if shift + self.format.bits < 32 else words

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
        values = self.exact.keys_from_rows(ring) if side == KEYS else ring.reshape(-1)
        return dict(zip(names, [values, *self._packed(side, rows)], strict=True))

    def _packed(
        self, side: str, rows: npt.NDArray[np.float32]
    ) -> list[npt.NDArray[np.int8] | Halves]:
        """Codes, scales and corrections of f32 [kv_heads, padded, head_dim]."""
        flat, form = rows.reshape(-1, self.head_dim), self.format
        if not form.corrected(side):
            return self._coded(side, form.coded(side, flat))
        coded, fix = form.encoded(side, flat)
        parts = [fix.weights, fix.lines, fix.places, fix.differences]
        each = [one.reshape(len(one), -1) for one in parts if one is not None]
        record = np.concatenate(each, axis=1).reshape(-1)
        return [*(self._coded(side, coded) if coded else ()), record]

    def _coded(self, side: str, coded: Weight) -> list[npt.NDArray[np.int8] | Halves]:
        return [*(self._keys(coded) if side == KEYS else self._values(coded))]

    def _words(self, codes: Bytes) -> npt.NDArray[np.int8]:
        """u8 [.., planes, 16, 4] as bytes [.., 16, 4], flat."""
        shifts = np.arange(self.planes, dtype=np.uint8)[:, None, None] * np.uint8(self.format.bits)
        return np.bitwise_or.reduce(codes << shifts, axis=-3).view(np.int8).reshape(-1)

    def _keys(self, coded: Weight) -> tuple[npt.NDArray[np.int8], Halves]:
        shape = (self.kv_heads, -1, KEY_BLOCK, self.head_dim // self.span, self.planes, 4)
        codes = coded.require_codes().reshape(shape).transpose(0, 1, 3, 4, 2, 5)
        scales = self._scales(coded).reshape(2, self.kv_heads, self.key_groups, self.head_dim)
        return self._words(codes), _flat(scales.transpose(1, 2, 0, 3))

    def _values(self, coded: Weight) -> tuple[npt.NDArray[np.int8], Halves]:
        shape = (self.kv_heads, -1, self.planes, 4, self.head_dim // KEY_BLOCK, KEY_BLOCK)
        codes = coded.require_codes().reshape(shape).transpose(0, 1, 4, 2, 5, 3)
        scales = self._scales(coded).reshape(2, self.kv_heads, self.padded, self.value_groups)
        return self._words(codes), _flat(scales.transpose(1, 3, 0, 2))

    @staticmethod
    def _scales(coded: Weight) -> Halves:
        assert coded.zero is not None
        return np.stack([coded.scale, coded.zero]).astype(np.float16)


def _flat(values: Halves) -> Halves:
    return np.ascontiguousarray(values).reshape(-1)


Cache = KvCache | KvPages


def parts(kv: KvFormat, side: str) -> int:
    """How many buffers hold keys or values: see `KvPages.buffers_of`."""
    return 1 + 2 * kv.has_codes(side) + kv.corrected(side)
