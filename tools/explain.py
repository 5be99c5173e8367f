"""What was decided for each kernel and why, and why something cannot be compiled."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.bindings.table import bind
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.buffers import BufferSpec, byte_width
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.lowbit import formats
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.compile_model import CompileOptions
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


@dataclass(frozen=True)
class KernelNote:
    """One kernel: where it is, what it computes, on what, how and why.

    tokens: the most rows of one call. buffers: name -> bytes, as the kernel takes them.
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

    def lines(self) -> Iterator[str]:
        """The printed form."""
        yield f"{self.function} {self.kernel}: {self.dataflow}, {self.tokens} token(s)"
        yield f"  because    {self.because}"
        yield f"  operations {', '.join(self.operations)}"
        yield f"  inputs     {', '.join(self.inputs)}"
        yield f"  results    {', '.join(self.results)}"
        yield f"  buffers    {', '.join(f'{n} {size} B' for n, size in self.buffers.items())}"


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


@dataclass(frozen=True)
class Answer:
    """Whether a question's operator can be compiled. kernels: how; because: why not; nearest."""

    supported: bool
    kernels: list[KernelNote]
    because: str = ""
    nearest: str = ""

    def report(self) -> dict[str, object]:
        """The keys of `--json`."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The printed form."""
        if not self.supported:
            yield f"not supported: {self.because}"
            yield f"nearest that is: {self.nearest or 'none found'}"
        for one in self.kernels:
            yield from one.lines()


def answer(question: Question, options: CompileOptions, isa: Isa) -> Answer:
    """How an operator is compiled, or why it cannot be and which is the nearest that can."""
    try:
        return Answer(True, compiled(question, options, isa))
    except NybbleError as error:
        reason = error.message + (f" (accepted: {error.accepted})" if error.accepted else "")
    return Answer(False, [], reason, nearest(question, options, isa))


def compiled(question: Question, options: CompileOptions, isa: Isa) -> list[KernelNote]:
    """The notes of the question's kernels, which are lowered too; NybbleError if that fails."""
    module = parse_module(make_context(), question.text(), "<question>")
    advance(module, FIRST, SCHEDULED, options)
    variant = variant_name(module, "matmul", question.n)
    found = [one for one in notes(module, isa, options.threads) if one.function == variant]
    advance(module, SCHEDULED, LAST, options)
    return found


def nearest(question: Question, options: CompileOptions, isa: Isa) -> str:
    """The first of the near questions that can be compiled; empty if none can."""
    for near in near_questions(question):
        try:
            compiled(near, options, isa)
        except NybbleError:
            continue
        return f"--format {near.spec} --shape {near.rows}x{near.cols} --n {near.n}"
    return ""


def near_questions(question: Question) -> Iterator[Question]:
    """The same format on columns that it divides; then other formats by bits per weight."""
    description = formats.get(question.spec)
    size = description.group_size(question.cols)
    below, above = question.cols // size * size, -(-question.cols // size) * size
    for cols in sorted({below, above} - {0, question.cols}, key=lambda c: abs(c - question.cols)):
        yield Question(question.op, question.spec, question.rows, cols, question.n)
    wanted = description.bits_per_weight
    names = [name for name in formats.names() if name != question.spec]
    for name in sorted(names, key=lambda one: abs(formats.get(one).bits_per_weight - wanted)):
        yield Question(question.op, name, question.rows, question.cols, question.n)
