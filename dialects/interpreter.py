"""The oracle: runs functions of the operators and fused stages on numpy.

Values are numpy arrays for tensors, `Weight` for low-bit tensors, Python numbers for scalars.
Every operation of ours brings its own `reference`; the few upstream ones are in a table here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.traits import SymbolTable

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp

Values = tuple[Any, ...]


@runtime_checkable
class HasReference(Protocol):
    """An operation that can execute itself on numpy values."""

    def reference(self, *operands: Any) -> Values:
        """The results for the operands' values."""
        ...


def _constant(op: arith.ConstantOp) -> Values:
    if isinstance(op.value, IntegerAttr | FloatAttr):
        return (op.value.value.data,)
    raise NybbleError(f"the interpreter holds scalar constants only, got {op.value}")


UPSTREAM: dict[type[Operation], Callable[..., Any]] = {
    arith.AddfOp: np.add,
    arith.MulfOp: np.multiply,
    arith.SubfOp: np.subtract,
    arith.AddiOp: np.add,
    arith.MuliOp: np.multiply,
}


class Interpreter:
    """Executes the functions of one module."""

    def __init__(self, module: ModuleOp):
        self.module = module

    def call(self, name: str, *arguments: Any) -> Values:
        """Run function `name`; raises NybbleError for an unknown name or argument count."""
        function = SymbolTable.lookup_symbol(self.module, name)
        if not isinstance(function, func.FuncOp) or not function.body.blocks:
            raise NybbleError(f"no function '{name}' with a body in the module")
        wanted = len(function.body.block.args)
        if len(arguments) != wanted:
            raise NybbleError(f"'{name}' takes {wanted} arguments, got {len(arguments)}")
        return self._run_block(function.body.block, arguments)

    def _run_block(self, block: Block, arguments: Sequence[Any]) -> Values:
        values: dict[SSAValue, Any] = dict(zip(block.args, arguments, strict=True))
        for op in block.ops:
            operands = [values[operand] for operand in op.operands]
            if isinstance(op, func.ReturnOp | YieldOp):
                return tuple(operands)
            values.update(zip(op.results, self._run(op, operands), strict=True))
        raise NybbleError("a block without a terminator cannot be run")

    def _run(self, op: Operation, operands: Sequence[Any]) -> Values:
        if isinstance(op, HasReference):
            return op.reference(*operands)
        if isinstance(op, KernelOp):
            return self._run_block(op.body.block, operands)
        if isinstance(op, func.CallOp):
            return self.call(op.callee.root_reference.data, *operands)
        if isinstance(op, arith.ConstantOp):
            return _constant(op)
        rule = UPSTREAM.get(type(op))
        if rule is None:
            raise NybbleError(f"the interpreter has no rule for '{op.name}'")
        return (rule(*operands),)
