"""Sums of looked-up entries of one group of columns, per instruction set.

Both forms give, for each of a tile's four sub-tiles, i32 lanes with the sum over planes p and
tables of `2^p * entry`, exact modulo 2^32, where an entry is what `kernels.tables` stored, before
its bias was added. So they agree bit for bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import VectorType, i16

from nybble.backends.building.values import lanes
from nybble.backends.cpu.kernels.buffers import Buffer
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value, i8, i32, vec
from nybble.backends.cpu.kernels.loops import divisor
from nybble.backends.cpu.kernels.matmul.elements import WORDS
from nybble.backends.cpu.kernels.matmul.lut_spec import LutSpec
from nybble.backends.cpu.kernels.tables import ENTRIES, TOGETHER, VECTOR
from nybble.backends.cpu.lut_packing import CHUNK, PLANE_BYTES, TABLES
from nybble.backends.cpu.tile_layout import LANES, SUBTILES, TILE

LOW = 15
LINE = 64


@dataclass(frozen=True)
class Sizes:
    """registers: of rows that are looked up at once, chunks: in a round, ahead: see LutTiles."""

    registers: int
    chunks: int
    ahead: int


@dataclass(frozen=True)
class Lookup(ABC):
    """Looks a group up. w: the part's packed bytes."""

    b: KernelBuilder
    spec: LutSpec
    w: Buffer
    sizes: Sizes

    @property
    def bits(self) -> int:
        """Bit planes of the weight."""
        return self.spec.weight.bits

    @abstractmethod
    def sums(self, codes: Value, tables: Value) -> list[Value]:
        """Sums of a group whose codes and tables start at these bytes: see the module's text."""

    def weights(self, at: Value, offset: int, size: int) -> Value:
        """Packed bytes, and a prefetch of what comes later."""
        if self.sizes.ahead and offset % LINE == 0:
            self.w.prefetch(at + (offset + self.sizes.ahead))
        return self.w.vload(at + offset, size)

    def chunks(
        self,
        places: tuple[Value, Value],
        zeros: Sequence[Value],
        add: Callable[[Value, Value, Sequence[Value]], list[Value]],
    ) -> Sequence[Value]:
        """Sums of a group's chunks. places: codes and tables; add: (codes, tables, sums) of one."""
        total, per = self.spec.activation_group // CHUNK, self.sizes.chunks
        with self.b.for_(0, total, per, inits=zeros) as loop:
            sums: Sequence[Value] = loop.args
            for i in range(per):
                sums = add(*self.chunk(*places, loop.iv + i if i else loop.iv), sums)
            loop.yield_(*sums)
        return loop.results

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
        zeros = [b.const(0, WORDS)] * (SUBTILES * digits)
        sums = self.chunks((codes, tables), zeros, self._chunk)
        return [self.unbiased(sums[i * digits : (i + 1) * digits]) for i in range(SUBTILES)]

    def _chunk(self, codes: Value, tables: Value, sums: Sequence[Value]) -> list[Value]:
        b, digits = self.b, self.spec.tables.entries.digits
        bytes_ = vec(LINE, i8)
        adder = self.spec.adder
        assert adder is not None, "a level that permutes adds"
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
                        found = b.intrinsic(self.spec.isa.byte_permute.name, operands, bytes_)
                        i = r * digits + digit
                        operands = (sums[i], found, weight)
                        sums[i] = b.intrinsic(adder.intrinsic, operands, sums[i].type)
        return sums


@dataclass(frozen=True)
class ShuffleLookup(Lookup):
    """`vpshufb` or `tbl` in one table for many rows, summed in bytes and 16-bit lanes.

    Digits of 5 bits add up in bytes over a chunk's eight tables and are widened then; digits of 8
    bits are widened at once. A 16-bit lane holds bytes of two sub-tiles, one even and one odd.
    """

    @property
    def step(self) -> int:
        """Rows, which are bytes, of a register."""
        return self.spec.isa.vector_bits // 8

    @property
    def words(self) -> VectorType:
        """A register of 16-bit lanes."""
        return vec(self.step // 2, i16)

    def sums(self, codes: Value, tables: Value) -> list[Value]:
        """See Lookup. A loop for some registers of rows each: see `registers_together`."""
        together = self.sizes.registers
        pairs: list[Sequence[Value]] = []
        for first in range(0, TILE // self.step, together):
            pairs += self._registers(codes, tables, range(first, first + together))
        return self._subtiles(pairs)

    def _registers(self, codes: Value, tables: Value, rows: range) -> list[Sequence[Value]]:
        """For registers of rows: their sums as [digit][even, odd] lanes."""
        b, exact = self.b, self.spec.tables.exact
        # exact: [register][digit][even, odd], planes weighted; else [register][plane][all, odd]
        per = 2 * (self.spec.tables.entries.digits if exact else self.bits)
        zeros = [b.const(0, self.words)] * (len(rows) * per)
        add = self._add_exact if exact else self._add_rounded

        def chunk(at: Value, place: Value, sums: Sequence[Value]) -> list[Value]:
            return add(at, place, rows, sums)

        results = self.chunks((codes, tables), zeros, chunk)
        each: list[Sequence[Value]] = [results[i * per : (i + 1) * per] for i in range(len(rows))]
        return each if exact else [self._split(one) for one in each]

    def _found(
        self, codes: Value, tables: Value, rows: range
    ) -> Iterator[tuple[int, int, int, Value]]:
        """(number of the register, plane, digit, entries looked up) of a chunk, table by table."""
        digits = range(self.spec.tables.entries.digits)
        for number in range(TABLES):
            vector, half = divmod(number, 2)
            repeated = [self._table(tables, number, digit) for digit in digits]
            for i, register in enumerate(rows):
                for plane in range(self.bits):
                    offset = plane * PLANE_BYTES + vector * LINE + register * self.step
                    index = nibbles(self.b, self.weights(codes, offset, self.step))[half]
                    for digit, table in enumerate(repeated):
                        operands = (table, index)
                        found = self.b.intrinsic(
                            self.spec.isa.byte_shuffle.name, operands, index.type
                        )
                        yield i, plane, digit, found

    def _table(self, tables: Value, number: int, digit: int) -> Value:
        """A table's digit, repeated in every 128 bits."""
        one = self.table(tables, number, digit, ENTRIES)
        copies = self.step // ENTRIES
        return self.b.shuffle(one, one, [*range(ENTRIES)] * copies) if copies > 1 else one

    def _add_exact(
        self, codes: Value, tables: Value, rows: range, sums: Sequence[Value]
    ) -> list[Value]:
        bytes_: dict[tuple[int, int, int], Value] = {}
        for register, plane, digit, found in self._found(codes, tables, rows):
            key = (register, digit, plane)
            bytes_[key] = bytes_[key] + found if key in bytes_ else found
        added: list[Value] = []
        for register in range(len(rows)):
            for digit in range(self.spec.tables.entries.digits):
                planes = [bytes_[register, digit, plane] for plane in range(self.bits)]
                added += self._widened(planes)
        return [x + y for x, y in zip(sums, added, strict=True)]

    def _widened(self, planes: Sequence[Value]) -> list[Value]:
        """16-bit lanes of even and of odd bytes, planes weighted (by Horner's rule)."""
        words = [self.b.bitcast(one, self.words) for one in planes]
        even, odd = words[-1] & 255, words[-1].shr(8)
        for word in reversed(words[:-1]):
            even, odd = (even << 1) + (word & 255), (odd << 1) + word.shr(8)
        return [even, odd]

    def _add_rounded(
        self, codes: Value, tables: Value, rows: range, sums: Sequence[Value]
    ) -> list[Value]:
        sums = [*sums]
        for register, plane, _, found in self._found(codes, tables, rows):
            word = self.b.bitcast(found, self.words)
            i = 2 * (register * self.bits + plane)
            sums[i : i + 2] = [sums[i] + word, sums[i + 1] + word.shr(8)]
        return sums

    def _split(self, sums: Sequence[Value]) -> list[Value]:
        """i32 lanes of even and odd bytes, planes weighted, out of sums of all and of odd ones."""
        totals: list[Value] = []
        for plane in range(self.bits):
            both, odd = sums[2 * plane : 2 * plane + 2]
            pair = [self.b.zext(one, i32) << plane for one in (both - (odd << 8), odd)]
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
                wide = [one if one.type == WORDS else b.zext(one, i32) for one in parts]
                done[2 * i + odd] = self.unbiased(wide)
        return [done[i] for i in range(SUBTILES)]


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


def row_registers(spec: LutSpec) -> int:
    """Registers of rows, which are bytes, in a tile."""
    return TILE * 8 // spec.isa.vector_bits


def registers_together(spec: LutSpec) -> int:
    """Registers of rows that are taken at once: as many as their sums fit in half of all.

    Tables that stay in registers over more rows than that would be spilled.
    """
    if spec.order == "lut4":
        return 1
    return divisor(row_registers(spec), max(1, spec.isa.registers // (4 * spec.weight.bits)))


def lookup(b: KernelBuilder, spec: LutSpec, part: int, sizes: Sizes) -> Lookup:
    """The form that a part's weight is packed for."""
    kind = PermuteLookup if spec.order == "lut4" else ShuffleLookup
    return kind(b, spec, b.buffer(f"w{part}"), sizes)
