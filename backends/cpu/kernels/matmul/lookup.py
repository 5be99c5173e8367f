"""Sums of looked-up entries of one group of columns, per instruction set.

Both forms give, for each of a tile's four sub-tiles, i32 lanes with the sum over planes p and
tables of `2^p * entry`, exact modulo 2^32, where an entry is what `kernels.tables` stored, before
its bias was added. So they agree bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import i16

from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i8, i32, vec
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.tables import ENTRIES, TOGETHER, VECTOR
from nybble.backends.cpu.kernels.values import lanes
from nybble.backends.cpu.lut_packing import CHUNK, PLANE_BYTES, TABLES
from nybble.backends.cpu.packing import LANES, TILE

SUBTILES = TILE // LANES
LOW = 15
LINE = 64


@dataclass(frozen=True)
class Lookup(ABC):
    """Looks a group up. w: the part's packed bytes; ahead: bytes to prefetch, 0 for none."""

    b: KernelBuilder
    spec: LutSpec
    w: Buffer
    ahead: int

    @property
    def bits(self) -> int:
        """Bit planes of the weight."""
        return self.spec.weight.bits  # type: ignore[union-attr]

    @abstractmethod
    def sums(self, codes: Value, tables: Value) -> list[Value]:
        """Sums of a group whose codes and tables start at these bytes: see the module's text."""

    def weights(self, at: Value, offset: int, size: int) -> Value:
        """Packed bytes, and a prefetch of what comes later."""
        if self.ahead and offset % LINE == 0:
            self.w.prefetch(at + (offset + self.ahead))
        return self.w.vload(at + offset, size)

    def chunk(self, codes: Value, tables: Value, index: Value) -> tuple[Value, Value]:
        """Where the codes and the tables of a chunk start."""
        digits = self.spec.tables.entries.digits
        at = tables + index * (TABLES // TOGETHER * digits * VECTOR)
        return codes + index * (self.bits * PLANE_BYTES), at

    def table(self, tables: Value, number: int, digit: int, size: int) -> Value:
        """`size` bytes of a digit from the table of that number in a chunk on."""
        digits = self.spec.tables.entries.digits
        offset = (number // TOGETHER * digits + digit) * VECTOR + number % TOGETHER * ENTRIES
        return self.b.buffer("t").vload(tables + offset, size)

    def unbiased(self, digits: Sequence[Value]) -> Value:
        """i32 lanes out of those of each digit, less the bias of all that was looked up."""
        entries = self.spec.tables.entries
        total, *others = digits
        for i, digit in enumerate(others, 1):
            total = total + (digit << entries.bits * i)
        count = self.spec.activation_group // CHUNK * TABLES * (2**self.bits - 1)
        return total - entries.bias * count


@dataclass(frozen=True)
class PermuteLookup(Lookup):
    """`vpermb` in four tables at once, then `vpdpbusd` by `2^plane` sums a lane's four bytes."""

    def sums(self, codes: Value, tables: Value) -> list[Value]:
        """See Lookup."""
        b, digits = self.b, self.spec.tables.entries.digits
        zeros = [b.const(0, vec(LANES, i32))] * (SUBTILES * digits)
        with b.for_(0, self.spec.activation_group // CHUNK, inits=zeros) as loop:
            at, place = self.chunk(codes, tables, loop.iv)
            loop.yield_(*self._chunk(at, place, loop.args))
        sums = loop.results
        return [self.unbiased(sums[i * digits : (i + 1) * digits]) for i in range(SUBTILES)]

    def _chunk(self, codes: Value, tables: Value, sums: Sequence[Value]) -> list[Value]:
        b, digits = self.b, self.spec.tables.entries.digits
        bytes_ = vec(LINE, i8)
        base = b.const([j % TOGETHER * ENTRIES for j in range(LINE)], bytes_)
        halves = [
            [self.table(tables, half * TOGETHER, digit, LINE) for digit in range(digits)]
            for half in range(2)
        ]
        sums = [*sums]
        for plane in range(self.bits):
            weight = b.const(1 << plane, bytes_)
            for r in range(SUBTILES):
                packed = self.weights(codes, plane * PLANE_BYTES + r * LINE, LINE)
                for half, index in enumerate(nibbles(b, packed)):
                    for digit, table in enumerate(halves[half]):
                        operands = (table, index | base)
                        found = b.intrinsic(self.spec.isa.byte_permute, operands, bytes_)
                        i = r * digits + digit
                        operands = (sums[i], found, weight)
                        sums[i] = b.intrinsic(self.spec.isa.int8_dot, operands, sums[i].type)
        return sums


@dataclass(frozen=True)
class ShuffleLookup(Lookup):
    """`vpshufb` or `tbl` in one table for many rows, summed in bytes and 16-bit lanes.

    Digits of 5 bits add up in bytes over a chunk's eight tables and are widened then; digits of 8
    bits are widened at once. A 16-bit lane holds bytes of two sub-tiles, even and odd ones; `whole`
    below sums lanes as they are, `high` their upper byte, which tells the two apart.
    """

    @property
    def step(self) -> int:
        """Rows, which are bytes, of a register."""
        return self.spec.isa.vector_bits // 8

    def sums(self, codes: Value, tables: Value) -> list[Value]:
        """See Lookup."""
        b, spec = self.b, self.spec
        exact = spec.tables.exact
        # exact: [register][digit][even, odd], planes weighted; rounded: [register][plane][..]
        per = 2 * (spec.tables.entries.digits if exact else self.bits)
        registers = TILE // self.step
        zeros = [b.const(0, vec(self.step // 2, i16))] * (registers * per)
        with b.for_(0, spec.activation_group // CHUNK, inits=zeros) as loop:
            at, place = self.chunk(codes, tables, loop.iv)
            add = self._add_exact if exact else self._add_rounded
            loop.yield_(*add(at, place, loop.args))
        sums = loop.results
        pairs = [sums[i * per : (i + 1) * per] for i in range(registers)]
        if not exact:
            pairs = [self._split(one) for one in pairs]
        return self._subtiles(pairs)

    def _shuffle(self, table: Value, index: Value) -> Value:
        return self.b.intrinsic(self.spec.isa.byte_shuffle, (table, index), index.type)

    def _table(self, tables: Value, number: int, digit: int) -> Value:
        """A table's digit, repeated in every 128 bits."""
        one = self.table(tables, number, digit, ENTRIES)
        copies = self.step // ENTRIES
        return self.b.shuffle(one, one, [*range(ENTRIES)] * copies) if copies > 1 else one

    def _add_exact(self, codes: Value, tables: Value, sums: Sequence[Value]) -> list[Value]:
        b, digits = self.b, self.spec.tables.entries.digits
        registers = TILE // self.step
        added = [b.const(0, sums[0].type)] * len(sums)
        for plane in reversed(range(self.bits)):
            bytes_: list[Value | None] = [None] * (registers * digits)
            for v in range(TABLES // 2):
                for r in range(registers):
                    packed = self.weights(
                        codes, plane * PLANE_BYTES + v * LINE + r * self.step, self.step
                    )
                    for half, index in enumerate(nibbles(b, packed)):
                        for digit in range(digits):
                            found = self._shuffle(self._table(tables, 2 * v + half, digit), index)
                            i = r * digits + digit
                            before = bytes_[i]
                            bytes_[i] = found if before is None else before + found
            for i, total in enumerate(bytes_):
                assert total is not None
                words = b.bitcast(total, sums[0].type)
                for odd, value in enumerate((words & 255, words.shr(8))):
                    j = 2 * i + odd
                    added[j] = value if plane == self.bits - 1 else (added[j] << 1) + value
        return [x + y for x, y in zip(sums, added, strict=True)]

    def _add_rounded(self, codes: Value, tables: Value, sums: Sequence[Value]) -> list[Value]:
        b = self.b
        sums = [*sums]
        for plane in range(self.bits):
            for v in range(TABLES // 2):
                for r in range(TILE // self.step):
                    packed = self.weights(
                        codes, plane * PLANE_BYTES + v * LINE + r * self.step, self.step
                    )
                    whole = 2 * (r * self.bits + plane)
                    for half, index in enumerate(nibbles(b, packed)):
                        found = self._shuffle(self._table(tables, 2 * v + half, 0), index)
                        words = b.bitcast(found, sums[0].type)
                        sums[whole] = sums[whole] + words
                        sums[whole + 1] = sums[whole + 1] + words.shr(8)
        return sums

    def _split(self, sums: Sequence[Value]) -> list[Value]:
        """i32 lanes of even and odd bytes, planes weighted, out of `whole` and `high` per plane."""
        b = self.b
        totals: list[Value] = []
        for plane in range(self.bits):
            whole, high = sums[2 * plane : 2 * plane + 2]
            pair = [b.zext(one, i32) << plane for one in (whole - (high << 8), high)]
            totals = pair if not totals else [x + y for x, y in zip(totals, pair, strict=True)]
        return totals

    def _subtiles(self, registers: Sequence[Sequence[Value]]) -> list[Value]:
        """[register][digit][even, odd] -> unbiased i32 lanes of each sub-tile in order."""
        b = self.b
        done: dict[int, Value] = {}
        for odd in range(2):
            digits = [
                _in_sixteens(b, [one[2 * digit + odd] for one in registers])
                for digit in range(len(registers[0]) // 2)
            ]
            for i, parts in enumerate(zip(*digits, strict=True)):
                wide = [one if lanes_are_wide(one) else b.zext(one, i32) for one in parts]
                done[2 * i + odd] = self.unbiased(wide)
        return [done[i] for i in range(SUBTILES)]


def lanes_are_wide(value: Value) -> bool:
    """Whether lanes have 32 bits."""
    return value.type == vec(lanes(value.type), i32)


def nibbles(b: KernelBuilder, packed: Value) -> tuple[Value, Value]:
    """The low and the high halves of bytes."""
    words = vec(lanes(packed.type) // 2, i16)
    high = b.bitcast(b.bitcast(packed, words).shr(4), packed.type)
    return packed & LOW, high & LOW


def _in_sixteens(b: KernelBuilder, values: Sequence[Value]) -> list[Value]:
    """The lanes of vectors, one after the other, as vectors of 16."""
    size = lanes(values[0].type)
    if size == LANES:
        return [*values]
    if size > LANES:
        return [b.slice(one, at, LANES) for one in values for at in range(0, size, LANES)]
    pairs = zip(values[::2], values[1::2], strict=True)
    return [b.shuffle(x, y, range(2 * size)) for x, y in pairs]


def lookup(b: KernelBuilder, spec: LutSpec, part: int, ahead: int) -> Lookup:
    """The form that a part's weight is packed for."""
    kind = PermuteLookup if spec.layouts[part].order == "lut4" else ShuffleLookup  # type: ignore
    return kind(b, spec, b.buffer(f"w{part}"), ahead)
