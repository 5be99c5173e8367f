"""Pass `convert-spgemm-to-program`: say how harts compute a product of sparse matrices.

Before:

```mlir
func.func @f(%a: !spgemm.tensor<?x?, f64, "csr", i32>, %b: !spgemm.tensor<?x?, f64, "csr", i32>)
    -> !spgemm.tensor<?x?, f64, "csr", i32> {
  %c = spgemm.matmul %a, %b : !spgemm.tensor<?x?, f64, "csr", i32>,
      !spgemm.tensor<?x?, f64, "csr", i32> -> !spgemm.tensor<?x?, f64, "csr", i32>
  func.return %c : !spgemm.tensor<?x?, f64, "csr", i32>
}
```

After:

```mlir
func.func @f(%a: !spgemm.tensor<?x?, f64, "csr", i32>, %b: !spgemm.tensor<?x?, f64, "csr", i32>)
    -> !spgemm.tensor<?x?, f64, "csr", i32> {
  %c = spgemm.window %a, %b : !spgemm.tensor<?x?, f64, "csr", i32>,
      !spgemm.tensor<?x?, f64, "csr", i32> -> !spgemm.tensor<?x?, f64, "csr", i32> {
  ^bb0(%w: !spgemm.part):
    spgemm.token %w "token" {
    ^bb1(%row: i64):
      %xs = spgemm.row %a, %row : !spgemm.tensor<?x?, f64, "csr", i32> ->
          !spgemm.entries<!spgemm.tensor<?x?, f64, "csr", i32>>
      spgemm.nonzeros %xs : !spgemm.entries<!spgemm.tensor<?x?, f64, "csr", i32>> {
      ^bb2(%k: i64, %x: f64):
        %ys = spgemm.row %b, %k : !spgemm.tensor<?x?, f64, "csr", i32> ->
            !spgemm.entries<!spgemm.tensor<?x?, f64, "csr", i32>>
        spgemm.nonzeros %ys : !spgemm.entries<!spgemm.tensor<?x?, f64, "csr", i32>> {
        ^bb3(%j: i64, %y: f64):
          %p = arith.mulf %x, %y : f64
          spgemm.hash_insert %w, %row, %j, %p "low" : f64
        }
      }
    }
    spgemm.writeback %w "table"
  } bits 16
  func.return %c : !spgemm.tensor<?x?, f64, "csr", i32>
}
```

With a mask, `spgemm.admit` stands around the work on a row: rows without a place in the mask are
skipped, and products at other places are dropped.

Does not handle: complements of masks, semirings other than plus-times, dense results, layouts other
than csr, and elements other than f64, f32 and i64; it refuses each of them.
"""

from dataclasses import dataclass, replace

from xdsl.builder import ImplicitBuilder
from xdsl.context import Context
from xdsl.dialects import arith
from xdsl.dialects.builtin import ModuleOp, f32, f64, i64
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from nybble.dialects.errors import NybbleError
from nybble.dialects.spgemm.ops import MatmulOp
from nybble.dialects.spgemm.program import (
    AdmitOp,
    DenseInsertOp,
    DmaOp,
    HashInsertOp,
    NonzerosOp,
    RowOp,
    TokenOp,
    WindowOp,
    WritebackOp,
)
from nybble.dialects.spgemm.schedule import Schedule
from nybble.dialects.spgemm.types import SparseTensorType

ELEMENTS = (f64, f32, i64)
MASKED = "masked"
"""The accumulator of products with a mask."""


class ProgramError(NybbleError):
    """A product that has no program."""


def check_supported(op: MatmulOp) -> None:
    """Raise ProgramError for a product that programs do not compute."""
    if op.complement is not None:
        raise ProgramError("a program of a mask's complement", accepted="a mask")
    if op.semiring is not None and op.semiring.data != "plus_times":
        raise ProgramError(f"semiring '{op.semiring.data}'", accepted="plus_times")
    for value in (op.lhs, op.rhs, op.result, op.mask):
        if value is None:
            continue
        type_ = value.type
        if not isinstance(type_, SparseTensorType) or str(type_.described) != "csr":
            raise ProgramError(f"a program of {type_}", accepted='operands and result in "csr"')
        if type_.element not in ELEMENTS:
            raise ProgramError(f"a program of {type_.element}", accepted="f64, f32, i64")
        if type_.index.width.data != 32:
            raise ProgramError(f"indices of {type_.index}", accepted="i32")


def program(
    lhs: SSAValue,
    rhs: SSAValue,
    result: SparseTensorType,
    how: Schedule,
    mask: SSAValue | None = None,
) -> WindowOp:
    """The program of a product by a schedule; the caller puts it where it belongs.

    Raises ProgramError for a mask whose products are not collected as such, or none where they are.
    """
    if (mask is not None) != (how.accumulator == MASKED):
        raise ProgramError(
            f"accumulator '{how.accumulator}' {'with' if mask is not None else 'without'} a mask",
            accepted=f"'{MASKED}' with a mask, others without",
        )
    made = WindowOp(lhs, rhs, result, how.bits)
    part = made.body.block.args[0]
    with ImplicitBuilder(made.body):
        rows = TokenOp(part, how.rows)
        with ImplicitBuilder(rows.body):
            row = rows.body.block.args[0]
            if mask is not None:
                admitted = AdmitOp(part, row, RowOp(mask, row).entries)
                with ImplicitBuilder(admitted.body):
                    _row(part, (lhs, rhs), row, how)
                    WritebackOp(part, how.accumulator)
            else:
                _row(part, (lhs, rhs), row, how)
                if how.accumulator == "fragments":
                    WritebackOp(part, how.accumulator)
        if how.accumulator in ("table", "dense"):
            WritebackOp(part, how.accumulator)
    return made


def _row(part: SSAValue, factors: tuple[SSAValue, SSAValue], row: SSAValue, how: Schedule) -> None:
    outer = NonzerosOp(RowOp(factors[0], row).entries)
    with ImplicitBuilder(outer.body):
        k, x = outer.body.block.args
        reach = DmaOp if how.transfer == "dma" else RowOp
        inner = NonzerosOp(reach(factors[1], k).entries)
        with ImplicitBuilder(inner.body):
            j, y = inner.body.block.args
            product = arith.MuliOp(x, y) if x.type == i64 else arith.MulfOp(x, y)
            if how.accumulator == "table":
                HashInsertOp(part, (row, j), product.result, how.hash)
            else:
                DenseInsertOp(part, (row, j), product.result, how.accumulator)


@dataclass(frozen=True)
class ConvertSpGEMMToProgram(ModulePass):
    """Write programs for products; see the module's text. Options are those of `Schedule`.

    accumulator: of products without a mask.
    """

    name = "convert-spgemm-to-program"
    rows: str = "token"
    hash: str = "low"
    accumulator: str = "table"
    transfer: str = "loop"
    bits: int = 16

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        how = Schedule(self.rows, self.hash, self.accumulator, self.transfer, self.bits)
        for found in [one for one in op.walk() if isinstance(one, MatmulOp)]:
            check_supported(found)
            assert isinstance(found.result.type, SparseTensorType)
            taken = how if found.mask is None else replace(how, accumulator=MASKED)
            made = program(found.lhs, found.rhs, found.result.type, taken, found.mask)
            Rewriter.replace_op(found, made)
