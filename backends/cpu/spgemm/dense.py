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

FLAGS = 64
"""Columns whose flags are looked at together: the bits of a word."""
HALF = 32
GROUP = 8
"""Columns that are moved together in a crowded window, and written together in another."""
CROWDED = 2
"""A window of at most so many columns for each product is drained in whole groups."""


class Dense(Accumulator):
    """A window that is drained in order."""

    def __init__(self, frame: Frame):
        super().__init__(frame)
        self.sums = frame.part("sums", frame.spec.sum)
        self.flags = frame.part("flags", i8)

    def prepare(self) -> None:
        """Neutral elements and clear flags in the whole part; once a call."""
        width = self.f.limit("window")
        zeros = self.ring.zero(vec(GROUP, self.f.spec.sum))
        with self.b.for_(0, width, FLAGS) as step:
            for first in range(0, FLAGS, GROUP):
                self.sums.vstore(zeros, step.iv + first)
            for half in (0, HALF):
                self.flags.vstore(self.b.const(0, vec(HALF, i8)), step.iv + half)

    def append(self, row: RowOf, place: Value) -> Value:
        """See Accumulator."""
        b = self.b
        with b.for_(row.first, row.last) as entry:
            a, first, last = self.entry(entry.iv)
            whole = first + (last - first) // GROUP * GROUP
            with b.for_(first, whole, GROUP) as step:
                self._add_group(a, step.iv, row.low)
            with b.for_(whole, last) as step:
                self._add(a, step.iv, self.f.index_at("b_index", step.iv) - row.low)
        if not self._moves_groups():
            return self._drain_sparse(row, place)
        turns, crowded = self.f.turns, row.width <= row.products * CROWDED
        with b.if_(crowded) as branch:
            turns.move(self._drain_crowded(row, place))
        with branch.otherwise():
            turns.move(self._drain_sparse(row, place))
        return turns.cursor

    def _add(self, a: Value, at: Value, column: Value) -> None:
        total = self.ring.add(self.sums.load(column), self.product(a, at))
        self.sums.store(total, column)
        self.flags.store(self.b.const(1, i8), column)

    def _add_group(self, a: Value, at: Value, low: Value) -> None:
        """GROUP products: as vectors where their columns follow each other."""
        b = self.b
        first, last = (self.f.index_at("b_index", at + i) - low for i in (0, GROUP - 1))
        with b.if_((last - first).eq(GROUP - 1)) as adjacent:
            x = self.ring.load_wide(self.f["b_value"], at, GROUP)
            terms = self.ring.multiply(b.broadcast(a, GROUP), x)
            self.sums.vstore(self.ring.add(self.sums.vload(first, GROUP), terms), first)
            self.flags.vstore(b.const(1, vec(GROUP, i8)), first)
        with adjacent.otherwise():
            for i in range(GROUP):
                self._add(a, at + i, self.f.index_at("b_index", at + i) - low)

    def _used(self, base: Value) -> Value:
        """The bits of the columns in use of FLAGS from `base` on; the flags are cleared."""
        b = self.b
        halves: list[Value] = []
        for half in (0, HALF):
            used = self.flags.vload(base + half, HALF).ne(0)
            bits = b.extract(b.bitcast(used, vec(1, i32)), 0)
            halves.append(b.zext(bits, i64) << half)
            self.flags.vstore(b.const(0, vec(HALF, i8)), base + half)
        return halves[0] | halves[1]

    def _drain_sparse(self, row: RowOf, place: Value) -> Value:
        """Append the columns in use, GROUP at a time of a word whether it has so many or not.

        What is written too much is overwritten by the next word; so there is no branch on how many
        bits a word has, unless it has many (Langdale and Lemire, arXiv:1902.08318, section 3.1.4).
        """
        b = self.b
        with b.for_(0, row.width, FLAGS, inits=[place]) as window:
            bits, at = self._used(window.iv), window.args[0]
            count = b.to_index(b.count_bits(bits))
            base = window.iv
            few, most = GROUP // 2, GROUP
            left = self._write_some(bits, (base, row.low), at, few)
            with b.if_(count > few):
                rest = self._write_some(left, (base, row.low), at + few, most - few)
                with b.while_([rest, at + most], lambda carried: carried[0].ne(0)) as each:
                    self._write_column(each.args[0], (base, row.low), each.args[1])
                    each.yield_(each.args[0] & (each.args[0] - 1), each.args[1] + 1)
            window.yield_(at + count)
        after = window.results[0]
        with b.for_(place, after) as each:
            column = self.f.index_at("out_index", each.iv) - row.low
            self.f["out_value"].store(self.sums.load(column), each.iv)
            self.sums.store(self.ring.zero(), column)
        return after

    def _write_column(self, bits: Value, window: tuple[Value, Value], place: Value) -> None:
        base, low = window
        column = self.b.to_index(self.b.trailing_zeros(bits)) + base + low
        self.f["out_index"].store(self.b.from_index(column, self.f.spec.index), place)

    def _write_some(
        self, bits: Value, window: tuple[Value, Value], place: Value, count: int
    ) -> Value:
        """Write the columns of the lowest bits; the bits that are left."""
        for i in range(count):
            self._write_column(bits, window, place + i)
            bits = bits & (bits - 1)
        return bits

    # -- whole groups

    def _drain_crowded(self, row: RowOf, place: Value) -> Value:
        b = self.b
        with b.for_(0, row.width, FLAGS, inits=[place]) as window:
            bits, at = self._used(window.iv), window.args[0]
            for half in (bits & ((1 << HALF) - 1), bits.shr(HALF)):
                offset = 0 if at is window.args[0] else HALF
                with b.if_(half.ne(0)):
                    self._by_groups(half, window.iv + offset, row.low, at)
                at = at + b.to_index(b.count_bits(half))
            window.yield_(at)
        return window.results[0]

    def _moves_groups(self) -> bool:
        return self.f.permute is not None and self.f.spec.sum_bytes in (4, 8)

    def _by_groups(self, bits: Value, base: Value, low: Value, place: Value) -> None:
        """Move the columns in use of each group to its front, and store the whole group.

        What lies behind them is overwritten by the next group; the result has room for the last.
        """
        b, spec = self.b, self.f.spec
        zero = self.ring.zero(vec(GROUP, spec.sum))
        iota = b.const(list(range(GROUP)), vec(GROUP, spec.index))
        for group in range(HALF // GROUP):
            at = base + group * GROUP
            byte = bits.shr(group * GROUP) & 0xFF
            columns = b.broadcast(b.from_index(at + low, spec.index), GROUP) + iota
            self._store_front(self.f["out_index"], columns, byte, place)
            self._store_front(self.f["out_value"], self.sums.vload(at, GROUP), byte, place)
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
            self.f["out_index"].store(key, place + step.iv)
            self.f["out_value"].store(self.sums.load(column), place + step.iv)
            self.sums.store(self.ring.zero(), column)
            self.flags.store(b.const(0, i8), column)
        return place + count


def _is_narrow(values: Value) -> bool:
    assert lanes(values.type) == GROUP
    return str(values.type).endswith("32>")
