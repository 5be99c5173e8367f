"""Sums in a hash table, for rows whose columns are spread wider than a window can be.

Linear probing in a table that is filled to a half at most. The columns in use are listed at their
first use, sorted at the end, and looked up once more.
"""

from collections.abc import Sequence

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import Value, i32, i64, vec
from nybble.backends.cpu.spgemm.accumulator import Accumulator, RowOf
from nybble.backends.cpu.spgemm.sorting import sorted_list

EMPTY = -1
_GOLDEN = 0x9E3779B1
"""2^32 divided by the golden ratio: Knuth's multiplicative hashing, TAOCP vol. 3, 6.4."""


class Hashed(Accumulator):
    """A table of columns and sums, linear probing; the columns in use are sorted at the end."""

    def append(self, row: RowOf, place: Value) -> Value:
        """See the module."""
        b = self.b
        bound = b.min(row.products, row.width)
        bits = self._bits(bound)
        self._clear(b.const(1) << bits)
        count = self._insert(row, bits)
        columns = sorted_list(self.f, count, row)
        with b.for_(0, count) as step:
            column = columns.load(step.iv)
            slot = self._find(column, bits)
            self.f["out_index"].store(column, place + step.iv)
            self.f["out_value"].store(self._table().load(slot), place + step.iv)
        return place + count

    def _bits(self, bound: Value) -> Value:
        """Bits of a table that `bound` keys fill to a half at most; at least 4."""
        b = self.b
        with b.while_([b.const(4)], lambda carried: (b.const(1) << carried[0]) < bound * 2) as grow:
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

        def other(carried: Sequence[Value]) -> Value:
            found = keys.load(carried[0])
            return found.ne(key) & found.ne(EMPTY)

        with b.while_([self._hash(key, bits)], other) as probe:
            probe.yield_((probe.args[0] + 1) & last)
        return probe.results[0]

    def _insert(self, row: RowOf, bits: Value) -> Value:
        """Add up all products; the number of columns, which are listed."""
        b, keys, table, listed = (
            self.b,
            self._keys(),
            self._table(),
            self.f.part("list", self.f.spec.index),
        )
        with b.for_(row.first, row.last, inits=[b.const(0)]) as entry:
            a, first, last = self.entry(entry.iv)
            with b.for_(first, last, inits=[entry.args[0]]) as step:
                key = self.f["b_index"].load(step.iv)
                x = self.ring.load_wide(self.f["b_value"], step.iv)
                slot = self._find(key, bits)
                is_new = keys.load(slot).eq(EMPTY)
                keys.store(key, slot)
                table.store(self.ring.add(table.load(slot), self.ring.multiply(a, x)), slot)
                listed.store(key, step.args[0])
                step.yield_(step.args[0] + b.to_index(b.zext(is_new, i64)))
            entry.yield_(step.results[0])
        return entry.results[0]

    def _keys(self) -> Buffer:
        return self.f.part("keys", self.f.spec.index)

    def _table(self) -> Buffer:
        return self.f.part("table", self.f.spec.sum)
