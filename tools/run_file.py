"""Running a function of an MLIR file on random inputs, beside the numpy reference of its operators.

The function is compared twice: with the reference of the scheduled IR, which rounds activations as
the kernels do and so tells whether the generated code is right, and with the reference of the
operators as they are written, which tells what rounding the activations costs.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import DYNAMIC_INDEX, IndexType, ModuleOp, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.rewriter import Rewriter

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.assemble import Assembler
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.executor import Executor
from nybble.backends.cpu.host import request_amx
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.lower_kernels_to_cpu import FunctionLowering, Lowering
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.plan import Buffer, BufferRef, Config, Kind, Plan, Program
from nybble.backends.cpu.runner import EXTERNALS, runner_module
from nybble.backends.llvm.workers import close_idle
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.sparse_attn.cache_type import CacheType
from nybble.dialects.sparse_attn.ops import AttentionOp, PartialOp
from nybble.frontend.compile_model import CompileOptions
from nybble.tools.diagnostics import Session
from nybble.tools.kernels_file import compile_kernels
from nybble.tools.mlir_file import FIRST, LAST, advance, find_function, read_module
from nybble.tools.random_values import (
    Inputs,
    Value,
    buffers_of,
    key_caches,
    loaded_keys,
    stored_keys,
)

SCHEDULED = "scheduled"
PROGRAM = "main"
TOLERANCE = 1e-4
"""The greatest normalised mean square error against the scheduled IR that counts as agreement:
matrix tiles may round to bf16, which costs about 1e-5 in a decoder layer."""

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FileRun:
    """What to run. function: None for the only one. tokens: rows where their number is dynamic.

    position: of the first row. rounds: timed runs.
    """

    function: str | None
    tokens: int
    position: int
    seed: int
    threads: int
    isa: str | None
    activations: str
    rounds: int = 5

    @property
    def end(self) -> int:
        """The position after the last row."""
        return self.position + self.tokens

    def options(self) -> CompileOptions:
        """How to compile."""
        return CompileOptions(
            self.activations,
            context=self.end,
            chunk=self.tokens,
            threads=self.threads,
            isa=self.isa,
        )


class Layout:
    """The buffers of a function's arguments and results once it is lowered, as they are ordered.

    inputs: names for each argument; results: names for each result, those of an argument where
    the result takes over its memory. order: every buffer. keys: those that hold keys of attention.
    """

    def __init__(self, lowering: Lowering, function: func.FuncOp, keys: frozenset[int]):
        block = function.body.block
        terminator = block.last_op
        assert terminator is not None
        held: dict[SSAValue, list[str]] = {}
        for index, argument in enumerate(block.args):
            count = 0
            if not isinstance(argument.type, IndexType):
                count = len(lowering.buffer_types(argument.type))
            held[argument] = [f"argument.{index}.{part}" for part in range(count)]
        self.inputs = list(held.values())
        self.keys = {name for index in keys for name in self.inputs[index]}
        self.argument_types: list[Attribute] = [argument.type for argument in block.args]
        self.types: list[Attribute] = [value.type for value in terminator.operands]
        for type_ in self.types:
            if isinstance(type_, CacheType):
                raise NybbleError(
                    f"a cache that is returned has no numbers to compare: {type_}",
                    accepted="a function that returns what an attention makes of it",
                )
        self.results: list[list[str]] = []
        origin = FunctionLowering(lowering, function).origin
        for index, value in enumerate(terminator.operands):
            count = len(lowering.buffer_types(value.type))
            fresh = [f"result.{index}.{part}" for part in range(count)]
            self.results.append(held.setdefault(origin(value) or value, fresh))
        self.order = [name for names in held.values() for name in names]


@dataclass
class Compiled:
    """A function in memory. inputs: buffer -> what to fill it with."""

    executor: Executor
    layout: Layout
    inputs: dict[str, Array]
    rows: int
    position: int

    def run(self) -> float:
        """Run once on the inputs; seconds."""
        for name, values in self.inputs.items():
            memory = self.executor.view(name, values.dtype)
            memory[: values.size] = values.reshape(-1)
        start = time.perf_counter()
        self.executor.run((PROGRAM,), self.rows, self.position)
        return time.perf_counter() - start

    def results(self) -> list[Floats]:
        """What the last run left: f64 arrays."""
        pairs = zip(self.layout.results, self.layout.types, strict=True)
        return [self._result(names, type_) for names, type_ in pairs]

    def _result(self, names: Sequence[str], type_: Attribute) -> Floats:
        if isinstance(type_, LowBitTensorType):
            return self._quantized(names, type_)
        if not isinstance(type_, TensorType):
            return self.executor.view(names[0], numpy_type(type_))[:1].astype(np.float64)
        shape = [self.rows if dim == DYNAMIC_INDEX else dim for dim in type_.get_shape()]
        memory = self.executor.view(names[0], numpy_type(type_.element_type))
        if names[0] in self.layout.keys:
            return loaded_keys(memory, shape).astype(np.float64)
        return memory[: math.prod(shape)].astype(np.float64).reshape(shape)

    def _quantized(self, names: Sequence[str], type_: LowBitTensorType) -> Floats:
        rows = self.rows if type_.rows == DYNAMIC_INDEX else type_.rows
        groups = type_.cols // type_.number_format.group
        codes = self.executor.view(names[0], np.int8)[: rows * type_.cols].astype(np.float64)
        scales = self.executor.view(names[1], np.float32)[: rows * groups].astype(np.float64)
        return (codes.reshape(rows, groups, -1) * scales.reshape(rows, groups, 1)).reshape(rows, -1)


def run_file(path: str, run: FileRun, session: Session) -> dict[str, object]:
    """Compile a function of a file at the operators stage, run it, and compare its results."""
    module = read_module(path, FIRST, session)
    function = find_function(module, run.function)
    if not function.function_type.outputs.data:
        raise NybbleError("the function returns nothing to compare", location=location_of(function))
    alone = ModuleOp([function.clone()])
    name = function.sym_name.data
    values = Inputs(run.tokens, run.position, run.seed).of(function)
    exact = reference(alone, name, values)
    advance(alone, FIRST, SCHEDULED, run.options())
    variant = variant_name(alone, name, run.tokens)
    rounded = reference(alone, variant, values)
    compiled = compile_function(alone, variant, values, key_caches(function), run)
    close_idle()
    try:
        compiled.run()
        found = compiled.results()
        seconds = min(compiled.run() for _ in range(run.rounds))
    finally:
        compiled.executor.close()
    results = [compare(*triple) for triple in zip(found, rounded, exact, strict=True)]
    return {
        "function": variant,
        "tokens": compiled.rows,
        "position": run.position,
        "threads": run.threads,
        "seconds": seconds,
        "results": results,
        "agrees": all(cast("float", one["nmse"]) <= TOLERANCE for one in results),
    }


def reference(module: ModuleOp, name: str, values: Sequence[Value]) -> list[Floats]:
    """What the numpy reference gives for a function: f64 arrays."""
    try:
        results = Interpreter(module).call(name, *values)
    except (ValueError, IndexError) as error:
        raise NybbleError(f"the reference of '{name}' rejects these inputs: {error}") from error
    return [
        np.asarray(one.dequantize() if isinstance(one, Weight) else one, np.float64)
        for one in results
    ]


def variant_name(module: ModuleOp, name: str, tokens: int) -> str:
    """The name that a function has after its copies for one token and for many were made."""
    names = {op.sym_name.data for op in module.ops if isinstance(op, func.FuncOp)}
    if name in names:
        return name
    return f"{name}.decode" if tokens == 1 else f"{name}.prefill"


def compile_function(
    module: ModuleOp, name: str, values: Sequence[Value], keys: frozenset[int], run: FileRun
) -> Compiled:
    """Lower, compile and load a scheduled function with a plan of that one call.

    keys: numbers of the arguments that are caches of keys. Other functions go from the module.
    Processes that compile are kept for the next function, see `workers.close_idle`.
    """
    function = find_function(module, name)
    for other in [one for one in module.ops if one is not function]:
        Rewriter.erase_op(other)
    types = [argument.type for argument in function.body.block.args]
    options = run.options()
    isa = levels.get(str(options.pass_options()["isa"]))
    try:
        layout = Layout(Lowering(isa, run.threads, run.tokens), function, keys)
    except NybbleError as fault:
        fault.location = fault.location or location_of(function)
        raise
    rows, first = token_rows(function), first_position(function)
    advance(module, SCHEDULED, LAST, options)
    config = Config(max(run.end, rows), rows, run.threads, first=first)
    plan = call_plan(Assembler(module), name, layout.order, config)
    code = [*compile_kernels(module).values()]
    code.append(runner_code())
    request_amx()
    executor = Executor(plan, load(code, EXTERNALS), np.empty(0, np.uint8), run.threads)
    inputs = {
        buffer: array
        for names, value, type_ in zip(layout.inputs, values, types, strict=True)
        for buffer, array in zip(names, buffers_of(value, type_, run.end), strict=False)
    }
    inputs |= {name: stored_keys(inputs[name]) for name in layout.keys}
    return Compiled(executor, layout, inputs, rows, run.position)


@cache
def runner_code() -> bytes:
    """Object code of what runs a plan, for this machine."""
    return compile_module(runner_module(native().architecture), allowed=EXTERNALS)


def call_plan(assembler: Assembler, name: str, order: Sequence[str], config: Config) -> Plan:
    """A plan whose one program calls a lowered function on io buffers of these names."""
    steps = assembler.call(name, [BufferRef(buffer) for buffer in order])
    sizes = assembler.argument_bytes(name)
    own = [Buffer(buffer, size, Kind.IO) for buffer, size in zip(order, sizes, strict=True)]
    return Plan(
        (*own, *assembler.buffers.values()),
        tuple(assembler.kernels.values()),
        (Program(PROGRAM, tuple(steps)),),
        config,
    )


def token_rows(function: func.FuncOp) -> int:
    """The number of token rows that the kernels of a scheduled function work on."""
    kernels = [op for op in function.body.block.ops if isinstance(op, KernelOp)]
    schedules = [kernel.schedule for kernel in kernels if kernel.schedule is not None]
    return max([1, *(schedule.option("tokens") or 1 for schedule in schedules)])


def first_position(function: func.FuncOp) -> int:
    """The least position of a call: -1, with nothing cached, where attention alone reads it."""
    positioned = [
        op for op in function.walk() if any(isinstance(one.type, IndexType) for one in op.operands)
    ]
    only_read = all(isinstance(op, KernelOp | AttentionOp | PartialOp) for op in positioned)
    return -1 if positioned and only_read else 0


def numpy_type(element: Attribute) -> str:
    """The name that numpy has for an element type of a buffer."""
    return {"f32": "float32", "f16": "float16", "i32": "int32", "i64": "int64"}[str(element)]


def compare(found: Floats, rounded: Floats, exact: Floats) -> dict[str, object]:
    """How far a result is from both references; see the module's text."""
    return {
        "shape": list(found.shape),
        "nmse": error(found, rounded),
        "max_error": float(np.abs(found - rounded.reshape(found.shape)).max(initial=0.0)),
        "nmse_of_operators": error(found, exact),
    }


def error(found: Floats, wanted: Floats) -> float:
    """The normalised mean square error: 0 for equal arrays, infinite where one is not finite."""
    difference = found - wanted.reshape(found.shape)
    power = float((wanted**2).sum())
    value = float((difference**2).sum()) / (power or 1.0)
    return value if math.isfinite(value) else math.inf
