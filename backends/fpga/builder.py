"""What networks of processes are built with: memories, processes, and f32 arithmetic of maps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from xdsl.dialects import arith, math
from xdsl.dialects.builtin import FloatAttr, f32
from xdsl.ir import Block, SSAValue

from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.processes import ProcessOp
from nybble.dialects.fpga.rows import FoldOp, ForkOp, MapOp
from nybble.dialects.fpga.types import MemoryType, StreamType
from nybble.dialects.fpga.words import power_of_two

P = TypeVar("P", bound=ProcessOp)


class Builder:
    """A kernel that is being built. A stream may be used many times until `finish` forks it."""

    def __init__(self, name: str, device: str) -> None:
        self.kernel = KernelOp(name, device, {})
        self._block = self.kernel.body.block
        self._names: set[str] = set()

    def memory(self, name: str, type_: MemoryType) -> SSAValue:
        """A new argument, called so, or so behind a number where another is called so."""
        found, index = name, 1
        while found in self._names:
            index += 1
            found = f"v{index}_{name}"
        self._names.add(found)
        argument = self._block.insert_arg(type_, len(self._block.args))
        argument.name_hint = found
        return argument

    def add(self, op: P, *names: str) -> P:
        """Add a process; its results are called so, or as the operation calls them."""
        self._block.add_op(op)
        definition = op.get_irdl_definition()
        called = names or tuple(name.rstrip("_") for name, _ in definition.results)
        for name, value in zip(called, op.results, strict=False):
            value.name_hint = name
        return op

    def map(self, name: str, inputs: Sequence[SSAValue], body: "Body") -> SSAValue:
        """A map; body: from the elements of the inputs to that of the result."""
        made = MapOp(inputs, lambda block, values: body(Arithmetic(block), values))
        return self.add(made, name).result

    def fold(self, kind: str, value: SSAValue, run: int) -> SSAValue:
        """A fold of each run of words."""
        return self.add(FoldOp(kind, value, run), "folded").result

    def finish(self) -> KernelOp:
        """The kernel, each stream of which has one reader."""
        for op in self.kernel.processes:
            for result in op.results:
                uses = list(result.uses)
                if len(uses) < 2:
                    continue
                fork = ForkOp(result, len(uses))
                self._block.insert_op_after(fork, op)
                for use, copy in zip(uses, fork.copies, strict=True):
                    use.operation.operands[use.index] = copy
                    copy.name_hint = result.name_hint
        return self.kernel


def stored(stream: StreamType, repeat: int, share: int) -> MemoryType:
    """The memory that holds `share` fields of each word of a stream that is read `repeat` times."""
    bits = power_of_two(share * (32 if stream.element == f32 else stream.element_bits))
    return MemoryType.get(stream.words.data // repeat, bits)


@dataclass(frozen=True)
class Arithmetic:
    """Operations on f32 in a map's region."""

    block: Block

    def constant(self, value: float) -> SSAValue:
        """A number, rounded to f32."""
        made = arith.ConstantOp(FloatAttr(value, f32))
        self.block.add_op(made)
        return made.result

    def add(self, left: SSAValue, right: SSAValue) -> SSAValue:
        """left + right."""
        return self._add(arith.AddfOp(left, right))

    def subtract(self, left: SSAValue, right: SSAValue) -> SSAValue:
        """left - right."""
        return self._add(arith.SubfOp(left, right))

    def multiply(self, left: SSAValue, right: SSAValue) -> SSAValue:
        """left * right."""
        return self._add(arith.MulfOp(left, right))

    def divide(self, left: SSAValue, right: SSAValue) -> SSAValue:
        """left / right."""
        return self._add(arith.DivfOp(left, right))

    def negate(self, value: SSAValue) -> SSAValue:
        """-value."""
        return self._add(arith.NegfOp(value))

    def sqrt(self, value: SSAValue) -> SSAValue:
        """The square root."""
        return self._add(math.SqrtOp(value))

    def exp(self, value: SSAValue) -> SSAValue:
        """exp(value), see `numpy_ref.table_exp`."""
        return self._add(math.ExpOp(value))

    def _add(
        self,
        op: arith.AddfOp
        | arith.SubfOp
        | arith.MulfOp
        | arith.DivfOp
        | arith.NegfOp
        | math.SqrtOp
        | math.ExpOp,
    ) -> SSAValue:
        self.block.add_op(op)
        return op.result


Body = Callable[[Arithmetic, Sequence[SSAValue]], SSAValue]
"""Takes an Arithmetic and the elements of a map's inputs, and gives that of the result."""
