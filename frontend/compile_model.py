"""Compiles a language model ahead of time: a checkpoint in, an artifact directory out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from nybble.backends.cache import Cache
from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.artifact_writer import save
from nybble.backends.cpu.codegen import compile_module, compile_modules
from nybble.backends.cpu.compute_layouts import pack_storage
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.kv import padded_positions
from nybble.backends.cpu.machine import Machine, cpu_flags, for_level, native
from nybble.backends.cpu.plan import Json
from nybble.backends.cpu.runner import EXTERNALS, runner_module
from nybble.costmodel.data.schedules import Entry
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.registry import make_context
from nybble.dialects.sparse_attn.kv import parse as parse_kv
from nybble.frontend.attention_choice import restrictions, selections, with_policy
from nybble.frontend.calibration import Calibration
from nybble.frontend.calibration_text import calibration_text
from nybble.frontend.checkpoint import Checkpoint
from nybble.frontend.graph import ModelGraph
from nybble.frontend.language_model import (
    LanguageModel,
    Planner,
    WeightSource,
    add_ends,
    constant_bytes,
)
from nybble.frontend.prepare import Preparer, check_rounded, recipes_of
from nybble.frontend.rounding import quantizer_named
from nybble.frontend.scorers import hidden_features
from nybble.frontend.text import Tokenizer, tokenizer_of
from nybble.frontend.weight_choice import AS_STORED, USE_INPUTS, WeightChoice
from nybble.passes.apply_schedules import Applied, apply_schedules
from nybble.passes.dataflow_rewrites import BIPOLAR_MODES
from nybble.passes.fold_smoothing import FoldSmoothing
from nybble.passes.insert_hadamard import InsertHadamard
from nybble.passes.options import Option, configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.quantize_cache import QuantizeCache, held_as, needs_quantizing
from nybble.passes.stages import STAGES, stages_between
from nybble.passes.targets import ESTIMATED, load_target

SCHEDULED = "scheduled"
Importer = Callable[[Checkpoint, int, str], ModelGraph]
"""From a checkpoint, the context in tokens and the cache's type to the model at stage `import`."""

KV_OF_MODE = {"i8": "f16", "i8-only": "f16", "i8-lut": "f16", "i16": "f16", "f32": "f32"}
"""The type of the key-value cache that goes with a mode of activations."""

DECODE_MODES = {
    "i8": "i16",
    "i8-only": "i8",
    "i8-lut": "i8-lut",
    "i16": "i16",
    "f32": "f32",
    **{mode: mode for mode in BIPOLAR_MODES},
}
"""Mode of activations -> that of `select-dataflow`, where nothing is faster for many tokens.

A second digit costs 1 to 7% of the speed of answers, whose products wait for memory, and about 30%
of that of prompts without tiles; the logits' error falls from 5% to 0.1% (SmolLM2-135M).
"""


def _nothing(message: str) -> None:
    """The observer of a compilation that nobody watches."""


@dataclass(frozen=True)
class CompileOptions:
    """What a compilation may choose.

    activations: a key of KV_OF_MODE. "i8": products of 8-bit digits, as many as precision needs, or
    bf16 where it is faster; "i8-only": of one digit; "i8-lut": of one, and lookup tables may be
    rounded to 8 bits; "i16": of two; "f32": exact. kv: format of the cache (see
    `sparse_attn.kv`), None for the mode's own.
    context: tokens that a text may have. chunk: tokens of a prefill
    step. threads: the most that will run it. isa: level of `backends.cpu.isa`, None for the host's.
    weights: what becomes of a checkpoint's weights. attention: a policy, see `masks.policy`; empty
    for the model's own. dataflow: the one that all products take, empty for the cheapest of each.
    dump: a folder for the IR of each stage. schedules: sizes that a search chose before, by the key
    of a kernel. costs: what dataflows are compared by, see `select-dataflow`.
    """

    activations: str = "i8"
    kv: str | None = None
    context: int = 2048
    chunk: int = 512
    threads: int = 2
    isa: str | None = None
    dataflow: str = ""
    weights: WeightChoice = AS_STORED
    attention: str = ""
    dump: Path | None = None
    schedules: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    costs: str = ESTIMATED

    @property
    def kv_format(self) -> str:
        """The format of the cache, in its one spelling; raises KvError."""
        return parse_kv(self.kv or KV_OF_MODE.get(self.activations, "f32")).name

    def pass_options(self) -> Mapping[str, Option]:
        """The options that passes know by these names."""
        level = levels.get(self.isa) if self.isa else levels.detect(cpu_flags())
        return {
            "activations": DECODE_MODES[self.activations],
            "prefill": self.prefill_mode(level),
            "chunk": min(self.chunk, self.context),
            "threads": self.threads,
            "isa": level.name,
            "dataflow": self.dataflow,
            "costs": self.costs,
        }

    def schedule(self, module: Operation) -> Applied:
        """Write the sizes of `schedules` into a scheduled module; what was done."""
        if not self.schedules:
            return Applied()
        isa = str(self.pass_options()["isa"])
        return apply_schedules(module, self.schedules, load_target("cpu"), isa, self.threads)

    def machine(self) -> Machine:
        """What code is generated for: a level that was asked for, else all that the host has."""
        return for_level(levels.get(self.isa)) if self.isa else native()

    def prefill_mode(self, level: Isa) -> str:
        """What `select-dataflow` shall make of products of many tokens."""
        rounds = self.activations == "i8" and level.tiles
        return "bf16" if rounds else DECODE_MODES[self.activations]


@dataclass(frozen=True)
class ModelCompiler:
    """A compilation of one checkpoint.

    cache: kernels compiled before. progress: told in a few words what is being done. warn: told
    what was asked for and is not done.
    """

    checkpoint: Checkpoint
    options: CompileOptions
    importer: Importer
    cache: Cache | None = None
    progress: Callable[[str], None] = field(default=_nothing)
    warn: Callable[[str], None] = field(default=_nothing)

    def write(self, directory: Path) -> None:
        """Compile, and write the artifact whole or not at all."""
        options = self.options
        tokenizer = tokenizer_of(self.checkpoint)
        graph = self.graph()
        recipes = recipes_of(self.lower(graph, "operators"))
        check_rounded(graph, recipes, self.checkpoint.tensors)
        module = self.lower(graph)
        storage = {name: entry.stored_as for name, entry in self.checkpoint.tensors.items()}
        planner = Planner(graph, module, min(options.chunk, options.context), storage, recipes)
        model = planner.plan(options.threads, self._facts(graph))
        objects = self._objects(module, model)
        preparer = self._preparer(graph, tokenizer)
        self.progress("packing weights")
        save(
            directory,
            model.plan,
            self.options.machine(),
            objects,
            lambda name: weight_bytes(graph, preparer, model.weights[name]),
            tokenizer.to_files(),
        )

    def graph(self) -> ModelGraph:
        """The model at the import stage."""
        self.progress("importing the model")
        kv = parse_kv(self.options.kv_format)
        graph = self.importer(self.checkpoint, self.options.context, held_as(kv.name))
        kv.check(self.options.context, graph.dimensions.head_dim)
        graph = replace(graph, dimensions=replace(graph.dimensions, kv_dtype=kv.name))
        return with_policy(graph, self.options.attention, self._hidden)

    @property
    def _hidden(self) -> int:
        """Features of the learned scorers of tokens, 0 without any."""
        return hidden_features(self.checkpoint.tensors)

    def lower(self, graph: ModelGraph, stop: str = STAGES[-1].name) -> ModuleOp:
        """The model at stage `stop`, the lowered one by default."""
        module = graph.module()
        self._dump("import", module)
        context = make_context(allow_unregistered=True)
        for stage in stages_between("import", stop):
            self.progress(f"stage {stage.name}")
            passes = configure(build_pipeline(stage.passes), self.options.pass_options())
            run_passes(context, module, passes)
            if stage.name == "operators":
                run_passes(context, module, self._model_passes(graph))
                add_ends(module, graph)
            if stage.name == SCHEDULED:
                for fault in self.options.schedule(module).warnings:
                    self.warn(fault)
            stage.form.check(module, stage.name)
            self._dump(stage.name, module)
        return module

    def _model_passes(self, graph: ModelGraph) -> list[ModulePass]:
        """What choices make of the operators of this model."""
        masks = restrictions(graph, self.options.attention)
        kept = selections(graph, self.options.attention, self._hidden)
        return [*masks, *self._weight_passes(graph), *kept, *self._cache_passes()]

    def _cache_passes(self) -> list[ModulePass]:
        kv, rows = self.options.kv_format, min(self.options.chunk, self.options.context)
        return [QuantizeCache(kv, rows)] if needs_quantizing(kv) else []

    def _weight_passes(self, graph: ModelGraph) -> list[ModulePass]:
        weights = self.options.weights
        rotation = InsertHadamard(stream=weights.rotate == "stream")
        chosen: list[ModulePass] = [rotation] if weights.rotate else []
        if weights.smooth:
            chosen.append(FoldSmoothing(tuple(dict.fromkeys(graph.layers))))
        return chosen

    def _preparer(self, graph: ModelGraph, tokenizer: Tokenizer) -> Preparer:
        """What prepares weights, with the vectors of a calibration if there is to be one."""
        weights = self.options.weights
        plain = Preparer(self.checkpoint.tensors, {}, quantizer_named(weights.quantizer))
        if not weights.calibrates:
            return plain
        ids = tokenizer.encode(weights.calibration or calibration_text(), add_special_tokens=False)
        if not ids:
            raise NybbleError("the text of the calibration has no tokens", accepted="a text")
        if weights.smooth:
            before = self._calibration(graph, plain, replace(weights, smooth=False))
            plain = replace(plain, vectors=before.smoothing(ids))
        if weights.quantizer not in USE_INPUTS:
            return plain
        return replace(plain, rounded=self._calibration(graph, plain, weights).rounded(ids))

    def _calibration(
        self, graph: ModelGraph, preparer: Preparer, weights: WeightChoice
    ) -> Calibration:
        """Of the model as these choices make it."""
        options = replace(self.options, weights=weights, dump=None)
        module = replace(self, options=options).lower(graph, "operators")
        return Calibration(graph, module, preparer, self.progress)

    def _dump(self, stage: str, module: ModuleOp) -> None:
        folder = self.options.dump
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{stage}.mlir").write_text(str(module) + "\n")
        except OSError as error:
            raise NybbleError(f"cannot write stages to {folder}: {error.strerror}") from error

    def _facts(self, graph: ModelGraph) -> dict[str, Json]:
        return {
            "model": self.checkpoint.path.name,
            "architecture": graph.architecture,
            "activations": self.options.activations,
            "kv": graph.dimensions.kv_dtype,
            "kv_room": self._kv_room(graph.dimensions.kv_dtype),
            "isa": str(self.options.pass_options()["isa"]),
            "weights": self.options.weights.describe(),
            "attention": self.options.attention,
            "state": bool(selections(graph, self.options.attention, self._hidden)),
            "parameters": sum(int(np.prod(t.shape)) for t in self.checkpoint.tensors.values()),
        }

    def _kv_room(self, kv: str) -> int:
        """Tokens that a cache with codes keeps as they are."""
        return padded_positions(parse_kv(kv).room(min(self.options.chunk, self.options.context)))

    def _objects(self, module: ModuleOp, model: LanguageModel) -> list[bytes]:
        kernels = {kernel.symbol for kernel in model.plan.kernels}
        sources: dict[str, ModuleOp | str] = {
            op.sym_name.data: ModuleOp([op.clone()])
            for op in module.ops
            if isinstance(op, func.FuncOp) and op.sym_name.data in kernels
        }
        left = len(sources)

        def compiled(name: str) -> None:
            nonlocal left
            left -= 1
            self.progress(f"compiling kernels, {left} left")

        machine = self.options.machine()
        code = compile_modules(sources, machine, cache=self.cache, progress=compiled)
        runner = compile_module(runner_module(machine.architecture), machine, allowed=EXTERNALS)
        return [*code.values(), runner]


def weight_bytes(
    graph: ModelGraph, preparer: Preparer, source: WeightSource
) -> npt.NDArray[np.uint8]:
    """The bytes of a weight buffer: a table of the graph, or a parameter, prepared and packed."""
    if source.constant:
        return constant_bytes(graph.constants[source.constant])
    entry = preparer.tensors[source.tensor]
    if len(entry.shape) == 1 and source.steps:
        return constant_bytes(preparer.values(source.tensor, source.steps, source.layer))
    raw = preparer.raw(source.tensor, source.steps, source.layer)
    if len(entry.shape) == 1:
        return as_f32(entry.format, raw, entry.shape[0])
    type_ = LowBitTensorType.get(entry.shape, entry.format, source.layout)
    return pack_storage(type_, raw)


def as_f32(spec: str, raw: npt.NDArray[np.uint8], length: int) -> npt.NDArray[np.uint8]:
    """The bytes of a vector as f32."""
    values = formats.get(spec).unpack(raw.reshape(1, -1), length).dequantize()
    return np.ascontiguousarray(values, np.float32).view(np.uint8).reshape(-1)
