"""The end of a tile: bias, gate, residual and store, for 16 rows of one token at a time."""

from dataclasses import dataclass

from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.kernels.gates import GATES
from nybble.backends.cpu.kernels.matmul.elements import FLOATS
from nybble.backends.cpu.kernels.matmul.spec import ProductSpec
from nybble.backends.cpu.tile_layout import LANES, TILE


@dataclass(frozen=True)
class Epilogue:
    """Finishes sub-tiles of the parts of a spec."""

    b: KernelBuilder
    spec: ProductSpec

    def finish(self, part: int, token: Value | int, row: Value, sums: tuple[Value, ...]) -> None:
        """Store rows `row .. row + 16` of one token.

        sums: f32 lanes of the part; with a gate those of both parts (and `part` is 0), or first
        those of one, which the outputs then hold, and later those of the other.
        """
        b, rows = self.b, self.spec.rows[part]
        mask = b.first_lanes(b.const(rows) - row, LANES) if rows % TILE else None
        if mask is None:
            self._store(part, token, row, sums, None)
            return
        with b.if_(row < rows):
            self._store(part, token, row, sums, mask)

    def _store(
        self,
        part: int,
        token: Value | int,
        row: Value,
        sums: tuple[Value, ...],
        mask: Value | None,
    ) -> None:
        b, spec = self.b, self.spec
        if spec.bias:
            sums = tuple(self._biased(part + i, row, one, mask) for i, one in enumerate(sums))
        output = 0 if spec.glu else part
        y = b.buffer(f"y{output}")
        at = b.value(token) * spec.outputs[output] + row
        if spec.glu and part:
            sums = (self._load("y0", at, mask), *sums)
        first, *others = sums
        result = GATES[spec.glu](b, first) * others[0] if others else first
        if spec.residual:
            result = result + self._load(f"y{output}", at, mask)
        if mask is None:
            y.vstore(result, at)
        else:
            y.vstore_masked(result, at, mask)

    def _biased(self, part: int, row: Value, value: Value, mask: Value | None) -> Value:
        return value + self._load(f"b{part}", row, mask)

    def _load(self, name: str, at: Value, mask: Value | None) -> Value:
        buffer = self.b.buffer(name)
        if mask is None:
            return buffer.vload(at, LANES)
        return buffer.vload_masked(at, mask, self.b.const(0.0, FLOATS))
