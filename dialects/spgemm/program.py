"""The program level of the spgemm dialect: how a row-wise product runs on many harts.

A window is a part of the result that an accumulator in the scratchpad holds. Within it rows are
handed to harts (`token`), the entries of a row are walked (`nonzeros`), products are merged by
atomics (`hash_insert`, `dense_insert`), and `writeback` puts the entries of the window in memory:

```mlir
%c = spgemm.window %a, %b : !A, !B -> !C {
^bb0(%w: !spgemm.part):
  spgemm.token %w "token" {
  ^bb1(%row: i64):
    %xs = spgemm.row %a, %row : !A
    spgemm.nonzeros %xs : !A {
    ^bb2(%k: i64, %x: f64):
      %ys = spgemm.dma %b, %k : !B
      spgemm.nonzeros %ys : !B {
      ^bb3(%j: i64, %y: f64):
        %p = arith.mulf %x, %y : f64
        spgemm.hash_insert %w, %row, %j, %p "low" : f64
      }
    }
  }
  spgemm.writeback %w "table"
} bits 10
```

Which windows there are is data, which a planner derives from the matrices. Every hart executes the
program; it waits for the others where a `token` and where a `writeback` ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from xdsl.dialects.builtin import (
    I64,
    Float32Type,
    Float64Type,
    IntegerAttr,
    IntegerType,
    StringAttr,
    i64,
)
from xdsl.ir import Attribute, Block, ParametrizedAttribute, Region, SSAValue, TypeAttribute
from xdsl.irdl import (
    BaseAttr,
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
)
from xdsl.traits import HasParent, NoTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from nybble.dialects.spgemm.schedule import BITS, CHOICES
from nybble.dialects.spgemm.types import SparseTensorType

UNHASHED = ("fragments", "dense", "masked")
"""The accumulators that have room for every place, or for a pointer to it."""


@irdl_attr_definition
class PartType(ParametrizedAttribute, TypeAttribute):
    """A window: the rows and columns of the result that are computed before the next ones."""

    name = "spgemm.part"


@irdl_attr_definition
class EntriesType(ParametrizedAttribute, TypeAttribute):
    """The entries of a row of a matrix of that type: where they are, and how they are reached."""

    name = "spgemm.entries"
    matrix: SparseTensorType


Sparse = BaseAttr(SparseTensorType)
Part = BaseAttr(PartType)
Value = BaseAttr(Float64Type) | BaseAttr(Float32Type) | BaseAttr(IntegerType)


def _check_choice(what: str, attribute: StringAttr, accepted: Sequence[str]) -> None:
    if attribute.data not in accepted:
        raise VerifyException(f'unknown {what} "{attribute.data}"; accepted: {", ".join(accepted)}')


def _check_arguments(what: str, region: Region, wanted: Sequence[Attribute]) -> None:
    if [argument.type for argument in region.block.args] != [*wanted]:
        raise VerifyException(
            f"the region of {what} must have arguments {', '.join(map(str, wanted))}"
        )


def _body(arguments: Sequence[Attribute]) -> Region:
    return Region(Block(arg_types=arguments))


@irdl_op_definition
class WindowOp(IRDLOperation):
    """The product of two matrices, one window of the result after the other.

    bits: log2 of the slots, or of the places, of the accumulator.
    """

    name = "spgemm.window"
    lhs = operand_def(Sparse)
    rhs = operand_def(Sparse)
    bits = prop_def(IntegerAttr[I64])
    result = result_def(Sparse)
    body = region_def("single_block")
    traits = traits_def(NoTerminator())
    assembly_format = (
        "$lhs `,` $rhs `:` type($lhs) `,` type($rhs) `->` type($result) $body "
        "`bits` $bits attr-dict"
    )

    def __init__(self, lhs: SSAValue, rhs: SSAValue, result: Attribute, bits: int):
        super().__init__(
            operands=[lhs, rhs],
            result_types=[result],
            properties={"bits": IntegerAttr(bits, i64)},
            regions=[_body([PartType()])],
        )

    def verify_(self) -> None:
        if self.bits.value.data not in BITS:
            raise VerifyException(
                f"bits must be from {BITS.start} to {BITS.stop - 1}, got {self.bits.value.data}"
            )
        _check_arguments("a window", self.body, [PartType()])
        written = [op.accumulator.data for op in self.walk() if isinstance(op, WritebackOp)]
        if len(written) != 1:
            raise VerifyException(f"a window must be written back once, got {len(written)} times")
        for op in self.walk():
            if isinstance(op, InsertOp) and op.into != written[0]:
                raise VerifyException(
                    f'products go into "{op.into}", and "{written[0]}" is written back'
                )


@irdl_op_definition
class TokenOp(IRDLOperation):
    """The body for every row of a window, each on one hart; then the harts wait for each other.

    rows: "static" deals rows out in turn; "token" gives the next row to the hart that asks first.
    """

    name = "spgemm.token"
    part = operand_def(Part)
    rows = prop_def(StringAttr)
    body = region_def("single_block")
    traits = traits_def(NoTerminator(), HasParent(WindowOp))
    assembly_format = "$part $rows $body attr-dict"

    def __init__(self, part: SSAValue, rows: str):
        super().__init__(
            operands=[part], properties={"rows": StringAttr(rows)}, regions=[_body([i64])]
        )

    def verify_(self) -> None:
        _check_choice("distribution of rows", self.rows, CHOICES["rows"])
        _check_arguments("a token", self.body, [i64])


class EntriesOp(IRDLOperation, ABC):
    """The entries of a row."""

    matrix = operand_def(Sparse)
    row = operand_def(i64)
    entries = result_def(EntriesType)
    traits = traits_def(Pure())
    assembly_format = "$matrix `,` $row attr-dict `:` type($matrix) `->` type($entries)"

    def __init__(self, matrix: SSAValue, row: SSAValue):
        assert isinstance(matrix.type, SparseTensorType)
        super().__init__(operands=[matrix, row], result_types=[EntriesType(matrix.type)])

    def verify_(self) -> None:
        entries = self.entries.type
        assert isinstance(entries, EntriesType)
        if entries.matrix != self.matrix.type:
            raise VerifyException("the entries must be of the matrix's type")


@irdl_op_definition
class RowOp(EntriesOp):
    """The entries of a row, which are loaded from where they lie."""

    name = "spgemm.row"


@irdl_op_definition
class DmaOp(EntriesOp):
    """The entries of a row, which DMA brings into the hart's buffer piece by piece."""

    name = "spgemm.dma"


@irdl_op_definition
class AdmitOp(IRDLOperation):
    """The body for the places of a mask in a row: products at others are dropped.

    entries: of the mask's row; their values do not matter. A row without any is skipped. One with
    more than a fragment has room for is gone through once for each part that fits.
    """

    name = "spgemm.admit"
    part = operand_def(Part)
    row = operand_def(i64)
    entries = operand_def(EntriesType)
    body = region_def("single_block")
    traits = traits_def(NoTerminator(), HasParent(TokenOp))
    assembly_format = "$part `,` $row `,` $entries `:` type($entries) $body attr-dict"

    def __init__(self, part: SSAValue, row: SSAValue, entries: SSAValue):
        super().__init__(operands=[part, row, entries], regions=[_body([])])

    def verify_(self) -> None:
        _check_arguments("what is admitted", self.body, [])
        if not any(isinstance(op, WritebackOp) for op in self.body.block.ops):
            raise VerifyException("what is admitted must be written back")


@irdl_op_definition
class NonzerosOp(IRDLOperation):
    """The body for every entry of a row, in order: its column and its value."""

    name = "spgemm.nonzeros"
    entries = operand_def(EntriesType)
    body = region_def("single_block")
    traits = traits_def(NoTerminator())
    assembly_format = "$entries `:` type($entries) $body attr-dict"

    def __init__(self, entries: SSAValue):
        assert isinstance(entries.type, EntriesType)
        arguments = [i64, entries.type.matrix.element]
        super().__init__(operands=[entries], regions=[_body(arguments)])

    def verify_(self) -> None:
        entries = self.entries.type
        assert isinstance(entries, EntriesType)
        _check_arguments("nonzeros", self.body, [i64, entries.matrix.element])


class InsertOp(IRDLOperation, ABC):
    """Adds a product to a place of the window; one outside of it is left alone."""

    part = operand_def(Part)
    row = operand_def(i64)
    column = operand_def(i64)
    value = operand_def(Value)

    @property
    @abstractmethod
    def into(self) -> str:
        """The accumulator that takes the product."""


@irdl_op_definition
class HashInsertOp(InsertOp):
    """Finds the place in a table of all harts by hashing and linear probing, and adds atomically.

    hash: which bits choose the slot: "high" of the column, or "low" of all. A product that finds no
    room is spilled: it is an entry of its own, which is added up with the others of its place when
    the result is read.
    """

    name = "spgemm.hash_insert"
    hash = prop_def(StringAttr)
    assembly_format = "$part `,` $row `,` $column `,` $value $hash attr-dict `:` type($value)"

    def __init__(self, part: SSAValue, place: Sequence[SSAValue], value: SSAValue, hash_: str):
        super().__init__(operands=[part, *place, value], properties={"hash": StringAttr(hash_)})

    @property
    def into(self) -> str:
        """See `InsertOp`."""
        return "table"

    def verify_(self) -> None:
        _check_choice("hash", self.hash, CHOICES["hash"])


@irdl_op_definition
class DenseInsertOp(InsertOp):
    """Adds at an element of an array.

    accumulator: "dense" is an array of all places and all harts, which add atomically. "fragments"
    is one of the columns, of each hart by itself, that points to entries; when these are full they
    are written to the result, and the place gets another one. "masked" drops a product whose place
    was not admitted.
    """

    name = "spgemm.dense_insert"
    accumulator = prop_def(StringAttr)
    assembly_format = (
        "$part `,` $row `,` $column `,` $value $accumulator attr-dict `:` type($value)"
    )

    def __init__(self, part: SSAValue, place: Sequence[SSAValue], value: SSAValue, into: str):
        super().__init__(
            operands=[part, *place, value], properties={"accumulator": StringAttr(into)}
        )

    @property
    def into(self) -> str:
        """See `InsertOp`."""
        return self.accumulator.data

    def verify_(self) -> None:
        _check_choice("accumulator", self.accumulator, UNHASHED)


@irdl_op_definition
class WritebackOp(IRDLOperation):
    """Appends what an accumulator holds to the result, and empties it.

    A "table" or "dense" one is written when a window is complete, entry by entry, by all harts,
    which then wait for each other. "fragments" are moved by DMA when a row is complete, "masked"
    ones when what was admitted is.
    """

    name = "spgemm.writeback"
    part = operand_def(Part)
    accumulator = prop_def(StringAttr)
    traits = traits_def(HasParent(WindowOp, TokenOp, AdmitOp))
    assembly_format = "$part $accumulator attr-dict"

    def __init__(self, part: SSAValue, accumulator: str):
        super().__init__(operands=[part], properties={"accumulator": StringAttr(accumulator)})

    def verify_(self) -> None:
        _check_choice("accumulator", self.accumulator, CHOICES["accumulator"])
        wanted = {"fragments": TokenOp, "masked": AdmitOp}.get(self.accumulator.data, WindowOp)
        parent = self.parent_op()
        if not isinstance(parent, wanted):
            assert parent is not None
            raise VerifyException(
                f'"{self.accumulator.data}" is written at the end of {wanted.name}, not of'
                f" {parent.name}"
            )


OPS = (
    WindowOp, TokenOp, RowOp, DmaOp, AdmitOp, NonzerosOp, HashInsertOp, DenseInsertOp, WritebackOp,
)  # fmt: skip
TYPES = (PartType, EntriesType)
