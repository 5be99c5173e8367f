"""Pass `lower-kernels-to-cpu`: every kernel becomes a function of upstream dialects and a call.

Before:

```mlir
func.func @f(%x: tensor<1x16xf32>, %y: tensor<1x16xf32>) -> tensor<1x16xf32> {
  %s = fused.kernel "add"(%x, %y) : (tensor<1x16xf32>, tensor<1x16xf32>) -> tensor<1x16xf32>
      schedule #schedule.kernel<"cpu", "vector", {tokens = 1 : i64}, ""> {
  ^bb0(%0: tensor<1x16xf32>, %1: tensor<1x16xf32>):
    %2 = arith.addf %0, %1 : tensor<1x16xf32>
    fused.yield %2 : tensor<1x16xf32>
  }
  func.return %s : tensor<1x16xf32>
}
```

After with `lower-kernels-to-cpu{isa=x86-64-v4}`:

```mlir
func.func @f.0.add(%0: memref<16xf32>, %1: memref<16xf32>, %2: memref<16xf32>, %3: index, %4:
    index, %5: index, %6: index) {
  %7 = arith.constant 16 : index
  %8 = arith.constant 1 : index
  %9 = arith.constant 0 : index
  %10 = arith.divui %5, %6 : index
  %11 = arith.addi %5, %8 : index
  %12 = arith.divui %11, %6 : index
  %13 = arith.muli %10, %7 : index
  %14 = arith.muli %12, %7 : index
  scf.for %15 = %13 to %14 step %7 {
    %16 = vector.load %0[%15] : memref<16xf32>, vector<16xf32>
    %17 = vector.load %1[%15] : memref<16xf32>, vector<16xf32>
    %18 = arith.addf %16, %17 : vector<16xf32>
    vector.store %18, %2[%15] : memref<16xf32>, vector<16xf32>
  }
  func.return
}
func.func @f(%x: memref<16xf32>, %y: memref<16xf32>, %0: index, %1: index, %2: index, %3:
    index) {
  func.call @f.0.add(%x, %y, %x, %0, %1, %2, %3) {access = "uru"} : (memref<16xf32>,
      memref<16xf32>, memref<16xf32>, index, index, index, index) -> ()
  func.return
}
```

Tensors become flat buffers; an argument that is a weight says in which layout its bytes are. A
result that took over the memory of an argument is found there; other results are further arguments.
A quantized matrix is three buffers: codes, scales, sums. A cache with codes is three: what is not
coded yet, codes, scales. Lookup tables are three too: tables, scales, sums (and what an entry is
worth where it is rounded).

Does not handle: operators outside of kernels; two results in one buffer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, func, memref
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    DictionaryAttr,
    Float32Type,
    FunctionType,
    IndexType,
    IntegerAttr,
    IntegerType,
    MemRefType,
    ModuleOp,
    StringAttr,
    TensorType,
    i1,
    i8,
    i32,
)
from xdsl.dialects.builtin import f32 as f32_type
from xdsl.ir import Attribute, Block, BlockArgument, Operation, OpResult, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.bindings.attention import cache_of
from nybble.backends.cpu.bindings.site import Binding, In, Out, Partial, Slot
from nybble.backends.cpu.bindings.table import bind
from nybble.backends.cpu.bindings.tables import table_rows
from nybble.backends.cpu.compute_layouts import packed_size
from nybble.backends.cpu.isa import Isa
from nybble.backends.cpu.kernels.loops import padded_rows
from nybble.backends.cpu.plane_weights import plane_rows
from nybble.backends.cpu.weights import digits_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import STORAGE, LowBitTensorType
from nybble.dialects.mpgemm.tables import TableType
from nybble.dialects.sparse_attn.cache_type import CacheType

CALL_INDICES = 4
"""n, pos, tid and nth close every argument list."""
LAYOUT = "layout"
"""Attribute of an argument that is a weight: the compute layout of its bytes."""
ACCESS = "access"
"""Attribute of a call: a letter for each buffer, r(ead), w(ritten before it is read), u(pdated)."""


@dataclass(frozen=True)
class LowerKernelsToCpu(ModulePass):
    """Lower scheduled kernels for one instruction-set level; see the module's text.

    isa: a level of `backends.cpu.isa`. threads: the most threads that will run a kernel.
    chunk: rows of a matrix of tokens whose number is dynamic.
    """

    name = "lower-kernels-to-cpu"
    isa: str = levels.BASELINE.name
    threads: int = 2
    chunk: int = 512

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        lowering = Lowering(levels.get(self.isa), self.threads, self.chunk)
        for function in [found for found in op.ops if isinstance(found, func.FuncOp)]:
            if function.body.blocks:
                lowering.lower_function(function)


@dataclass(frozen=True)
class Lowering:
    """The parameters of the pass, resolved."""

    isa: Isa
    threads: int
    chunk: int

    def lower_function(self, function: func.FuncOp) -> None:
        """Replace a function by kernels and a function that calls them."""
        try:
            kernels, caller = FunctionLowering(self, function).run()
        except NybbleError as fault:
            fault.location = fault.location or location_of(function)
            raise
        Rewriter.replace_op(function, [*kernels, caller], [])

    def buffer_types(self, type_: Attribute) -> list[MemRefType]:
        """The flat buffers that hold a value; raises NybbleError for a type that has none."""
        if isinstance(type_, TensorType):
            element = i8 if type_.element_type == i1 else type_.element_type
            return [MemRefType(element, [self._elements(type_.get_shape())])]
        if isinstance(type_, IntegerType | Float32Type):
            return [MemRefType(type_, [1])]
        if isinstance(type_, LowBitTensorType):
            return self._low_bit(type_)
        if isinstance(type_, CacheType):
            return [buffer.type for buffer in cache_of(type_).buffers_of(type_.side.data)]
        if isinstance(type_, TableType):
            tables = table_rows(type_, self._tokens(type_.rows))
            return [buffer.type for buffer in tables.buffers]
        raise NybbleError(f"a value of type {type_} cannot be kept in a buffer")

    def _tokens(self, rows: int) -> int:
        """The most rows of a matrix of tokens."""
        return self.chunk if rows == DYNAMIC_INDEX else rows

    def _elements(self, shape: Sequence[int]) -> int:
        total = 1
        for dim in shape:
            total *= padded_rows(self.chunk) if dim == DYNAMIC_INDEX else dim
        return total

    def _low_bit(self, type_: LowBitTensorType) -> list[MemRefType]:
        if type_.layout.data != STORAGE:
            return [MemRefType(i8, [packed_size(type_)])]
        planes = plane_rows(type_, self._tokens(type_.rows))
        if planes is not None:
            return [buffer.type for buffer in planes.buffers]
        group = type_.number_format.group
        elements = self._elements((type_.rows, type_.cols))
        scales = elements // group
        return [
            MemRefType(i8, [elements * digits_of(type_.number_format)]),
            MemRefType(f32_type, [scales]),
            MemRefType(i32, [scales]),
        ]


def access_of(slot: Slot, binding: Binding) -> str:
    """How a kernel touches the buffer of a slot."""
    if isinstance(slot, In):
        return "u" if slot.index in binding.in_place.values() else "r"
    if isinstance(slot, Out):
        return "u" if slot.index in binding.in_place else "w"
    return "r" if isinstance(slot, Partial) and not slot.written else "w"


def argument_attributes(type_: Attribute) -> DictionaryAttr:
    """What a buffer of a value of this type says about its bytes."""
    if isinstance(type_, LowBitTensorType) and type_.layout.data != STORAGE:
        return DictionaryAttr({LAYOUT: type_.layout})
    return DictionaryAttr({})


def static_rows(op: KernelOp) -> int:
    """The number of tokens that is the same in every call; 0 where calls say how many."""
    types = [value.type for value in (*op.inputs, *op.outputs)]
    rows = [type_.rows for type_ in types if isinstance(type_, LowBitTensorType | TableType)]
    rows += [dim for type_ in types if isinstance(type_, TensorType) for dim in type_.get_shape()]
    schedule = op.schedule
    tokens = None if schedule is None else schedule.option("tokens")
    return 0 if DYNAMIC_INDEX in rows or tokens is None else tokens


def fix_rows(kernel: func.FuncOp, rows: int) -> None:
    """Make a kernel handle `rows` rows whatever its argument n says."""
    block = kernel.body.block
    first = block.first_op
    assert first is not None
    constant = arith.ConstantOp(IntegerAttr(rows, IndexType()))
    block.insert_op_before(constant, first)
    block.args[-CALL_INDICES].replace_all_uses_with(constant.result)


class FunctionLowering:
    """Lowers one function.

    buffers: the memrefs that hold each value. partial: what lies between a region's two launches.
    """

    def __init__(self, lowering: Lowering, function: func.FuncOp):
        self.lowering = lowering
        self.function = function
        self.block = Block()
        self.buffers: dict[SSAValue, list[SSAValue]] = {}
        self.indices: list[SSAValue] = []
        self.kernels: list[func.FuncOp] = []
        self.attributes: list[DictionaryAttr] = []
        self.partial: SSAValue | None = None

    def run(self) -> tuple[list[func.FuncOp], func.FuncOp]:
        """The kernels and the function that calls them."""
        source = self.function.body.block
        for argument in source.args:
            if not isinstance(argument.type, IndexType):
                self._add_argument(argument)
        terminator = source.last_op
        assert isinstance(terminator, func.ReturnOp)
        for value in self._fresh_results(terminator):
            self._add_argument(self._first_holder(value))
        self.indices = [
            self.block.insert_arg(IndexType(), len(self.block.args)) for _ in range(CALL_INDICES)
        ]
        for op in list(source.ops):
            self._lower(op)
        self._check_returned(terminator)
        self.block.add_op(func.ReturnOp())
        inputs = [argument.type for argument in self.block.args]
        name = self.function.sym_name.data
        caller = func.FuncOp(name, FunctionType.from_lists(inputs, []), Region(self.block))
        if any(one.data for one in self.attributes):
            attributes = [*self.attributes, *[DictionaryAttr({})] * CALL_INDICES]
            caller.arg_attrs = ArrayAttr(attributes)
        caller.location = self.function.location
        return self.kernels, caller

    def _add_argument(self, value: SSAValue) -> None:
        """Give a value buffers that are arguments of the function."""
        if value in self.buffers:
            return
        made: list[SSAValue] = []
        for type_ in self.lowering.buffer_types(value.type):
            made.append(self.block.insert_arg(type_, len(self.block.args)))
            made[-1].name_hint = value.name_hint
            self.attributes.append(argument_attributes(value.type))
        self.buffers[value] = made

    def _fresh_results(self, terminator: func.ReturnOp) -> list[SSAValue]:
        """Returned values that take over no argument's memory."""
        return [value for value in terminator.operands if self.origin(value) is None]

    def origin(self, value: SSAValue) -> SSAValue | None:
        """The argument whose memory holds a value in the end, if there is one."""
        first = self._first_holder(value)
        return first if isinstance(first, BlockArgument) else None

    def _first_holder(self, value: SSAValue) -> SSAValue:
        """The first value in the memory that a value ends up in."""
        while isinstance(value, OpResult) and isinstance(value.op, KernelOp):
            source = self._taken_over(value.op, value.index)
            if source is None:
                return value
            value = source
        return value

    def _taken_over(self, op: KernelOp, output: int) -> SSAValue | None:
        index = self._bind(op).in_place.get(output)
        return None if index is None else op.inputs[index]

    def _bind(self, op: KernelOp) -> Binding:
        return bind(op, self.lowering.isa, self.lowering.threads)

    def _lower(self, op: Operation) -> None:
        if isinstance(op, KernelOp):
            self._lower_kernel(op)
        elif not isinstance(op, func.ReturnOp):
            raise NybbleError(
                f"'{op.name}' is in no kernel", location=location_of(op), accepted="fused.kernel"
            )

    def _lower_kernel(self, op: KernelOp) -> None:
        binding = self._bind(op)
        for index, output in enumerate(op.outputs):
            self._place_output(op, binding, index, output)
        for launch in binding.launches:
            self._launch(op, launch)
        self.partial = None

    def _launch(self, op: KernelOp, binding: Binding) -> None:
        name = f"{self.function.sym_name.data}.{len(self.kernels)}.{op.kernel_name.data}"
        kernel = binding.kernel.build(name)
        kernel.location = op.location
        if (rows := static_rows(op)) > 1:
            fix_rows(kernel, rows)
        self.kernels.append(kernel)
        arguments = [
            self._argument(op, slot, spec.type)
            for slot, spec in zip(binding.slots, binding.kernel.buffers, strict=True)
        ]
        call = func.CallOp(name, [*arguments, *self.indices], [])
        call.attributes[ACCESS] = StringAttr(
            "".join(access_of(slot, binding) for slot in binding.slots)
        )
        self.block.add_op(call)

    def _place_output(self, op: KernelOp, binding: Binding, index: int, output: SSAValue) -> None:
        """Give an output the memory it takes over, or buffers of its own."""
        source = binding.in_place.get(index)
        if source is not None:
            self._check_last_use(op, op.inputs[source])
            self.buffers[output] = self.buffers[op.inputs[source]]
        elif output not in self.buffers:
            allocations = [
                memref.AllocOp([], [], type_) for type_ in self.lowering.buffer_types(output.type)
            ]
            self.block.add_ops(allocations)
            self.buffers[output] = [allocation.memref for allocation in allocations]

    def _check_last_use(self, op: KernelOp, value: SSAValue) -> None:
        later = [use.operation for use in value.uses if use.operation is not op]
        if any(op.is_before_in_block(other) for other in later):
            raise NybbleError(
                f'kernel "{op.kernel_name.data}" overwrites a value that is read later',
                location=location_of(op),
            )

    def _argument(self, op: KernelOp, slot: object, type_: MemRefType) -> SSAValue:
        if isinstance(slot, In):
            held = self.buffers[op.inputs[slot.index]][slot.part]
        elif isinstance(slot, Out):
            held = self.buffers[op.outputs[slot.index]][slot.part]
        elif isinstance(slot, Partial) and self.partial is not None:
            held = self.partial
        else:
            scratch = memref.AllocOp([], [], type_)
            self.block.add_op(scratch)
            held = scratch.memref
            self.partial = held if isinstance(slot, Partial) else self.partial
        if held.type != type_:
            raise NybbleError(
                f'kernel "{op.kernel_name.data}" takes {type_} where a value is in {held.type}',
                location=location_of(op),
            )
        return held

    def _check_returned(self, terminator: func.ReturnOp) -> None:
        held = [self.buffers[value][0] for value in terminator.operands]
        if len(set(held)) != len(held):
            raise NybbleError(
                f"function '{self.function.sym_name.data}' returns two values in one buffer",
                location=location_of(terminator),
            )


__all__ = ["LowerKernelsToCpu", "Lowering"]
