"""Pass `insert-hadamard`: rotate activations, so that weights and activations round well.

Before:

```mlir
func.func @mlp(%h: tensor<?x64xf32>,
    %g: tensor<64xf32> {nybble.weight = "norm.weight"},
    %wg: !lowbit.tensor<96x64, "w4g32"> {nybble.weight = "gate.weight"},
    %wu: !lowbit.tensor<96x64, "w4g32"> {nybble.weight = "up.weight"},
    %wd: !lowbit.tensor<64x96, "w4g32"> {nybble.weight = "down.weight"}) -> tensor<?x64xf32> {
  %n = fused.rms_norm %h, %g eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> ->
      tensor<?x64xf32>
  %a = mpgemm.matmul %n, %wg : tensor<?x64xf32>, !lowbit.tensor<96x64, "w4g32"> -> tensor<?x96xf32>
  %u = mpgemm.matmul %n, %wu : tensor<?x64xf32>, !lowbit.tensor<96x64, "w4g32"> -> tensor<?x96xf32>
  %m = fused.glu "silu" %a, %u : tensor<?x96xf32>
  %d = mpgemm.matmul %m, %wd : tensor<?x96xf32>, !lowbit.tensor<64x96, "w4g32"> -> tensor<?x64xf32>
  %s = arith.addf %h, %d : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}
```

After:

```mlir
func.func @mlp(%h: tensor<?x64xf32>,
    %g: tensor<64xf32> {nybble.weight = "norm.weight", nybble.prepare = [#lowbit.ones]},
    %wg: !lowbit.tensor<96x64, "w4g32"> {nybble.weight = "gate.weight",
      nybble.prepare = [#lowbit.scale<columns, "norm.weight">, #lowbit.hadamard<columns, 64>]},
    %wu: !lowbit.tensor<96x64, "w4g32"> {nybble.weight = "up.weight",
      nybble.prepare = [#lowbit.scale<columns, "norm.weight">, #lowbit.hadamard<columns, 64>]},
    %wd: !lowbit.tensor<64x96, "w4g32"> {nybble.weight = "down.weight",
      nybble.prepare = [#lowbit.hadamard<columns, 32>, #lowbit.hadamard<rows, 64>]})
    -> tensor<?x64xf32> {
  %n = fused.rms_norm %h, %g eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> ->
      tensor<?x64xf32>
  %a = mpgemm.matmul %n, %wg : tensor<?x64xf32>, !lowbit.tensor<96x64, "w4g32"> -> tensor<?x96xf32>
  %u = mpgemm.matmul %n, %wu : tensor<?x64xf32>, !lowbit.tensor<96x64, "w4g32"> -> tensor<?x96xf32>
  %m = fused.glu "silu" %a, %u : tensor<?x96xf32>
  %r = fused.hadamard %m block 32 : tensor<?x96xf32>
  %d = mpgemm.matmul %r, %wd : tensor<?x96xf32>, !lowbit.tensor<64x96, "w4g32"> -> tensor<?x64xf32>
  %s = arith.addf %h, %d : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}
```

A rotation by H, orthogonal and its own inverse, changes nothing that a model computes:

- The residual stream holds `x H` instead of x. RMSNorm keeps the length of a row, and so commutes
  with H once its weight is in the matrices behind it. What writes the stream (embedding, o_proj,
  down_proj) has H in its rows, what reads it (q, k, v, gate, up, head) in its columns. All folded.
- Values of attention are rotated within each head, in the rows of v_proj and the columns of o_proj;
  attention mixes whole rows of values, so that this too is folded.
- Between the gate and down_proj nothing can be folded, and `fused.hadamard` is inserted.

With `stream=false` the stream stays, and so do norms and both ends of the model: what a norm gives
to products is transformed instead. That costs a transform for each norm, goes with any
architecture, and is better where the weights of norms keep outliers of the stream away from the
products.

H is Sylvester's matrix of the largest power of two that divides the length, as often as it goes
into it. The method is that of QuaRot (arXiv:2404.00456) and HALO (arXiv:2501.02625).

Does not handle: a stream that something else reads or writes, such as the second norms of Gemma,
which is an error at that operator.
"""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, TensorType, i64
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import EmbedOp, GluOp, HadamardOp, RmsNormOp
from nybble.dialects.locations import location_of
from nybble.dialects.lowbit.steps import HadamardStep, OnesStep, ScaleStep
from nybble.dialects.mpgemm.ops import MatmulOp
from nybble.dialects.numpy_ref.hadamard import largest_block
from nybble.dialects.shapes import tensor_shape
from nybble.dialects.sparse_attn.ops import AppendKVOp, AttentionOp
from nybble.passes.preparation import (
    block_functions,
    only_products,
    prepare,
    source_of,
    users,
)


class RotationError(NybbleError):
    """A residual stream that cannot be rotated, because of what reads or writes it."""


@dataclass(frozen=True)
class InsertHadamard(ModulePass):
    """Rotate the residual stream, attention values and gated products; see the module's text.

    stream: whether the stream is rotated, or, without, what norms make of it is transformed.
    """

    name = "insert-hadamard"
    stream: bool = True

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in block_functions(op):
            for glu in [found for found in function.walk() if isinstance(found, GluOp)]:
                insert_transform(glu.result)
            for attention in [one for one in function.walk() if isinstance(one, AttentionOp)]:
                rotate_values(attention)
            if self.stream:
                rotate_stream(function)
            else:
                transform_norms(function)


def transform_norms(function: func.FuncOp) -> None:
    """Transform what norms of whole rows give to products, where no rotation is folded."""
    for norm in [op for op in function.walk() if isinstance(op, RmsNormOp)]:
        if tensor_shape(norm.weight)[0] == tensor_shape(norm.input)[1]:
            insert_transform(norm.result)


def insert_transform(value: OpResult) -> None:
    """rewrite: `matmul(x, w) -> matmul(hadamard(x), w H)`, if products alone read x."""
    products = only_products(value)
    block = largest_block(tensor_shape(value)[1])
    if not products or block < 2:
        return
    rotated = HadamardOp(
        operands=[value],
        result_types=[value.type],
        properties={"block": IntegerAttr(block, i64)},
    )
    Rewriter.insert_op(rotated, InsertPoint.after(value.op))
    for product in products:
        prepare(product.weight, HadamardStep.get("columns", block))
        product.operands[0] = rotated.result


def rotate_values(attention: AttentionOp) -> None:
    """Rotate the values of each head, if one product makes them and products read the result."""
    append = attention.values.owner
    made = append.rows.owner if isinstance(append, AppendKVOp) else None
    readers = only_products(attention.result)
    block = largest_block(tensor_shape(attention.values)[2])
    if not isinstance(made, MatmulOp) or len(users(made.result)) != 1 or not readers or block < 2:
        return
    _rotate_results(made, block)
    for reader in readers:
        prepare(reader.weight, HadamardStep.get("columns", block))


def rotate_stream(function: func.FuncOp) -> None:
    """Fold a rotation of the residual stream into the weights around it."""
    stream: set[SSAValue] = {value for value in function.body.block.args if _starts_a_stream(value)}
    for op in list(function.body.block.ops):
        if isinstance(op, EmbedOp):
            prepare(op.table, HadamardStep.get("columns", _block_of(op.result)))
            stream.add(op.result)
        elif isinstance(op, arith.AddfOp) and stream & {*op.operands}:
            _rotate_added(op, stream)
            stream.add(op.result)
        elif isinstance(op, RmsNormOp) and op.input in stream:
            _fold_norm(op)
        elif not isinstance(op, func.ReturnOp) and stream & {*op.operands}:
            raise _refusal(op, "reads")


def _starts_a_stream(value: SSAValue) -> bool:
    """Whether an argument is hidden states: a matrix that a norm or a sum reads."""
    is_matrix = isinstance(value.type, TensorType) and len(value.type.get_shape()) == 2
    return is_matrix and any(isinstance(op, RmsNormOp | arith.AddfOp) for op in users(value))


def _rotate_added(op: arith.AddfOp, stream: set[SSAValue]) -> None:
    """Rotate the results of the products that a sum adds to the stream."""
    for added in [value for value in op.operands if value not in stream]:
        writer = added.owner
        if not isinstance(writer, MatmulOp) or len(users(added)) != 1:
            raise _refusal(writer if isinstance(writer, Operation) else op, "writes")
        _rotate_results(writer, _block_of(op.result))


def _rotate_results(product: MatmulOp, block: int) -> None:
    prepare(product.weight, HadamardStep.get("rows", block))
    if product.bias is not None:
        prepare(product.bias, HadamardStep.get("columns", block))


def _fold_norm(norm: RmsNormOp) -> None:
    """Put the weight of a norm and the rotation into the products that read its result."""
    products = only_products(norm.result)
    whole = tensor_shape(norm.weight)[0] == tensor_shape(norm.input)[1]
    if not products or not whole or norm.unit_offset is not None:
        raise _refusal(norm, "reads")
    name = f"{source_of(norm.weight)}.weight"
    block = _block_of(norm.result)
    prepare(norm.weight, OnesStep())
    for product in products:
        prepare(product.weight, ScaleStep.get("columns", name), HadamardStep.get("columns", block))


def _block_of(value: SSAValue) -> int:
    length = tensor_shape(value)[1]
    block = largest_block(length)
    if block < 2:
        raise RotationError(
            f"a residual stream of {length} columns cannot be rotated",
            accepted="an even number of columns",
        )
    return block


def _refusal(op: Operation, verb: str) -> RotationError:
    return RotationError(
        f"'{op.name}' {verb} the residual stream, which cannot be rotated then",
        location=location_of(op),
        accepted="norms of whole rows, without unit_offset, that products alone read; sums with "
        "the results of products",
    )
