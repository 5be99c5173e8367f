"""The spgemm dialect: sparse matrices and their products."""

from xdsl.ir import Dialect

from nybble.dialects.spgemm import program
from nybble.dialects.spgemm.ops import ConvertOp, MatmulOp, SddmmOp, SoftmaxOp, SpmmOp
from nybble.dialects.spgemm.types import SparseTensorType

SpGEMM = Dialect(
    "spgemm",
    [ConvertOp, MatmulOp, SddmmOp, SoftmaxOp, SpmmOp, *program.OPS],
    [SparseTensorType, *program.TYPES],
)
