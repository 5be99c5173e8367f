"""Adding outliers and low-rank factors to the sums of a tile, in f32, whatever made the sums.

    sum[token, row] += sum over the row's outliers of value * x[token, column]
    sum[token, row] += sum over j of left[row, j] * (right @ x[token])[j]

The second factor is multiplied once per thread, before all tiles.
"""

from dataclasses import dataclass

from nybble.backends.cpu.additions import AddedLayout
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i32, vec
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.spec import ProductSpec
from nybble.backends.cpu.kernels.matmul.weights import divisor
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE


def scratch_size(spec: ProductSpec) -> int:
    """Bytes that the thin products of all parts take: f32 [part][token][rank]."""
    return 4 * len(spec.rows) * spec.padded * spec.added.rank


@dataclass(frozen=True)
class _Arrays:
    """The arrays behind a part's tiles."""

    starts: Buffer
    columns: Buffer
    values: Buffer
    left: Buffer
    right: Buffer


class Adding:
    """What is added to the products of a spec. thin: scratch of `scratch_size` bytes, as f32."""

    def __init__(self, b: KernelBuilder, spec: ProductSpec, thin: Buffer):
        self.b = b
        self.spec = spec
        self.thin = thin
        self.rank = spec.added.rank
        self.layouts: list[AddedLayout] = [spec.added.layout(rows, spec.cols) for rows in spec.rows]
        self.arrays = [self._arrays(part) for part in range(len(spec.rows))]

    def _arrays(self, part: int) -> _Arrays:
        layout, first = self.layouts[part], self.spec.layouts[part].size
        views = [
            self.b.buffer(f"w{part}").view(kind, first + place, size)
            for kind, place, size in zip(
                (i32, i32, f32, f32, f32), layout.places, layout.sizes, strict=False
            )
        ]
        return _Arrays(*views)

    def begin(self, tokens: Value | int) -> None:
        """Emit the thin products of this call."""
        if not self.rank:
            return
        b, cols = self.b, self.spec.cols
        width = divisor(cols, LANES)
        for part, arrays in enumerate(self.arrays):
            with b.for_(0, tokens) as token, b.for_(0, self.rank) as j:
                with b.for_(0, cols, width, inits=[b.const(0.0, vec(width, f32))]) as loop:
                    x = b.buffer("x").vload(token.iv * cols + loop.iv, width)
                    factor = arrays.right.vload(j.iv * cols + loop.iv, width)
                    loop.yield_(b.fma(factor, x, loop.args[0]))
                total = b.reduce("add", loop.results[0])
                self.thin.store(total, self._thin_at(part, token.iv) + j.iv)

    def _thin_at(self, part: int, token: Value) -> Value:
        return (token + part * self.spec.padded) * self.rank

    def add(self, part: int, tile: Value, token: Value, sums: tuple[Buffer, Value]) -> None:
        """Emit: add to the f32 sums of a tile's 64 rows, which start at an element of a buffer."""
        if self.layouts[part].outliers:
            self._add_outliers(part, tile, token, sums)
        if self.rank:
            self._add_factors(part, tile, token, sums)

    def _add_outliers(
        self, part: int, tile: Value, token: Value, sums: tuple[Buffer, Value]
    ) -> None:
        b, arrays = self.b, self.arrays[part]
        buffer, first = sums
        nothing = b.const(0.0, FLOATS)
        with b.for_(0, TILE) as row:
            index = tile * TILE + row.iv
            start, stop = (b.to_index(arrays.starts.load(index + i)) for i in (0, 1))
            with b.for_(start, stop, LANES, inits=[nothing]) as loop:
                mask = b.first_lanes(stop - loop.iv, LANES)
                places = b.const(0, vec(LANES, i32))
                columns = arrays.columns.vload_masked(loop.iv, mask, places)
                values = arrays.values.vload_masked(loop.iv, mask, nothing)
                x = b.buffer("x").gather(token * self.spec.cols, columns)
                loop.yield_(b.fma(values, b.select(mask, x, nothing), loop.args[0]))
            total = b.reduce("add", loop.results[0])
            buffer.store(buffer.load(first + row.iv) + total, first + row.iv)

    def _add_factors(
        self, part: int, tile: Value, token: Value, sums: tuple[Buffer, Value]
    ) -> None:
        b, left = self.b, self.arrays[part].left
        buffer, first = sums
        places = [first + r * LANES for r in range(SUBTILES)]
        inits = [buffer.vload(place, LANES) for place in places]
        with b.for_(0, self.rank, inits=inits) as j:
            thin = b.broadcast(self.thin.load(self._thin_at(part, token) + j.iv), LANES)
            row = (tile * self.rank + j.iv) * TILE
            loaded = [left.vload(row + r * LANES, LANES) for r in range(SUBTILES)]
            j.yield_(*(b.fma(one, thin, y) for one, y in zip(loaded, j.args, strict=True)))
        for place, value in zip(places, j.results, strict=True):
            buffer.vstore(value, place)
