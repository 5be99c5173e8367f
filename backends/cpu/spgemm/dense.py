"""Sums in place, one for each column of a window: a store for each product, no search.

What was used is told by a byte for each column. A window that is well filled is drained in order of
its columns, whole vectors of flags at a time; of one that is not, the columns are listed at their
first use, and the list is sorted.
"""

from collections.abc import Sequence

from nybble.backends.building.values import lanes
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import Value, i8, i32, i64, vec
from nybble.backends.cpu.spgemm.accumulator import Accumulator, RowOf
from nybble.backends.cpu.spgemm.frame import Frame
from nybble.backends.cpu.spgemm.sorting import sorted_list

FLAGS = 32
"""Columns whose flags are looked at together."""
GROUP = 8
"""Columns that are moved together where many of FLAGS are in use."""
CROWDED = 4
"""So many of FLAGS in use are worth moving groups."""


class Dense(Accumulator):
    """A window that is drained in order."""

    def __init__(self, frame: Frame):
        super().__init__(frame)
        self.sums = frame.part("sums", frame.spec.sum)
        self.flags = frame.part("flags", i8)

    def prepare(self) -> None:
        """Neutral elements and clear flags in the whole part; once a call."""
        width = self.f.limit("window")
        with self.b.for_(0, width) as step:
            self.sums.store(self.ring.zero(), step.iv)
        with self.b.for_(0, width, FLAGS) as step:
            self.flags.vstore(self.b.const(0, vec(FLAGS, i8)), step.iv)

    def append(self, row: RowOf, place: Value) -> Value:
        """See Accumulator."""
        b, one = self.b, self.b.const(1, i8)
        with b.for_(row.first, row.last) as entry:
            a, first, last = self.entry(entry.iv)
            with b.for_(first, last) as step:
                column = self.f.index_at("b_index", step.iv) - row.low
                total = self.ring.add(self.sums.load(column), self.product(a, step.iv))
                self.sums.store(total, column)
                self.flags.store(one, column)
        with b.for_(0, row.width, FLAGS, inits=[place]) as window:
            window.yield_(self._drain(window.iv, row.low, window.args[0]))
        return window.results[0]

    def _drain(self, base: Value, low: Value, place: Value) -> Value:
        """Append the columns in use of FLAGS from `base` on, and clear them."""
        b = self.b
        used = self.flags.vload(base, FLAGS).ne(0)
        bits = b.extract(b.bitcast(used, vec(1, i32)), 0)
        self.flags.vstore(b.const(0, vec(FLAGS, i8)), base)
        count = b.to_index(b.count_bits(bits))
        after = place + count
        if not self._moves_groups():
            self._one_by_one(bits, base, low, place)
            return after
        with b.if_(count >= CROWDED) as crowded:
            self._by_groups(bits, base, low, place)
        with crowded.otherwise():
            self._one_by_one(bits, base, low, place)
        return after

    def _one_by_one(self, bits: Value, base: Value, low: Value, place: Value) -> None:
        b, zero = self.b, self.ring.zero()
        with b.while_([bits, place], lambda carried: carried[0].ne(0)) as each:
            left, at = each.args
            column = base + b.to_index(b.trailing_zeros(left))
            self.emit(at, column + low, self.sums.load(column))
            self.sums.store(zero, column)
            each.yield_(left & (left - 1), at + 1)

    # -- whole groups

    def _moves_groups(self) -> bool:
        return self.f.permute is not None and self.f.spec.sum_bytes in (4, 8)

    def _by_groups(self, bits: Value, base: Value, low: Value, place: Value) -> None:
        """Move the columns in use of each group to its front, and store the whole group.

        What lies behind them is overwritten by the next group; the result has room for the last.
        """
        b, spec = self.b, self.f.spec
        zero = self.ring.zero(vec(GROUP, spec.sum))
        iota = b.const(list(range(GROUP)), vec(GROUP, spec.index))
        for group in range(FLAGS // GROUP):
            at = base + group * GROUP
            byte = bits.shr(group * GROUP) & 0xFF
            columns = b.broadcast(b.from_index(at + low, spec.index), GROUP) + iota
            self._store_front(self.f["c_index"], columns, byte, place)
            self._store_front(self.f["c_value"], self.sums.vload(at, GROUP), byte, place)
            self.sums.vstore(zero, at)
            place = place + b.to_index(b.count_bits(byte))

    def _store_front(self, to: Buffer, values: Value, byte: Value, place: Value) -> None:
        """Store the lanes of eight that a byte has bits of, from a place on."""
        b = self.b
        if _is_narrow(values):
            order = b.to_index(byte) * GROUP
            to.vstore(self._permuted(values, self.f["fronts"].vload(order, GROUP)), place)
            return
        low = byte & 15
        halves: Sequence[tuple[int, Value, Value]] = (
            (0, low, place),
            (1, byte.shr(4), place + b.to_index(b.count_bits(low))),
        )
        for half, nibble, at in halves:
            order = self.f["pairs"].vload(b.to_index(nibble) * GROUP, GROUP)
            part = b.slice(values, half * GROUP // 2, GROUP // 2)
            to.vstore(self._permuted(part, order), at)

    def _permuted(self, values: Value, order: Value) -> Value:
        """32-bit words of a vector in another order, the table's bytes telling which."""
        b, words = self.b, vec(GROUP, i32)
        assert self.f.permute is not None
        wanted = b.zext(order, i32)
        moved = b.intrinsic(self.f.permute, [b.bitcast(values, words), wanted], words)
        return b.bitcast(moved, values.type)


class Listed(Dense):
    """A window that is wide for what is in it."""

    def append(self, row: RowOf, place: Value) -> Value:
        """See Accumulator."""
        b, one, listed = self.b, self.b.const(1, i8), self.f.part("list", self.f.spec.index)
        with b.for_(row.first, row.last, inits=[b.const(0)]) as entry:
            a, first, last = self.entry(entry.iv)
            with b.for_(first, last, inits=[entry.args[0]]) as step:
                key = self.f["b_index"].load(step.iv)
                column = b.to_index(key) - row.low
                total = self.ring.add(self.sums.load(column), self.product(a, step.iv))
                self.sums.store(total, column)
                is_new = self.flags.load(column) ^ 1
                self.flags.store(one, column)
                listed.store(key, step.args[0])
                step.yield_(step.args[0] + b.to_index(b.zext(is_new, i64)))
            entry.yield_(step.results[0])
        count = entry.results[0]
        columns = sorted_list(self.f, count, row)
        with b.for_(0, count) as step:
            key = columns.load(step.iv)
            column = b.to_index(key) - row.low
            self.f["c_index"].store(key, place + step.iv)
            self.f["c_value"].store(self.sums.load(column), place + step.iv)
            self.sums.store(self.ring.zero(), column)
            self.flags.store(b.const(0, i8), column)
        return place + count


def _is_narrow(values: Value) -> bool:
    assert lanes(values.type) == GROUP
    return str(values.type).endswith("32>")
