"""Programs of the spgemm dialect to functions of upstream dialects that every hart runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from nybble.backends.building.values import Value, i32, i64
from nybble.backends.spgemm.problem import STAGE, Meeting, Word
from nybble.backends.spgemm.rv.accumulators import ACCUMULATORS, Accumulator, Part, Product
from nybble.backends.spgemm.rv.builder import POINTER, Memory, element_bytes
from nybble.backends.spgemm.rv.frame import Frame
from nybble.dialects.errors import InternalError
from nybble.dialects.spgemm.program import (
    AdmitOp,
    DenseInsertOp,
    DmaOp,
    HashInsertOp,
    NonzerosOp,
    RowOp,
    TokenOp,
    WindowOp,
    WritebackOp,
)
from nybble.dialects.spgemm.types import SparseTensorType

LEFT = (Word.A_INDPTR, Word.A_INDICES, Word.A_VALUES)
RIGHT = (Word.B_INDPTR, Word.B_INDICES, Word.B_VALUES)
PLACES = (Word.M_INDPTR, Word.M_INDICES, Word.M_INDICES)
"""Of a mask, which has no values."""
RUNTIME: dict[str, tuple[Attribute, ...]] = {
    "nybble_barrier": (POINTER, i64),
    "nybble_dma": (POINTER, POINTER, i64, POINTER, POINTER, i64, i64),
    "nybble_relax": (),
}
"""Functions of the runtime (see runtime.py) -> their arguments."""


@dataclass(frozen=True)
class Entries:
    """The entries `first` to `last` of a matrix. staged: whether DMA brings them."""

    indices: Memory
    values: Memory
    first: Value
    last: Value
    staged: bool


@dataclass
class Lowering:
    """Writes the code of one program into a frame."""

    frame: Frame
    window: WindowOp
    values: dict[SSAValue, Any] = field(default_factory=dict[SSAValue, Any])

    @property
    def element(self) -> Attribute:
        """Type of the values."""
        type_ = self.window.result.type
        assert isinstance(type_, SparseTensorType)
        return type_.element

    def run(self) -> None:
        """The whole program."""
        frame, b = self.frame, self.frame.builder
        accumulator = self._accumulator()
        accumulator.clear()
        frame.barrier()
        table = frame.array(Word.WINDOW_TABLE, i64)
        with b.for_(b.int(0), frame.word(Word.WINDOWS)) as loop:
            row, end, column, edge = (table.load(loop.iv * 4 + i) for i in range(4))
            self.values[self.window.body.block.args[0]] = (
                Part(row, end - row, column, edge - column),
                accumulator,
            )
            self._block(self.window.body.block)

    def _accumulator(self) -> Accumulator:
        found = [op for op in self.window.walk() if isinstance(op, WritebackOp)]
        made = ACCUMULATORS[found[0].accumulator.data]
        return made(self.frame, self.window.bits.value.data, self.element)

    def _block(self, block: Block) -> None:
        for op in block.ops:
            handler = self.HANDLERS.get(type(op))
            if handler is None:
                raise InternalError(f"no code for '{op.name}' in a program")
            handler(self, op)

    def _token(self, op: TokenOp) -> None:
        frame, b = self.frame, self.frame.builder
        part: Part = self.values[op.part][0]
        end = part.row + part.rows

        def body(row: Value) -> None:
            self.values[op.body.block.args[0]] = row
            self._block(op.body.block)

        if op.rows.data == "static":
            with b.for_(part.row + frame.hart, end, frame.harts) as loop:
                body(loop.iv)
            frame.barrier()
            return

        def test(_: Sequence[Value]) -> tuple[Value, Sequence[Value]]:
            row = part.row + frame.take(frame.sync, Meeting.TOKEN)
            return row < end, (row,)

        def step(state: Sequence[Value]) -> Sequence[Value]:
            body(state[0])
            return ()

        b.repeat((), test, step)
        frame.barrier()
        with b.if_(frame.hart.eq(0)):  # whoever asks next has passed another barrier
            frame.sync.store(b.int(0), Meeting.TOKEN)

    def _entries(self, op: RowOp | DmaOp) -> None:
        words = {self.window.rhs: RIGHT, self.window.lhs: LEFT}.get(op.matrix, PLACES)
        row: Value = self.values[op.row]
        b = self.frame.builder
        indptr = self.frame.array(words[0], i32)
        first, last = (b.sext(indptr.load(row + i), i64) for i in (0, 1))
        self.values[op.entries] = Entries(
            self.frame.array(words[1], i32),
            self.frame.array(words[2], self.element),
            first,
            last,
            isinstance(op, DmaOp),
        )

    def _admit(self, op: AdmitOp) -> None:
        part, accumulator = self.values[op.part]
        row, entries = self.values[op.row], self.values[op.entries]
        b, room = self.frame.builder, self.frame.word(Word.ENTRIES)
        with b.for_(entries.first, entries.last, room) as loop:
            end = b.min(loop.iv + room, entries.last)
            accumulator.admit(part, row, entries.indices, (loop.iv, end))
            with b.if_(accumulator.count.load(0) > 0):
                self._block(op.body.block)

    def _nonzeros(self, op: NonzerosOp) -> None:
        entries: Entries = self.values[op.entries]
        if not entries.staged:
            self._walk(op.body.block, entries)
            return
        b = self.frame.builder
        sources = (entries.indices, entries.values)
        buffers = [
            self._buffer(*pair)
            for pair in zip((Word.STAGE_INDICES, Word.STAGE_VALUES), sources, strict=True)
        ]

        def test(state: Sequence[Value]) -> tuple[Value, Sequence[Value]]:
            return state[0] < entries.last, state

        def step(state: Sequence[Value]) -> Sequence[Value]:
            first, end = state[0], b.min(state[0] + STAGE, entries.last)
            count = end - first
            self.frame.copy(
                *(
                    (buffer.base, source.at(first), count * element_bytes(source.element))
                    for buffer, source in zip(buffers, sources, strict=True)
                )
            )
            self._walk(op.body.block, Entries(*buffers, b.int(0), count, staged=False))
            return (end,)

        b.repeat((entries.first,), test, step)

    def _buffer(self, word: Word, like: Memory) -> Memory:
        """This hart's own part of the buffers at a word."""
        buffers = self.frame.array(word, like.element)
        return Memory(self.frame.builder, buffers.at(self.frame.hart * STAGE), like.element)

    def _walk(self, body: Block, entries: Entries) -> None:
        b = self.frame.builder
        with b.for_(entries.first, entries.last) as loop:
            column, value = body.args
            self.values[column] = b.sext(entries.indices.load(loop.iv), i64)
            self.values[value] = entries.values.load(loop.iv)
            self._block(body)

    def _multiply(self, op: arith.MulfOp | arith.MuliOp) -> None:
        self.values[op.result] = self.values[op.lhs] * self.values[op.rhs]

    def _insert(self, op: HashInsertOp | DenseInsertOp) -> None:
        part: Part
        part, accumulator = self.values[op.part]
        hash_ = op.hash.data if isinstance(op, HashInsertOp) else ""
        row, column, value = (self.values[one] for one in (op.row, op.column, op.value))
        b = self.frame.builder
        with b.if_(b.below(column - part.column, part.columns)):
            accumulator.insert(part, Product(row, column, value, hash_))

    def _writeback(self, op: WritebackOp) -> None:
        part, accumulator = self.values[op.part]
        accumulator.write(part)

    HANDLERS: ClassVar[dict[type[Operation], Callable[..., None]]] = {
        TokenOp: _token,
        RowOp: _entries,
        DmaOp: _entries,
        AdmitOp: _admit,
        NonzerosOp: _nonzeros,
        arith.MulfOp: _multiply,
        arith.MuliOp: _multiply,
        HashInsertOp: _insert,
        DenseInsertOp: _insert,
        WritebackOp: _writeback,
    }


def lower_program(window: WindowOp, profile: str) -> ModuleOp:
    """A module with the function that every hart runs, and the runtime's declarations.

    profile: one of `frame.PROFILES`.
    """
    frame = Frame(profile)
    Lowering(frame, window).run()
    declared = [func.FuncOp.external(name, [*arguments], []) for name, arguments in RUNTIME.items()]
    return ModuleOp([*declared, frame.builder.finish()])
