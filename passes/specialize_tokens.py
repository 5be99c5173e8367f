"""Pass `specialize-tokens`: one copy of every function for decode, one for prefill.

Before:

```mlir
func.func @f(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %s = arith.addf %x, %y : tensor<?x4xf32>
  func.return %s : tensor<?x4xf32>
}
```

After:

```mlir
func.func @f.prefill(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %s = arith.addf %x, %y : tensor<?x4xf32>
  func.return %s : tensor<?x4xf32>
}
func.func @f.decode(%x: tensor<1x4xf32>, %y: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %s = arith.addf %x, %y : tensor<1x4xf32>
  func.return %s : tensor<1x4xf32>
}
```

With `tokens` the copy for prefill has so many tokens and not any number of them.

Does not handle: functions whose dynamic dimension is not the number of tokens.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import DYNAMIC_INDEX, FunctionType, ModuleOp, StringAttr, TensorType
from xdsl.ir import Attribute
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.lowbit.types import LowBitTensorType


@dataclass(frozen=True)
class SpecializeTokens(ModulePass):
    """Copy functions for one token and for many; see the module's text.

    tokens: of the copy for many; 0 for any number.
    """

    name = "specialize-tokens"
    tokens: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [found for found in op.ops if isinstance(found, func.FuncOp)]:
            if not function.body.blocks or not is_dynamic(function):
                continue
            decode = function.clone()
            with_tokens(decode, 1)
            base = function.sym_name.data
            decode.properties["sym_name"] = StringAttr(f"{base}.decode")
            function.properties["sym_name"] = StringAttr(f"{base}.prefill")
            Rewriter.insert_op(decode, InsertPoint.after(function))
            if self.tokens:
                with_tokens(function, self.tokens)


def is_dynamic(function: func.FuncOp) -> bool:
    """Whether a dimension of any argument is dynamic."""
    return any(static_type(type_, 1) != type_ for type_ in function.function_type.inputs)


def static_type(type_: Attribute, tokens: int) -> Attribute:
    """The type with a dynamic number of rows set to a number of tokens."""
    if isinstance(type_, LowBitTensorType) and type_.rows == DYNAMIC_INDEX:
        return LowBitTensorType.get((tokens, type_.cols), type_.format.data, type_.layout.data)
    if isinstance(type_, TensorType):
        shape = type_.get_shape()
        if DYNAMIC_INDEX in shape:
            known = [tokens if dim == DYNAMIC_INDEX else dim for dim in shape]
            return TensorType(type_.element_type, known, type_.encoding)
    return type_


def with_tokens(function: func.FuncOp, tokens: int) -> None:
    """Set the dynamic dimension of every value of a function, in place."""

    def known(type_: Attribute) -> Attribute:
        return static_type(type_, tokens)

    for block in function.walk_blocks():
        for argument in block.args:
            Rewriter.replace_value_with_new_type(argument, known(argument.type))
    for op in function.walk():
        for result in op.results:
            Rewriter.replace_value_with_new_type(result, known(result.type))
    inputs, outputs = function.function_type.inputs, function.function_type.outputs
    function.properties["function_type"] = FunctionType.from_lists(
        [known(type_) for type_ in inputs], [known(type_) for type_ in outputs]
    )
