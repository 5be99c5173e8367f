"""What the code of a hart has at hand: the descriptor, its number, and the instructions it may use.

Two profiles: plain code is rv64imafd, which any RISC-V machine executes; `+xspgemm` adds the
instructions of docs/spgemm-isa.md for what the scratchpad does by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.dialects import llvm
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Attribute

from nybble.backends.building.values import Value, f32, f64, i32, i64
from nybble.backends.spgemm.problem import Word
from nybble.backends.spgemm.rv.builder import POINTER, HartBuilder, Memory, address_properties
from nybble.backends.spgemm.rv.runtime import DMA_BASE, DMA_BYTES
from nybble.backends.spgemm.rv.xspgemm import ADDITIONS, TAKE, Instruction
from nybble.dialects.atomics import AtomicRMWOp, Ordering

PROFILES = ("rv64imafd", "rv64imafd+xspgemm")
KERNEL = "nybble_kernel"


@dataclass
class Frame:
    """The function of a hart being written. profile: one of PROFILES."""

    profile: str
    builder: HartBuilder = field(default_factory=lambda: HartBuilder(KERNEL, (POINTER, i64, i64)))
    _words: dict[tuple[Word, Attribute], Value] = field(
        default_factory=dict[tuple[Word, Attribute], Value]
    )

    @property
    def hart(self) -> Value:
        """This hart's number, from 0."""
        return self.builder.arguments[1]

    @property
    def harts(self) -> Value:
        """How many harts take part."""
        return self.builder.arguments[2]

    @property
    def descriptor(self) -> Memory:
        """The words of the descriptor."""
        return Memory(self.builder, self.builder.arguments[0], i64)

    def word(self, word: Word, type_: Attribute = i64) -> Value:
        """A word of the descriptor that does not change, loaded once at the entry."""
        found = self._words.get((word, type_))
        if found is None:
            b = self.builder
            where = address_properties(i64, int(word))
            at = b.emit_at_entry(llvm.GEPOp, (b.arguments[0],), POINTER, where)
            plain: dict[str, Attribute] = {"ordering": IntegerAttr(int(Ordering.NONE), i64)}
            found = b.emit_at_entry(llvm.LoadOp, (at,), type_, plain)
            self._words[word, type_] = found
        return found

    def array(self, word: Word, element: Attribute) -> Memory:
        """The elements that a word of the descriptor points to."""
        return Memory(self.builder, self.word(word, POINTER), element)

    @property
    def sync(self) -> Memory:
        """The words of `Meeting`."""
        return self.array(Word.SYNC, i64)

    def share(self, total: Value) -> tuple[Value, Value]:
        """First and last + 1 of the part of `total` things that this hart sees to."""
        return self.hart * total // self.harts, (self.hart + 1) * total // self.harts

    def barrier(self) -> None:
        """Wait until every hart is here."""
        self.builder.call("nybble_barrier", (self.word(Word.SYNC, POINTER), self.harts))

    def copy(self, *copies: tuple[Value, Value, Value]) -> None:
        """Have DMA make two copies, each of a target, a source and bytes, and wait for them."""
        assert len(copies) == 2
        descriptor = self.hart * DMA_BYTES + DMA_BASE
        self.builder.call("nybble_dma", (*copies[0], *copies[1], descriptor))

    def accumulate(self, memory: Memory, index: Value, value: Value) -> None:
        """Add to an element of the scratchpad atomically."""
        if self.profile == PROFILES[0]:
            memory.add(index, value)
            return
        b = self.builder
        bits = value
        if value.type == f32:
            bits = b.zext(b.bitcast(value, i32), i64)
        elif value.type == f64:
            bits = b.bitcast(value, i64)
        self._custom(ADDITIONS[str(memory.element)], memory.at(index), bits)

    def take(self, memory: Memory, index: int) -> Value:
        """The number that is there, which becomes the next one: no two harts get the same."""
        if self.profile == PROFILES[0]:
            return memory.add(index, self.builder.int(1))
        return self._custom(TAKE, memory.at(index), self.builder.int(1))

    def _custom(self, what: Instruction, address: Value, value: Value) -> Value:
        b = self.builder
        made = AtomicRMWOp(what.carrier, address.ssa, value.ssa, Ordering.MONOTONIC)
        b.block.add_op(made)
        return Value(b, made.res)
