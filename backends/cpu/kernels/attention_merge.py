"""Joining the parts of a decode attention whose keys were split (Flash-Decoding).

Part i of a head holds o_i = sum(2^(s - m_i) v), m_i and l_i = sum(2^(s - m_i)); the attention is
sum(2^(m_i - m) o_i) / sum(2^(m_i - m) l_i) with m the largest m_i. A part without keys has m_i at
the masked logit and zeros, and adds nothing.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.attention_tile import NOTHING_SEEN, Tile
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.loops import tree


@dataclass(frozen=True)
class PartialRows:
    """partial f32 [q_heads][splits][head_dim + 16]: o, then m, l and 14 unused."""

    q_heads: int
    head_dim: int
    splits: int

    @property
    def stride(self) -> int:
        """Elements of one part."""
        return self.head_dim + KEY_BLOCK

    @property
    def buffer(self) -> BufferSpec:
        """The buffer of all parts."""
        return BufferSpec("partial", self.q_heads * self.splits * self.stride, f32)

    def write(self, tile: Tile, tile_row: Value, part: Value) -> None:
        """Store a row of a finished tile as part `part` (head * splits + split)."""
        partial, base = tile.b.buffer("partial"), part * self.stride
        for offset in range(0, self.head_dim, KEY_BLOCK):
            partial.vstore(tile.output(tile_row, offset), base + offset)
        partial.store(tile.peak(tile_row), base + self.head_dim)
        partial.store(tile.total(tile_row), base + (self.head_dim + 1))


@dataclass(frozen=True)
class AttentionMerge:
    """partial -> out f32 [q_heads * head_dim]; shared out by heads."""

    rows: PartialRows

    @property
    def buffers(self) -> list[BufferSpec]:
        """partial, out."""
        return [self.rows.buffer, BufferSpec("out", self.rows.q_heads * self.rows.head_dim, f32)]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        partial, out = b.buffers
        rows, width = self.rows, self.rows.head_dim
        with b.for_(*b.partition(rows.q_heads)) as head:
            bases = [(head.iv * rows.splits + i) * rows.stride for i in range(rows.splits)]
            peaks = [partial.load(base + width) for base in bases]
            peak = tree(peaks, b.max)
            weights = [mathlib.exp2_nonpositive(b, m - peak) for m in peaks]
            sums = [partial.load(base + (width + 1)) for base in bases]
            total = tree([w * s for w, s in zip(weights, sums, strict=True)], lambda x, y: x + y)
            weights = [b.select(peak > NOTHING_SEEN, w / total, 0.0) for w in weights]
            shares = [b.broadcast(w, KEY_BLOCK) for w in weights]
            for offset in range(0, width, KEY_BLOCK):
                parts = [
                    partial.vload(base + offset, KEY_BLOCK) * share
                    for base, share in zip(bases, shares, strict=True)
                ]
                out.vstore(tree(parts, lambda x, y: x + y), head.iv * width + offset)
        return b.finish()
