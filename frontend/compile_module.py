"""Compiles a PyTorch module: export, products and linalg kernels, machine code, packed weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache as memoized
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp, TensorType
from xdsl.ir import SSAValue

from nybble.backends.cache import Cache
from nybble.backends.cpu import arena
from nybble.backends.cpu.artifact import Bytes
from nybble.backends.cpu.assemble import Assembler
from nybble.backends.cpu.codegen import compile_module as compile_kernel
from nybble.backends.cpu.codegen import compile_modules
from nybble.backends.cpu.compute_layouts import pack_storage
from nybble.backends.cpu.host import allocate
from nybble.backends.cpu.machine import native
from nybble.backends.cpu.plan import Buffer, BufferRef, Config, Kind, Plan, Program
from nybble.backends.cpu.runner import EXTERNALS, runner_module
from nybble.backends.cpu.weights import layout_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.numpy_ref.quantize import GROUPS, activation_group
from nybble.dialects.registry import make_context
from nybble.frontend.compile_model import CompileOptions
from nybble.frontend.compiled import Notes, kernel_lines
from nybble.frontend.compiled_module import PROGRAM, Code, CompiledModule, Interface
from nybble.frontend.graph import Role
from nybble.frontend.lower_module import ELEMENTS, FORM, Lowered, lower_module
from nybble.frontend.values import Array, Signature
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import Form, Stage, find_stage

if TYPE_CHECKING:
    from torch import Tensor, nn

LOWERED = find_stage("lowered")
_FUSED = Form(FORM.dialects | {"fused"}, rules=FORM.rules)
SCHEDULED = Stage("scheduled", "schedule-kernels", _FUSED)
STAGES = (
    Stage("fused", "pad-tokens,select-dataflow,assign-layout,fuse-linalg", _FUSED),
    SCHEDULED,
    LOWERED,
)
"""The stages of a module after `operators`."""


def compile_module(
    module: object,
    example_inputs: "Sequence[Tensor] | None",
    options: CompileOptions,
    cache: Cache | None,
    progress: Callable[[str], None],
) -> CompiledModule:
    """Machine code for a module; see `nybble.frontend.api.compile`."""
    checked, inputs = _checked(module, example_inputs)
    from nybble.frontend.pytorch.exact_linear import exact_linears

    progress("importing the module")
    with exact_linears(checked) as prepared:
        lowered = lower_module(prepared, inputs)
        _check_weights(lowered, options.activations)
        return ModuleCompiler(lowered, options, cache, progress).compile()


def _checked(
    module: object, example_inputs: "Sequence[Tensor] | None"
) -> "tuple[nn.Module, Sequence[Tensor]]":
    missing = [name for name in ("torch", "torch_mlir") if find_spec(name) is None]
    if missing:
        raise NybbleError(
            f"compiling a PyTorch module needs {', '.join(missing)}",
            accepted="pip install 'nybble[torch]'",
        )
    import torch

    if not isinstance(module, torch.nn.Module):
        raise NybbleError(
            f"cannot compile a {type(module).__name__}",
            accepted="a torch.nn.Module, or the path or alias of a checkpoint",
        )
    if isinstance(example_inputs, torch.Tensor):
        raise NybbleError("example_inputs is a tensor", accepted="a tuple of tensors")
    if example_inputs is None:
        raise NybbleError(
            "a module is compiled for the shapes of example_inputs, and there are none",
            accepted="a tuple of tensors such as the module is called with",
        )
    return module, example_inputs


def _check_weights(lowered: Lowered, activations: str) -> None:
    """Raise NybbleError for a weight that no kernel takes."""
    types = lowered.main.function_type.inputs
    for argument, type_ in zip(lowered.arguments, types, strict=True):
        if not isinstance(type_, LowBitTensorType):
            continue
        form = type_.number_format
        try:
            layout_of(form, (type_.rows, type_.cols))
        except NybbleError as error:
            message = f"weight '{argument.source}': {error.message}"
            raise NybbleError(message, accepted=error.accepted) from error
        integers = form.element.has_codes and form.element.table is None
        group = form.group_size(type_.cols)
        if activations != "f32" and integers and activation_group(group) is None:
            raise NybbleError(
                f"weight '{argument.source}' has groups of {group} columns, and no kernel "
                "quantizes activations so",
                accepted=f"groups of a multiple of {GROUPS[0]}; or activations='f32'",
            )


@dataclass
class ModuleCompiler:
    """The compilation of a module at the operators stage."""

    lowered: Lowered
    options: CompileOptions
    cache: Cache | None
    progress: Callable[[str], None]
    stages: dict[str, str] = field(default_factory=dict[str, str])

    def compile(self) -> CompiledModule:
        """Run all stages, generate code, pack weights, load."""
        module = self.lowered.module
        self.stages["operators"] = str(module) + "\n"
        interface = self._interface()
        weights = self._weight_types()
        options = {**self.options.pass_options(), "chunk": 1}
        options["prefill"] = options["activations"]  # the same on every machine
        reasons = ""
        for stage in STAGES:
            self.progress(f"stage {stage.name}")
            passes = configure(build_pipeline(stage.passes), options)
            run_passes(make_context(), module, passes)
            stage.form.check(module, stage.name)
            self.stages[stage.name] = str(module) + "\n"
            if stage is SCHEDULED:
                reasons = "\n".join(kernel_lines(module))
        plan = self._plan(module, interface)
        objects = self._objects(module, plan)
        self.progress("packing weights")
        packed = self._packed(plan, self._in_layout(module, weights))
        code = Code(plan, native(), objects, packed)
        return CompiledModule(code, Notes(self.stages, reasons), self.options.threads)

    def _interface(self) -> Interface:
        """What the module takes and gives; leaves the results of `main` that need buffers."""
        main = self.lowered.main
        arguments = self.lowered.arguments
        block = main.body.block
        terminator = block.last_op
        assert isinstance(terminator, func.ReturnOp)
        buffers: dict[SSAValue, str] = {
            value: argument.name for value, argument in zip(block.args, arguments, strict=True)
        }
        inputs = tuple(
            signature_of(argument.name, value)
            for value, argument in zip(block.args, arguments, strict=True)
            if argument.role is Role.INPUT
        )
        returned = list(terminator.arguments)
        fresh = [value for value in dict.fromkeys(returned) if value not in buffers]
        buffers |= {value: f"result{index}" for index, value in enumerate(fresh)}
        results = tuple(signature_of(buffers[value], value) for value in returned)
        terminator.operands = fresh
        types = [argument.type for argument in block.args]
        main.function_type = FunctionType.from_lists(types, [value.type for value in fresh])
        return Interface(inputs, results, self.lowered.source.single)

    def _weight_types(self) -> Mapping[str, LowBitTensorType]:
        """The weights in number formats, by the name of their argument."""
        arguments = self.lowered.main.body.block.args
        return {
            argument.name: value.type
            for value, argument in zip(arguments, self.lowered.arguments, strict=True)
            if isinstance(value.type, LowBitTensorType)
        }

    def _in_layout(
        self, module: ModuleOp, weights: Mapping[str, LowBitTensorType]
    ) -> Mapping[str, LowBitTensorType]:
        """The types of weights in the layouts that a lowered module reads them in."""
        layouts = Assembler(module).argument_layouts(PROGRAM)
        return {
            argument.name: LowBitTensorType.get((type_.rows, type_.cols), type_.format.data, layout)
            for argument, layout in zip(self.lowered.arguments, layouts, strict=False)
            if (type_ := weights.get(argument.name)) is not None and layout
        }

    def _plan(self, module: ModuleOp, interface: Interface) -> Plan:
        assembler = Assembler(module)
        sizes = assembler.argument_bytes(PROGRAM)
        names = [argument.name for argument in self.lowered.arguments]
        kinds = [
            Kind.IO if argument.role is Role.INPUT else Kind.WEIGHT
            for argument in self.lowered.arguments
        ]
        results = len(sizes) - len(names)
        names += [f"result{index}" for index in range(results)]
        kinds += [Kind.IO] * results
        buffers = [Buffer(*of) for of in zip(names, sizes, kinds, strict=True)]
        steps = assembler.call(PROGRAM, [BufferRef(name) for name in names])
        return Plan(
            (*buffers, *assembler.buffers.values()),
            tuple(assembler.kernels.values()),
            (Program(PROGRAM, tuple(steps)),),
            Config(1, 1, self.options.threads, 0, interface.to_json()),
        )

    def _objects(self, module: ModuleOp, plan: Plan) -> list[bytes]:
        kernels = {kernel.symbol for kernel in plan.kernels}
        sources: dict[str, ModuleOp | str] = {
            op.sym_name.data: ModuleOp([op.clone()])
            for op in module.ops
            if isinstance(op, func.FuncOp) and op.sym_name.data in kernels
        }

        def compiled(name: str) -> None:
            self.progress(f"compiled {name}")

        code = compile_modules(sources, cache=self.cache, progress=compiled)
        return [*code.values(), runner()]

    def _packed(self, plan: Plan, formats: Mapping[str, LowBitTensorType]) -> Bytes:
        """The weights in the plan's order, those in number formats in their compute layout."""
        placement = arena.weights(plan)
        memory = allocate(max(placement.bytes, 1))
        for argument in self.lowered.arguments:
            if argument.role is Role.INPUT:
                continue
            array = self.lowered.values[argument.source]
            type_ = formats.get(argument.name)
            data = as_bytes(array) if type_ is None else packed(array, type_)
            start = placement.offsets[argument.name]
            memory[start : start + len(data)] = data
        return memory


@memoized
def runner() -> bytes:
    """The object code that runs plans on this host."""
    return compile_kernel(runner_module(native().architecture), allowed=EXTERNALS)


def packed(raw: Array, type_: LowBitTensorType) -> Bytes:
    """Storage bytes in the compute layout."""
    return pack_storage(type_, raw.view(np.uint8))


def as_bytes(array: Array) -> Bytes:
    """The memory of an array, u8."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def signature_of(buffer: str, value: SSAValue) -> Signature:
    """The signature of a tensor of static shape; raises NybbleError."""
    type_ = value.type
    dtype = ELEMENTS.get(str(type_.element_type)) if isinstance(type_, TensorType) else None
    if dtype is None or not isinstance(type_, TensorType):
        raise NybbleError(f"a tensor of type {type_}", accepted=", ".join(ELEMENTS))
    if 0 in type_.get_shape():
        raise NybbleError(f"{buffer} has no elements: {type_}", accepted="tensors that have some")
    return Signature(buffer, tuple(type_.get_shape()), np.dtype(dtype).name)
