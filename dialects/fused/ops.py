"""Memory-bound operators of a model: norms, rotary embedding, gates, embedding, sampling."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    I64,
    Float32Type,
    FloatAttr,
    IndexType,
    IntegerAttr,
    IntegerType,
    StringAttr,
    TensorType,
    UnitAttr,
    i32,
    i64,
)
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.numpy_ref import glu, hadamard, norm, rope, sample, softmax
from nybble.dialects.shapes import check_equal, check_rank

Array = npt.NDArray[np.float32]
F32Tensor = TensorType.constr(Float32Type())
FloatProp = FloatAttr[Float32Type]
ACTIVATIONS = ("silu", "gelu_tanh", "sigmoid")


@irdl_op_definition
class RmsNormOp(IRDLOperation):
    """Root-mean-square normalisation of every run of `len(weight)` columns.

    `y = x / sqrt(mean(x^2) + eps) * w`; with `unit_offset` the factor is `1 + w` (Gemma). A
    weight shorter than a row normalises each attention head by itself (Qwen3).
    """

    name = "fused.rms_norm"
    input = operand_def(F32Tensor)
    weight = operand_def(F32Tensor)
    eps = prop_def(FloatProp)
    unit_offset = opt_prop_def(UnitAttr)
    result = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = (
        "$input `,` $weight `eps` $eps (`unit_offset` $unit_offset^)? attr-dict `:` "
        "type($input) `,` type($weight) `->` type($result)"
    )

    def verify_(self) -> None:
        _, features = check_rank("input", self.input, 2)
        (length,) = check_rank("weight", self.weight, 1)
        if length < 1 or features % length:
            raise VerifyException(
                f"columns of the input must be a multiple of the weight's length {length}, "
                f"got {features}"
            )
        if self.result.type != self.input.type:
            raise VerifyException("the result must have the type of the input")

    def reference(self, values: Array, weight: Array) -> tuple[Array]:
        """values f32 [n, F]; weight f32 [L] with L dividing F."""
        offset = self.unit_offset is not None
        return (norm.head_rms_norm(values, weight, self.eps.value.data, offset=offset),)


@irdl_op_definition
class RopeOp(IRDLOperation):
    """Rotary position embedding in the half-split form, from tables [context, head_dim / 2].

    Per head: `y1 = x1 cos - x2 sin`, `y2 = x2 cos + x1 sin`, row i at `position + i`.
    """

    name = "fused.rope"
    TABLE: ClassVar = VarConstraint("TABLE", F32Tensor)
    input = operand_def(F32Tensor)
    cos = operand_def(TABLE)
    sin = operand_def(TABLE)
    position = operand_def(IndexType())
    result = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = (
        "$input `,` $cos `,` $sin `at` $position attr-dict `:` type($input) `,` type($cos)"
        " `->` type($result)"
    )

    def verify_(self) -> None:
        _, features = check_rank("input", self.input, 2)
        _, half = check_rank("cos", self.cos, 2)
        if half < 1 or features % (2 * half):
            raise VerifyException(
                f"columns of the input must be a multiple of head_dim = {2 * half}, got {features}"
            )
        if self.result.type != self.input.type:
            raise VerifyException("the result must have the type of the input")

    def reference(self, values: Array, cos: Array, sin: Array, position: int) -> tuple[Array]:
        """values f32 [n, H*D]; cos, sin f32 [C, D/2]."""
        return (rope.rope(values, cos, sin, position),)


@irdl_op_definition
class GluOp(IRDLOperation):
    """Gated linear unit: `activation(gate) * up`."""

    name = "fused.glu"
    T: ClassVar = VarConstraint("T", F32Tensor)
    gate = operand_def(T)
    up = operand_def(T)
    activation = prop_def(StringAttr)
    result = result_def(T)
    traits = traits_def(Pure())
    assembly_format = "$activation $gate `,` $up attr-dict `:` type($gate)"

    def verify_(self) -> None:
        if self.activation.data not in ACTIVATIONS:
            raise VerifyException(
                f'unknown activation "{self.activation.data}"; accepted: {", ".join(ACTIVATIONS)}'
            )

    def reference(self, gate: Array, up: Array) -> tuple[Array]:
        """gate, up f32 [n, F]."""
        return (glu.glu(gate, up, self.activation.data),)


@irdl_op_definition
class SoftmaxOp(IRDLOperation):
    """The softmax of every row: `y = exp(x - max(x)) / sum(exp(x - max(x)))`."""

    name = "fused.softmax"
    T: ClassVar = VarConstraint("T", F32Tensor)
    input = operand_def(T)
    result = result_def(T)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input)"

    def verify_(self) -> None:
        _, features = check_rank("input", self.input, 2)
        if features < 1:
            raise VerifyException("a softmax needs columns")

    def reference(self, values: Array) -> tuple[Array]:
        """values f32 [n, F]; a row of -inf alone, or with a NaN, is NaN."""
        return (softmax.of_rows(values),)


@irdl_op_definition
class HadamardOp(IRDLOperation):
    """The normalised Hadamard transform of every run of `block` columns; its own inverse.

    It spreads outliers over their run, so that rounding costs less (QuaRot, arXiv:2404.00456).
    """

    name = "fused.hadamard"
    T: ClassVar = VarConstraint("T", F32Tensor)
    input = operand_def(T)
    block = prop_def(IntegerAttr[I64])
    result = result_def(T)
    traits = traits_def(Pure())
    assembly_format = "$input `block` $block attr-dict `:` type($input)"

    def verify_(self) -> None:
        _, features = check_rank("input", self.input, 2)
        block = self.block.value.data
        if block < 2 or block & (block - 1):
            raise VerifyException(f"the block must be a power of two from 2 on, got {block}")
        if features % block:
            raise VerifyException(
                f"columns of the input must be a multiple of the block {block}, got {features}"
            )

    def reference(self, values: Array) -> tuple[Array]:
        """values f32 [n, F]."""
        return (hadamard.hadamard(values, self.block.value.data).astype(np.float32),)


@irdl_op_definition
class EmbedOp(IRDLOperation):
    """Rows of a table, decoded to f32: `result[i] = scale * table[ids[i]]`.

    TABLE_LAYOUT: the order of bytes in which the table is read.
    """

    name = "fused.embed"
    TABLE_LAYOUT: ClassVar[str] = "tile64"
    ids = operand_def(TensorType.constr(i32))
    table = operand_def(LowBitTensorType)
    scale = prop_def(FloatProp)
    result = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = (
        "$ids `,` $table `scale` $scale attr-dict `:` type($ids) `,` type($table)"
        " `->` type($result)"
    )

    def verify_(self) -> None:
        (tokens,) = check_rank("ids", self.ids, 1)
        rows, features = check_rank("result", self.result, 2)
        table = self.table.type
        assert isinstance(table, LowBitTensorType)
        check_equal("rows of the result", rows, tokens, "number of ids")
        check_equal("columns of the result", features, table.cols, "columns of the table")

    def reference(self, ids: npt.NDArray[np.int32], table: Weight) -> tuple[Array]:
        """ids i32 [n]; table [vocab, F]; f32 [n, F]."""
        return (table.dequantize()[ids] * np.float32(self.scale.value.data),)


@irdl_op_definition
class SampleOp(IRDLOperation):
    """Choose one token from the logits of the last position.

    temperature 0 takes the largest logit; top_k 0 and top_p 1 leave those filters out. The
    random number is a function of `seed` and `position` (of the token sampled) alone.
    """

    name = "fused.sample"
    logits = operand_def(F32Tensor)
    temperature = operand_def(Float32Type())
    top_k = operand_def(i32)
    top_p = operand_def(Float32Type())
    seed = operand_def(i64)
    position = operand_def(i64)
    token = result_def(BaseAttr(IntegerType))
    assembly_format = (
        "$logits `temperature` $temperature `top_k` $top_k `top_p` $top_p `seed` $seed "
        "`at` $position attr-dict `:` type($logits) `->` type($token)"
    )

    def verify_(self) -> None:
        (vocabulary,) = check_rank("logits", self.logits, 1)
        if vocabulary == 0:
            raise VerifyException("logits must hold at least one token")

    def reference(
        self, logits: Array, temperature: float, top_k: int, top_p: float, seed: int, position: int
    ) -> tuple[int]:
        """logits f32 [vocab]."""
        options = sample.SamplingOptions(temperature, top_k, top_p, seed)
        return (sample.sample(logits, options, position),)


@irdl_op_definition
class LastRowOp(IRDLOperation):
    """The last token's row, the only one a generation step needs the logits of."""

    name = "fused.last_row"
    input = operand_def(F32Tensor)
    result = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = "$input attr-dict `:` type($input) `->` type($result)"

    def verify_(self) -> None:
        _, features = check_rank("input", self.input, 2)
        rows, columns = check_rank("result", self.result, 2)
        check_equal("rows of the result", rows, 1, "the last one alone")
        check_equal("columns of the result", columns, features, "columns of the input")

    def reference(self, values: Array) -> tuple[Array]:
        """values f32 [n, F] with n >= 1; f32 [1, F]."""
        return (values[-1:],)


@irdl_op_definition
class NllOp(IRDLOperation):
    """Negative log-likelihood of a target token per row: `log(sum(exp(l))) - l[target]`."""

    name = "fused.nll"
    logits = operand_def(F32Tensor)
    targets = operand_def(TensorType.constr(i32))
    result = result_def(F32Tensor)
    traits = traits_def(Pure())
    assembly_format = (
        "$logits `,` $targets attr-dict `:` type($logits) `,` type($targets) `->` type($result)"
    )

    def verify_(self) -> None:
        rows, _ = check_rank("logits", self.logits, 2)
        (targets,) = check_rank("targets", self.targets, 1)
        (results,) = check_rank("result", self.result, 1)
        check_equal("number of targets", targets, rows, "rows of the logits")
        check_equal("length of the result", results, rows, "rows of the logits")

    def reference(self, logits: Array, targets: npt.NDArray[np.int32]) -> tuple[Array]:
        """logits f32 [n, vocab]; targets i32 [n]; f32 [n]."""
        return (sample.negative_log_likelihood(logits, targets),)
