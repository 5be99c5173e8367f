"""Our side of a kernel measurement: the product as a model's compilation would make it.

What prepares the activations (their quantization, say) runs before each product, as in a model.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu import arena
from nybble.backends.cpu.assemble import Assembler
from nybble.backends.cpu.compute_layouts import pack_storage
from nybble.backends.cpu.executor import Executor
from nybble.backends.cpu.host import allocate, request_amx
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.plan import Buffer, BufferRef, Config, Kind, Plan, Program
from nybble.backends.cpu.runner import EXTERNALS
from nybble.backends.llvm.workers import close_idle
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.mpgemm.tables import TableType
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.frontend.compile_model import CompileOptions
from nybble.tools.bench.data import Sample
from nybble.tools.bench.rounds import Rotation, timed
from nybble.tools.explain import MATMUL
from nybble.tools.kernels_file import compile_kernels
from nybble.tools.mlir_file import FIRST, LAST, advance, find_function
from nybble.tools.run_file import PROGRAM, SCHEDULED, runner_code, variant_name

X, Y = "x", "y"


class OurKernel:
    """Compiled and ready to run. dataflow: how the product is computed, and on which operands.

    activations, dataflow: as CompileOptions has them.
    """

    def __init__(
        self,
        sample: Sample,
        threads: int,
        rotation: Rotation,
        activations: str = "i8",
        dataflow: str = "",
    ) -> None:
        self._count = rotation.products
        self._n = len(sample.x)
        self._rows = sample.shape.rows
        level = "" if request_amx() or "amx" not in native().attributes else "avx512-vnni"
        options = CompileOptions(
            activations,
            context=self._n,
            chunk=self._n,
            threads=threads,
            isa=level or None,
            dataflow=dataflow,
        )
        module = _module(sample)
        advance(module, FIRST, SCHEDULED, options)
        name = variant_name(module, "matmul", self._n)
        self.dataflow = _dataflow(module, name)
        packed = _packed(module, name, sample)
        advance(module, SCHEDULED, LAST, options)
        plan = _plan(Assembler(module), name, rotation, Config(self._n, self._n, threads))
        code = [*compile_kernels(module).values()]
        code.append(runner_code())
        close_idle()
        library = load(code, EXTERNALS)
        weights = allocate(arena.weights(plan).bytes)
        self._executor = Executor(plan, library, weights, threads)
        self._executor.view(X, np.float32)[: sample.x.size] = sample.x.reshape(-1)
        for copy in range(rotation.copies):
            self._executor.view(_weight(copy), np.uint8)[: packed.size] = packed

    def close(self) -> None:
        """Ends the worker threads."""
        self._executor.close()

    def seconds(self) -> float:
        """Runs all products; seconds for one of them."""
        return timed(lambda: self._executor.run((PROGRAM,), self._n, 0)) / self._count

    def result(self) -> NDArray[np.float32]:
        """What the last product gave: f32 [n, rows]."""
        memory = self._executor.view(Y, np.float32)[: self._n * self._rows]
        return np.asarray(memory, np.float32).reshape(self._n, self._rows)


def _module(sample: Sample) -> ModuleOp:
    rows, cols = sample.shape.rows, sample.shape.cols
    text = MATMUL.format(rows=rows, cols=cols, spec=sample.format.spec)
    return parse_module(make_context(), text, "<product>")


def _weight(copy: int) -> str:
    return f"weight.{copy}"


def _products(module: ModuleOp, name: str) -> Iterator[ProductOp]:
    return (op for op in find_function(module, name).walk() if isinstance(op, ProductOp))


def _dataflow(module: ModuleOp, name: str) -> str:
    """The product's operation and its activations, such as "int_matmul a8g32"."""
    product = next(_products(module, name))
    operation = product.name.partition(".")[2]
    type_ = product.operands[0].type
    if isinstance(type_, LowBitTensorType):
        return f"{operation} {type_.format.data}"
    if isinstance(type_, TableType):
        return f"{operation} {type_.format.data} {type_.entries.data}"
    precision = product.properties.get("precision")
    return f"{operation} {getattr(precision, 'data', 'f32')}"


def _packed(module: ModuleOp, name: str, sample: Sample) -> NDArray[np.uint8]:
    """The weight in the layout that the scheduled function reads it in."""
    type_ = find_function(module, name).body.block.args[1].type
    assert isinstance(type_, LowBitTensorType)
    return pack_storage(type_, sample.raw)


def _plan(assembler: Assembler, name: str, rotation: Rotation, config: Config) -> Plan:
    """A plan whose one program goes through all products of a rotation."""
    x, weight, y = assembler.argument_bytes(name)
    weights = [_weight(copy) for copy in range(rotation.copies)]
    steps = [
        step
        for _ in range(rotation.repeats)
        for one in weights
        for step in assembler.call(name, [BufferRef(X), BufferRef(one), BufferRef(Y)])
    ]
    own = [Buffer(X, x, Kind.IO), *(Buffer(one, weight, Kind.WEIGHT) for one in weights)]
    return Plan(
        (*own, Buffer(Y, y, Kind.IO), *assembler.buffers.values()),
        tuple(assembler.kernels.values()),
        (Program(PROGRAM, tuple(steps)),),
        config,
    )
