"""What a pass asks a cost model: how long operations take as one kernel, and whether they fit.

The analytic model answers here; a learned one answers the same questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Operation, SSAValue

from nybble.costmodel.analytic.products import ELEMENT_BYTES
from nybble.costmodel.analytic.roofline import time
from nybble.costmodel.analytic.rules import product_size, work_together
from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.targets.target import Target
from nybble.dialects.mpgemm.ops import ProductOp


@dataclass(frozen=True)
class Prediction:
    """Seconds of one launch. limit: what decides them; source: the model that says so.

    terms: arithmetic unit, memory level or "launch" -> seconds that it alone would take.
    """

    seconds: float
    limit: str
    source: str
    terms: Mapping[str, float] = field(hash=False, default_factory=dict[str, float])


class CostModel(Protocol):
    """Answers what passes ask of operations of one block, in program order."""

    def predict(self, ops: Sequence[Operation]) -> Prediction:
        """The time of the operations as one kernel."""
        ...

    def overflow(self, ops: Sequence[Operation]) -> str | None:
        """Why a core has no room for what such a kernel keeps; None if it has."""
        ...


@dataclass(frozen=True)
class AnalyticModel:
    """The roofline of a target; see `costmodel.analytic`."""

    target: Target
    options: CostOptions

    def predict(self, ops: Sequence[Operation]) -> Prediction:
        """See `CostModel`."""
        work = work_together(list(ops), self.target, self.options)
        found = time(work.cost(self.target, self.options), self.target, self.options.cores)
        return Prediction(found.seconds, found.limit, "analytic", found.terms)

    def overflow(self, ops: Sequence[Operation]) -> str | None:
        """See `CostModel`."""
        needed, room = self.scratch(ops), self.target.scratch.value
        if needed <= room:
            return None
        return f"a core of '{self.target.name}' keeps {room:,.0f} bytes, and this is {needed:,}"

    def scratch(self, ops: Sequence[Operation]) -> int:
        """Bytes that a core keeps between operations of a kernel: a tile of each value that only
        they use, and the decoded weights of the products that make one.
        """
        inside = {*ops}
        total = 0
        for op in ops:
            for result in op.results:
                if result.uses.get_length() and all(use.operation in inside for use in result.uses):
                    total += self._kept(op, result)
        return total

    def _kept(self, op: Operation, result: SSAValue) -> int:
        tile = self.options.tile or self.target.tile
        if isinstance(op, ProductOp):
            size = product_size(op, self.target, self.options)
            rows, cols = min(tile.rows, size.rows), min(tile.cols, size.cols)
            block = rows * cols * ELEMENT_BYTES[size.kind] if tile.keeps else 0
            return block + min(tile.tokens, size.tokens) * rows * 4
        columns = result.type.get_shape()[-1] if isinstance(result.type, TensorType) else 0
        return columns * 4
