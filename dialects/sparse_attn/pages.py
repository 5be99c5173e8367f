"""Choosing pages of keys while a model runs: bounds of keys as they come, and the best pages."""

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    Float32Type,
    IndexType,
    IntegerAttr,
    IntegerType,
    TensorType,
    i32,
)
from xdsl.ir import SSAValue
from xdsl.irdl import (
    IRDLOperation,
    VarConstraint,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.numpy_ref import pages as ref
from nybble.dialects.shapes import check_equal, check_rank

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
F32Tensor = TensorType.constr(Float32Type())
Number = IntegerAttr[IntegerType]


def bounds_shape(bounds: SSAValue) -> tuple[int, int, int]:
    """Heads, pages and features of bounds; raises VerifyException."""
    heads, count, width = check_rank("bounds", bounds, 3)
    if width % 2:
        raise VerifyException(f"bounds have {width} columns; accepted: 2 * head_dim")
    return heads, count, width // 2


@irdl_op_definition
class AppendBoundsOp(IRDLOperation):
    """The least and the largest components of keys of each page, with rows at `position` added.

    Bounds are [heads, pages, 2 * head_dim], first the least ones, of pages of `size` keys. The
    first key of a page starts it anew.
    """

    name = "sparse_attn.append_bounds"
    BOUNDS: ClassVar = VarConstraint("BOUNDS", F32Tensor)
    rows = operand_def(F32Tensor)
    bounds = operand_def(BOUNDS)
    position = operand_def(IndexType())
    size = prop_def(Number)
    result = result_def(BOUNDS)
    traits = traits_def(Pure())
    assembly_format = (
        "$rows `into` $bounds `at` $position `size` $size attr-dict `:` type($rows) `into` "
        "type($bounds)"
    )

    def verify_(self) -> None:
        heads, _, dim = bounds_shape(self.bounds)
        _, features = check_rank("rows", self.rows, 2)
        check_equal("columns of the rows", features, heads * dim, "heads * head_dim of the bounds")
        if self.size.value.data < 1:
            raise VerifyException(f"pages of {self.size.value.data} keys; accepted: 1 or more")

    def reference(self, rows: Array, bounds: Array, position: int) -> tuple[Array]:
        """rows f32 [n, H*D]; bounds f32 [H, P, 2*D]."""
        return (ref.append_bounds(bounds, rows, position, self.size.value.data),)


@irdl_op_definition
class SelectPagesOp(IRDLOperation):
    """The list of a mask `pages(..)`: for each row the pages whose keys may score highest.

    The page of the row itself comes first, then the pages before it by the largest score that a key
    within its bounds can have with any query head of the group (Quest, arXiv:2406.10774). With
    `parts` bounds for a page, that is the best of its parts (hierarchical pages of LServe,
    arXiv:2502.14866). The list is i32 [heads, rows, pages of a row], -1 where there are less.
    """

    name = "sparse_attn.select_pages"
    query = operand_def(F32Tensor)
    bounds = operand_def(F32Tensor)
    position = operand_def(IndexType())
    size = prop_def(Number)
    parts = prop_def(Number)
    result = result_def(TensorType.constr(i32))
    traits = traits_def(Pure())
    assembly_format = (
        "$query `,` $bounds `at` $position `size` $size `parts` $parts attr-dict `:` type($query) "
        "`,` type($bounds) `->` type($result)"
    )

    @property
    def count(self) -> int:
        """Pages of a row."""
        return check_rank("the list", self.result, 3)[2]

    def verify_(self) -> None:
        heads, _, dim = bounds_shape(self.bounds)
        rows, features = check_rank("query", self.query, 2)
        if features % (heads * dim):
            raise VerifyException(
                f"columns of the query must be a multiple of {heads * dim}, got {features}"
            )
        of, listed, count = check_rank("the list", self.result, 3)
        check_equal("heads of the list", of, heads, "heads of the bounds")
        if listed != rows or count < 1:
            raise VerifyException("the list must have the rows of the query, and a page or more")
        size, parts = self.size.value.data, self.parts.value.data
        if size < 1 or parts < 1 or size % parts:
            raise VerifyException(f"pages of {size} keys cannot have {parts} parts")

    def reference(self, query: Array, bounds: Array, position: int) -> tuple[Ints]:
        """query f32 [n, Hq*D]; bounds f32 [H, P, 2*D]; i32 [H, n, count]."""
        size, parts = self.size.value.data, self.parts.value.data
        chosen = ref.select_pages(query, bounds, position, parts=parts, size=size, count=self.count)
        return (chosen,)


def is_of_each_row(entries: SSAValue) -> bool:
    """Whether a list has a row for each query, by its type: that of SelectPagesOp does."""
    assert isinstance(entries.type, TensorType)
    return entries.type.get_shape()[1] == DYNAMIC_INDEX
