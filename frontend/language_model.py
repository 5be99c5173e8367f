"""A language model as a launch plan: which functions run, on which buffers, in which programs.

The programs and io buffers are those that `backends.cpu.session` describes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.assemble import Assembler
from nybble.backends.cpu.kernels.kv_pages import parts
from nybble.backends.cpu.kernels.loops import padded_rows
from nybble.backends.cpu.plan import Buffer, BufferRef, Config, Json, Kind, Plan, Program, Step
from nybble.dialects.lowbit.steps import StepAttr
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.dialects.sparse_attn.kv import KEYS, VALUES
from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.frontend.graph import Argument, ModelGraph, Role
from nybble.frontend.prepare import Recipes

HIDDEN = "hidden"
LAST = "last"
ENDS = """
func.func @last_row(%hidden: tensor<?x{hidden}xf32>) -> tensor<1x{hidden}xf32> {{
  %last = fused.last_row %hidden : tensor<?x{hidden}xf32> -> tensor<1x{hidden}xf32>
  func.return %last : tensor<1x{hidden}xf32>
}}
func.func @nll(%logits: tensor<?x{vocab}xf32>, %targets: tensor<?xi32>) -> tensor<?xf32> {{
  %nll = fused.nll %logits, %targets
    : tensor<?x{vocab}xf32>, tensor<?xi32> -> tensor<?xf32>
  func.return %nll : tensor<?xf32>
}}
func.func @sample(%logits: tensor<{vocab}xf32>, %temperature: f32, %top_k: i32, %top_p: f32,
                  %seed: i64, %position: i64) -> i32 {{
  %token = fused.sample %logits temperature %temperature top_k %top_k top_p %top_p
    seed %seed at %position : tensor<{vocab}xf32> -> i32
  func.return %token : i32
}}
"""
"""What a session needs beside the model's own functions."""


def add_ends(module: ModuleOp, graph: ModelGraph) -> None:
    """Append the functions `last_row`, `nll` and `sample` to a model at the operators stage."""
    sizes = graph.dimensions
    text = ENDS.format(hidden=sizes.hidden, vocab=sizes.vocabulary)
    ends = parse_module(make_context(), text, "<ends>")
    for function in list(ends.ops):
        function.detach()
        module.body.block.add_op(function)


@dataclass(frozen=True)
class WeightSource:
    """Where the bytes of a weight buffer come from.

    tensor: a parameter of the checkpoint; constant: a table of the model graph. One is empty.
    steps: by which the parameter is prepared, for the layer that its name is of. layout: the
    compute layout of the bytes, empty for plain floats.
    """

    tensor: str = ""
    constant: str = ""
    steps: tuple[StepAttr, ...] = ()
    layer: int | None = None
    layout: str = ""


@dataclass(frozen=True)
class Wanted:
    """How a function wants an argument: its bytes, their layout, the steps that prepare them."""

    size: int
    layout: str
    steps: tuple[StepAttr, ...]

    def name_of(self, stored: str) -> str:
        """The buffer of the stored tensor in this form."""
        return ":".join([stored, *filter(None, [self.layout]), *map(str, self.steps)])


@dataclass(frozen=True)
class LanguageModel:
    """A plan and the source of each of its weight buffers."""

    plan: Plan
    weights: Mapping[str, WeightSource]


class Planner:
    """Lays out one model; `module` is at the lowered stage."""

    def __init__(
        self,
        graph: ModelGraph,
        module: ModuleOp,
        chunk: int,
        storage: Mapping[str, str],
        recipes: Recipes,
    ):
        """storage: parameter name -> name of the tensor in the file, so that ties are kept once.

        recipes: how parameters are prepared.
        """
        self.graph = graph
        self.assembler = Assembler(module)
        self.chunk = chunk
        self.storage = storage
        self.recipes = recipes
        self.buffers: dict[str, Buffer] = {}
        self.weights: dict[str, WeightSource] = {}

    def plan(self, threads: int, extra: Mapping[str, Json]) -> LanguageModel:
        """The plan of the whole model."""
        self._add_fixed_buffers()
        programs = (
            Program("prefill", tuple(self._forward("prefill"))),
            Program("decode", tuple(self._forward("decode"))),
            Program("head_last", tuple(self._head_last())),
            Program("head_all", tuple(self._head("prefill", HIDDEN, "all_logits"))),
            Program("nll", tuple(self._call("nll.prefill", ["all_logits", "targets", "nll"]))),
            Program("sample", tuple(self._sample())),
        )
        sizes = self.graph.dimensions
        config = Config(sizes.context, self.chunk, threads, sizes.vocabulary, extra)
        buffers = (*self.buffers.values(), *self.assembler.buffers.values())
        kernels = tuple(self.assembler.kernels.values())
        return LanguageModel(Plan(buffers, kernels, programs, config), self.weights)

    def _add_fixed_buffers(self) -> None:
        sizes, rows = self.graph.dimensions, padded_rows(self.chunk)
        io = {
            "ids": 4 * rows,
            "logits": 4 * sizes.vocabulary,
            "all_logits": 4 * rows * sizes.vocabulary,
            "targets": 4 * rows,
            "nll": 4 * rows,
            "next": 4,
            "sample_f32": 8,
            "sample_i64": 24,
        }
        state = {HIDDEN: 4 * rows * sizes.hidden, LAST: 4 * sizes.hidden}
        self.buffers |= {name: Buffer(name, size, Kind.IO) for name, size in io.items()}
        self.buffers |= {name: Buffer(name, size, Kind.STATE) for name, size in state.items()}

    def _forward(self, phase: str) -> Iterator[Step]:
        graph = self.graph
        yield from self._model_call(graph.embed, phase, None, "ids", [BufferRef(HIDDEN)])
        for layer, function in enumerate(graph.layers):
            yield from self._model_call(function, phase, layer, HIDDEN, [])

    def _head(self, phase: str, source: str, logits: str) -> Sequence[Step]:
        return self._model_call(self.graph.head, phase, None, source, [BufferRef(logits)])

    def _head_last(self) -> Iterator[Step]:
        yield from self._call("last_row.prefill", [HIDDEN, LAST])
        yield from self._head("decode", LAST, "logits")

    def _sample(self) -> Sequence[Step]:
        refs = [
            BufferRef("logits"),
            BufferRef("sample_f32", 0),  # temperature
            BufferRef("sample_i64", 0),  # top_k, the low half of an i64
            BufferRef("sample_f32", 4),  # top_p
            BufferRef("sample_i64", 8),  # seed
            BufferRef("sample_i64", 16),  # number of the draw
            BufferRef("next"),
        ]
        return self.assembler.call("sample", refs)

    def _call(self, name: str, buffers: Sequence[str]) -> Sequence[Step]:
        return self.assembler.call(name, [BufferRef(buffer) for buffer in buffers])

    def _model_call(
        self, function: str, phase: str, layer: int | None, source: str, results: list[BufferRef]
    ) -> Sequence[Step]:
        """A call of a function of the model; arguments in the order of its buffers."""
        name = f"{function}.{phase}"
        arguments = [
            argument
            for argument in self.graph.functions[function]
            if argument.role is not Role.POSITION
        ]
        sizes = iter(self.assembler.argument_bytes(name))
        layouts = iter(self.assembler.argument_layouts(name))
        refs: list[BufferRef] = []
        for argument in arguments:
            recipe = self.recipes.get((function, argument.name), ())
            for part in range(self._buffers_of(argument)):
                wanted = Wanted(next(sizes), next(layouts), recipe)
                refs.append(self._bind(argument, layer, source, wanted, part))
        return self.assembler.call(name, [*refs, *results])

    def _buffers_of(self, argument: Argument) -> int:
        """How many buffers hold an argument."""
        side = {Role.KEYS: KEYS, Role.VALUES: VALUES}.get(argument.role)
        return 1 if side is None else parts(parse_kv(self.graph.dimensions.kv_dtype), side)

    def _bind(
        self, argument: Argument, layer: int | None, source: str, wanted: Wanted, part: int
    ) -> BufferRef:
        """A tensor that functions want in several ways has a buffer for each of them."""
        match argument.role:
            case Role.CONSTANT:
                table = WeightSource(constant=argument.source)
                return self._weight(argument.source, wanted.size, table)
            case Role.WEIGHT:
                tensor = argument.tensor(layer)
                stored = self.storage.get(tensor, tensor)
                origin = WeightSource(tensor, "", wanted.steps, layer, wanted.layout)
                return self._weight(wanted.name_of(stored), wanted.size, origin)
            case Role.STATE:
                name = argument.state(layer or 0)
                self.buffers.setdefault(name, Buffer(name, wanted.size, Kind.STATE))
                return BufferRef(name)
            case Role.KEYS | Role.VALUES:
                name = f"{argument.role.value}.{layer}" + (f".{part}" if part else "")
                self.buffers.setdefault(name, Buffer(name, wanted.size, Kind.STATE))
                return BufferRef(name)
            case _:
                return BufferRef(source)

    def _weight(self, name: str, size: int, source: WeightSource) -> BufferRef:
        self.buffers.setdefault(name, Buffer(name, size, Kind.WEIGHT))
        self.weights.setdefault(name, source)
        return BufferRef(name)


def constant_bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """The bytes of a table."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1)
