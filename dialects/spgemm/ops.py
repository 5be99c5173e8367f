"""Products of sparse matrices: what is computed, over which semiring, at which places."""

from collections.abc import Sequence
from typing import ClassVar, TypeAlias

from xdsl.dialects.builtin import (
    Float32Type,
    FloatAttr,
    StringAttr,
    TensorType,
    UnitAttr,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AnyAttr,
    BaseAttr,
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.numpy_ref import sparse as ref
from nybble.dialects.shapes import check_equal
from nybble.dialects.spgemm.elements import ELEMENTS, Values
from nybble.dialects.spgemm.matrix import SparseMatrix
from nybble.dialects.spgemm.semiring import SEMIRINGS, Semiring
from nybble.dialects.spgemm.types import SparseTensorType

Sparse = BaseAttr(SparseTensorType)
Dense = TensorType.constr(AnyAttr())
Either: TypeAlias = SparseMatrix | Values
PLUS_TIMES = "plus_times"


def shape_of(value: SSAValue) -> tuple[int, int]:
    """Rows and columns of a sparse or dense matrix; raises VerifyException for another rank."""
    if isinstance(value.type, SparseTensorType):
        return value.type.rows, value.type.cols
    assert isinstance(value.type, TensorType)
    shape = value.type.get_shape()
    if len(shape) != 2:
        raise VerifyException(f"a dense operand must have 2 dimensions, got {len(shape)}")
    return shape[0], shape[1]


def element_name(value: SSAValue) -> str:
    """The name of what a value's elements are computed with."""
    if isinstance(value.type, SparseTensorType):
        return value.type.value_name
    assert isinstance(value.type, TensorType)
    element: Attribute = value.type.element_type
    return str(element)


def ring_of(name: StringAttr | None) -> Semiring:
    """The semiring that a property names; plus_times by default."""
    return SEMIRINGS[name.data if name else PLUS_TIMES]


def check_ring(name: StringAttr | None, values: Sequence[SSAValue], result: SSAValue) -> None:
    """Raise unless the operands are of one type that the semiring has, and the result of its sums.

    The sums of or_and are of the type of its operands, those of other semirings as in `ELEMENTS`.
    """
    if name is not None and name.data not in SEMIRINGS:
        raise VerifyException(f'unknown semiring "{name.data}"; accepted: {", ".join(SEMIRINGS)}')
    ring = ring_of(name)
    names = [element_name(value) for value in values]
    if len(set(names)) != 1:
        raise VerifyException(f"operands must have one element type, got {' and '.join(names)}")
    if names[0] not in ring.elements:
        raise VerifyException(f"{ring.name} of {names[0]}; accepted: {', '.join(ring.elements)}")
    expected = names[0] if ring.name == "or_and" else ELEMENTS[names[0]].sum
    if element_name(result) != expected:
        raise VerifyException(
            f"elements of the result must be {expected}, got {element_name(result)}"
        )


def check_product(lhs: SSAValue, rhs: SSAValue, result: SSAValue) -> None:
    """Raise unless shapes are [m, k], [k, n] and [m, n]."""
    (m, k), (depth, n), (rows, cols) = shape_of(lhs), shape_of(rhs), shape_of(result)
    check_equal("rows of the right operand", depth, k, "columns of the left")
    check_equal("rows of the result", rows, m, "rows of the left operand")
    check_equal("columns of the result", cols, n, "columns of the right operand")


@irdl_op_definition
class MatmulOp(IRDLOperation):
    """Sparse times sparse: C[i, j] = sum over k of A[i, k] * B[k, j], over stored entries.

    A sparse result has an entry wherever a pair of entries meets, also where they cancel; a dense
    one has the zero of the semiring elsewhere. With a mask, only the places that it has entries in
    are computed; with `complement`, only the others. Its values do not matter.
    """

    name = "spgemm.matmul"
    lhs = operand_def(Sparse)
    rhs = operand_def(Sparse)
    mask = opt_operand_def(Sparse)
    complement = opt_prop_def(UnitAttr)
    semiring = opt_prop_def(StringAttr)
    result = result_def(Sparse | Dense)
    traits = traits_def(Pure())
    assembly_format = (
        "$lhs `,` $rhs (`mask` $mask^ `:` type($mask))? (`complement` $complement^)? "
        "(`semiring` $semiring^)? attr-dict `:` type($lhs) `,` type($rhs) `->` type($result)"
    )

    def verify_(self) -> None:
        check_product(self.lhs, self.rhs, self.result)
        check_ring(self.semiring, (self.lhs, self.rhs), self.result)
        if self.mask is None:
            if self.complement is not None:
                raise VerifyException("complement needs a mask")
            return
        for name, got, expected in zip(
            ("rows", "columns"), shape_of(self.mask), shape_of(self.result), strict=True
        ):
            check_equal(f"{name} of the mask", got, expected, "those of the result")

    def reference(
        self, lhs: SparseMatrix, rhs: SparseMatrix, mask: SparseMatrix | None = None
    ) -> tuple[Either]:
        """See `numpy_ref.sparse.matmul`."""
        ring = ring_of(self.semiring)
        made = ref.matmul(lhs, rhs, ring, mask, self.complement is not None)
        if isinstance(self.result.type, SparseTensorType):
            return (made,)
        return (made.to_dense(ring.zero(made.values.dtype)),)


@irdl_op_definition
class SpmmOp(IRDLOperation):
    """Sparse times dense, dense result; the zero of the semiring where a row has no entries."""

    name = "spgemm.spmm"
    lhs = operand_def(Sparse)
    rhs = operand_def(Dense)
    semiring = opt_prop_def(StringAttr)
    result = result_def(Dense)
    traits = traits_def(Pure())
    assembly_format = (
        "$lhs `,` $rhs (`semiring` $semiring^)? attr-dict `:` type($lhs) `,` type($rhs) `->` "
        "type($result)"
    )

    def verify_(self) -> None:
        check_product(self.lhs, self.rhs, self.result)
        check_ring(self.semiring, (self.lhs, self.rhs), self.result)

    def reference(self, lhs: SparseMatrix, rhs: Values) -> tuple[Values]:
        """See `numpy_ref.sparse.spmm`."""
        return (ref.spmm(lhs, rhs, ring_of(self.semiring)),)


@irdl_op_definition
class SddmmOp(IRDLOperation):
    """X [m, k] times the transpose of Y [n, k], computed at the places of a sparse mask [m, n]."""

    name = "spgemm.sddmm"
    lhs = operand_def(Dense)
    rhs = operand_def(Dense)
    mask = operand_def(Sparse)
    result = result_def(Sparse)
    traits = traits_def(Pure())
    assembly_format = (
        "$lhs `,` $rhs `at` $mask attr-dict `:` type($lhs) `,` type($rhs) `at` type($mask) `->` "
        "type($result)"
    )

    def verify_(self) -> None:
        (m, k), (n, depth) = shape_of(self.lhs), shape_of(self.rhs)
        check_equal("columns of the right operand", depth, k, "columns of the left")
        for value, name in ((self.mask, "the mask"), (self.result, "the result")):
            rows, cols = shape_of(value)
            check_equal(f"rows of {name}", rows, m, "rows of the left operand")
            check_equal(f"columns of {name}", cols, n, "rows of the right operand")
        check_ring(None, (self.lhs, self.rhs), self.result)

    def reference(self, lhs: Values, rhs: Values, mask: SparseMatrix) -> tuple[SparseMatrix]:
        """See `numpy_ref.sparse.sddmm`."""
        return (ref.sddmm(lhs, rhs, mask),)


@irdl_op_definition
class SoftmaxOp(IRDLOperation):
    """The softmax of `scale` times the stored entries of each row; an empty row stays empty."""

    name = "spgemm.softmax"
    T: ClassVar = VarConstraint("T", Sparse)
    scores = operand_def(T)
    scale = prop_def(FloatAttr[Float32Type])
    result = result_def(T)
    traits = traits_def(Pure())
    assembly_format = "$scores `scale` $scale attr-dict `:` type($result)"

    def verify_(self) -> None:
        if element_name(self.scores) not in ("f32", "f64"):
            raise VerifyException(f"softmax of {element_name(self.scores)}; accepted: f32, f64")

    def reference(self, scores: SparseMatrix) -> tuple[SparseMatrix]:
        """See `numpy_ref.sparse.softmax`."""
        return (ref.softmax(scores, self.scale.value.data),)


@irdl_op_definition
class ConvertOp(IRDLOperation):
    """The same matrix in another layout, with other indices, or dense with zeros between.

    A dense matrix becomes sparse by its entries that are not 0.
    """

    name = "spgemm.convert"
    source = operand_def(Sparse | Dense)
    result = result_def(Sparse | Dense)
    traits = traits_def(Pure())
    assembly_format = "$source attr-dict `:` type($source) `->` type($result)"

    def verify_(self) -> None:
        for name, got, expected in zip(
            ("rows", "columns"), shape_of(self.result), shape_of(self.source), strict=True
        ):
            check_equal(f"{name} of the result", got, expected, "those of the source")
        if element_name(self.source) != element_name(self.result):
            raise VerifyException(
                f"elements of the result must be {element_name(self.source)},"
                f" got {element_name(self.result)}"
            )

    def reference(self, source: Either) -> tuple[Either]:
        """Layouts are of the type alone: a value of any is a SparseMatrix."""
        wanted = self.result.type
        if isinstance(source, SparseMatrix):
            if not isinstance(wanted, SparseTensorType):
                return (source.to_dense(),)
            return (source.with_index(wanted.index.width.data),)
        if not isinstance(wanted, SparseTensorType):
            return (source,)
        return (SparseMatrix.from_dense(source, wanted.index.width.data),)
