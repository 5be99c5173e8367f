"""What corrects the codes of a page: made as `sparse_attn.kv.corrections` says, and read again.

A page of a head has one record, f16: [rank][lines] weights, [rank][length] lines, and for each end
of lines [2][lines] places and [2][lines] differences. The matrix that is approximated and the two
narrow ones in f32 are in a thread's scratch meanwhile.
"""

from dataclasses import dataclass
from functools import cached_property

from nybble.backends.cpu.kernels.builder import (
    BufferSpec,
    KernelBuilder,
    Operand,
    Value,
    f16,
    f32,
    i32,
    vec,
)
from nybble.backends.cpu.kernels.kv import KEY_BLOCK
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.backends.cpu.kernels.loops import largest_lane, tree
from nybble.dialects.sparse_attn.kv.corrections import (
    DEPENDENT,
    ENDS,
    LARGEST,
    SMALLEST,
    STEPS,
    walsh,
)

_VECTOR = vec(KEY_BLOCK, f32)
_NOWHERE = 1 << 20


@dataclass(frozen=True)
class Record:
    """Where the parts of a page's record lie, of keys or of values."""

    pages: KvPages
    side: str

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Lines, and numbers of a line."""
        return self.pages.format.sizes(self.side, self.pages.head_dim)

    def start(self, head: Value, page: Value) -> Value:
        """Index of the record."""
        size = self.pages.format.correction_size(self.side, self.pages.head_dim)
        return (head * (self.pages.padded // self.pages.format.page) + page) * size

    def weight(self, j: Operand, line: Operand) -> Operand:
        """Index of a weight in a record, and in the scratch behind the matrix."""
        return j * self.sizes[0] + line

    def line(self, j: Operand, place: Operand) -> Operand:
        """Index of a number of a line, likewise."""
        lines, length = self.sizes
        return j * length + (place + self.pages.format.rank * lines)

    def end(self, end: int, line: Operand) -> Operand:
        """Index of the place of an outlier in a record; its difference is ENDS * lines behind."""
        return line + (self.pages.format.rank * sum(self.sizes) + end * self.sizes[0])


def scratch_size(pages: KvPages) -> int:
    """Elements of f32 that a thread needs."""
    form, dim = pages.format, pages.head_dim
    return form.page * dim + form.rank * (form.page + dim)


class Correct:
    """Emits the making of corrections into a kernel with the cache's buffers and a scratch."""

    def __init__(self, b: KernelBuilder, pages: KvPages, side: str) -> None:
        self.b, self.pages, self.record = b, pages, Record(pages, side)
        self.fix = b.buffer(f"{side[0]}_fix")
        self.scratch = b.buffer("scratch")
        self._base = b.tid * scratch_size(pages)
        self._factors = self._base + pages.format.page * pages.head_dim

    # -- a line

    def without_ends(self, line: list[Value]) -> tuple[list[Value], list[Value]]:
        """A line, f32, with its ends at their middle, and the places of these as vectors of i32."""
        b = self.b
        top = largest_lane(b, tree([*line], b.max))
        bottom = -largest_lane(b, -tree([*line], b.min))
        middle = b.broadcast((top + bottom) / 2.0, KEY_BLOCK)
        places = [self._first(line, one) for one in (top, bottom)]
        made: list[Value] = []
        for numbers, value in zip(self._numbers(line), line, strict=True):
            here = numbers.eq(places[0]) | numbers.eq(places[1])
            made.append(b.select(here, middle, value))
        return made, places

    def _numbers(self, line: list[Value]) -> list[Value]:
        lanes = vec(KEY_BLOCK, i32)
        starts = range(0, KEY_BLOCK * len(line), KEY_BLOCK)
        return [self.b.const(list(range(one, one + KEY_BLOCK)), lanes) for one in starts]

    def _first(self, line: list[Value], value: Value) -> Value:
        """The first place of a value in a line."""
        b, wide = self.b, self.b.broadcast(value, KEY_BLOCK)
        nowhere = b.const(_NOWHERE, vec(KEY_BLOCK, i32))
        each = [
            b.select(one.eq(wide), number, nowhere)
            for number, one in zip(self._numbers(line), line, strict=True)
        ]
        return b.broadcast(b.reduce("minsi", tree(each, b.min)), KEY_BLOCK)

    def keep_ends(self, start: Value, index: Value, places: list[Value], left: list[Value]) -> None:
        """Store places and differences; left: what the line has beside its codes."""
        b, numbers = self.b, self._numbers(left)
        for end, place in enumerate(places):
            pairs = zip(numbers, left, strict=True)
            zero = b.const(0.0, _VECTOR)
            found = [b.select(number.eq(place), one, zero) for number, one in pairs]
            total = b.reduce("add", tree(found, lambda x, y: x + y))
            at = start + self.record.end(end, index)
            self.fix.store(b.to_float(b.sitofp(b.extract(place, 0)), f16), at)
            self.fix.store(self._half(total), at + ENDS * self.record.sizes[0])

    def keep_line(self, index: Value, line: list[Value]) -> None:
        """Put a line of the matrix into the scratch."""
        first = self._base + index * self.record.sizes[1]
        for i, one in enumerate(line):
            self.scratch.vstore(one, first + i * KEY_BLOCK)

    def _half(self, value: Value) -> Value:
        b = self.b
        return b.to_float(b.max(b.min(value, LARGEST), -LARGEST), f16)

    # -- a page

    def factor(self, start: Value) -> None:
        """Approximate the matrix in the scratch, and store its factors."""
        if not self.pages.format.rank:
            return
        lines, length = self.record.sizes
        self._begin(length)
        with self.b.for_(0, STEPS):
            self._weigh(lines, length)
            self._orthonormalize(lines)
            self._combine(lines, length)
        with self.b.for_(0, self.pages.format.rank * (lines + length), KEY_BLOCK) as loop:
            values = self.scratch.vload(self._factors + loop.iv, KEY_BLOCK)
            self.fix.vstore(self._half(values), start + loop.iv)

    def _begin(self, length: int) -> None:
        for j, signs in enumerate(walsh(self.pages.format.rank, length).tolist()):
            for i in range(0, length, KEY_BLOCK):
                vector = self.b.const([float(one) for one in signs[i : i + KEY_BLOCK]], _VECTOR)
                self.scratch.vstore(vector, self._factors + self.record.line(j, i))

    def _weigh(self, lines: int, length: int) -> None:
        """W = M U^T."""
        b, scratch = self.b, self.scratch
        with b.for_(0, lines) as line, b.for_(0, self.pages.format.rank) as j:
            first = self._base + line.iv * length
            one, other = first, self._factors + self.record.line(j.iv, 0)
            at = self._factors + self.record.weight(j.iv, line.iv)
            scratch.store(self._dot(one, other, length), at)

    def _dot(self, one: Value, other: Value, size: int) -> Value:
        b, scratch = self.b, self.scratch
        total = b.const(0.0, _VECTOR)
        for i in range(0, size, KEY_BLOCK):
            x, y = (scratch.vload(at + i, KEY_BLOCK) for at in (one, other))
            total = b.fma(x, y, total)
        return b.reduce("add", total)

    def _orthonormalize(self, lines: int) -> None:
        b, scratch = self.b, self.scratch
        with b.for_(0, self.pages.format.rank) as j:
            mine = self._factors + self.record.weight(j.iv, 0)
            before = self._dot(mine, mine, lines)
            with b.for_(0, j.iv) as i:
                other = self._factors + self.record.weight(i.iv, 0)
                share = b.broadcast(self._dot(mine, other, lines), KEY_BLOCK)
                for k in range(0, lines, KEY_BLOCK):
                    x, y = (scratch.vload(at + k, KEY_BLOCK) for at in (mine, other))
                    scratch.vstore(x - share * y, mine + k)
            square = self._dot(mine, mine, lines)
            kept = (square > before * DEPENDENT) & (square > SMALLEST)
            inverse = b.select(kept, 1.0 / b.sqrt(square), 0.0)
            wide = b.broadcast(inverse, KEY_BLOCK)
            for k in range(0, lines, KEY_BLOCK):
                scratch.vstore(scratch.vload(mine + k, KEY_BLOCK) * wide, mine + k)

    def _combine(self, lines: int, length: int) -> None:
        """U = W M."""
        b, scratch = self.b, self.scratch
        zeros = [b.const(0.0, _VECTOR)] * (length // KEY_BLOCK)
        with b.for_(0, self.pages.format.rank) as j:
            with b.for_(0, lines, inits=zeros) as line:
                weight = scratch.load(self._factors + self.record.weight(j.iv, line.iv))
                wide, first = b.broadcast(weight, KEY_BLOCK), self._base + line.iv * length
                line.yield_(
                    *(
                        b.fma(wide, scratch.vload(first + i * KEY_BLOCK, KEY_BLOCK), one)
                        for i, one in enumerate(line.args)
                    )
                )
            for i, one in enumerate(line.results):
                scratch.vstore(one, self._factors + self.record.line(j.iv, i * KEY_BLOCK))


class Corrections:
    """Emits the reading of corrections."""

    def __init__(self, b: KernelBuilder, pages: KvPages, side: str) -> None:
        self.b, self.pages, self.record = b, pages, Record(pages, side)
        self.fix = b.buffer(f"{side[0]}_fix")

    def add(self, start: Value, line: Value, place: Value, numbers: list[Value]) -> list[Value]:
        """Vectors of a line from a place on, f32, and the product of weights and lines."""
        b = self.b
        if not self.pages.format.rank:
            return numbers
        with b.for_(0, self.pages.format.rank, inits=numbers) as j:
            weight = b.to_float(self.fix.load(start + self.record.weight(j.iv, line)))
            wide, first = b.broadcast(weight, KEY_BLOCK), start + self.record.line(j.iv, place)
            halves = [self.fix.vload(first + i * KEY_BLOCK, KEY_BLOCK) for i in range(len(j.args))]
            pairs = zip(halves, j.args, strict=True)
            j.yield_(*(b.fma(wide, b.to_float(half), one) for half, one in pairs))
        return list(j.results)

    def ends(self, start: Value, line: Value) -> list[tuple[Value, Value]]:
        """Places (indices in a line) and differences (f32) of the outliers of a line."""
        b, found = self.b, list[tuple[Value, Value]]()
        for end in range(ENDS * self.pages.format.outliers):
            at = start + self.record.end(end, line)
            place = b.fptosi(b.to_float(self.fix.load(at)), i32)
            value = b.to_float(self.fix.load(at + ENDS * self.record.sizes[0]))
            found.append((b.to_index(place), value))
        return found


def correction_buffers(pages: KvPages, threads: int) -> list[BufferSpec]:
    """The scratch of `Correct`, if the format has corrections."""
    if not pages.format.is_corrected:
        return []
    return [BufferSpec("scratch", threads * scratch_size(pages), f32)]
