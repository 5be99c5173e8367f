"""Rows of few products: a single row of B as it is, or all products sorted by rank and merged."""

from nybble.backends.cpu.kernels.builder import Value, i8, i32, i64, vec
from nybble.backends.cpu.spgemm.accumulator import Accumulator, RowOf
from nybble.backends.cpu.spgemm.frame import SHORT, SHORT_BITS

LANES = 8


class Copy(Accumulator):
    """A row of one entry that meets anything: a row of B, multiplied."""

    def append(self, row: RowOf, place: Value) -> Value:
        """See Accumulator."""
        a, first, last = self.entry(row.only)
        count = last - first
        whole = count // LANES * LANES
        many = self.b.broadcast(a, LANES)
        with self.b.for_(0, whole, LANES) as step:
            x = self.ring.load_wide(self.f["b_value"], first + step.iv, LANES)
            self.f["out_value"].vstore(self.ring.multiply(many, x), place + step.iv)
            columns = self.f["b_index"].vload(first + step.iv, LANES)
            self.f["out_index"].vstore(columns, place + step.iv)
        with self.b.for_(whole, count) as step:
            self.f["out_value"].store(self.product(a, first + step.iv), place + step.iv)
            self.f["out_index"].store(self.f["b_index"].load(first + step.iv), place + step.iv)
        return place + count


class Merged(Accumulator):
    """Expand, sort, merge: at most SHORT products, in a window of less than 2^25 columns.

    A product's key is its column and, below that, its number. The rank of a key is the number of
    smaller ones, which vectors count without a branch.
    """

    def append(self, row: RowOf, place: Value) -> Value:
        """See Accumulator."""
        b = self.b
        self.keys = self.f.part("list", i32)
        self.order = self.f.part("other", i32)
        self.values = self.f.part("table", self.f.spec.sum)
        self._expand(row)
        with b.for_(0, row.products) as each:
            key = self.keys.load(each.iv)
            self.order.store(key, self._rank(key, row.products))
        return self._merge(row, place)

    def _expand(self, row: RowOf) -> None:
        b = self.b
        with b.for_(row.first, row.last, inits=[b.const(0)]) as entry:
            a, first, last = self.entry(entry.iv)
            offset = entry.args[0]
            with b.for_(first, last) as step:
                number = offset + (step.iv - first)
                column = self.f.index_at("b_index", step.iv) - row.low
                self.keys.store(b.from_index(column << SHORT_BITS | number, i32), number)
                self.values.store(self.product(a, step.iv), number)
            entry.yield_(offset + (last - first))
        # What fills up the last vector is larger than any key.
        self.keys.vstore(b.const((1 << 31) - 1, vec(LANES, i32)), row.products)

    def _rank(self, key: Value, count: Value) -> Value:
        b = self.b
        many = b.broadcast(key, LANES)
        with b.for_(0, count, LANES, inits=[b.const(0, i32)]) as step:
            smaller = self.keys.vload(step.iv, LANES) < many
            bits = b.extract(b.bitcast(smaller, vec(1, i8)), 0)
            step.yield_(step.args[0] + b.count_bits(b.zext(bits, i32)))
        return b.to_index(step.results[0])

    def _merge(self, row: RowOf, place: Value) -> Value:
        """Write the products in order; equal columns are added up. The place after them."""
        b = self.b
        start = [place - 1, b.const(-1), self.ring.zero()]
        with b.for_(0, row.products, inits=start) as each:
            at, before, total = each.args
            key = b.to_index(self.order.load(each.iv))
            column = key >> SHORT_BITS
            value = self.values.load(key & (SHORT - 1))
            is_new = column.ne(before)
            total = b.select(is_new, value, self.ring.add(total, value))
            at = at + b.to_index(b.zext(is_new, i64))
            self.emit(at, column + row.low, total)
            each.yield_(at, column, total)
        return each.results[0] + 1
