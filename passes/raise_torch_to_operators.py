"""Pass `raise-torch-to-operators`: imported torch functions to nybble's operators.

Before:

```mlir
func.func @f(%h: !torch.vtensor<[1,?,64],f32>, %w: !torch.vtensor<[64,36],ui8>)
    -> !torch.vtensor<[1,?,64],f32> {
  %none = "torch.constant.none"() : () -> !torch.none
  %fmt = "torch.constant.str"() <{value = "q4_0"}> : () -> !torch.str
  %n = "torch.constant.int"() <{value = 64 : i64}> : () -> !torch.int
  %one = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %y = "torch.operator"(%h, %w, %none, %fmt, %n, %n) <{name = "torch.nybble.linear"}>
      : (!torch.vtensor<[1,?,64],f32>, !torch.vtensor<[64,36],ui8>, !torch.none, !torch.str,
         !torch.int, !torch.int) -> !torch.vtensor<[1,?,64],f32>
  %s = "torch.aten.add.Tensor"(%h, %y, %one)
      : (!torch.vtensor<[1,?,64],f32>, !torch.vtensor<[1,?,64],f32>, !torch.int)
      -> !torch.vtensor<[1,?,64],f32>
  func.return %s : !torch.vtensor<[1,?,64],f32>
}
```

After:

```mlir
func.func @f(%h: tensor<?x64xf32>, %w: !lowbit.tensor<64x64, "q4_0">) -> tensor<?x64xf32> {
  %y = mpgemm.matmul %h, %w : tensor<?x64xf32>, !lowbit.tensor<64x64, "q4_0"> -> tensor<?x64xf32>
  %s = arith.addf %h, %y : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}
```

Activations of batch 1 become 2-D tensors [tokens, features]; what only splits, joins or transposes
heads vanishes. Arguments keep their order: a 0-d integer becomes an index, bytes of a weight
(ui8) a low-bit tensor of the format that their use names.

Does not handle: torch ops outside `raise_handlers.HANDLERS` (an error at the op); a batch; calls.
"""

from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp, StringAttr
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from nybble.dialects.locations import location_of, place
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.passes.raise_handlers import (
    WEIGHT_OPERANDS,
    Raiser,
    find_handler,
    weight_type,
)
from nybble.passes.raise_values import (
    Layout,
    Raised,
    RaiseError,
    argument_type,
    blaming,
    refuse,
    torch_name,
    torch_tensor,
)

NAME = "nybble.name"


@dataclass(frozen=True)
class RaiseTorchToOperators(ModulePass):
    """Raise every function over torch tensors; see the module's text."""

    name = "raise-torch-to-operators"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in [found for found in op.ops if isinstance(found, func.FuncOp)]:
            types = (*function.function_type.inputs, *function.function_type.outputs)
            if function.body.blocks and any(torch_tensor(type_) for type_ in types):
                raise_function(function)


def raise_function(function: func.FuncOp) -> None:
    """Raise one function in place; RaiseError at the first op or argument that has no meaning."""
    before = _only_block(function)
    weights = _weight_types(before)
    after = Block()
    raiser = Raiser(Builder(InsertPoint.at_end(after)))
    for argument, name in zip(before.args, _names(function), strict=True):
        type_, layout = _argument(function, argument, weights)
        value = after.insert_arg(type_, len(after.args))
        value.name_hint = name or argument.name_hint
        raiser.values[argument] = Raised(value, layout)
    for op in before.ops:
        if not isinstance(op, func.ReturnOp):
            _raise_op(raiser, op)
            continue
        results = [raiser.get(op, index).value for index in range(len(op.operands))]
        after.add_op(func.ReturnOp(*results))
        _replace_body(function, after, [value.type for value in results])


def _only_block(function: func.FuncOp) -> Block:
    if len(function.body.blocks) != 1:
        raise RaiseError(
            f"function '{function.sym_name.data}' has {len(function.body.blocks)} blocks",
            location=location_of(function),
            accepted="one",
        )
    return function.body.block


def _replace_body(function: func.FuncOp, body: Block, results: list[Attribute]) -> None:
    before = function.body.block
    function.body.detach_block(before)
    before.erase(safe_erase=False)
    function.body.add_block(body)
    inputs = [argument.type for argument in body.args]
    function.function_type = FunctionType.from_lists(inputs, results)


def _raise_op(raiser: Raiser, op: Operation) -> None:
    handler = find_handler(op)
    with blaming(op):
        handler(raiser, op)
    location = location_of(op)
    raised = raiser.values.get(op.results[0])
    if isinstance(raised, Raised) and isinstance(raised.value.owner, Operation) and location:
        place(raised.value.owner, location)


def _names(function: func.FuncOp) -> list[str | None]:
    """The names of the arguments that the importer recorded."""
    count = len(function.body.block.args)
    if function.arg_attrs is None or len(function.arg_attrs) != count:
        return [None] * count
    found = [attributes.data.get(NAME) for attributes in function.arg_attrs]
    return [name.data if isinstance(name, StringAttr) else None for name in found]


def _weight_types(block: Block) -> dict[SSAValue, LowBitTensorType]:
    """The formats of the arguments that hold bytes of weights, from the ops that read them."""
    found: dict[SSAValue, LowBitTensorType] = {}
    for op in block.ops:
        operands = WEIGHT_OPERANDS.get(torch_name(op))
        if operands is None:
            continue
        find_handler(op)
        index, first = operands
        with blaming(op):
            type_ = weight_type(op, first)
        if found.setdefault(op.operands[index], type_) != type_:
            refuse(op, f"reads bytes as {type_} that another op reads in another format")
    return found


def _argument(
    function: func.FuncOp, argument: SSAValue, weights: dict[SSAValue, LowBitTensorType]
) -> tuple[Attribute, Layout]:
    if argument in weights:
        return weights[argument], Layout.PLAIN
    found = argument_type(argument.type)
    if found is None:
        raise RaiseError(
            f"function '{function.sym_name.data}' has an argument of type {argument.type}",
            location=location_of(function),
            accepted="vtensor<[],si64>, <[1,?],si32>, <[1,?,F],f32>, static f32 and f16 tensors, "
            "and ui8 weights that nybble.linear or nybble.embed reads",
        )
    return found
