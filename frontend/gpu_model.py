"""A language model for a GPU: a checkpoint becomes a plan of launches, and the bytes of weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.traits import SymbolTable

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.model.lower import LENGTHS, LOGITS, POSITION, Lowering
from nybble.backends.gpu.model.plan import STATE, WEIGHT, GpuPlan
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.steps import StepAttr
from nybble.frontend.compile_model import ModelCompiler, as_f32
from nybble.frontend.graph import Argument, ModelGraph, Role
from nybble.frontend.prepare import Preparer, Recipes, check_rounded, recipes_of

U8 = npt.NDArray[np.uint8]
IDS = "ids"


@dataclass(frozen=True)
class Source:
    """Where a weight comes from: a parameter of the checkpoint, prepared by steps, or, where that
    is empty, a table of the model graph."""

    tensor: str = ""
    constant: str = ""
    steps: tuple[StepAttr, ...] = ()
    layer: int | None = None


@dataclass(frozen=True)
class GpuModel:
    """A plan, and what its weights are made of."""

    plan: GpuPlan
    lowering: Lowering
    sources: Mapping[str, Source]
    graph: ModelGraph
    preparer: Preparer

    def weights(self) -> Iterator[tuple[str, U8]]:
        """The bytes of each weight buffer, one at a time."""
        for buffer in self.plan.buffers.values():
            if buffer.kind == WEIGHT:
                yield buffer.name, self._bytes(buffer.name)

    def _bytes(self, buffer: str) -> U8:
        source = self.sources[buffer.removesuffix(":packed").removesuffix(":table")]
        if source.constant:
            return _as_bytes(self.graph.constants[source.constant].astype(np.float32))
        entry = self.preparer.tensors[source.tensor]
        if len(entry.shape) == 1:
            if source.steps:
                return _as_bytes(self.preparer.values(source.tensor, source.steps, source.layer))
            raw = self.preparer.raw(source.tensor, (), source.layer)
            return as_f32(entry.format, raw, entry.shape[0])
        raw = self.preparer.raw(source.tensor, source.steps, source.layer)
        rows, cols = entry.shape
        weight = formats.get(entry.format).unpack(raw.reshape(rows, -1), cols)
        if buffer in self.lowering.packed:
            return self.lowering.products[self.lowering.packed[buffer]].pack(weight)
        return _as_bytes(weight.dequantize().astype(np.float16))


def compile_gpu_model(compiler: ModelCompiler, arch: str) -> GpuModel:
    """The model of a checkpoint for a GPU; keys and values are kept in f16.

    Raises NybbleError at an operation that has no kernel, before any code of it is generated.
    """
    compiler = replace(compiler, options=replace(compiler.options, kv="f16"))
    graph = compiler.graph()
    module = compiler.lower(graph, "operators")
    recipes = recipes_of(module)
    check_rounded(graph, recipes, compiler.checkpoint.tensors)
    compiler.progress("compiling kernels")
    binder = _Binder(graph, module, recipes, Lowering(find_arch(arch)))
    binder.bind_all()
    lowering, sizes = binder.lowering, graph.dimensions
    facts = {
        "model": compiler.checkpoint.path.name, "architecture": graph.architecture, "arch": arch,
        "context": sizes.context, "vocabulary": sizes.vocabulary,
    }  # fmt: skip
    plan = GpuPlan(lowering.images, lowering.buffers, tuple(lowering.launches), facts)
    return GpuModel(
        plan, lowering, binder.sources, graph, Preparer(compiler.checkpoint.tensors, {})
    )


class _Binder:
    """Binds the arguments of a model's functions to buffers, and lowers them in order."""

    def __init__(
        self, graph: ModelGraph, module: ModuleOp, recipes: Recipes, lowering: Lowering
    ) -> None:
        self.graph = graph
        self.module = module
        self.recipes = recipes
        self.lowering = lowering
        self.sources: dict[str, Source] = {}

    def bind_all(self) -> None:
        """Embedding, layers, head, and the choice of a token."""
        for name in (IDS, POSITION, LENGTHS):
            self.lowering.buffer(name, 4, STATE)
        (hidden,) = self._call(self.graph.embed, None, IDS, "embed")
        for layer, function in enumerate(self.graph.layers):
            hidden = self._call(function, layer, hidden, f"layer{layer % 2}")[0]
        (logits,) = self._call(self.graph.head, None, hidden, "head")
        self.lowering.rename(logits, LOGITS)
        self.lowering.choose(self.graph.dimensions.vocabulary)

    def _call(self, name: str, layer: int | None, source: str, where: str) -> list[str]:
        function = SymbolTable.lookup_symbol(self.module, name)
        assert isinstance(function, func.FuncOp)
        arguments = [self._buffer(name, one, layer, source) for one in self.graph.functions[name]]
        return self.lowering.call(function, arguments, where)

    def _buffer(self, function: str, argument: Argument, layer: int | None, source: str) -> str:
        sizes = self.graph.dimensions
        match argument.role:
            case Role.INPUT:
                return source
            case Role.POSITION:
                return POSITION
            case Role.CONSTANT:
                self.sources[argument.source] = Source(constant=argument.source)
                return argument.source
            case Role.KEYS | Role.VALUES:
                name = f"{argument.role}.{layer}"
                size = sizes.kv_heads * sizes.context * sizes.head_dim * 2
                self.lowering.halves.add(name)
                return self.lowering.buffer(name, size, STATE)
            case Role.STATE:
                raise NybbleError(
                    "a GPU keeps all tokens of a text", accepted="masks of positions alone, or cpu"
                )
            case Role.WEIGHT:
                steps = self.recipes.get((function, argument.name), ())
                name = ":".join([argument.tensor(layer), *map(str, steps)])
                self.sources[name] = Source(argument.tensor(layer), "", steps, layer)
                return name


def _as_bytes(values: npt.NDArray[np.float32] | npt.NDArray[np.float16]) -> U8:
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1)
