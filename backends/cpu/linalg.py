"""Kernels of linalg: upstream's bufferization and loops, brought into the form of our kernels.

The region of a `fused.kernel "linalg"` becomes a function of flat buffers whose body upstream
bufferizes and lowers to loops (in a worker process). What comes back is plain scf, memref and
arith: temporary buffers become parts of a scratch argument, copies become loops, elementary
functions arithmetic. Thread 0 does all the work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

from xdsl.dialects import bufferization, func, memref, scf
from xdsl.dialects.builtin import (
    DenseArrayBase,
    FunctionType,
    IndexType,
    MemRefType,
    ModuleOp,
    TensorType,
    UnitAttr,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import Rewriter

from nybble.backends.cpu.arena import aligned
from nybble.backends.cpu.bindings.site import Binding, In, Out, Scratch, Site
from nybble.backends.cpu.codegen import generic_text
from nybble.backends.cpu.kernels.buffers import BufferSpec, byte_width
from nybble.backends.cpu.kernels.builder import KernelBuilder, Value
from nybble.backends.cpu.linalg_math import expand_math, replace
from nybble.backends.llvm.workers import transform
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp, YieldOp
from nybble.dialects.locations import location_of
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context

PIPELINE = (
    "builtin.module("
    "func.func(linalg-generalize-named-ops,linalg-inline-scalar-operands),canonicalize,"
    "linalg-fuse-elementwise-ops,canonicalize,cse,"
    "eliminate-empty-tensors,empty-tensor-to-alloc-tensor,one-shot-bufferize,"
    "canonicalize,cse,"
    "func.func(convert-linalg-to-loops),"
    "fold-memref-alias-ops,expand-strided-metadata,lower-affine,"
    "canonicalize,cse)"
)
NAME = "linalg"
INDICES = 4
"""n, pos, tid and nth close the argument list."""


@dataclass(frozen=True)
class LinalgKernel:
    """A region of linalg on tensors of static shapes; the buffers are its inputs and outputs."""

    op: KernelOp

    @property
    def buffers(self) -> list[BufferSpec]:
        """Inputs, outputs, and scratch if the loops need temporary buffers."""
        specs = [flat_spec(value) for value in (*self.op.inputs, *self.op.outputs)]
        size = sum(alloc_bytes(op) for op in allocations(self._lowered))
        return [*specs, BufferSpec("scratch", size, i8)] if size else specs

    def build(self, name: str) -> func.FuncOp:
        """The kernel."""
        types: list[Attribute] = [spec.type for spec in self.buffers]
        block = Block(arg_types=[*types, *[IndexType()] * INDICES])
        lowered = self._lowered.clone()
        body = lowered.body.block
        count = len(body.args) - INDICES
        for old, new in zip(body.args, (*block.args[:count], *block.args[-INDICES:]), strict=True):
            old.replace_all_uses_with(new)
        if len(self.buffers) > count:
            place_in_scratch(lowered, block.args[count])
        last = body.last_op
        assert last is not None
        Rewriter.erase_op(last)
        for op in list(body.ops):
            op.detach()
            block.add_op(op)
        run_on_first_thread(block)
        inputs = [argument.type for argument in block.args]
        return func.FuncOp(name, FunctionType.from_lists(inputs, []), Region(block))

    @cached_property
    def _lowered(self) -> func.FuncOp:
        text = generic_text(ModuleOp([tensor_function(self.op)]))
        module = parse_module(make_context(), bufferized(text), f"{NAME}.mlir")
        expand_math(module)
        widen_bits(module)
        for op in [found for found in module.walk() if isinstance(found, memref.CopyOp)]:
            replace(op, lambda b, op=op: copy_elements(b, op))
        (function,) = module.ops
        assert isinstance(function, func.FuncOp)
        return function


def bind_linalg(site: Site) -> Binding:
    """A region of linalg, see `LinalgKernel`."""
    kernel = LinalgKernel(site.op)
    slots = [
        *(In(index) for index in range(len(site.op.inputs))),
        *(Out(index) for index in range(len(site.op.outputs))),
    ]
    rest = len(kernel.buffers) - len(slots)
    return Binding(kernel, (*slots, *[Scratch()] * rest))


@lru_cache(maxsize=256)
def bufferized(text: str) -> str:
    """The module of a tensor function after PIPELINE, in generic form; raises CodegenError."""
    return transform(text, PIPELINE)


def flat_spec(value: SSAValue) -> BufferSpec:
    """The flat buffer of a tensor; a bit takes a byte, as upstream loads nothing smaller."""
    type_ = tensor_type(value)
    element = i8 if type_.element_type == i1 else type_.element_type
    return BufferSpec("", prod(type_.get_shape()), element)


def tensor_type(value: SSAValue) -> TensorType:
    """The type of a value that must be a tensor of static shape."""
    if not isinstance(value.type, TensorType) or not value.type.has_static_shape():
        raise NybbleError(
            f"a kernel of linalg has a value of type {value.type}", accepted="static tensors"
        )
    return value.type


def tensor_function(op: KernelOp) -> func.FuncOp:
    """The region as a function on flat memrefs, still computing on tensors."""
    values = (*op.inputs, *op.outputs)
    shapes = [tensor_type(value) for value in values]
    types: list[Attribute] = [
        MemRefType(type_.element_type, [prod(type_.get_shape())]) for type_ in shapes
    ]
    block = Block(arg_types=[*types, *[IndexType()] * INDICES])
    shaped = [
        shaped_memref(block, argument, tensor_type(value))
        for argument, value in zip(block.args, values, strict=False)
    ]
    read = [
        as_tensor(block, buffer, value.type)
        for buffer, value in zip(shaped, op.inputs, strict=False)
    ]
    mapping: dict[SSAValue, SSAValue] = dict(zip(op.body.block.args, read, strict=True))
    for inner in op.body.block.ops:
        if not isinstance(inner, YieldOp):
            block.add_op(inner.clone(mapping))
            continue
        for value, buffer in zip(inner.arguments, shaped[len(op.inputs) :], strict=True):
            block.add_op(write_to(mapping[value], buffer))
    block.add_op(func.ReturnOp())
    signature = FunctionType.from_lists([argument.type for argument in block.args], [])
    return func.FuncOp(NAME, signature, Region(block))


def shaped_memref(block: Block, buffer: SSAValue, type_: TensorType) -> SSAValue:
    """A flat buffer seen with the shape of a tensor."""
    shape = type_.get_shape()
    strides = [prod(shape[index + 1 :]) for index in range(len(shape))]
    view = memref.ReinterpretCastOp.create(
        operands=[buffer],
        result_types=[MemRefType(type_.element_type, shape)],
        properties={
            "static_offsets": DenseArrayBase.from_list(i64, [0]),
            "static_sizes": DenseArrayBase.from_list(i64, [*shape]),
            "static_strides": DenseArrayBase.from_list(i64, strides),
            "operandSegmentSizes": DenseArrayBase.from_list(i32, [1, 0, 0, 0]),
        },
    )
    block.add_op(view)
    return view.results[0]


def as_tensor(block: Block, buffer: SSAValue, type_: Attribute) -> SSAValue:
    """The contents of a buffer that nothing writes."""
    op = bufferization.ToTensorOp.create(
        operands=[buffer], result_types=[type_], properties={"restrict": UnitAttr()}
    )
    block.add_op(op)
    return op.results[0]


def write_to(value: SSAValue, buffer: SSAValue) -> Operation:
    """A tensor is computed into, or copied to, a buffer."""
    return bufferization.MaterializeInDestinationOp.create(
        operands=[value, buffer],
        properties={"restrict": UnitAttr(), "writable": UnitAttr()},
    )


def widen_bits(module: ModuleOp) -> None:
    """Make memrefs of bits memrefs of bytes that are 0 or 1, in place."""
    for op in list(module.walk()):
        for value in (*op.results, *(arg for region in op.regions for arg in block_args(region))):
            if isinstance(value.type, MemRefType) and value.type.element_type == i1:
                type_ = MemRefType(i8, value.type.shape, value.type.layout, value.type.memory_space)
                Rewriter.replace_value_with_new_type(value, type_)
    for op in [found for found in module.walk() if isinstance(found, memref.LoadOp)]:
        if op.res.type == i1:
            replace(op, lambda b, op=op: load_bit(b, op))
    for op in [found for found in module.walk() if isinstance(found, memref.StoreOp)]:
        if op.value.type == i1:
            replace(op, lambda b, op=op: store_bit(b, op))


def block_args(region: Region) -> list[SSAValue]:
    """The arguments of all blocks of a region."""
    return [argument for block in region.blocks for argument in block.args]


def load_bit(b: KernelBuilder, op: memref.LoadOp) -> Value:
    """A byte that is not 0."""
    operands = [Value(b, value) for value in op.operands]
    return b.emit(memref.LoadOp, operands, i8).ne(0)


def store_bit(b: KernelBuilder, op: memref.StoreOp) -> None:
    """A bit as a byte."""
    value, *place = (Value(b, value) for value in op.operands)
    b.emit_effect(memref.StoreOp, (b.zext(value, i8), *place))


def allocations(function: func.FuncOp) -> list[memref.AllocOp]:
    """The temporary buffers of a bufferized function."""
    found = [op for op in function.walk() if isinstance(op, memref.AllocOp)]
    for op in found:
        if op.parent is not function.body.block:
            raise NybbleError(
                "a loop of the model allocates a buffer in each round", location=location_of(op)
            )
    return found


def alloc_bytes(op: memref.AllocOp) -> int:
    """Bytes that a temporary buffer takes up, a multiple of the alignment."""
    type_ = op.memref.type
    assert isinstance(type_, MemRefType)
    return aligned(prod(type_.get_shape()) * byte_width(type_.element_type))


def place_in_scratch(function: func.FuncOp, scratch: SSAValue) -> None:
    """Give temporary buffers places in the scratch buffer, one after the other."""
    offset = 0
    for op in allocations(function):
        size = alloc_bytes(op)
        type_ = op.memref.type

        def view(b: KernelBuilder, start: int = offset, type_: Attribute = type_) -> Value:
            return b.emit(memref.ViewOp, (Value(b, scratch), b.const(start)), type_)

        replace(op, view)
        offset += size


def copy_elements(b: KernelBuilder, op: memref.CopyOp) -> None:
    """Loops that copy a buffer of any strides (upstream would call its runtime library)."""
    source, destination = Value(b, op.source), Value(b, op.destination)
    type_ = op.source.type
    assert isinstance(type_, MemRefType)

    def copy(shape: Sequence[int], at: tuple[Value, ...]) -> None:
        if shape:
            with b.for_(0, shape[0]) as loop:
                copy(shape[1:], (*at, loop.iv))
            return
        element = b.emit(memref.LoadOp, (source, *at), type_.element_type)
        b.emit_effect(memref.StoreOp, (element, destination, *at))

    copy(type_.get_shape(), ())


def run_on_first_thread(block: Block) -> None:
    """Wrap the operations of a kernel in a test of its thread index, and close it."""
    ops = list(block.ops)
    inner = Block()
    for op in ops:
        op.detach()
        inner.add_op(op)
    inner.add_op(scf.YieldOp())
    b = KernelBuilder("", [])
    first = Value(b, block.args[-2]).eq(0)
    b.close_entry()
    test = list(b.entry.ops)
    for op in test:
        op.detach()
        block.add_op(op)
    block.add_op(scf.IfOp.create(operands=[first.ssa], regions=[Region(inner), Region()]))
    block.add_op(func.ReturnOp())
