"""What `nybble explain` says of a model: its kernels on the CPU, and its time on any target."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nybble.backends.cpu import isa as levels
from nybble.costmodel.targets.reader import TARGETS, find_target, target_for_level
from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.frontend.compile_model import CompileOptions
from nybble.passes.quantize_cache import held_as, needs_quantizing, quantize_caches
from nybble.tools.explain import KernelNote, notes
from nybble.tools.graph_cache import imported
from nybble.tools.mlir_file import FIRST, advance
from nybble.tools.model_cost import Model, ModelCost, Serving
from nybble.tools.models import ModelChoice, Progress
from nybble.tools.run_file import SCHEDULED
from nybble.tools.shape_graph import shape_module
from nybble.tools.shape_model import SHAPES

CPU = "cpu"
"""The target that kernels are compiled for, by default that of this machine's level."""


@dataclass(frozen=True)
class Ask:
    """What is asked of a model. target: CPU, a name of TARGETS, or a YAML file. prompt: None for
    as many tokens as the context. spec: format of the matrices of a model that is only a shape.
    """

    target: str
    batch: int
    prompt: int | None
    spec: str


@dataclass(frozen=True)
class ModelAnswer:
    """kernels: on the CPU, none for other targets. cost: None for a file that is no model."""

    kernels: list[KernelNote]
    cost: ModelCost | None = None

    def report(self) -> dict[str, object]:
        """The keys of `--json`."""
        found: dict[str, object] = {"kernels": [asdict(one) for one in self.kernels]}
        return found | (self.cost.report() if self.cost else {})

    def lines(self) -> Iterator[str]:
        """The printed form."""
        for one in self.kernels:
            yield from one.lines()
        if self.cost:
            yield from self.cost.lines()


def is_shape(name: str) -> bool:
    """Whether a model is one of the shapes that need no file."""
    return name in SHAPES and not Path(name).exists()


def open_model(choice: ModelChoice, spec: str, progress: Progress) -> tuple[Model, int]:
    """A model at the operators stage, and the tokens that its texts may have."""
    if is_shape(choice.model):
        shape, options = SHAPES[choice.model], choice.options
        kv = options.kv_format
        module = shape_module(shape, spec, options.context, held_as(kv))
        if needs_quantizing(kv):
            quantize_caches(module, kv, min(options.chunk, options.context))
        return Model(choice.model, module, ("layer_0",) * shape.layers), options.context
    if choice.is_artifact:
        raise NybbleError(
            f"{choice.model} is compiled and holds no IR", accepted="the model that it was made of"
        )
    choice.say_notes()
    compiler = choice.compiler(progress)
    graph = imported(choice, compiler)
    module = compiler.lower(graph, FIRST)
    return Model(choice.model, module, graph.layers, graph.embed, graph.head), choice.context


def ask_model(choice: ModelChoice, ask: Ask, progress: Progress) -> ModelAnswer:
    """The answer for a model; NybbleError for a target or a model that does not exist."""
    backend = ask.target == CPU
    level = str(choice.options.pass_options()["isa"])
    target = target_for_level(level) if backend else find_target(ask.target)
    model, context = open_model(choice, ask.spec, progress)
    options = replace(choice.options, context=context)
    prompt = ask.prompt or context
    if prompt > context:
        raise NybbleError(f"a prompt of {prompt} tokens", accepted=f"up to {context}, the context")
    serving = Serving(ask.batch, context, prompt, backend, options)
    kernels = kernels_of(model, options) if backend else []
    return ModelAnswer(kernels, ModelCost(model, target, serving))


def kernels_of(model: Model, options: CompileOptions) -> list[KernelNote]:
    """The notes of a model's kernels on the CPU."""
    module = model.module.clone()
    advance(module, FIRST, SCHEDULED, options)
    return notes(module, levels.get(str(options.pass_options()["isa"])), options.threads)


def check_target(name: str) -> None:
    """Raise what is wrong with a target's name, or with its file."""
    if name != CPU:
        try:
            find_target(name)
        except UnknownNameError as error:
            known = f"{CPU}, {', '.join(TARGETS)}, or a .yaml file"
            raise UnknownNameError(error.message, accepted=known) from None
