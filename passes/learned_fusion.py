"""Whether a fused kernel's code would spill, by the learned cost model: what `fuse-kernels` vetoes.

Operators that are one kernel keep more values alive than each by itself. Where the compiler has no
registers for them it moves them to the stack and back, in the innermost loop, which no cost of
bytes or launches sees. The learned model predicts the spills of a kernel with the sizes that its
lowering takes by itself; a kernel that spills much more than its operators do one by one is not
made. What the model has measured nothing like, or in code of another level, is not vetoed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region, SSAValue

from nybble.costmodel.features.facts import Facts, UnknownKernelError, facts_of
from nybble.costmodel.features.table import Call
from nybble.costmodel.kernels import CostModel, Prediction
from nybble.costmodel.targets.target import Target as Machine
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.passes.fusion_cuts import name_of
from nybble.passes.schedule_kernels import ScheduleKernels
from nybble.passes.targets import Target
from nybble.passes.tile_kernels import TOKENS, calls_of, keys_of

SPILLED = 0.125
"""Share of a fused kernel's instructions that may be spills beyond those of its parts."""
Code = Mapping[str, npt.NDArray[np.float64]]


class CodeModel(Protocol):
    """What is asked of a learned model; see `costmodel.learned.model`."""

    def knows(self, facts: Facts, call: Call, target: Machine) -> bool:
        """Whether it has measured the like of a workload, in code of a target's level."""
        ...

    def counts(
        self, facts: Facts, call: Call, options: Sequence[Mapping[str, int]], target: Machine
    ) -> Code:
        """Predicted counts of the compiled code of some schedules."""
        ...


@dataclass(frozen=True)
class SpillVeto:
    """A cost model that has no room for kernels whose code spills; see the module's text.

    costs: says everything else. chunk: tokens where their number is dynamic.
    """

    costs: CostModel
    model: CodeModel
    machine: Machine
    target: Target
    isa: str
    chunk: int

    def predict(self, ops: Sequence[Operation]) -> Prediction:
        """See `CostModel`."""
        return self.costs.predict(ops)

    def overflow(self, ops: Sequence[Operation]) -> str | None:
        """See `CostModel`."""
        return self.costs.overflow(ops) or (self.spilling(ops) if len(ops) > 1 else None)

    def spilling(self, ops: Sequence[Operation]) -> str | None:
        """How much more a kernel spills than its operators one by one; None if it does not."""
        whole, parts = self.code(ops), [self.code([op]) for op in ops]
        known = [one for one in parts if one is not None]
        if whole is None or len(known) < len(parts):
            return None
        spills, apart = whole["spills"], sum(one["spills"] for one in known)
        if spills - apart <= SPILLED * whole["instructions"]:
            return None
        return f"its code spills {spills:,.0f} times, that of its parts {apart:,.0f}"

    def code(self, ops: Sequence[Operation]) -> Mapping[str, float] | None:
        """Predicted counts of the code of one kernel; None where nothing like it was measured."""
        name = name_of(ops)
        if name is None:
            return None
        module = module_of(ops, name)
        ScheduleKernels(self.target.name, self.chunk).apply(Context(), module)
        (kernel,) = [one for one in module.walk() if isinstance(one, KernelOp)]
        choices = self.target.choices(kernel, self.isa, 1)
        try:
            facts = facts_of(kernel)
        except UnknownKernelError:
            return None
        assert kernel.schedule is not None
        tokens = kernel.schedule.option(TOKENS) or 1
        call, *_ = calls_of(facts, tokens, 1, keys_of(kernel))
        if choices is None or not self.model.knows(facts, call, self.machine):
            return None
        found = self.model.counts(facts, call, [choices.settle({})], self.machine)
        return {name: float(one[0]) for name, one in found.items()}


def module_of(ops: Sequence[Operation], name: str) -> ModuleOp:
    """A function with copies of some operators of a block as its one kernel."""
    inside = {*ops}
    inputs = [*dict.fromkeys(v for op in ops for v in op.operands if v.owner not in inside)]
    types = [value.type for value in inputs]
    body = Block(arg_types=types)
    copied: dict[SSAValue, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for op in ops:
        body.add_op(op.clone(copied))
    outputs = [
        copied[result]
        for op in ops
        for result in op.results
        if any(use.operation not in inside for use in result.uses)
    ]
    body.add_op(YieldOp(*outputs))
    outer = Block(arg_types=types)
    kernel = KernelOp(name, [*outer.args], [value.type for value in outputs], Region(body))
    outer.add_ops([kernel, func.ReturnOp(*kernel.outputs)])
    signature = (types, [value.type for value in kernel.outputs])
    return ModuleOp([func.FuncOp("alone", signature, Region(outer))])
