"""Many kernels at once: one module through the compiler's own stages, one object, one plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.rewriter import Rewriter

from nybble.backends.cpu.assemble import Assembler
from nybble.backends.cpu.compute_layouts import pack_storage
from nybble.backends.cpu.emulate import compile_runnable
from nybble.backends.cpu.executor import Executor
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.lower_kernels_to_cpu import Lowering
from nybble.backends.cpu.plan import Buffer, BufferRef, Config, Kind, Plan, Program
from nybble.backends.cpu.runner import EXTERNALS
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import stages_between
from nybble.tools.mlir_file import FIRST, LAST, functions_of
from nybble.tools.random_values import Value, buffers_of
from nybble.tools.run_file import SCHEDULED, Layout, runner_code
from nybble.tools.verify.cases import TOKENS, Case, Kernel
from nybble.tools.verify.data import Data

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


def function_text(name: str, kernel: Kernel) -> str:
    """A function around the product of a kernel, at the operators stage."""
    rows, cols, n = kernel.rows, kernel.cols, "?" if kernel.many else "1"
    weight = f'!lowbit.tensor<{rows}x{cols}, "{kernel.spec}">'
    x, y, b = f"tensor<{n}x{cols}xf32>", f"tensor<{n}x{rows}xf32>", f"tensor<{rows}xf32>"
    parts = ["w", "v"] if kernel.epilogue == "glu" else ["w"]
    arguments = [f"%x: {x}", *(f"%{part}: {weight}" for part in parts)]
    bias = ""
    if "bias" in kernel.epilogue:
        arguments.append(f"%b: {b}")
        bias = f" bias %b : {b}"
    lines = [
        f"  %y{part} = mpgemm.matmul %x, %{part}{bias} : {x}, {weight} -> {y}" for part in parts
    ]
    result = "%yw"
    if "residual" in kernel.epilogue:
        arguments.append(f"%r: {y}")
        lines.append(f"  %s = arith.addf %yw, %r : {y}")
        result = "%s"
    elif kernel.epilogue == "glu":
        lines.append(f'  %s = fused.glu "silu" %yw, %yv : {y}')
        result = "%s"
    head = f"func.func @{name}({', '.join(arguments)}) -> {y} {{"
    return "\n".join([head, *lines, f"  func.return {result} : {y}", "}\n"])


def advanced(kernels: Sequence[Kernel], isa: Isa, stop: str) -> ModuleOp:
    """The functions k0, k1, .. of kernels of one dataflow and mode at a stage; NybbleError."""
    text = "".join(function_text(f"k{index}", kernel) for index, kernel in enumerate(kernels))
    module = parse_module(make_context(), text, "<verify>")
    first = kernels[0]
    options = {
        "isa": isa.name,
        "activations": first.activations,
        "prefill": first.activations,
        "dataflow": "" if first.is_error else first.dataflow,
        "chunk": TOKENS,
        "threads": 1,
    }
    advance(module, FIRST, stop, options)
    kept = {function_name(index, kernel) for index, kernel in enumerate(kernels)}
    for function in functions(module):
        if function.sym_name.data not in kept:  # the copy for one token
            Rewriter.erase_op(function)
    return module


def advance(module: ModuleOp, start: str, stop: str, options: Mapping[str, str | int]) -> None:
    """Take a module from stage to stage, in place."""
    for stage in stages_between(start, stop):
        run_passes(make_context(), module, configure(build_pipeline(stage.passes), options))
        stage.form.check(module, stage.name)


@dataclass
class Batch:
    """Compiled kernels. scheduled: what the references are taken of."""

    scheduled: ModuleOp
    layouts: Mapping[str, Layout]
    executor: Executor

    def wanted(self, name: str, case: Case, data: Data) -> F32:
        """What the numpy reference gives for the IR that the kernels were made of."""
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            (result,) = Interpreter(self.scheduled).call(name, *arguments(case, data))
        return result

    def found(self, name: str, case: Case, data: Data) -> F32:
        """What the machine code gives."""
        layout = self.layouts[name]
        function = functions_of(self.scheduled)[name]
        types = [argument.type for argument in function.body.block.args]
        values = arguments(case, data)
        stored = iter(data.stored)
        for names, value, type_ in zip(layout.inputs, values, types, strict=True):
            arrays = (
                [pack_storage(type_, next(stored))]
                if isinstance(type_, LowBitTensorType)
                else buffers_of(value, type_)
            )
            for buffer, array in zip(names, arrays, strict=False):
                memory = self.executor.view(f"{name}.{buffer}", array.dtype)
                memory[: array.size] = array.reshape(-1)
        self.executor.run((name,), case.tokens, 0)
        (result,) = layout.results
        flat = self.executor.view(f"{name}.{result[0]}", np.float32)
        shape = (case.tokens, case.kernel.rows)
        return flat[: shape[0] * shape[1]].reshape(shape).astype(np.float32)


def arguments(case: Case, data: Data) -> list[Value]:
    """The arguments of a case's function."""
    epilogue = case.kernel.epilogue
    given: list[Value] = [data.x, *data.weights]
    given += [data.bias] if "bias" in epilogue else []
    return given + ([data.residual.copy()] if "residual" in epilogue else [])


def function_name(index: int, kernel: Kernel) -> str:
    """The function of kernel `index`, after copies for one token and for many were made."""
    return f"k{index}.prefill" if kernel.many else f"k{index}"


def compiled(kernels: Sequence[Kernel], isa: Isa) -> Batch:
    """Compile kernels of one dataflow and mode for a level, emulated where the host lacks it."""
    module = advanced(kernels, isa, SCHEDULED)
    scheduled = module.clone()
    lowering = Lowering(isa, 1, TOKENS)
    layouts = {
        name: Layout(lowering, function, frozenset())
        for name, function in functions_of(scheduled).items()
    }
    advance(module, SCHEDULED, LAST, {"isa": isa.name, "chunk": TOKENS, "threads": 1})
    plan = plan_of(Assembler(module), layouts)
    symbols = plan.kernel_table
    code = ModuleOp([op.clone() for op in functions(module) if op.sym_name.data in symbols])
    objects = [
        compile_runnable(code, isa),
        runner_code(),
    ]
    executor = Executor(plan, load(objects, EXTERNALS), np.empty(0, np.uint8))
    return Batch(scheduled, layouts, executor)


def functions(module: ModuleOp) -> list[func.FuncOp]:
    """The functions of a module."""
    return [op for op in module.ops if isinstance(op, func.FuncOp)]


def plan_of(assembler: Assembler, layouts: Mapping[str, Layout]) -> Plan:
    """A program for each function on buffers of its own."""
    buffers: list[Buffer] = []
    programs: list[Program] = []
    for name, layout in layouts.items():
        order = [f"{name}.{buffer}" for buffer in layout.order]
        steps = assembler.call(name, [BufferRef(buffer) for buffer in order])
        programs.append(Program(name, tuple(steps)))
        sizes = assembler.argument_bytes(name)
        buffers += [
            Buffer(buffer, size, Kind.IO) for buffer, size in zip(order, sizes, strict=True)
        ]
    return Plan(
        (*buffers, *assembler.buffers.values()),
        tuple(assembler.kernels.values()),
        tuple(programs),
        Config(TOKENS, TOKENS, 1),
    )
