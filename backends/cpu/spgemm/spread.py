"""Products whose result is dense: sparse times sparse, and sparse times dense.

`Spread` adds rows of a sparse B into rows of the result. It goes through B in bands of rows that
fit a cache, all rows of A for each band, so that a row of B is fetched from memory once however
many rows of A want it; of every row of A it remembers how far it has come. `Spmm` keeps a stretch
of a result's row in registers while it goes through a row of A.
"""

from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from nybble.backends.cpu.kernels.builder import Buffer, BufferSpec, KernelBuilder, Value, i64, vec
from nybble.backends.cpu.spgemm.frame import Frame
from nybble.backends.cpu.spgemm.spec import ANY, Spec

UNROLL = 4
"""Products of a row that are added at a time: they are of different columns."""


@dataclass(frozen=True)
class Spread:
    """A, B sparse; rows i64 [threads + 1]; cursor i64 [rows of A]; sizes i64 [3]: columns and rows
    of B, rows in a band -> out [rows of A, columns of B], overwritten.
    """

    spec: Spec

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        b = KernelBuilder(name, self._buffers())
        f = Frame(b, self.spec)
        columns, depth, band = (f.index_at("sizes", i) for i in range(3))
        lo, hi = f.index_at("rows", b.tid), f.index_at("rows", b.tid + 1)
        _fill(b, f["out"], (lo * columns, hi * columns), f.ring.zero())
        with b.for_(lo, hi) as row:
            f["cursor"].store(b.from_index(f.index_at("a_start", row.iv), i64), row.iv)
        with b.for_(0, depth, band) as stretch:
            end = stretch.iv + band
            with b.for_(lo, hi) as row:
                first = f.index_at("cursor", row.iv)
                last = f.index_at("a_start", row.iv + 1)
                after = self._band(f, (first, last), end, row.iv * columns)
                f["cursor"].store(b.from_index(after, i64), row.iv)
        return b.finish()

    def _buffers(self) -> list[BufferSpec]:
        operands = Frame.operands(self.spec)
        extra = [BufferSpec(name, ANY, i64) for name in ("rows", "cursor", "sizes")]
        return [*operands, *extra, self.spec.sums("out")]

    def _band(self, f: Frame, bounds: tuple[Value, Value], end: Value, base: Value) -> Value:
        """Add the entries of a row whose columns are below `end`; the first that is not."""
        b, (first, last) = f.b, bounds
        inits = [first, b.const(1, i64)]

        def more(carried: list[Value]) -> Value:
            return (carried[0] < last) & carried[1].ne(0)

        with b.while_(inits, lambda carried: more([*carried])) as entry:
            k = f.index_at("a_index", entry.args[0])
            inside = k < end
            with b.if_(inside):
                a = f.ring.wide(f["a_value"].load(entry.args[0]))
                self._add_row(f, a, f.row(k), base)
            step = b.select(inside, b.const(1), 0)
            entry.yield_(entry.args[0] + step, b.from_index(step, i64))
        return entry.results[0]

    def _add_row(self, f: Frame, a: Value, bounds: tuple[Value, Value], base: Value) -> None:
        b, (first, last) = f.b, bounds
        whole = first + (last - first) // UNROLL * UNROLL
        with b.for_(first, whole, UNROLL) as step:
            at = [base + f.index_at("b_index", step.iv + i) for i in range(UNROLL)]
            terms = [f.ring.load_wide(f["b_value"], step.iv + i) for i in range(UNROLL)]
            sums = [f["out"].load(one) for one in at]
            for one, total, term in zip(at, sums, terms, strict=True):
                f["out"].store(f.ring.multiply_add(total, a, term), one)
        with b.for_(whole, last) as step:
            at_one = base + f.index_at("b_index", step.iv)
            term = f.ring.load_wide(f["b_value"], step.iv)
            f["out"].store(f.ring.multiply_add(f["out"].load(at_one), a, term), at_one)


@dataclass(frozen=True)
class Spmm:
    """A sparse, x [columns of A, n] of stored values; rows i64 [threads + 1]; sizes i64 [1]: n ->
    out [rows of A, n], overwritten.

    lanes: of a vector of sums; wide: vectors that are held at a time.
    """

    spec: Spec
    lanes: int = 8
    wide: int = 8

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        left = Frame.operand(self.spec, "a")
        extra = [BufferSpec("rows", ANY, i64), BufferSpec("sizes", 1, i64)]
        b = KernelBuilder(name, [*left, self.spec.values("x"), *extra, self.spec.sums("out")])
        f = Frame(b, self.spec)
        n = f.index_at("sizes", 0)
        with b.for_(f.index_at("rows", b.tid), f.index_at("rows", b.tid + 1)) as row:
            first, last = f.index_at("a_start", row.iv), f.index_at("a_start", row.iv + 1)
            stretch, lanes = self.lanes * self.wide, self.lanes
            done, vectors = n // stretch * stretch, n // lanes * lanes
            for start, stop, count in ((0, done, self.wide), (done, vectors, 1)):
                with b.for_(start, stop, count * lanes) as column:
                    self._stretch(f, (first, last), row.iv * n, column.iv, n, count)
            with b.for_(vectors, n) as column:
                self._single(f, (first, last), row.iv * n, column.iv, n)
        return b.finish()

    def _stretch(
        self,
        f: Frame,
        bounds: tuple[Value, Value],
        base: Value,
        column: Value,
        n: Value,
        count: int,
    ) -> None:
        b, kind = f.b, vec(self.lanes, self.spec.sum)
        with b.for_(*bounds, inits=[f.ring.zero(kind)] * count) as entry:
            a = b.broadcast(f.ring.wide(f["a_value"].load(entry.iv)), self.lanes)
            at = f.index_at("a_index", entry.iv) * n + column
            places = [at + i * self.lanes for i in range(count)]
            loaded = [f.ring.load_wide(f["x"], place, self.lanes) for place in places]
            pairs = zip(entry.args, loaded, strict=True)
            entry.yield_(*(f.ring.multiply_add(total, a, x) for total, x in pairs))
        for i, total in enumerate(entry.results):
            f["out"].vstore(total, base + column + i * self.lanes)

    def _single(
        self, f: Frame, bounds: tuple[Value, Value], base: Value, column: Value, n: Value
    ) -> None:
        b = f.b
        with b.for_(*bounds, inits=[f.ring.zero()]) as entry:
            a = f.ring.wide(f["a_value"].load(entry.iv))
            x = f.ring.load_wide(f["x"], f.index_at("a_index", entry.iv) * n + column)
            entry.yield_(f.ring.multiply_add(entry.args[0], a, x))
        f["out"].store(entry.results[0], base + column)


@dataclass(frozen=True)
class Sddmm:
    """x [m, k], y [n, k] of stored values at the places of a mask (start, index); rows i64
    [threads + 1]; sizes i64 [1]: k -> out [entries of the mask].
    """

    spec: Spec
    lanes: int = 8

    def build(self, name: str) -> FuncOp:
        """The kernel."""
        places = Frame.operand(self.spec, "a")[:2]
        factors = [self.spec.values("x"), self.spec.values("y")]
        extra = [BufferSpec("rows", ANY, i64), BufferSpec("sizes", 1, i64)]
        b = KernelBuilder(name, [*places, *factors, *extra, self.spec.sums("out")])
        f = Frame(b, self.spec)
        k = f.index_at("sizes", 0)
        with b.for_(f.index_at("rows", b.tid), f.index_at("rows", b.tid + 1)) as row:
            bounds = f.index_at("a_start", row.iv), f.index_at("a_start", row.iv + 1)
            with b.for_(*bounds) as entry:
                column = f.index_at("a_index", entry.iv)
                f["out"].store(self._dot(f, row.iv * k, column * k, k), entry.iv)
        return b.finish()

    def _dot(self, f: Frame, left: Value, right: Value, k: Value) -> Value:
        b, lanes, ring = f.b, self.lanes, f.ring
        kind = vec(lanes, self.spec.sum)
        done, vectors = k // (2 * lanes) * (2 * lanes), k // lanes * lanes

        def term(total: Value, at: Value, count: int) -> Value:
            x = ring.load_wide(f["x"], left + at, count)
            return ring.multiply_add(total, x, ring.load_wide(f["y"], right + at, count))

        with b.for_(0, done, 2 * lanes, inits=[ring.zero(kind)] * 2) as step:
            pairs = enumerate(step.args)
            step.yield_(*(term(total, step.iv + i * lanes, lanes) for i, total in pairs))
        with b.for_(done, vectors, lanes, inits=[step.results[0]]) as one:
            one.yield_(term(one.args[0], one.iv, lanes))
        total = b.reduce("add", one.results[0] + step.results[1])
        with b.for_(vectors, k, inits=[total]) as rest:
            rest.yield_(term(rest.args[0], rest.iv, 1))
        return rest.results[0]


def _fill(b: KernelBuilder, out: Buffer, bounds: tuple[Value, Value], value: Value) -> None:
    with b.for_(*bounds) as step:
        out.store(value, step.iv)
