"""Threads take chunks of rows in turn, and put what they make of each behind what is before it.

Chunks are numbered, and taken in that order from a counter. A thread makes the entries of a chunk
in a slot of its own, small enough for its cache, and tells how many there are. When it has made the
next one too, it sums up what all chunks before the first were told to have, and copies the first to
its place: so the result is written once, without gaps, by all threads (decoupled look-back, Merrill
and Garland, Single-pass Parallel Prefix Scan, NVR-2016-002, on chunks whose results are at hand).
Nobody waits for ever: the chunk that a thread waits for was taken before, and the first that is not
made yet belongs to a thread that waits for none. One thread alone makes all in place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import SymbolRefAttr
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.dialects.llvm import LLVMPointerType
from xdsl.ir import Attribute

from nybble.backends.cpu.host import HUGE_PAGE
from nybble.backends.cpu.kernels.buffers import Buffer, BufferSpec, byte_width, take_page
from nybble.backends.cpu.kernels.builder import KernelBuilder, Operand, Value, i1, i64
from nybble.backends.cpu.spgemm.spec import ANY, Spec

CELLS = 16
"""i64 of two cache lines: what a thread writes alone is on lines of its own."""
FIXED = 2
"""Groups of CELLS before those of threads."""
SLOTS = 2
"""Chunks of a thread that are not in their place yet."""
AHEAD = 1 << 20
"""Bytes behind what is written for which pages are taken."""
SHARED = ("ticket", "page of index", "page of value")
"""Cells that all write: the next chunk, and the last pages of the result that are taken."""
GIVEN = ("chunks", "room", "end of index", "end of value")
"""Cells from CELLS on: how many chunks, the entries of a slot, and the last pages there are."""
OWN = ("cursor", "summed", "base")
"""Cells of a thread: where it appends; chunks that it has summed up, and where the next begins."""
KINDS = ("index", "value")
WAIT = "nybble_wait"
"""A function of `runner`: (cell, number), which returns when the cell has reached the number."""


@dataclass(frozen=True)
class Table:
    """`turns`: the ticket, what is given, the cells of each thread, and the entries of each chunk,
    plus one, 0 if it is not made yet.
    """

    cells: NDArray[np.int64]
    threads: int

    @staticmethod
    def of(chunks: int, room: int, made: Sequence[NDArray[np.generic]], threads: int) -> "Table":
        """Before a call of the kernel; see GIVEN; made: c_index and c_value."""
        cells = np.zeros(CELLS * (FIXED + threads) + chunks, np.int64)
        cells[1 : 1 + len(made)] = [one.ctypes.data // HUGE_PAGE for one in made]
        ends = [(one.ctypes.data + one.nbytes - 1) // HUGE_PAGE for one in made]
        cells[CELLS : CELLS + len(GIVEN)] = chunks, room, *ends
        return Table(cells, threads)

    @property
    def entries(self) -> int:
        """After it: the entries of all chunks."""
        made = self.cells[CELLS * (FIXED + self.threads) :]
        return int(made.sum()) - len(made)


@dataclass(frozen=True)
class Turns:
    """The rows of a kernel, whose result is (c_start, c_index, c_value); `append` adds a row to
    (out_index, out_value) at the cursor and moves it.

    Buffers: turns, see Table; firsts i64 [chunks + 1], rows; c_start of the index type, at whose
    place row + 1 the end of each row goes; c_index, c_value; out_index, out_value [threads, SLOTS,
    room], or c_index and c_value again for one thread.
    """

    b: KernelBuilder
    spec: Spec

    @staticmethod
    def buffers(spec: Spec) -> list[BufferSpec]:
        """See the class."""
        taken = [BufferSpec(name, ANY, i64) for name in ("turns", "firsts")]
        result = [spec.indices("c_start"), spec.indices("c_index"), spec.sums("c_value")]
        return [*taken, *result, spec.indices("out_index"), spec.sums("out_value")]

    def _at(self, name: str) -> Value:
        return self.b.const(CELLS + GIVEN.index(name))

    def _own(self, name: str) -> Value:
        return (self.b.tid + FIXED) * CELLS + OWN.index(name)

    def _load(self, at: Value) -> Value:
        return self.b.to_index(self.b.buffer("turns").load(at))

    def _store(self, value: Value, at: Value) -> None:
        self.b.buffer("turns").store(self.b.from_index(value, i64), at)

    @property
    def cursor(self) -> Value:
        """The place in out_index and out_value that is next."""
        return self._load(self._own("cursor"))

    def move(self, place: Value) -> None:
        """Set the cursor."""
        self._store(place, self._own("cursor"))

    def run(self, append: Callable[[Value], None]) -> None:
        """Append all rows, `append` getting the number of each."""
        b, count = self.b, self._load(self._at("chunks"))
        for name in OWN:
            self._store(b.const(0), self._own(name))
        for thread, kind in enumerate(KINDS):
            with b.if_((b.nth > 1) & b.tid.eq(thread)):
                take_page(b.buffer(f"c_{kind}").address())
        none = count
        inits = [self._take(), none, b.const(0)]
        with b.while_(inits, lambda carried: carried[0] < count) as turn:
            chunk, pending, slot = turn.args
            self._make(chunk, slot, append)
            self._finish(pending, 1 - slot)
            turn.yield_(self._take(), chunk, 1 - slot)
        self._finish(turn.results[1], 1 - turn.results[2])

    def _take(self) -> Value:
        return self.b.to_index(self.b.buffer("turns").fetch_add(self.b.const(1, i64), 0))

    def _first(self, slot: Value) -> Value:
        return (self.b.tid * SLOTS + slot) * self._load(self._at("room"))

    def _make(self, chunk: Value, slot: Value, append: Callable[[Value], None]) -> None:
        """Make the rows of a chunk in a slot, each end counted from the first, and tell of it."""
        b = self.b
        with b.if_(b.nth > 1):
            self.move(self._first(slot))
        first = self.cursor
        before = b.select(b.nth > 1, first, 0)
        with b.for_(*self._rows(chunk)) as row:
            append(row.iv)
            ends = b.from_index(self.cursor - before, self.spec.index)
            b.buffer("c_start").store(ends, row.iv + 1)
        told = b.from_index(self.cursor - first + 1, i64)
        b.buffer("turns").store_release(told, self._told(chunk))

    def _rows(self, chunk: Value) -> tuple[Value, Value]:
        first, last = (self.b.buffer("firsts").load(chunk + i) for i in (0, 1))
        return self.b.to_index(first), self.b.to_index(last)

    def _told(self, chunk: Value) -> Value:
        """The cell of a chunk's entries."""
        return (self.b.nth + FIXED) * CELLS + chunk

    def _finish(self, chunk: Value, slot: Value) -> None:
        """Copy a chunk to its place, unless it is none or in place."""
        b = self.b
        with b.if_((chunk < self._load(self._at("chunks"))) & (b.nth > 1)):
            base = self._sum_up(chunk)
            count = self._load(self._told(chunk)) - 1
            for kind in KINDS:
                source, target = b.buffer(f"out_{kind}"), b.buffer(f"c_{kind}")
                _copy(b, (source, self._first(slot)), (target, base), count)
                self._take_pages(kind, target.address(base + count))
            with b.for_(*self._rows(chunk)) as row:
                ends = b.buffer("c_start").load(row.iv + 1)
                whole = ends + b.from_index(base, self.spec.index)
                b.buffer("c_start").store(whole, row.iv + 1)

    def _take_pages(self, kind: str, address: Value) -> None:
        """Take the huge pages that are written next, each by one thread, while the others work.

        Two threads that wrote to a new page at once would both fill one with zeros.
        """
        b, table = self.b, self.b.buffer("turns")
        taken = SHARED.index(f"page of {kind}")
        end = self._load(self._at(f"end of {kind}"))
        wanted = b.min((address + AHEAD) // HUGE_PAGE, end)
        with b.while_([], lambda _: b.to_index(table.load(taken)) < wanted):
            page = b.to_index(table.fetch_add(b.const(1, i64), taken)) + 1
            with b.if_(page <= end):
                take_page(page * HUGE_PAGE)

    def _sum_up(self, chunk: Value) -> Value:
        """The place of a chunk, when all before it are made."""
        b, told = self.b, self.b.buffer("turns")
        summed, base = (self._load(self._own(name)) for name in ("summed", "base"))
        with b.for_(summed, chunk, inits=[base]) as before:
            cell = self._told(before.iv)
            b.emit_effect(CallOp, (told.pointer(cell), b.const(1, i64)), _CALL)
            before.yield_(before.args[0] + b.to_index(told.load_acquire(cell)) - 1)
        self._store(chunk, self._own("summed"))
        self._store(before.results[0], self._own("base"))
        return before.results[0]


def declaration() -> FuncOp:
    """What a module of such kernels needs besides them."""
    return FuncOp.external(WAIT, [LLVMPointerType(), i64], [])


_CALL: Mapping[str, Attribute] = {"callee": SymbolRefAttr(WAIT)}


def _copy(
    b: KernelBuilder, source: tuple[Buffer, Value], target: tuple[Buffer, Value], count: Operand
) -> None:
    """Copy elements of one buffer to another; they do not overlap."""
    size = b.from_index(b.value(count) * byte_width(source[0].dtype), i64)
    pointers = [buffer.pointer(at) for buffer, at in (target, source)]
    b.intrinsic_effect("llvm.memcpy.p0.p0.i64", [*pointers, size, b.immediate(0, i1)])
