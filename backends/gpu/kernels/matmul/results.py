"""Results of a tile of rows, written with what is fused to the end of a product."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import i32, i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import ELEMENTS, GpuBuilder
from nybble.backends.gpu.kernels.matmul.outliers import Outliers
from nybble.backends.gpu.kernels.matmul.spec import FLOAT_BYTES, TOKEN_TILE, StreamSpec
from nybble.backends.gpu.kernels.rows.simple import sigmoid, slope


@dataclass(frozen=True)
class Results:
    """finished: gives the product that a sum is, of a token. y, residual: matrices of results.
    outliers: of the weight, if it has some.
    """

    b: GpuBuilder
    spec: StreamSpec
    finished: Callable[[Value, Value], Value]
    y: Value
    residual: Value | None
    outliers: Outliers | None = None

    def write(
        self, tile: Value, part: Value, first: Value, quads: Sequence[int], sums: list[Value]
    ) -> None:
        """Results of rows g and g + 8 of a fragment, tokens 2t and 2t + 1 of a tile of tokens.

        part: which of the warps that share the rows this one is. first: the first token. quads:
        which of this warp's sums they are.
        """
        own = {quad: sums[4 * i : 4 * i + 4] for i, quad in enumerate(quads)}
        if self.spec.epilogue.gate:
            self.write_gated(tile, first, own)
            return
        b, spec = self.b, self.spec
        tiles = b.const(spec.token_tiles, i32)
        for index, values in own.items():
            quad = part * spec.own_quads + index
            fragment, number = (b.binary(kind, quad, tiles) for kind in ("udiv", "urem"))
            row = tile * spec.layout.tile_rows + fragment * 16
            self.write_quad(row, first + number * TOKEN_TILE, [values], row)

    def write_gated(self, tile: Value, first: Value, own: dict[int, list[Value]]) -> None:
        """Fragments are of the gate and of the other factor in turn; no warps share rows."""
        spec = self.spec
        for quad, values in own.items():
            fragment, n = divmod(quad, spec.token_tiles)
            if fragment % 2 == 0:
                row = tile * (spec.layout.tile_rows // 2) + 8 * fragment
                pair = [values, own[quad + spec.token_tiles]]
                packed = tile * spec.layout.tile_rows + 16 * fragment
                self.write_quad(row, first + n * TOKEN_TILE, pair, packed)

    def write_quad(
        self, first_row: Value, first_token: Value, quads: list[list[Value]], packed: Value
    ) -> None:
        """The results of four sums, or of those of a gate and of the other factor.

        packed: the first row of the weight as it is packed.
        """
        b, spec = self.b, self.spec
        lane = b.thread() & 31
        column = first_token + (lane & 3) * 2
        more = [self.more(packed + 16 * i + lane.shr(2), column) for i in range(len(quads))]
        for e in range(4):
            row = first_row + lane.shr(2) + 8 * (e // 2)
            token = column + e % 2
            value, *factors = (
                self.finished(token, quad[e]) + added[e] if added else self.finished(token, quad[e])
                for quad, added in zip(quads, more, strict=True)
            )
            for factor in factors:
                value = value * sigmoid(b, slope(value, spec.epilogue.gate)) * factor
            self.write_one(token, row, value)

    def more(self, row: Value, token: Value) -> list[Value]:
        """What outliers add to rows `row` and `row + 8`, of two tokens each; empty without any."""
        if self.outliers is None:
            return []
        return [one for upper in (0, 8) for one in self.outliers.added(row + upper, token)]

    def write_one(self, token: Value, row: Value, value: Value) -> None:
        """Write one result, if it exists."""
        b, spec = self.b, self.spec
        place = b.zext(token, i64) * spec.features + b.zext(row, i64)
        at = place * FLOAT_BYTES[spec.output]
        conditions: list[Value] = []
        if spec.layout.rows % spec.layout.tile_rows or spec.epilogue.gate:
            conditions.append(row < spec.features)
        if not all(spec.is_full(n) for n in range(spec.token_tiles)):
            conditions.append(token < spec.tokens)
        if not conditions:
            self.store(at, value)
            return
        holds = conditions[0]
        for one in conditions[1:]:
            holds = holds & one
        with b.if_(holds):
            self.store(at, value)

    def store(self, at: Value, value: Value) -> None:
        """Add what is to be added, round, and write."""
        b, kind = self.b, ELEMENTS[self.spec.output]
        if self.residual is not None:
            value = value + b.to_float(b.load(b.offset(self.residual, at), kind))
        b.store(b.to_float(value, kind), b.offset(self.y, at))
