"""What was decided for each kernel and why, and why something cannot be compiled."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.bindings.table import bind
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.buffers import BufferSpec, byte_width
from nybble.costmodel.analytic.model import end_of_context, estimated
from nybble.costmodel.analytic.rules import NoRuleError
from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.targets.reader import target_for_level
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.lowbit import formats
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.compile_model import CompileOptions
from nybble.passes.targets import Product, cheapest, load_target, nearest
from nybble.tools.gpu_file import GpuOptions, buffers_of
from nybble.tools.mlir_file import FIRST, LAST, advance, functions_of
from nybble.tools.run_file import SCHEDULED, variant_name

MATMUL = """
func.func @matmul(%x: tensor<?x{cols}xf32>, %w: !lowbit.tensor<{rows}x{cols}, "{spec}">)
    -> tensor<?x{rows}xf32> {{
  %y = mpgemm.matmul %x, %w : tensor<?x{cols}xf32>, !lowbit.tensor<{rows}x{cols}, "{spec}">
      -> tensor<?x{rows}xf32>
  func.return %y : tensor<?x{rows}xf32>
}}
"""
OPERATORS = {"mpgemm.matmul": MATMUL}
"""Operator -> a function `matmul` around one, with its rows, cols and number format left open."""
KEPT_BYTES = 8
"""Of a kept value of a sparse product: f32 and an i32 column."""


@dataclass(frozen=True)
class KernelNote:
    """One kernel: where it is, what it computes, on what, how and why.

    tokens: the most rows of one call. buffers: name -> bytes, as the kernel takes them. fusion: why
    its operations are one kernel, empty where there was no choice. estimate: by the cost model.
    """

    function: str
    kernel: str
    dataflow: str
    because: str
    tokens: int
    operations: list[str]
    inputs: list[str]
    results: list[str]
    buffers: dict[str, int]
    fusion: str
    estimate: "Timing | NoTiming"

    def lines(self) -> Iterator[str]:
        """The printed form."""
        yield f"{self.function} {self.kernel}: {self.dataflow}, {self.tokens} token(s)"
        yield f"  because    {self.because}"
        if self.fusion:
            yield f"  fusion     {self.fusion}"
        yield f"  estimate   {self.estimate}"
        yield f"  operations {', '.join(self.operations)}"
        yield f"  inputs     {', '.join(self.inputs)}"
        yield f"  results    {', '.join(self.results)}"
        yield f"  buffers    {', '.join(f'{n} {size} B' for n, size in self.buffers.items())}"


@dataclass(frozen=True)
class Timing:
    """A predicted time of one call on a target. terms: what bounds it -> seconds by itself."""

    machine: str
    seconds: float
    bound: str
    limit: str
    terms: dict[str, float]

    def __str__(self) -> str:
        slowest = sorted(self.terms.items(), key=lambda item: -item[1])
        terms = ", ".join(f"{name} {seconds * 1e6:,.1f}" for name, seconds in slowest if seconds)
        return f"{self.seconds * 1e6:,.1f} us on {self.machine}, {self.bound} bound ({terms})"


@dataclass(frozen=True)
class NoTiming:
    """Why the cost model has no time for a kernel."""

    reason: str

    def __str__(self) -> str:
        return f"none: {self.reason}"


def timing(op: KernelOp, isa: Isa, threads: int, tokens: int) -> Timing | NoTiming:
    """What the cost model says of one call of a kernel, at the end of its context."""
    machine = target_for_level(isa.name)
    try:
        asked = CostOptions(tokens, cached=end_of_context(op, tokens), cores=threads)
        found, _ = estimated(op, machine, asked)
    except NoRuleError as error:  # operations that a compiled module brings in
        return NoTiming(error.message)
    return Timing(machine.name, found.seconds, found.bound, found.limit, dict(found.terms))


def notes(module: ModuleOp, isa: Isa, threads: int) -> list[KernelNote]:
    """A note for each kernel of a module at the scheduled stage, in program order."""
    return [
        note(function, op, isa, threads)
        for function in functions_of(module).values()
        for op in function.body.block.ops
        if isinstance(op, KernelOp)
    ]


def note(function: func.FuncOp, op: KernelOp, isa: Isa, threads: int) -> KernelNote:
    """The note of one kernel."""
    schedule = op.schedule
    assert schedule is not None, "the form of the scheduled stage was checked"
    inner = [one.name for one in op.body.block.ops if not isinstance(one, YieldOp)]
    return KernelNote(
        function.sym_name.data,
        op.kernel_name.data,
        schedule.dataflow.data,
        schedule.because.data,
        schedule.option("tokens") or 1,
        inner,
        [str(value.type) for value in op.inputs],
        [str(value.type) for value in op.outputs],
        {spec.name: _bytes(spec) for spec in bind(op, isa, threads).kernel.buffers},
        op.because.data if op.because is not None else "",
        timing(op, isa, threads, schedule.option("tokens") or 1),
    )


def _bytes(spec: BufferSpec) -> int:
    return spec.size * byte_width(spec.dtype)


@dataclass(frozen=True)
class Question:
    """One operator with one weight. n: token rows."""

    op: str
    spec: str
    rows: int
    cols: int
    n: int

    def text(self) -> str:
        """The operator in a function."""
        return OPERATORS[self.op].format(rows=self.rows, cols=self.cols, spec=self.spec)

    def product(self, options: CompileOptions, isa: Isa) -> Product:
        """The operator as a target is asked about it."""
        given = options.pass_options()
        mode = str(given["activations" if self.n == 1 else "prefill"])
        return Product(formats.get(self.spec), self.rows, self.cols, self.n, mode, isa.name)


@dataclass(frozen=True)
class Answer:
    """Whether a question's operator can be compiled.

    kernels: how. estimates: dataflow -> cycles on one thread, of those that can compute it.
    refusals: dataflow -> why it cannot. because: why nothing can; nearest: what can instead.
    zeros: what becomes of the zeros of a pruned weight; empty without a share that is pruned.
    """

    supported: bool
    kernels: list[KernelNote]
    estimates: dict[str, float]
    refusals: dict[str, str]
    because: str = ""
    nearest: str = ""
    zeros: str = ""

    def report(self) -> dict[str, object]:
        """The keys of `--json`."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The printed form."""
        if not self.supported:
            yield f"not supported: {self.because}"
            yield f"nearest that is: {self.nearest or 'none found'}"
        for name, cycles in sorted(self.estimates.items(), key=lambda item: item[1]):
            yield f"{name}: {cycles:,.0f} cycles estimated"
        for name, reason in self.refusals.items():
            yield f"{name}: cannot, {reason}"
        if self.zeros:
            yield f"zeros: {self.zeros}"
        for one in self.kernels:
            yield from one.lines()


def answer(question: Question, options: CompileOptions, isa: Isa, target_name: str) -> Answer:
    """How an operator is compiled, or why it cannot be and which is the nearest that can."""
    target, product = load_target(target_name), question.product(options, isa)
    verdicts = target.verdicts(product)
    estimates = {v.dataflow: v.cycles for v in cheapest(verdicts)}
    refusals = {v.dataflow: v.refusal for v in verdicts if v.refusal is not None}
    try:
        kernels = compiled(question, options, isa)
    except NybbleError as error:
        near = nearest(target, product, options.dataflow)
        return Answer(False, [], estimates, refusals, error.message, spelled(product, near))
    return Answer(True, kernels, estimates, refusals, zeros=zeros(question, kernels))


def zeros(question: Question, kernels: Sequence[KernelNote]) -> str:
    """What becomes of the zeros of a pruned weight, and what a product without them would read.

    Such products, `nybble.spgemm.linear`, hold each kept value as f32 beside an i32 column.
    """
    share, places = formats.get(question.spec).kept_share, question.rows * question.cols
    if share == 1.0:
        return ""
    held = sum(one.buffers.get("w0", 0) for one in kernels)
    without = int(share * places * KEPT_BYTES)
    return (
        f"{1 - share:.0%} of the weights, multiplied as others are: {held} B are read of them all, "
        f"and {without} B by a sparse product of the {share:.0%} that are kept (spgemm.linear)"
    )


def gpu_answer(question: Question, options: GpuOptions) -> Answer:
    """How an operator is computed on a GPU, or why it cannot be, and the nearest that can."""
    arch, mode = options.target.level, options.activations
    shape = (question.rows, question.cols)
    product = Product(formats.get(question.spec), *shape, question.n, mode, arch)
    target = load_target(options.target.name)
    verdicts = [v for v in target.verdicts(product) if options.dataflow in ("", v.dataflow)]
    refusals = {v.dataflow: v.refusal for v in verdicts if v.refusal is not None}
    able = {v.dataflow: v.cycles for v in cheapest(verdicts)}
    if not able:
        because = f"{product}: {'; '.join(refusals.values()) or 'no such dataflow'}"
        near = spelled(product, nearest(target, product, options.dataflow))
        return Answer(False, [], able, refusals, because, near)
    dataflow = next(iter(able))
    note = KernelNote(
        "matmul",
        "product",
        dataflow,
        "the only one for these activations" if len(able) == 1 else "the fewest cycles estimated",
        question.n,
        [f"mpgemm.{dataflow}_matmul"],
        [f"{mode} [{question.n}, {question.cols}]", f"{question.spec} {list(shape)}"],
        [f"{mode} [{question.n}, {question.rows}]"],
        buffers_of(product, dataflow),
        fusion="",
        estimate=NoTiming(f"targets such as {arch} are asked about as whole models"),
    )
    return Answer(True, [note], able, refusals)


def question_kernels(question: Question, options: CompileOptions) -> list[KernelOp]:
    """The kernels that compute the question's operator, scheduled; NybbleError without a way."""
    module = parse_module(make_context(), question.text(), "<question>")
    advance(module, FIRST, SCHEDULED, options)
    function = functions_of(module)[variant_name(module, "matmul", question.n)]
    return [op for op in function.body.block.ops if isinstance(op, KernelOp)]


def compiled(question: Question, options: CompileOptions, isa: Isa) -> list[KernelNote]:
    """The notes of the question's kernels, which are lowered too; NybbleError if that fails."""
    module = parse_module(make_context(), question.text(), "<question>")
    advance(module, FIRST, SCHEDULED, options)
    variant = variant_name(module, "matmul", question.n)
    found = [one for one in notes(module, isa, options.threads) if one.function == variant]
    advance(module, SCHEDULED, LAST, options)
    return found


def spelled(asked: Product, near: Product | None) -> str:
    """The options that ask about a product; empty for none."""
    if near is None:
        return ""
    shape = f"--format {near.description.spec} --shape {near.rows}x{near.cols} --n {near.tokens}"
    other = near.activations != asked.activations
    return f"{shape} --activations {near.activations}" if other else shape
