"""Pass `convert-linear-to-mpgemm`: calls of nybble's linear layers to products.

Before:

```mlir
func.func private @nybble.linear.0(tensor<2x3x64xf32>, tensor<8x36xi8>, tensor<8xf32>)
    -> tensor<2x3x8xf32>
    attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @f(%x: tensor<2x3x64xf32>, %w: tensor<8x36xi8>, %b: tensor<8xf32>)
    -> tensor<2x3x8xf32> {
  %y = func.call @nybble.linear.0(%x, %w, %b)
      : (tensor<2x3x64xf32>, tensor<8x36xi8>, tensor<8xf32>) -> tensor<2x3x8xf32>
  func.return %y : tensor<2x3x8xf32>
}
```

After:

```mlir
func.func @f(%x: tensor<2x3x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">, %b: tensor<8xf32>)
    -> tensor<2x3x8xf32> {
  %0 = tensor.collapse_shape %x [[0 : i64, 1 : i64], [2 : i64]]
      : tensor<2x3x64xf32> into tensor<6x64xf32>
  %1 = mpgemm.matmul %0, %w bias %b : tensor<8xf32>
      : tensor<6x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<6x8xf32>
  %y = tensor.expand_shape %1 [[0 : i64, 1 : i64], [2 : i64]] output_shape [2, 3, 8]
      : tensor<6x8xf32> into tensor<2x3x8xf32>
  func.return %y : tensor<2x3x8xf32>
}
```

A weight is an argument that nothing but such calls reads, all in one format.

Does not handle: activations of more than two dimensions with a dynamic one; of one dimension.
"""

from dataclasses import dataclass
from math import prod
from typing import NoReturn

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import func, tensor
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    Float32Type,
    FunctionType,
    IntegerAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    i64,
)
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from nybble.dialects.errors import NybbleError
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.shapes import tensor_shape

PREFIX = "nybble.linear."


class LinearError(NybbleError):
    """A call of a linear layer, or its declaration, that is not of the form the pass reads."""


@dataclass(frozen=True)
class ConvertLinearToMPGemm(ModulePass):
    """Turn calls of `@nybble.linear.N` into mpgemm.matmul; see the module's text."""

    name = "convert-linear-to-mpgemm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        functions = [found for found in op.ops if isinstance(found, func.FuncOp)]
        weights = {
            function.sym_name.data: declared_weight(function)
            for function in functions
            if function.is_declaration and function.sym_name.data.startswith(PREFIX)
        }
        for function in functions:
            if not function.is_declaration:
                convert_function(function, weights)
        for function in functions:
            if function.sym_name.data in weights:
                Rewriter.erase_op(function)


def declared_weight(function: func.FuncOp) -> LowBitTensorType:
    """The type of the weight that a declaration's attributes describe; LinearError if none."""
    names = ("nybble.format", "nybble.rows", "nybble.cols")
    fmt, rows, cols = (function.attributes.get(name) for name in names)
    if not (
        isinstance(fmt, StringAttr)
        and isinstance(rows, IntegerAttr)
        and isinstance(cols, IntegerAttr)
    ):
        _refuse(function, f"has not all of the attributes {', '.join(names)}")
    try:
        return LowBitTensorType.get((rows.value.data, cols.value.data), fmt.data)
    except VerifyException as fault:
        _refuse(function, f"declares no legal weight: {fault}")


def convert_function(function: func.FuncOp, weights: dict[str, LowBitTensorType]) -> None:
    """Convert the calls in one function, and the types of its weights."""
    calls = [
        op
        for op in function.walk()
        if isinstance(op, func.CallOp) and op.callee.root_reference.data in weights
    ]
    for call in calls:
        weight = weights[call.callee.root_reference.data]
        _check_call(call, weight)
        _set_weight_type(call, call.arguments[1], weight)
    for call in calls:
        _convert_call(call)
    types = [argument.type for argument in function.body.blocks[0].args]
    function.function_type = FunctionType.from_lists(types, [*function.function_type.outputs])


def _check_call(call: func.CallOp, weight: LowBitTensorType) -> None:
    if not 2 <= len(call.arguments) <= 3 or len(call.results) != 1:
        _refuse(call, "must have an activation, a weight, maybe a bias, and one result")
    activation, result = call.arguments[0].type, call.results[0].type
    shape = activation.get_shape() if isa(activation, TensorType) else ()
    if len(shape) < 2 or (len(shape) > 2 and DYNAMIC_INDEX in shape):
        _refuse(call, f"has an activation of type {activation}")
    expected = TensorType(Float32Type(), [*shape[:-1], weight.rows])
    if result != expected:
        _refuse(call, f"has a result of type {result}, which should be {expected}")


def _set_weight_type(call: func.CallOp, weight: SSAValue, type_: LowBitTensorType) -> None:
    if weight.type == type_:
        return
    if not isinstance(weight, BlockArgument) or not isinstance(
        weight.owner.parent_op(), func.FuncOp
    ):
        _refuse(call, "must read its weight from an argument of the function")
    if isinstance(weight.type, LowBitTensorType):
        _refuse(call, f"reads as {type_} what another call reads as {weight.type}")
    for use in weight.uses:
        user = use.operation
        if not isinstance(user, func.CallOp) or use.index != 1:
            _refuse(user, "reads a weight in a number format")
    Rewriter.replace_value_with_new_type(weight, type_)


def _convert_call(call: func.CallOp) -> None:
    activation, weight, *bias = call.arguments
    result = call.results[0]
    shape = tensor_shape(result)
    builder = Builder(InsertPoint.before(call))
    rows = TensorType(Float32Type(), [_rows(shape), shape[-1]])
    flat = _flattened(builder, activation)
    product = MatmulOp(flat, weight, bias[0] if bias else None, rows)
    builder.insert(product)
    new: SSAValue = product.result
    if len(shape) > 2:
        new = builder.insert(_expanded(new, shape)).result
    new.name_hint = result.name_hint
    try:
        product.verify()
    except VerifyException as fault:
        _refuse(call, f"breaks a rule of mpgemm.matmul: {fault}")
    Rewriter.replace_op(call, [], [new])


def _flattened(builder: Builder, value: SSAValue) -> SSAValue:
    shape = tensor_shape(value)
    if len(shape) == 2:
        return value
    collapsed = tensor.CollapseShapeOp(
        operands=[value],
        result_types=[TensorType(Float32Type(), [_rows(shape), shape[-1]])],
        properties={"reassociation": _groups(len(shape))},
    )
    return builder.insert(collapsed).result


def _expanded(value: SSAValue, shape: tuple[int, ...]) -> tensor.ExpandShapeOp:
    target = TensorType(Float32Type(), shape)
    return tensor.ExpandShapeOp(value, [], _groups(len(shape)), shape, target)


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 2 else prod(shape[:-1])


def _groups(rank: int) -> ArrayAttr[ArrayAttr[IntegerAttr]]:
    """All dimensions but the last together, the last by itself."""
    groups = (range(rank - 1), range(rank - 1, rank))
    return ArrayAttr([ArrayAttr([IntegerAttr(dim, i64) for dim in group]) for group in groups])


def _refuse(op: Operation, message: str) -> NoReturn:
    name = f"'{op.name}'"
    if isinstance(op, func.FuncOp):
        name = f"function '{op.sym_name.data}'"
    if isinstance(op, func.CallOp):
        name = f"call of '{op.callee.root_reference.data}'"
    raise LinearError(f"{name} {message}", location=location_of(op))
