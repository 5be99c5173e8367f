"""What programs of harts are written with: loops and branches with values, and shared memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects import func, llvm, scf
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, FunctionType, IntegerAttr, StringAttr
from xdsl.ir import Attribute, Block, Region

from nybble.backends.building.expressions import Expressions
from nybble.backends.building.values import Operand, Value, i1, i32, i64
from nybble.dialects import upstream
from nybble.dialects.atomics import AtomicRMWOp, Change, CmpXchgOp, Ordering

POINTER = llvm.LLVMPointerType()
UNSIGNED_LESS = 6
"""Upstream's number of a predicate."""
Condition = Callable[[Sequence[Value]], tuple[Value, Sequence[Value]]]
Step = Callable[[Sequence[Value]], Sequence[Value]]


class HartBuilder(Expressions):
    """Builds a function that a hart runs; integers are i64 and signed, addresses pointers."""

    def __init__(self, name: str, arguments: Sequence[Attribute]):
        super().__init__(arguments)
        self.name = name
        self.arguments = [Value(self, one) for one in self.entry.args]

    def finish(self) -> func.FuncOp:
        """Close the function and hand it over; the builder is spent."""
        self.emit_effect(func.ReturnOp, ())
        self.close_entry()
        signature = FunctionType.from_lists([one.type for one in self.entry.args], [])
        made = func.FuncOp(self.name, signature, Region(self.entry))
        made.attributes["passthrough"] = ArrayAttr([StringAttr("no-builtins")])  # there is no libc
        return made

    def int(self, number: int) -> Value:
        """An i64 constant."""
        return self.const(number, i64)

    def call(self, name: str, operands: Sequence[Value]) -> None:
        """Call a function of the runtime that returns nothing."""
        made = func.CallOp(name, [one.ssa for one in operands], [])
        self.block.add_op(made)

    def variable(self, first: Value) -> Memory:
        """A variable of this hart, which LLVM keeps in a register."""
        made = llvm.AllocaOp(self.int(1).ssa, first.type)
        self.block.add_op(made)
        found = Memory(self, Value(self, made.res), first.type)
        found.store(first, 0)
        return found

    def below(self, value: Value, limit: Value) -> Value:
        """Bit: whether an i64 is from 0 to limit - 1, for a limit that is not negative."""
        predicate: dict[str, Attribute] = {"predicate": IntegerAttr(UNSIGNED_LESS, i64)}
        return self.emit(upstream.CmpiOp, (value, limit), i1, predicate)

    def repeat(self, inits: Sequence[Value], test: Condition, step: Step) -> list[Value]:
        """`test` gives whether to go on, and values; with these `step` makes the next ones.

        The values of the test that ended the loop are the results.
        """
        outer = self.block
        before = Block(arg_types=[one.type for one in inits])
        self.block = before
        go, kept = test([Value(self, one) for one in before.args])
        self.block.add_op(scf.ConditionOp(go.ssa, *[one.ssa for one in kept]))
        after = Block(arg_types=[one.type for one in kept])
        self.block = after
        following = step([Value(self, one) for one in after.args])
        self.block.add_op(scf.YieldOp(*[one.ssa for one in following]))
        self.block = outer
        made = scf.WhileOp(
            [one.ssa for one in inits], [one.type for one in kept], Region(before), Region(after)
        )
        outer.add_op(made)
        return [Value(self, one) for one in made.results]

    def either(
        self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]
    ) -> Value:
        """The value of the branch that is taken."""
        outer = self.block
        regions: list[Region] = []
        type_: Attribute = i64
        for branch in (then, otherwise):
            self.block = Block()
            regions.append(Region(self.block))
            value = branch()
            type_ = value.type
            self.block.add_op(scf.YieldOp(value.ssa))
        self.block = outer
        made = scf.IfOp(condition.ssa, [type_], regions[0], regions[1])
        outer.add_op(made)
        return Value(self, made.results[0])


@dataclass(frozen=True)
class Memory:
    """Elements of one type from an address on."""

    builder: HartBuilder
    base: Value
    element: Attribute

    def at(self, index: Operand) -> Value:
        """The address of an element."""
        b = self.builder
        properties = address_properties(self.element, llvm.GEP_USE_SSA_VAL)
        return b.emit(llvm.GEPOp, (self.base, b.value(index, i64)), POINTER, properties)

    def load(self, index: Operand, ordering: Ordering = Ordering.NONE) -> Value:
        """An element; another ordering than NONE where other harts write it meanwhile."""
        b = self.builder
        made = llvm.LoadOp(self.at(index).ssa, self.element, self._alignment(), int(ordering))
        b.block.add_op(made)
        return Value(b, made.results[0])

    def store(self, value: Value, index: Operand, ordering: Ordering = Ordering.NONE) -> None:
        """Put a value; another ordering than NONE where other harts read it meanwhile."""
        at = self.at(index)
        self.builder.block.add_op(llvm.StoreOp(value.ssa, at.ssa, self._alignment(), int(ordering)))

    def claim(self, index: Operand, expected: Value, value: Value) -> Value:
        """Put `value` where `expected` is found; what was found."""
        b = self.builder
        made = CmpXchgOp(self.at(index).ssa, expected.ssa, value.ssa, Ordering.ACQUIRE_RELEASE)
        b.block.add_op(made)
        found = llvm.ExtractValueOp(DenseArrayBase.from_list(i64, [0]), made.res, value.type)
        b.block.add_op(found)
        return Value(b, found.results[0])

    def add(self, index: Operand, value: Value) -> Value:
        """Add to an element atomically; what was there."""
        b = self.builder
        change = Change.FADD if value.is_float else Change.ADD
        made = AtomicRMWOp(change, self.at(index).ssa, value.ssa, Ordering.MONOTONIC)
        b.block.add_op(made)
        return Value(b, made.res)

    def _alignment(self) -> int:
        return element_bytes(self.element)


def address_properties(element: Attribute, index: int) -> dict[str, Attribute]:
    """Properties of `llvm.getelementptr` with one index."""
    return {
        "elem_type": element,
        "rawConstantIndices": DenseArrayBase.from_list(i32, [index]),
        "noWrapFlags": IntegerAttr(0, i32),
    }


def element_bytes(element: Attribute) -> int:
    """Bytes of an element, or of a pointer."""
    text = str(element)
    return int(text[1:]) // 8 if text[1:].isdigit() else 8
