"""Three ways to add up the products of a row: in place, in a hash table, and by merging.

Each appends the row to the result, columns ascending, and returns the place after it. Products of
a column are added in the order of the row's entries in all three, so that they agree to the bit.
"""

from dataclasses import dataclass

from nybble.backends.cpu.kernels.builder import Value, i1, i8, i32, i64, index, vec
from nybble.backends.cpu.spgemm.frame import RADIX, Frame
from nybble.backends.cpu.spgemm.spec import TYPES

FLAGS = 32
"""Columns whose flags are looked at together."""
EMPTY = -1
_GOLDEN = 0x9E3779B1
"""2^32 divided by the golden ratio: Knuth's multiplicative hashing, TAOCP vol. 3, 6.4."""


@dataclass(frozen=True)
class RowOf:
    """A row of A: entries [first, last); columns of its products within [low, low + width)."""

    first: Value
    last: Value
    low: Value
    width: Value
    products: Value


class Accumulator:
    """What all of them share: the places that rows are read from and written to."""

    def __init__(self, frame: Frame):
        self.f = frame
        self.b = frame.b
        self.ring = frame.ring

    def entry(self, at: Value) -> tuple[Value, Value, Value]:
        """Value of an entry of A as a sum, and the bounds of the row of B that it meets."""
        first, last = self.f.row(self.f.index_at("a_index", at))
        return self.ring.wide(self.f["a_value"].load(at)), first, last

    def emit(self, place: Value, column: Value, value: Value) -> None:
        """Write one entry of the result."""
        self.f["c_index"].store(self.b.from_index(column, self.f.spec.index), place)
        self.f["c_value"].store(value, place)


class Copy(Accumulator):
    """A row of one entry: a row of B, multiplied."""

    lanes = 8

    def append(self, row: RowOf, place: Value) -> Value:
        """See the module."""
        a, first, last = self.entry(row.first)
        count = last - first
        whole = count // self.lanes * self.lanes
        many = self.ring.splat(a, self.lanes)
        with self.b.for_(0, whole, self.lanes) as step:
            x = self.ring.load_wide(self.f["b_value"], first + step.iv, self.lanes)
            self.f["c_value"].vstore(self.ring.multiply(many, x), place + step.iv)
            columns = self.f["b_index"].vload(first + step.iv, self.lanes)
            self.f["c_index"].vstore(columns, place + step.iv)
        with self.b.for_(whole, count) as step:
            x = self.ring.load_wide(self.f["b_value"], first + step.iv)
            self.f["c_value"].store(self.ring.multiply(a, x), place + step.iv)
            self.f["c_index"].store(self.f["b_index"].load(first + step.iv), place + step.iv)
        return place + count


class Dense(Accumulator):
    """A sum for each column of the window, and a byte that says whether it is in use."""

    def prepare(self) -> None:
        """Neutral elements and clear flags in the whole part; once a call."""
        width = self.f.limit("dense_width")
        width = self.b.min(width, self.f.limit("columns"))
        sums, flags = self._sums(), self._flags()
        with self.b.for_(0, width) as step:
            sums.store(self.ring.zero(), step.iv)
        with self.b.for_(0, width + FLAGS, FLAGS) as step:
            flags.vstore(self.b.const(0, vec(FLAGS, i8)), step.iv)

    def append(self, row: RowOf, place: Value) -> Value:
        """See the module."""
        b, sums, flags = self.b, self._sums(), self._flags()
        one = b.const(1, i8)
        with b.for_(row.first, row.last) as entry:
            a, first, last = self.entry(entry.iv)
            with b.for_(first, last) as step:
                column = self.f.index_at("b_index", step.iv) - row.low
                x = self.ring.load_wide(self.f["b_value"], step.iv)
                sums.store(self.ring.multiply_add(sums.load(column), a, x), column)
                flags.store(one, column)
        with b.for_(0, row.width, FLAGS, inits=[place]) as window:
            window.yield_(self._drain(window.iv, row.low, window.args[0]))
        return window.results[0]

    def _drain(self, base: Value, low: Value, place: Value) -> Value:
        """Append the columns in use of FLAGS from `base` on, and clear them."""
        b, flags, sums = self.b, self._flags(), self._sums()
        used = flags.vload(base, FLAGS).ne(0)
        bits = b.extract(b.bitcast(used, vec(1, i32)), 0)
        flags.vstore(b.const(0, vec(FLAGS, i8)), base)
        zero = self.ring.zero()
        with b.while_([bits, place], lambda carried: carried[0].ne(0)) as each:
            left, at = each.args
            column = base + b.to_index(b.trailing_zeros(left))
            self.emit(at, column + low, sums.load(column))
            sums.store(zero, column)
            each.yield_(left & (left - 1), at + 1)
        return each.results[1]

    def _sums(self):
        return self.f.part("sums", self.f.spec.sum)

    def _flags(self):
        return self.f.part("flags", i8)


class Hashed(Accumulator):
    """A table of columns and sums, linear probing; the columns in use are sorted at the end."""

    def append(self, row: RowOf, place: Value) -> Value:
        """See the module."""
        b = self.b
        bound = b.min(row.products, row.width)
        bits = self._bits(bound)
        self._clear(b.const(1) << bits)
        count = self._insert(row, bits)
        columns = self._sorted(count, row)
        with b.for_(0, count) as step:
            column = columns.load(step.iv)
            slot = self._find(column, bits)
            self.f["c_index"].store(column, place + step.iv)
            self.f["c_value"].store(self._table().load(slot), place + step.iv)
        return place + count

    def _bits(self, bound: Value) -> Value:
        """Bits of a table that `bound` keys fill to a half at most; at least 4."""
        b = self.b
        with b.while_(
            [b.const(4)], lambda carried: (b.const(1) << carried[0]) < bound * 2
        ) as grow:
            grow.yield_(grow.args[0] + 1)
        return grow.results[0]

    def _clear(self, slots: Value) -> None:
        keys, table = self._keys(), self._table()
        kind = self.f.spec.index
        with self.b.for_(0, slots, 8) as step:
            keys.vstore(self.b.const(EMPTY, vec(8, kind)), step.iv)
            table.vstore(self.ring.zero(vec(8, self.f.spec.sum)), step.iv)

    def _hash(self, key: Value, bits: Value) -> Value:
        b = self.b
        low = key if self.f.spec.index_bits == 32 else b.trunc(key, i32)
        mixed = low * b.const(_GOLDEN - (1 << 32), i32)
        shift = b.from_index(b.const(32) - bits, i32)
        return b.to_index(b.zext(mixed.shr(shift), i64))

    def _find(self, key: Value, bits: Value) -> Value:
        """The slot of a key, or the empty one where it belongs."""
        b, keys = self.b, self._keys()
        last = (b.const(1) << bits) - 1

        def other(carried):
            found = keys.load(carried[0])
            return found.ne(key) & found.ne(EMPTY)

        with b.while_([self._hash(key, bits)], other) as probe:
            probe.yield_((probe.args[0] + 1) & last)
        return probe.results[0]

    def _insert(self, row: RowOf, bits: Value) -> Value:
        """Add up all products; the number of columns, which are listed."""
        b, keys, table, listed = self.b, self._keys(), self._table(), self._list("list")
        with b.for_(row.first, row.last, inits=[b.const(0)]) as entry:
            a, first, last = self.entry(entry.iv)
            with b.for_(first, last, inits=[entry.args[0]]) as step:
                key = self.f["b_index"].load(step.iv)
                x = self.ring.load_wide(self.f["b_value"], step.iv)
                slot = self._find(key, bits)
                is_new = keys.load(slot).eq(EMPTY)
                keys.store(key, slot)
                table.store(self.ring.multiply_add(table.load(slot), a, x), slot)
                listed.store(key, step.args[0])
                step.yield_(step.args[0] + b.to_index(b.zext(is_new, i64)))
            entry.yield_(step.results[0])
        return entry.results[0]

    def _sorted(self, count: Value, row: RowOf):
        """The list in ascending order: least significant digit first, as many as the width has."""
        b = self.b
        listed, other, counts = self._list("list"), self._list("other"), self.f.part("counts", i64)
        with b.while_(
            [b.const(0)], lambda carried: (row.width >> carried[0]) > 0
        ) as digit:
            shift = digit.args[0]

            def place_of(key: Value) -> Value:
                return ((b.to_index(key) - row.low) >> shift) & (RADIX - 1)

            with b.for_(0, RADIX) as each:
                counts.store(b.const(0, i64), each.iv)
            with b.for_(0, count) as each:
                at = place_of(listed.load(each.iv))
                counts.store(counts.load(at) + 1, at)
            with b.for_(0, RADIX, inits=[b.const(0, i64)]) as each:
                here = counts.load(each.iv)
                counts.store(each.args[0], each.iv)
                each.yield_(each.args[0] + here)
            with b.for_(0, count) as each:
                key = listed.load(each.iv)
                at = place_of(key)
                to = counts.load(at)
                counts.store(to + 1, at)
                other.store(key, b.to_index(to))
            with b.for_(0, count) as each:
                listed.store(other.load(each.iv), each.iv)
            digit.yield_(shift + 8)
        return listed

    def _keys(self):
        return self.f.part("keys", self.f.spec.index)

    def _table(self):
        return self.f.part("table", self.f.spec.sum)

    def _list(self, name: str):
        return self.f.part(name, self.f.spec.index)
