"""Parts of attentions: how a kernel leaves one, joining two, and the division at the end.

See `sparse_attn.partial`: max is the largest logit (base e), -inf where a row saw no key.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels import mathlib
from nybble.backends.cpu.kernels.attention_tile import MASKED, NOTHING_SEEN, Tile
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.loops import padded_rows

_NONE = float("-inf")


@dataclass(frozen=True)
class PartsShape:
    """max, sum f32 [rows, heads]; acc f32 [rows, heads, head_dim]; head_dim a multiple of 16."""

    heads: int
    head_dim: int
    rows: int

    def buffers(self, prefix: str = "") -> list[BufferSpec]:
        """max, sum, acc."""
        heads = padded_rows(self.rows) * self.heads
        sizes = {"max": heads, "sum": heads, "acc": heads * self.head_dim}
        return [BufferSpec(prefix + name, size, f32) for name, size in sizes.items()]

    def write(self, tile: Tile, tile_row: Value, part: Value) -> None:
        """Store a row of a finished tile as that of number `part` (row * heads + head)."""
        b, peak = tile.b, tile.peak(tile_row)
        seen = peak > NOTHING_SEEN
        b.buffer("max").store(b.select(seen, peak * mathlib.LN_2, _NONE), part)
        b.buffer("sum").store(b.select(seen, tile.total(tile_row), 0.0), part)
        kept = b.broadcast(b.select(seen, b.const(1.0, f32), 0.0), KEY_BLOCK)
        for offset in range(0, self.head_dim, KEY_BLOCK):
            value = tile.output(tile_row, offset) * kept
            b.buffer("acc").vstore(value, part * self.head_dim + offset)


@dataclass(frozen=True)
class PartsMerge:
    """left_max, .., right_acc -> max, sum, acc: the part of both sets of keys; shared by rows."""

    shape: PartsShape

    @property
    def buffers(self) -> list[BufferSpec]:
        """Left and right max, sum, acc, then those of the result."""
        return [spec for side in ("left_", "right_", "") for spec in self.shape.buffers(side)]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        shape = self.shape
        with b.for_(*b.partition(b.n * shape.heads)) as part:
            peaks = [b.buffer(side + "max").load(part.iv) for side in ("left_", "right_")]
            peak = b.max(*peaks)
            centre = b.max(peak, MASKED)
            weights = [mathlib.exp2_nonpositive(b, (p - centre) * mathlib.LOG2_E) for p in peaks]
            sums = [b.buffer(side + "sum").load(part.iv) for side in ("left_", "right_")]
            b.buffer("max").store(peak, part.iv)
            b.buffer("sum").store(sums[0] * weights[0] + sums[1] * weights[1], part.iv)
            left, right = (b.broadcast(weight, KEY_BLOCK) for weight in weights)
            for offset in range(0, shape.head_dim, KEY_BLOCK):
                at = part.iv * shape.head_dim + offset
                one = b.buffer("left_acc").vload(at, KEY_BLOCK) * left
                other = b.buffer("right_acc").vload(at, KEY_BLOCK)
                b.buffer("acc").vstore(b.fma(other, right, one), at)
        return b.finish()


@dataclass(frozen=True)
class PartsFinish:
    """sum, acc -> out f32 like acc: `acc / sum`, 0 where no key was seen; shared by rows."""

    shape: PartsShape

    @property
    def buffers(self) -> list[BufferSpec]:
        """sum, acc, out."""
        _, total, acc = self.shape.buffers()
        return [total, acc, BufferSpec("out", acc.size, f32)]

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self.buffers)
        total, acc, out = b.buffers
        with b.for_(*b.partition(b.n * self.shape.heads)) as part:
            whole = total.load(part.iv)
            whole = b.select(whole.eq(0.0), b.const(1.0, f32), whole)
            inverse = b.broadcast(1.0 / whole, KEY_BLOCK)
            for offset in range(0, self.shape.head_dim, KEY_BLOCK):
                at = part.iv * self.shape.head_dim + offset
                out.vstore(acc.vload(at, KEY_BLOCK) * inverse, at)
        return b.finish()
