"""The Hadamard transform of activation rows as butterflies of vectors.

A block of `block` columns is taken in two passes, `H(a * b) = H(a) x H(b)`: the first transforms
each run of b columns in registers, the second goes across the a runs, a vector of columns at a
time.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, Value, f32, vec
from nybble.backends.cpu.kernels.loops import for_each_row_part, padded_rows

REGISTERS = 16  # vectors of a run that are held at once
LARGEST_BLOCK = 1 << 13


@dataclass(frozen=True)
class Hadamard:
    """x f32 [n, width] -> out, every run of `block` columns transformed; out may be x.

    Raises ValueError for a block that is not handled, or rows that are no whole vectors.
    """

    width: int
    rows: int
    block: int
    lanes: int = 16

    def __post_init__(self) -> None:
        if self.block < 2 or self.block & (self.block - 1) or self.block > LARGEST_BLOCK:
            raise ValueError(f"Hadamard block {self.block} is no power of two to {LARGEST_BLOCK}")
        if self.width % max(self.block, self.lanes):
            raise ValueError(
                f"row length {self.width} is not a multiple of {max(self.block, self.lanes)}"
            )

    @property
    def buffers(self) -> list[BufferSpec]:
        """x, out."""
        size = padded_rows(self.rows) * self.width
        return [BufferSpec("x", size, f32), BufferSpec("out", size, f32)]

    @property
    def run(self) -> int:
        """Columns that the first pass transforms at once; at least a vector."""
        return max(self.lanes, min(self.block, REGISTERS * self.lanes))

    def build(self, name: str) -> FuncOp:
        """The kernel. One row is shared out by blocks, several by rows."""
        b = KernelBuilder(name, self.buffers)
        step = max(self.block, self.lanes)

        def row_part(row: Value, bounds: tuple[Value, Value]) -> None:
            with b.for_(*bounds) as loop:
                self._block(b, row * self.width + loop.iv * step, step)

        for_each_row_part(b, self.rows, self.width // step, row_part)
        return b.finish()

    def _block(self, b: KernelBuilder, start: Value, size: int) -> None:
        x, out = b.buffers
        across = size // self.run
        factor = b.const(self.block**-0.5, vec(self.lanes, f32))
        with b.for_(0, size, self.run) as loop:
            offsets = range(0, self.run, self.lanes)
            values = [x.vload(start + loop.iv + offset, self.lanes) for offset in offsets]
            values = butterflies([within(b, v, self.block, self.lanes) for v in values])
            for offset, value in zip(offsets, values, strict=True):
                out.vstore(value * factor, start + loop.iv + offset)
        if across == 1:
            return
        with b.for_(0, self.run, self.lanes) as loop:
            places = [start + loop.iv + index * self.run for index in range(across)]
            for place, value in zip(
                places, butterflies([out.vload(p, self.lanes) for p in places]), strict=True
            ):
                out.vstore(value, place)


def butterflies(values: list[Value]) -> list[Value]:
    """The unnormalised transform across a list of 2^i vectors."""
    half = 1
    while half < len(values):
        low = [i for i in range(len(values)) if not i & half]
        for i in low:
            values[i], values[i + half] = values[i] + values[i + half], values[i] - values[i + half]
        half *= 2
    return values


def within(b: KernelBuilder, value: Value, block: int, lanes: int) -> Value:
    """The unnormalised transform of each run of min(block, lanes) lanes of a vector."""
    half = 1
    while half < min(block, lanes):
        swapped = b.shuffle(value, value, [lane ^ half for lane in range(lanes)])
        signs = [-1.0 if lane & half else 1.0 for lane in range(lanes)]
        value = b.fma(value, b.const(signs, vec(lanes, f32)), swapped)
        half *= 2
    return value
