"""The Python entry points: compile a model or a module, quantize, lower; torch only when needed."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from nybble.backends.cache import Cache
from nybble.backends.cpu.host import thread_count
from nybble.dialects.errors import NybbleError, UnknownNameError
from nybble.frontend.compile_model import DECODE_MODES, CompileOptions
from nybble.frontend.compile_module import compile_module
from nybble.frontend.compiled import Compiled
from nybble.frontend.compiled_model import CompiledModel, compile_model
from nybble.frontend.compiled_module import CompiledModule
from nybble.frontend.lower_module import Lowered, lower_module
from nybble.frontend.weight_choice import AS_STORED, WeightChoice

if TYPE_CHECKING:
    from torch import Tensor, nn

TARGETS = ("cpu",)


def quantize(module: "nn.Module", fmt: str, skip: Collection[str] = ()) -> "nn.Module":
    """Give the Linear layers of a module weights of format `fmt`, in place.

    See `nybble.frontend.pytorch.quantize.quantize`.
    """
    from nybble.frontend.pytorch.quantize import quantize as replace_layers

    return replace_layers(module, fmt, skip)


def lower(module: "nn.Module", example_inputs: Sequence["Tensor"]) -> Lowered:
    """A module at the `operators` stage; see `nybble.frontend.lower_module.lower_module`."""
    return lower_module(module, example_inputs)


@overload
def compile(
    model: str | Path,
    example_inputs: None = None,
    target: str = "cpu",
    activations: str = "i8",
    threads: int | None = None,
    *,
    isa: str | None = None,
    context: int = 2048,
    kv: str | None = None,
    weights: str | WeightChoice = "",
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompiledModel: ...


@overload
def compile(
    model: "nn.Module",
    example_inputs: Sequence["Tensor"] | None = None,
    target: str = "cpu",
    activations: str = "i8",
    threads: int | None = None,
    *,
    isa: str | None = None,
    context: int = 2048,
    kv: str | None = None,
    weights: str | WeightChoice = "",
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompiledModule: ...


def compile(
    model: "str | Path | nn.Module",
    example_inputs: Sequence["Tensor"] | None = None,
    target: str = "cpu",
    activations: str = "i8",
    threads: int | None = None,
    *,
    isa: str | None = None,
    context: int = 2048,
    kv: str | None = None,
    weights: str | WeightChoice = "",
    cache: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Compiled:
    """Machine code for a language model or for a PyTorch module.

    model: a checkpoint (GGUF file, Hugging Face folder, an alias such as "smollm2"), or a module,
    which is taken in eval mode and needs example_inputs: tensors of the shapes and dtypes that
    every call will have. Layers quantized by `quantize` keep their formats, other Linear layers
    compute in f32.
    activations: how products on integer codes see them: "i8" (integers, or what is as fast and
    more precise), "i8-only", "i16", or "f32" (exact); see CompileOptions. threads: the most that
    will run it, all processors by default. isa: level of `nybble.backends.cpu.isa`, this host's
    by default. context, kv: tokens and element type of a language model's cache. weights: formats
    that a checkpoint's weights are rounded to, "w4g64" or rules of `frontend.weight_rules`, or
    how, with rotation and smoothing: a `WeightChoice`.
    cache: a folder that keeps kernels between runs. progress: told what is being done.
    Raises NybbleError for what cannot be compiled, before code is generated where that is known.
    """
    if target not in TARGETS:
        raise UnknownNameError(f"unknown target '{target}'", accepted=", ".join(TARGETS))
    if activations not in DECODE_MODES:
        raise NybbleError(
            f"unknown activation mode '{activations}'", accepted=", ".join(DECODE_MODES)
        )
    count = thread_count() if threads is None else threads
    if not 1 <= count <= 64:
        raise NybbleError(f"{count} threads", accepted="1 to 64")
    chosen = WeightChoice(weights) if isinstance(weights, str) else weights
    options = CompileOptions(activations, kv, context, threads=count, isa=isa, weights=chosen)
    kernels = None if cache is None else Cache(cache)
    report = progress or _nothing
    if isinstance(model, str | Path):
        if example_inputs is not None:
            raise NybbleError("a checkpoint takes no example inputs", accepted="None")
        return compile_model(model, options, kernels, report)
    if chosen != AS_STORED:
        raise NybbleError("the weights of a module are its own", accepted="nybble.quantize")
    return compile_module(model, example_inputs, options, kernels, report)


def _nothing(message: str) -> None:
    """The observer of a compilation that nobody watches."""
