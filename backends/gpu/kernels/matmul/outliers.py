"""What outliers of a weight add to results: read, row by row, when the sums of a row are complete.

Each lane has the two tokens of its sums, and goes along the outliers of its row, several at a time,
since each waits for memory twice: for its column, and for the activation there.
"""

from dataclasses import dataclass

from xdsl.dialects.builtin import i32, i64

from nybble.backends.building.values import Value, f32
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.kernels.matmul.spec import StreamSpec
from nybble.backends.gpu.packing.stream import OUTLIER, WORD

AT_ONCE = 4
TOKENS = 2


@dataclass(frozen=True)
class Outliers:
    """Of the packed weight `w`; x: the activations, 16-bit floats row by row."""

    b: GpuBuilder
    spec: StreamSpec
    w: Value
    x: Value

    def added(self, row: Value, token: Value) -> list[Value]:
        """f32 of a row of the weight as it is packed, for `token` and the one after it."""
        b, layout = self.b, self.spec.layout
        start = b.offset(self.w, b.zext(row, i64) * WORD + layout.starts)
        first, last = b.load(start, i32), b.load(b.offset(start, WORD), i32)
        tokens = [b.min(token + i, self.spec.tokens - 1) for i in range(TOKENS)]
        rows = [b.offset(self.x, b.zext(one, i64) * self.spec.token_bytes(layout.cols))
                for one in tokens]  # fmt: skip
        nothing = b.const(0.0, f32)
        with b.for_(first, last, AT_ONCE, [nothing] * TOKENS) as loop:
            sums = loop.args
            for i in range(AT_ONCE):
                column, value = self.entry(b.min(loop.iv + i, last - 1))
                value = b.select(loop.iv + i < last, value, nothing)
                sums = [
                    b.fma(value, self.activation(each, column), total)
                    for each, total in zip(rows, sums, strict=True)
                ]
            loop.yield_(*sums)
        return loop.results

    def entry(self, index: Value) -> tuple[Value, Value]:
        """The column of an outlier, and its value."""
        b = self.b
        place = b.offset(self.w, b.zext(index, i64) * OUTLIER + self.spec.layout.added)
        column, bits = b.load_words(place, 0, OUTLIER // WORD)
        return column, b.reinterpret(bits, f32)

    def activation(self, row: Value, column: Value) -> Value:
        """f32 of a token's activation."""
        b, spec = self.b, self.spec
        place = b.offset(row, b.zext(column * spec.token_bytes(1), i64))
        return b.to_float(b.load(place, ELEMENTS[spec.activations]))
