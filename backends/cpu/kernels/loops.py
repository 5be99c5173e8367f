"""Loop shapes that the row kernels share."""

from collections.abc import Callable

from nybble.backends.building.values import lanes as lanes_of
from nybble.backends.cpu.kernels.builder import Buffer, KernelBuilder, Operand, Value, f32, vec

ROW_BLOCK = 16
"""Activation buffers have room for a number of rows rounded up to a multiple of this."""


def padded_rows(rows: int) -> int:
    """Rows to allocate: 1 for a decode buffer, else rounded up to ROW_BLOCK."""
    return 1 if rows == 1 else -(-rows // ROW_BLOCK) * ROW_BLOCK


def divisor(total: int, most: int, step: int = 1) -> int:
    """The largest divisor of `total` that is a multiple of `step` and at most max(most, step)."""
    counts = range(max(most // step, 1), 0, -1)
    return step * next(n for n in counts if total % (n * step) == 0)


def for_each_vector(
    b: KernelBuilder, total: Value, lanes: int, body: Callable[[Value, Value | None], None]
) -> None:
    """Run `body(offset, mask)` over this thread's share of `total` elements, `lanes` at a time.

    `mask` is None for whole vectors; the thread of the last share handles the rest, masked.
    """
    lo, hi = b.partition(total // lanes)
    with b.for_(lo * lanes, hi * lanes, lanes) as step:
        body(step.iv, None)
    rest = total % lanes
    if rest.known == 0:
        return
    is_last = (b.tid + 1).eq(b.nth)
    with b.if_(is_last), b.if_(rest > 0):
        body(total - rest, b.first_lanes(rest, lanes))


def load(
    b: KernelBuilder, buffer: Buffer, at: Operand, lanes: int, mask: Value | None, pad: float = 0.0
) -> Value:
    """A vector of f32, with `pad` in the lanes that the mask leaves out."""
    if mask is None:
        return buffer.vload(at, lanes)
    return buffer.vload_masked(at, mask, b.const(pad, vec(lanes, f32)))


def store(buffer: Buffer, value: Value, at: Operand, mask: Value | None) -> None:
    """Store a vector, only the lanes of the mask if there is one."""
    if mask is None:
        buffer.vstore(value, at)
    else:
        buffer.vstore_masked(value, at, mask)


def for_each_few(
    b: KernelBuilder,
    bounds: tuple[Operand, Operand],
    most: int,
    body: Callable[[list[Value]], None],
) -> None:
    """Run `body` over the numbers of a range, `most` at a time and one by one at the end.

    The body is written out twice, unless `most` is 1.
    """
    start, stop = map(b.value, bounds)
    rest = start
    if most > 1:
        rest = start + (stop - start) // most * most
        with b.for_(start, rest, most) as run:
            body([run.iv + i for i in range(most)])
    with b.for_(rest, stop) as run:
        body([run.iv])


def for_each_row_part(
    b: KernelBuilder,
    rows: int,
    parts: int,
    body: Callable[[Value, tuple[Value, Value]], None],
) -> None:
    """Run `body(row, (lo, hi))` over this thread's work: parts of the one row, or whole rows."""
    if rows == 1:
        body(b.const(0), b.partition(parts))
        return
    lo, hi = b.partition(b.n)
    with b.for_(lo, hi) as loop:
        body(loop.iv, (b.const(0), b.const(parts)))


def fold_vectors(
    b: KernelBuilder,
    length: int,
    lanes: int,
    init: float,
    step: Callable[[Value, Value, Value | None], Value],
    chains: int = 4,
) -> list[Value]:
    """Fold vectors at offsets 0, lanes, .. of a static `length` into `chains` accumulators.

    `step(accumulator, offset, mask)` returns the new accumulator; the mask is for a last, partial
    vector. The order is fixed, so the result is the same in every thread.
    """
    width = lanes * chains
    start = b.const(init, vec(lanes, f32))
    with b.for_(0, length // width * width, width, inits=[start] * chains) as loop:
        loop.yield_(*(step(a, loop.iv + i * lanes, None) for i, a in enumerate(loop.args)))
    accumulators = loop.results
    rest = range(length // width * width, length, lanes)
    for i, offset in enumerate(rest):
        missing = length - offset
        mask = b.first_lanes(b.const(missing), lanes) if missing < lanes else None
        accumulators[i] = step(accumulators[i], b.const(offset), mask)
    return accumulators


def tree(values: list[Value], combine: Callable[[Value, Value], Value]) -> Value:
    """Combine values pairwise, as a balanced tree."""
    while len(values) > 1:
        odd = [values[-1]] if len(values) % 2 else []
        values = [combine(x, y) for x, y in zip(values[::2], values[1::2], strict=False)] + odd
    return values[0]


def largest_lane(b: KernelBuilder, value: Value) -> Value:
    """The largest lane of a float vector of 2^i lanes; a NaN may or may not win.

    Halving with shuffles: the float max reduction of LLVM minds NaNs and costs several times this.
    """
    half = lanes_of(value.type) // 2
    while half:
        upper = b.shuffle(value, value, range(half, 2 * half))
        value = b.max(b.shuffle(value, value, range(half)), upper)
        half //= 2
    return b.extract(value, 0)


def across(b: KernelBuilder, rows: list[Value], combine: Callable[[Value, Value], Value]) -> Value:
    """The lanes of each of a few vectors combined; those of the first are the first, and so on.

    rows: 2^i vectors of 2^j lanes, of which each gets 2^(j - i) lanes of the result, all alike.
    Vectors are halved two at a time, so that 4 of them take little more than one.
    """
    rows, lanes = list(rows), lanes_of(rows[0].type)
    size = lanes
    while len(rows) > 1:
        size //= 2
        lower = [i for i in range(2 * lanes) if i // size % 2 == 0]
        upper = [i + size for i in lower]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [combine(b.shuffle(x, y, lower), b.shuffle(x, y, upper)) for x, y in pairs]
    value = rows[0]
    while size > 1:
        size //= 2
        value = combine(value, b.shuffle(value, value, [i ^ size for i in range(lanes)]))
    return value


class RowLanes:
    """Numbers of a few rows in one vector, as `across` makes them."""

    def __init__(self, b: KernelBuilder, rows: int, lanes: int) -> None:
        self.b, self.rows, self.lanes = b, rows, lanes
        self._each = lanes // rows

    def load(self, buffer: Buffer, at: Operand) -> Value:
        """One number for each row, which follow each other in memory."""
        if self.rows == 1:
            return self.b.broadcast(buffer.load(at), self.lanes)
        found = buffer.vload(at, self.rows)
        return self.b.shuffle(found, found, [i // self._each for i in range(self.lanes)])

    def store(self, value: Value, buffer: Buffer, at: Operand) -> None:
        """The reverse."""
        if self.rows == 1:
            buffer.store(self.b.extract(value, 0), at)
        else:
            firsts = range(0, self.lanes, self._each)
            buffer.vstore(self.b.shuffle(value, value, firsts), at)

    def of(self, value: Value, row: int) -> Value:
        """The number of a row in all lanes."""
        if self.rows == 1:
            return value
        return self.b.shuffle(value, value, [row * self._each] * self.lanes)
