"""A language model for a GPU: a checkpoint becomes a plan of launches, and the bytes of weights."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.traits import SymbolTable

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.model.lower import IDS, LOGITS, POSITION, Lowering, PackedWeight
from nybble.backends.gpu.model.plan import STATE, WEIGHT, GpuPlan, Launch
from nybble.backends.gpu.products import Activations, Product
from nybble.backends.gpu.steps.step import LookupProduct
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.steps import StepAttr
from nybble.dialects.sparse_attn.kv import parse
from nybble.frontend.compile_model import CompileOptions, ModelCompiler, as_f32
from nybble.frontend.graph import Argument, ModelGraph, Role
from nybble.frontend.prepare import Preparer, Recipes, check_rounded, recipes_of
from nybble.passes.options import Option

U8 = npt.NDArray[np.uint8]
SCHEDULED = "scheduled"
PROMPT = 64
"""Tokens of a prompt that are taken at once: what a product takes while it reads weights once."""


@dataclass(frozen=True)
class Source:
    """Where a weight comes from: a parameter of the checkpoint, prepared by steps, or, where that
    is empty, a table of the model graph."""

    tensor: str = ""
    constant: str = ""
    steps: tuple[StepAttr, ...] = ()
    layer: int | None = None


@dataclass(frozen=True)
class GpuOptions(CompileOptions):
    """CompileOptions of a GPU: activations is a mode of its dataflows, arch one of `gpu.arch`."""

    arch: str = ""

    def pass_options(self) -> Mapping[str, Option]:
        """See CompileOptions."""
        tokens = min(self.chunk, self.context)
        return {
            "target": "cuda", "isa": self.arch, "activations": self.activations,
            "prefill": self.activations, "dataflow": self.dataflow, "tokens": tokens,
            "chunk": tokens,
        }  # fmt: skip


@dataclass(frozen=True)
class GpuModel:
    """A plan, what its weights are made of, and the module at the scheduled stage that it is of."""

    plan: GpuPlan
    module: ModuleOp
    packed: Mapping[str, PackedWeight]
    tables: Mapping[str, str]
    products: Mapping[str, Product | LookupProduct]
    sources: Mapping[str, Source]
    graph: ModelGraph
    preparer: Preparer

    def weights(self) -> Iterator[tuple[str, U8]]:
        """The bytes of each weight buffer, one at a time."""
        for buffer in self.plan.buffers.values():
            if buffer.kind == WEIGHT:
                yield buffer.name, self._bytes(buffer.name)

    def _bytes(self, buffer: str) -> U8:
        if buffer in self.packed:
            packed = self.packed[buffer]
            *gate, weight = (self.weight(one) for one in packed.sources)
            return self.products[packed.kernel].pack(weight, *gate)
        if buffer in self.tables:
            table = self.weight(self.tables[buffer]).dequantize()
            return _as_bytes(table.astype(np.float16))
        source = self.sources[buffer]
        if source.constant:
            return _as_bytes(self.graph.constants[source.constant].astype(np.float32))
        entry = self.preparer.tensors[source.tensor]
        if source.steps:
            return _as_bytes(self.preparer.values(source.tensor, source.steps, source.layer))
        raw = self.preparer.raw(source.tensor, (), source.layer)
        return as_f32(entry.format, raw, entry.shape[0])

    def weight(self, name: str) -> Weight:
        """The matrix of a source."""
        source = self.sources[name]
        entry = self.preparer.tensors[source.tensor]
        raw = self.preparer.raw(source.tensor, source.steps, source.layer)
        rows, cols = entry.shape
        form = formats.get(entry.format)
        return form.unpack(raw.reshape(-1) if form.is_streamed else raw.reshape(rows, -1), cols)


def compile_gpu_model(
    compiler: ModelCompiler, arch: str, activations: Activations = "f16", tokens: int = PROMPT
) -> GpuModel:
    """The model of a checkpoint for a GPU; keys and values are kept in the type of
    float activations, else in f16, if nothing is asked for.

    activations: what is multiplied. tokens: of a prompt that are taken at once, 1 for one by one.
    Raises NybbleError at an operation that has no kernel, before any code is generated.
    """
    given = {one.name: getattr(compiler.options, one.name) for one in fields(CompileOptions)}
    given |= {"activations": activations, "chunk": tokens, "isa": None}
    given["kv"] = compiler.options.kv or ("bf16" if activations == "bf16" else "f16")
    compiler = replace(compiler, options=GpuOptions(**given, arch=arch))
    graph = compiler.graph()
    recipes = recipes_of(compiler.lower(graph, "operators"))
    check_rounded(graph, recipes, compiler.checkpoint.tensors)
    module = compiler.lower(graph, SCHEDULED)
    binder = _Binder(graph, module, recipes, Lowering(find_arch(arch)))
    most = min(tokens, graph.dimensions.context)
    launches = binder.decode()
    prompt = binder.prompt(most) if most > 1 else ()
    compiler.progress("compiling kernels")
    lowering, sizes = binder.lowering, graph.dimensions
    images, products = lowering.compile()
    facts = {
        "model": compiler.checkpoint.path.name, "architecture": graph.architecture, "arch": arch,
        "activations": activations, "context": sizes.context, "vocabulary": sizes.vocabulary,
    }  # fmt: skip
    plan = GpuPlan(images, lowering.buffers, launches, facts, prompt, most)
    preparer = Preparer(compiler.checkpoint.tensors, {})
    return GpuModel(
        plan, module, lowering.packed, lowering.tables, products, binder.sources, graph, preparer
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

    def decode(self) -> tuple[Launch, ...]:
        """The program of one token: embedding, layers, head, and the choice of a token."""
        return self._program("decode", 1)

    def prompt(self, tokens: int) -> tuple[Launch, ...]:
        """The program of many tokens, of which the last one counts for the head."""
        return self._program("prefill", tokens)

    def _program(self, phase: str, tokens: int) -> tuple[Launch, ...]:
        lowering, sizes = self.lowering, self.graph.dimensions
        lowering.buffer(IDS, 4 * tokens, STATE)
        lowering.buffer(POSITION, 4, STATE)
        lowering.buffer(LOGITS, 4 * sizes.vocabulary, STATE)
        (hidden,) = self._call(self.graph.embed, phase, None, IDS, "embed")
        for layer, function in enumerate(self.graph.layers):
            hidden = self._call(function, phase, layer, hidden, f"layer{layer % 2}")[0]
        if tokens > 1:
            (hidden,) = lowering.call(self._function("last_row", phase), [hidden], "last_row")
        self._call(self.graph.head, "decode", None, hidden, "head", [LOGITS])
        lowering.choose(sizes.vocabulary)
        return lowering.program()

    def _call(
        self,
        name: str,
        phase: str,
        layer: int | None,
        source: str,
        where: str,
        results: Sequence[str] = (),
    ) -> list[str]:
        arguments = [self._buffer(name, one, layer, source) for one in self.graph.functions[name]]
        return self.lowering.call(self._function(name, phase), arguments, where, results)

    def _function(self, name: str, phase: str) -> func.FuncOp:
        function = SymbolTable.lookup_symbol(self.module, f"{name}.{phase}")
        assert isinstance(function, func.FuncOp)
        return function

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
                size = (
                    sizes.kv_heads
                    * sizes.context
                    * sizes.head_dim
                    * parse(sizes.kv_dtype).bits
                    // 8
                )
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
