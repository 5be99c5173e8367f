"""The dataflows of the CPU: one row each, and the questions that passes and tools ask of them.

A dataflow is an operation of the dialect `mpgemm`, named there, and a module beside its lowering
with two functions of a `Work`: `refusal` and `cycles`. What it decides is data here; what turns a
product into its operations is a row of `passes.dataflow_rewrites`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.matmul import (
    flow_bitserial,
    flow_dequantize,
    flow_int_dot,
    flow_lut,
)
from nybble.backends.cpu.kernels.matmul.cost import cycles
from nybble.backends.cpu.kernels.matmul.spec import ProductSpec
from nybble.backends.cpu.kernels.matmul.work import Work
from nybble.backends.cpu.schedule_space import Choices
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.lowbit.formats import Format
from nybble.dialects.mpgemm.lut import LutDotMatmulOp, LutMatmulOp
from nybble.dialects.mpgemm.ops import BitserialMatmulOp, DequantMatmulOp, IntMatmulOp, ProductOp
from nybble.passes.dataflow_rewrites import BIPOLAR_MODES
from nybble.passes.targets import Product, Sketch, Verdict


@dataclass(frozen=True)
class Dataflow:
    """A way to multiply.

    op: its operation, which says the layout that it reads weights in. modes: those of activations
    that it keeps exact enough. refusal: why it cannot compute a work, or None. cycles: an estimate
    for one thread of a work that it can compute. spec: its kernel. setup: instructions that make of
    an activation what the kernel reads.
    """

    op: type[ProductOp]
    modes: tuple[str, ...]
    refusal: Callable[[Work], str | None]
    cycles: Callable[[Work], float]
    spec: Callable[[Work], ProductSpec]
    setup: Callable[[Work], float]

    @property
    def name(self) -> str:
        """The name, as schedules and options spell it."""
        return self.op.DATAFLOW

    @property
    def layout(self) -> str:
        """The layout that it reads weights in."""
        return self.op.WEIGHT_LAYOUT

    def verdict(self, work: Work) -> Verdict:
        """What it says of a work."""
        if work.activations not in self.modes:
            serves = ", ".join(self.modes)
            return Verdict(
                self.name, self.layout, refusal=f"activations {work.activations}, it keeps {serves}"
            )
        reason = self.refusal(work)
        if reason is not None:
            return Verdict(self.name, self.layout, refusal=reason)
        setup = cycles(work.isa, self.setup(work), 0)
        return Verdict(self.name, self.layout, cycles=self.cycles(work), setup=setup)


ROWS = (
    Dataflow(
        IntMatmulOp,
        ("i8", "i8-lut", "i16"),
        flow_int_dot.refusal,
        flow_int_dot.cycles,
        flow_int_dot.spec,
        flow_int_dot.setup,
    ),
    Dataflow(
        DequantMatmulOp,
        ("i8", "i8-lut", "i16", *BIPOLAR_MODES, "bf16", "f32"),
        flow_dequantize.refusal,
        flow_dequantize.cycles,
        flow_dequantize.spec,
        flow_dequantize.setup,
    ),
    Dataflow(
        LutMatmulOp,
        ("i8", "i8-lut"),
        partial(flow_lut.refusal, order="lut1"),
        partial(flow_lut.cycles, order="lut1"),
        partial(flow_lut.spec, order="lut1"),
        flow_lut.setup,
    ),
    Dataflow(
        LutDotMatmulOp,
        ("i8", "i8-lut"),
        partial(flow_lut.refusal, order="lut4"),
        partial(flow_lut.cycles, order="lut4"),
        partial(flow_lut.spec, order="lut4"),
        flow_lut.setup,
    ),
    Dataflow(
        BitserialMatmulOp,
        tuple(BIPOLAR_MODES),
        flow_bitserial.refusal,
        flow_bitserial.cycles,
        flow_bitserial.spec,
        flow_bitserial.setup,
    ),
)
DATAFLOWS = {row.name: row for row in ROWS}


def verdicts(work: Work) -> tuple[Verdict, ...]:
    """What each dataflow says of a work, in the order of the table."""
    return tuple(row.verdict(work) for row in ROWS)


def legal(work: Work) -> list[tuple[Dataflow, float]]:
    """The dataflows that compute a work, with their estimated cycles."""
    return [(DATAFLOWS[v.dataflow], v.cycles) for v in verdicts(work) if v.refusal is None]


def refusals(work: Work) -> dict[str, str]:
    """Dataflow -> why it cannot compute a work, for those that cannot."""
    return {v.dataflow: v.refusal for v in verdicts(work) if v.refusal is not None}


def covering(description: Format, isa: Isa, shape: tuple[int, int]) -> list[str]:
    """The dataflows that multiply weights of a format and shape in some mode and token count."""
    rows, cols = shape
    return [
        row.name
        for row in ROWS
        if any(
            row.refusal(Work(description, rows, cols, tokens, mode, isa)) is None
            for mode in row.modes
            for tokens in (1, 2)
        )
    ]


def work_of(product: Product) -> Work:
    """A product as the predicates see it; raises UnknownNameError for its level."""
    isa = levels.get(product.isa) if product.isa else levels.BASELINE
    return Work(
        product.description, product.rows, product.cols, product.tokens, product.activations, isa
    )


@dataclass(frozen=True)
class CpuTarget:
    """The CPU, as passes ask for it; see `passes.targets.Target`."""

    name: str = "cpu"

    @property
    def modes(self) -> tuple[str, ...]:
        """See `Target`."""
        return tuple(dict.fromkeys(mode for row in ROWS for mode in row.modes))

    def verdicts(self, product: Product) -> tuple[Verdict, ...]:
        """See `Target`."""
        return verdicts(work_of(product))

    def sketch(self, product: Product, dataflow: str) -> Sketch | None:
        """See `Target`."""
        from nybble.backends.cpu.bindings.sketches import sketch  # it knows all kernels

        work = work_of(product)
        return sketch(dataflow, DATAFLOWS[dataflow].spec(work), work.description)

    def choices(self, kernel: KernelOp, isa: str, threads: int) -> Choices | None:
        """See `Target`."""
        from nybble.backends.cpu.bindings.table import bind  # its rules build kernels

        return bind(kernel, levels.get(isa) if isa else levels.BASELINE, threads).choices


CPU = CpuTarget()
