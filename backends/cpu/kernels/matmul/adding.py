"""Adding outliers and low-rank factors to the sums of a tile, in f32, whatever made the sums.

    sum[token, row] += sum over the row's outliers of value * x[token, column]
    sum[token, row] += sum over j of left[row, j] * (right @ x[token])[j]

The second factor is multiplied once per thread, before all tiles. Of an activation of integers x is
what they mean, `q * s`, and made once per thread too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nybble.backends.cpu.additions import AddedLayout
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, f32, i8, i32, vec
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.spec import MatmulSpec, ProductSpec
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE

GATHER = 24.0
"""Instructions that add 16 outliers of a row, and their share of its sum (assumed)."""


def scratch_size(spec: ProductSpec) -> int:
    """Bytes of f32: thin products of all parts [part][token][rank], and x of integers."""
    if not spec.added:
        return 0
    integers = _integers(spec)
    return 4 * (_thin_size(spec) + (0 if integers is None else integers.plane))


def _integers(spec: ProductSpec) -> MatmulSpec | None:
    """The spec, if its activation is of integers."""
    return spec if isinstance(spec, MatmulSpec) and spec.activations == "a8" else None


def _thin_size(spec: ProductSpec) -> int:
    return len(spec.rows) * spec.padded * spec.added.rank


def gemv_scratch(spec: ProductSpec) -> int:
    """Bytes of scratch for each thread of one token: sums of a tile too, if they are added to."""
    return 4 * TILE + scratch_size(spec) if spec.added else 0


def instructions(spec: ProductSpec) -> float:
    """Estimated instructions of 16 lanes that adding takes on one thread."""
    rows, rank = sum(spec.rows), spec.added.rank
    gathers = rows * -(-spec.cols * spec.added.permille // (1000 * LANES))
    factors = 2 * rank * (spec.cols * len(spec.rows) + rows) / LANES
    return spec.tokens * (gathers * GATHER + factors)


@dataclass(frozen=True)
class _Arrays:
    """The arrays behind a part's tiles."""

    starts: Buffer
    columns: Buffer
    values: Buffer
    left: Buffer
    right: Buffer


class Adding:
    """What is added to the products of a spec. scratch: `scratch_size` bytes, as f32."""

    def __init__(self, b: KernelBuilder, spec: ProductSpec, scratch: Buffer):
        self.b = b
        self.spec = spec
        self.thin = scratch
        self.integers = _integers(spec) if spec.added else None
        self.rank = spec.added.rank
        self.layouts: list[AddedLayout] = [spec.added.layout(rows, spec.cols) for rows in spec.rows]
        self.arrays = [self._arrays(part) for part in range(len(spec.rows))]
        if spec.added:
            self.x = b.buffer("x") if self.integers is None else self._room(self.integers)

    def _room(self, spec: MatmulSpec) -> Buffer:
        return self.thin.part(_thin_size(spec), spec.plane)

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
        """Emit the activation and the thin products of this call."""
        if self.integers is not None:
            self._decode(self.integers, tokens)
        if self.rank:
            self._multiply(tokens)

    def _decode(self, spec: MatmulSpec, tokens: Value | int) -> None:
        """x = q * s, as `dequantize` has it."""
        b = self.b
        groups = spec.cols // spec.activation_group
        width = divisor(spec.activation_group, LANES)
        with b.for_(0, tokens) as token, b.for_(0, groups) as group:
            scale = b.broadcast(b.buffer("s").load(token.iv * groups + group.iv), width)
            first = token.iv * spec.cols + group.iv * spec.activation_group
            with b.for_(0, spec.activation_group, width) as loop:
                at = first + loop.iv
                digits = [
                    b.sext(b.buffer("q").vload(at + i * spec.plane, width), i32)
                    for i in range(spec.digits)
                ]
                whole = digits[0] if len(digits) == 1 else (digits[0] << 8) + digits[1]
                self.x.vstore(b.sitofp(whole) * scale, at)

    def _multiply(self, tokens: Value | int) -> None:
        b, cols = self.b, self.spec.cols
        width = divisor(cols, LANES)
        for part, arrays in enumerate(self.arrays):
            with b.for_(0, tokens) as token, b.for_(0, self.rank) as j:
                with b.for_(0, cols, width, inits=[b.const(0.0, vec(width, f32))]) as loop:
                    x = self.x.vload(token.iv * cols + loop.iv, width)
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
                x = self.x.gather(token * self.spec.cols, columns)
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


class Corrected:
    """Sums of a tile of one token with what is added to them, by way of a thread's scratch."""

    def __init__(self, b: KernelBuilder, spec: ProductSpec):
        size = gemv_scratch(spec)
        own = b.buffer("scratch").view(i8, b.tid * size, size)
        self.b = b
        self.sums = own.view(f32, 0, TILE)
        first = 4 * self.sums.size
        self.adding = Adding(b, spec, own.view(f32, first, (size - first) // 4))
        self.adding.begin(1)

    def __call__(self, part: int, tile: Value, sums: Sequence[Value]) -> list[Value]:
        """The sums of a part's four sub-tiles, with what is added."""
        places = [self.b.const(r * LANES) for r in range(SUBTILES)]
        for place, value in zip(places, sums, strict=True):
            self.sums.vstore(value, place)
        self.adding.add(part, tile, self.b.const(0), (self.sums, places[0]))
        return [self.sums.vload(place, LANES) for place in places]
