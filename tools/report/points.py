"""The numbers of the page: kernels on the roofline, and predicted against measured times."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from nybble.backends.cpu import isa as levels
from nybble.costmodel.analytic.cost import Cost
from nybble.costmodel.analytic.model import end_of_context, estimated, operations_of
from nybble.costmodel.analytic.rules import NoRuleError
from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.targets.reader import target_for_level
from nybble.costmodel.targets.target import Target
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.frontend.compile_model import CompileOptions
from nybble.tools.explain import Question, question_kernels
from nybble.tools.mlir_file import functions_of
from nybble.tools.report.gather import Stage


@dataclass(frozen=True)
class KernelPoint:
    """A kernel on the roofline. because: why its dataflow; fusion: why its operations are together.

    operations: of all kinds; moved: bytes of the main memory; seconds: of one run.
    """

    function: str
    kernel: str
    dataflow: str
    because: str
    fusion: str
    names: tuple[str, ...]
    seconds: float
    bound: str
    limit: str
    operations: int
    moved: int

    @property
    def intensity(self) -> float:
        """Operations for a byte of the main memory."""
        return self.operations / max(self.moved, 1)

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    @property
    def phase(self) -> str:
        """The variant of its function: "decode", "prefill" or nothing."""
        return self.function.rpartition(".")[2] if "." in self.function else ""


@dataclass(frozen=True)
class Measured:
    """A product that was measured. where: format, shape, tokens, cache; seconds of both."""

    where: str
    family: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted


def kernel_points(stage: Stage, target: Target, threads: int) -> Iterator[KernelPoint]:
    """The kernels of a stage from `fused` on, those without a cost rule left out."""
    for name, function in functions_of(stage.module).items():
        for op in function.body.block.ops:
            if isinstance(op, KernelOp):
                try:
                    yield _point(name, op, target, threads)
                except NoRuleError:
                    continue


def _point(function: str, op: KernelOp, target: Target, threads: int) -> KernelPoint:
    schedule = op.schedule
    tokens = (schedule.option("tokens") if schedule else None) or CostOptions().tokens
    asked = CostOptions(tokens, cached=end_of_context(op, tokens), cores=threads)
    time, cost = estimated(op, target, asked)
    return KernelPoint(
        function,
        op.kernel_name.data,
        schedule.dataflow.data if schedule else "",
        schedule.because.data if schedule else "",
        op.because.data if op.because else "",
        operations_of(op),
        time.seconds,
        time.bound,
        time.limit,
        counted(cost),
        cost.moved(target.main.name),
    )


def counted(cost: Cost) -> int:
    """Operations of all kinds."""
    return sum(cost.operations.as_dict().values()) + cost.special


def measured_points(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Measured], list[str]]:
    """Rows of `nybble bench kernels` beside what the cost model says; those it has nothing to say
    about, and why.
    """
    found: list[Measured] = []
    left_out: list[str] = []
    for row in rows:
        try:
            found.append(_measured(row))
        except (KeyError, TypeError, ValueError) as error:
            left_out.append(f"a row without a time or a key: {error!r}")
        except NybbleError as error:
            left_out.append(error.message)
    return found, left_out


def _measured(row: Mapping[str, Any]) -> Measured:
    """One row; the level is that of this machine, as the bench's is."""
    spec, rows, cols, n = str(row["format"]), int(row["rows"]), int(row["cols"]), int(row["n"])
    threads, measured = int(row["threads"]), float(row["ours_us"]) * 1e-6
    options = CompileOptions(
        activations=str(row["activations"]), threads=threads, context=max(n, 2), chunk=n
    )
    level = levels.get(str(options.pass_options()["isa"]))
    target = target_for_level(level.name)
    asked = CostOptions(n, cores=threads, hot=row["cache"] == "hot")
    kernels = question_kernels(Question("mpgemm.matmul", spec, rows, cols, n), options)
    seconds = sum(estimated(op, target, asked)[0].seconds for op in kernels)
    where = f"{spec} {rows}x{cols}, n={n}, {row['cache']}, {row['activations']}"
    return Measured(f"{where}, {threads} thread(s)", f"{spec} {row['cache']}", seconds, measured)


@dataclass(frozen=True)
class Agreement:
    """How predictions and measurements agree: ratio: the geometric mean of measured / predicted;
    error: that of how far ratios are from it, 1.2 being 20%; order: Kendall's tau.
    """

    count: int
    ratio: float
    error: float
    order: float


def agreement(points: Sequence[Measured]) -> Agreement:
    """The agreement of at least one point."""
    logs = [log(one.ratio) for one in points]
    mean = sum(logs) / len(logs)
    spread = sum(abs(one - mean) for one in logs) / len(logs)
    return Agreement(len(points), exp(mean), exp(spread), _tau(points))


def _tau(points: Sequence[Measured]) -> float:
    """Pairs in the same order less those in the other, over all; 0 without pairs."""
    signs = [
        (a.predicted > b.predicted) - (a.predicted < b.predicted)
        if a.measured > b.measured
        else (a.predicted < b.predicted) - (a.predicted > b.predicted)
        for index, a in enumerate(points)
        for b in points[:index]
    ]
    return sum(signs) / len(signs) if signs else 0.0
