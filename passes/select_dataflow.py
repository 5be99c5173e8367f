"""Pass `select-dataflow`: decide how each mpgemm.matmul is computed.

Before:

```mlir
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
```

After with `select-dataflow{isa=avx512-vnni reasons=false}`:

```mlir
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %q = lowbit.quantize %x : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
  %y = mpgemm.int_matmul %q, %w : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0">
      -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
```

The target says which of its dataflows compute a product with activations as exact as the mode asks,
and at what cost; the cheapest is taken, and why is written on the product. Products of one weight
take dataflows that read it in one layout, the cheapest for all of them, so that it is packed once.

Does not handle: what products share (a quantization is made once and counted with each of them).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdsl.context import Context
from xdsl.dialects.builtin import DYNAMIC_INDEX, ModuleOp, StringAttr
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.dialects.fused.ops import EmbedOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.passes.dataflow_rewrites import REWRITES, Shared
from nybble.passes.targets import (
    ESTIMATED,
    LEARNED,
    Product,
    Target,
    Verdict,
    cheapest,
    load_target,
    nearest,
)

if TYPE_CHECKING:
    from nybble.passes.learned_dataflows import Learned


@dataclass(frozen=True)
class SelectDataflow(ModulePass):
    """Turn intent into a dataflow; see the module's text.

    target, isa: for which machine; without a level, the target's lowest. activations: how exact
    they must stay: "i8" and "i16" allow integers of so many bits with one scale per group of the
    weight, "i8-lut" beyond "i8" that lookup tables are rounded to 8 bits, "bf16" allows activations
    and decoded weights to be rounded to bf16, "f32" nothing. prefill: the same for products of more
    than one token; empty for no difference. dataflow: the one to take, empty for the cheapest.
    chunk: tokens where their number is dynamic. costs: "estimated" for the cycles that dataflows
    count, "learned" for those of the cost model that comes with nybble, or the file of another;
    what a model has measured nothing like stays estimated. reasons: whether to write down why.
    """

    name = "select-dataflow"
    target: str = "cpu"
    isa: str = ""
    activations: str = "i8"
    prefill: str = ""
    dataflow: str = ""
    chunk: int = 512
    costs: str = ESTIMATED
    reasons: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        target = load_target(self.target)
        for mode in (self.activations, self.prefill or self.activations):
            check_mode(mode, target)
        shared = Shared()
        learned = self._learned(target)
        asked = [self.ask(one, target, learned) for one in op.walk() if isinstance(one, MatmulOp)]
        for one, verdict in choose(asked).items():
            product = REWRITES[verdict.dataflow](one.matmul, one.product.activations, shared)
            if self.reasons:
                product.because = StringAttr(one.because(self.dataflow))

    def ask(self, matmul: MatmulOp, target: Target, learned: "Learned | None") -> "Question":
        """What the target says of a product; NybbleError where nothing that is allowed can."""
        product = self.product(matmul)
        verdicts = target.verdicts(product)
        known = None if learned is None else learned.costs(product, verdicts)
        question = (
            Question(matmul, product, verdicts, self.dataflow)
            if known is None
            else Question(matmul, product, known, self.dataflow, LEARNED)
        )
        if not question.candidates:
            raise question.error(target)
        return question

    def _learned(self, target: Target) -> "Learned | None":
        if self.costs == ESTIMATED:
            return None
        from nybble.passes.learned_dataflows import learned_costs  # it reads a model

        return learned_costs(target, self.isa, self.costs)

    def product(self, matmul: MatmulOp) -> Product:
        """A product in the terms of a target."""
        weight = matmul.weight.type
        assert isinstance(weight, LowBitTensorType)
        tokens, _ = matmul.activation_shape()
        mode = self.activations if tokens == 1 else self.prefill or self.activations
        count = self.chunk if tokens == DYNAMIC_INDEX else tokens
        return Product(weight.number_format, weight.rows, weight.cols, count, mode, self.isa)


def check_mode(mode: str, target: Target) -> None:
    """Raise unless some dataflow of the target serves `mode`."""
    if mode not in target.modes:
        raise NybbleError(f"unknown activation mode '{mode}'", accepted=", ".join(target.modes))


@dataclass(frozen=True, eq=False)
class Question:
    """A product and what the dataflows say of it.

    wanted: the one to take, empty for any. costs: what their cycles are from.
    """

    matmul: MatmulOp
    product: Product
    verdicts: Sequence[Verdict]
    wanted: str
    costs: str = ESTIMATED

    @property
    def candidates(self) -> list[Verdict]:
        """Those that can and may compute the product, the cheapest first."""
        return [v for v in cheapest(self.verdicts) if self.wanted in ("", v.dataflow)]

    def in_layout(self, layout: str) -> Verdict | None:
        """The cheapest that reads the weight in a layout."""
        return next((one for one in self.candidates if one.layout == layout), None)

    def because(self, wanted: str) -> str:
        """Why the dataflow was taken: estimates, and refusals of the others."""
        able = cheapest(self.verdicts)
        said = [f"asked for {wanted}"] if wanted else []
        said.append(
            f"{self.costs} cycles: " + ", ".join(f"{v.dataflow} {v.cycles:,.0f}" for v in able)
        )
        said += [f"no {v.dataflow}: {v.refusal}" for v in self.verdicts if v.refusal is not None]
        return "; ".join(said)

    def error(self, target: Target) -> NybbleError:
        """That nothing computes the product, why, and what is nearest."""
        names = [v.dataflow for v in self.verdicts]
        place = location_of(self.matmul)
        if self.wanted and self.wanted not in names:
            return UnknownNameError(
                f"unknown dataflow '{self.wanted}'", location=place, accepted=", ".join(names)
            )
        reasons = [f"{v.dataflow}: {v.refusal}" for v in self.verdicts if v.refusal is not None]
        if self.wanted:
            reasons = [one for one in reasons if one.startswith(f"{self.wanted}:")]
        near = nearest(target, self.product, self.wanted)
        return NybbleError(
            f"no dataflow of '{target.name}' multiplies {self.product}: " + "; ".join(reasons),
            location=place,
            accepted=str(near) if near is not None else None,
        )


def choose(questions: Iterable[Question]) -> dict[Question, Verdict]:
    """A dataflow for each product; products of one weight agree on its layout if they can."""
    by_weight: dict[SSAValue, list[Question]] = {}
    for question in questions:
        by_weight.setdefault(question.matmul.weight, []).append(question)
    chosen: dict[Question, Verdict] = {}
    for weight, asked in by_weight.items():
        chosen |= choose_for(weight, asked)
    return chosen


def choose_for(weight: SSAValue, questions: Sequence[Question]) -> dict[Question, Verdict]:
    """A dataflow for each product of one weight."""
    best: dict[Question, Verdict] = {one: one.candidates[0] for one in questions}
    tables = {u.operation.TABLE_LAYOUT for u in weight.uses if isinstance(u.operation, EmbedOp)}
    if len({*tables, *(verdict.layout for verdict in best.values())}) == 1:
        return best
    alike: list[dict[Question, Verdict]] = []
    for layout in tables or {v.layout for one in questions for v in one.candidates}:
        fitting = {one: one.in_layout(layout) for one in questions}
        found = {one: verdict for one, verdict in fitting.items() if verdict is not None}
        if len(found) == len(questions):
            alike.append(found)
    return min(alike, key=lambda found: sum(v.cycles for v in found.values()), default=best)
