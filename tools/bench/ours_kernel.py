"""Our side of a kernel measurement: the product as a model's compilation would make it.

With integer dot products the activations are quantized before each, as in a model.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu import isa
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.host import allocate, request_amx
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.buffers import BufferSpec, byte_width
from nybble.backends.cpu.kernels.matmul.lower import lower_matmul, matmul_buffers, takes_tiles
from nybble.backends.cpu.kernels.matmul.spec import Codes, MatmulSpec
from nybble.backends.cpu.kernels.quantize import Quantize
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import cpu_flags, native
from nybble.backends.cpu.pool import Call, Pool, StepList
from nybble.backends.cpu.runner import EXTERNALS, runner_module
from nybble.backends.cpu.weights import pack_storage, weight_kind
from nybble.frontend.compile_model import CompileOptions
from nybble.tools.bench.data import Sample
from nybble.tools.bench.errors import UnavailableError
from nybble.tools.bench.rounds import Rotation, timed


class OurKernel:
    """Compiled and ready to run. dataflow: in a word, how the product is computed."""

    def __init__(self, sample: Sample, threads: int, rotation: Rotation) -> None:
        spec = _spec(sample, threads)
        before = _quantizers(spec)
        functions = [one.build("quantize") for one in before] + [lower_matmul(spec, "matmul")]
        runner = compile_module(runner_module(native().architecture), allowed=EXTERNALS)
        library = load([compile_module(ModuleOp(functions)), runner], EXTERNALS)
        self.dataflow = _dataflow(spec)
        self._count = rotation.products
        self._n = len(sample.x)
        self._rows = sample.shape.rows
        quantized = [buffer for one in before for buffer in one.buffers]
        self._buffers = _buffers([*quantized, *matmul_buffers(spec)])
        self._buffers["x"][: sample.x.nbytes] = sample.x.view(np.uint8).reshape(-1)
        self._weights = _copies(sample, rotation.copies)
        first = [Call(library.symbol("quantize"), self._pointers(one.buffers)) for one in before]
        calls: list[Call] = []
        for weight in self._weights * rotation.repeats:
            pointers = self._pointers(matmul_buffers(spec), weight)
            calls += [*first, Call(library.symbol("matmul"), pointers)]
        self._steps = StepList(calls)
        self._pool = Pool(library, threads)

    def close(self) -> None:
        """Ends the worker threads."""
        self._pool.close()

    def seconds(self) -> float:
        """Runs all products; seconds for one of them."""
        return timed(lambda: self._pool.run(self._steps, self._n, 0)) / self._count

    def result(self) -> NDArray[np.float32]:
        """What the last product gave: f32 [n, rows]."""
        flat = self._buffers["y0"].view(np.float32)[: self._n * self._rows]
        return flat.reshape(self._n, self._rows)

    def _pointers(
        self, buffers: Sequence[BufferSpec], weight: NDArray[np.uint8] | None = None
    ) -> tuple[int, ...]:
        own = {} if weight is None else {"w0": weight}
        return tuple((own | self._buffers)[buffer.name].ctypes.data for buffer in buffers)


def _spec(sample: Sample, threads: int) -> MatmulSpec:
    kind = weight_kind(sample.format)
    if not isinstance(kind, Codes):
        raise UnavailableError(f"no integer product of ours takes {sample.format.spec}")
    level = _level()
    chosen = CompileOptions(isa=level.name).pass_options()
    mode = chosen["activations" if len(sample.x) == 1 else "prefill"]
    return MatmulSpec(
        weight=kind,
        rows=(sample.shape.rows,),
        cols=sample.shape.cols,
        tokens=len(sample.x),
        activations="bf16" if mode == "bf16" else "a8",
        activation_group=kind.group,
        digits=2 if mode == "i16" else 1,
        threads=threads,
        isa=level,
    )


def _quantizers(spec: MatmulSpec) -> list[Quantize]:
    """What runs before the product: nothing where it reads f32."""
    if spec.activations != "a8":
        return []
    return [Quantize(spec.cols, spec.tokens, spec.activation_group, digits=spec.digits)]


def _level() -> Isa:
    level = isa.detect(cpu_flags())
    return isa.AVX512_VNNI if level.tiles and not request_amx() else level


def _dataflow(spec: MatmulSpec) -> str:
    if takes_tiles(spec):
        return "bf16 tiles"
    unit = "dot" if spec.isa.int_dot else "vectors"
    return f"int{8 * spec.digits} {unit}"


def _buffers(specs: Sequence[BufferSpec]) -> dict[str, NDArray[np.uint8]]:
    """Memory for every buffer but the weights, each name once."""
    return {
        spec.name: allocate(spec.size * byte_width(spec.dtype))
        for spec in specs
        if spec.name != "w0"
    }


def _copies(sample: Sample, count: int) -> list[NDArray[np.uint8]]:
    packed = pack_storage(sample.format, sample.raw, (sample.shape.rows, sample.shape.cols))
    copies = [allocate(packed.nbytes) for _ in range(count)]
    for copy in copies:
        copy[:] = packed
    return copies
