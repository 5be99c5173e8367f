"""Operations on rows as steps: norms, sums, gates, rows of a table, quantizations."""

from collections.abc import Iterable
from dataclasses import replace

from xdsl.dialects import arith
from xdsl.ir import SSAValue

from nybble.backends.gpu.kernels.matmul.lookup import TablesSpec
from nybble.backends.gpu.kernels.matmul.spec import Quantized
from nybble.backends.gpu.kernels.rows.norm import NormBefore, NormSpec
from nybble.backends.gpu.kernels.rows.simple import AddSpec, EmbedSpec, GluSpec, LastRowSpec
from nybble.backends.gpu.steps.step import LAST, TABLE, Slot, Step
from nybble.backends.gpu.steps.values import BRAIN, FULL, Storage, shape_of
from nybble.backends.gpu.steps.works import Work
from nybble.dialects.errors import NybbleError
from nybble.dialects.fused.ops import EmbedOp, GluOp, LastRowOp, RmsNormOp
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.mpgemm.lut import LutPrecomputeOp


def norm_step(op: RmsNormOp, storage: Storage) -> Step:
    """Of rows or of heads, to what reads them."""
    storage.require(op.input, FULL)
    (length,) = shape_of(op.weight)
    spec = NormSpec(*pair(op.input), length, norm_of(op), storage.of(op.result))
    return Step(
        spec, {"x": Slot((op.input,)), "weight": Slot((op.weight,)), "y": Slot((op.result,))}
    )


def norm_of(op: RmsNormOp) -> NormBefore:
    """What a norm computes."""
    return NormBefore(op.eps.value.data, op.unit_offset is not None)


def add_step(op: arith.AddfOp, storage: Storage) -> Step:
    """A sum."""
    for value in (*op.operands, op.result):
        storage.require(value, FULL)
    left, right = (Slot((one,)) for one in op.operands)
    return Step(AddSpec(*pair(op.result)), {"a": left, "b": right, "y": Slot((op.result,))})


def glu_step(op: GluOp, storage: Storage) -> Step:
    """A gate and the other factor."""
    for value in op.operands:
        storage.require(value, FULL)
    spec = GluSpec(*pair(op.gate), op.activation.data, storage.of(op.result))
    slots = {"gate": Slot((op.gate,)), "up": Slot((op.up,)), "y": Slot((op.result,))}
    return Step(spec, slots)


def embed_step(op: EmbedOp, storage: Storage) -> Step:
    """Rows of a table that is kept in f16."""
    storage.require(op.result, FULL)
    (tokens,), kept = shape_of(op.ids), op.table.type
    assert isinstance(kept, LowBitTensorType)
    spec = EmbedSpec(tokens, kept.cols, kept.rows, op.scale.value.data)
    slots = {"ids": Slot((op.ids,)), "table": Slot((op.table,), TABLE), "y": Slot((op.result,))}
    return Step(spec, slots)


def last_row_step(op: LastRowOp, storage: Storage) -> Iterable[Step]:
    """The row of the last token; of one row nothing is to be done."""
    rows, columns = pair(op.input)
    if rows > 1:
        for value in (op.input, op.result):
            storage.require(value, FULL)
        slots = {"x": Slot((op.input,)), "last": Slot(form=LAST), "y": Slot((op.result,))}
        yield Step(LastRowSpec(rows, columns), slots)


def quantize_step(work: Work, wanted: Quantized, storage: Storage) -> Step:
    """A quantization in the order in which some product reads it, with the norm before it."""
    op, norm = work.op, work.norm
    assert isinstance(op, QuantizeOp)
    source = op.input if norm is None else norm.input
    spec = replace(wanted, source=rounded_source(source, storage))
    slots = {"input": Slot((source,))}
    if norm is not None:
        storage.require(source, FULL)
        spec = replace(spec, norm=norm_of(norm))
        slots["weight"] = Slot((norm.weight,))
    return Step(spec, slots | quantized_slots(op.result, wanted))


def tables_step(op: LutPrecomputeOp, storage: Storage) -> Step:
    """The tables of an activation."""
    spec = TablesSpec(*pair(op.activation), rounded_source(op.activation, storage))
    return Step(spec, {"x": Slot((op.activation,)), "tables": Slot((op.tables,))})


def rounded_source(value: SSAValue, storage: Storage) -> str:
    """The type that a value which is rounded is kept as; raises NybbleError for bf16."""
    kept = storage.of(value)
    if kept == BRAIN:
        raise NybbleError(
            f"a value that is kept as {kept} and rounded to integers or to tables has no kernel "
            "on a GPU",
            accepted="f32, f16",
        )
    return kept


def quantized_slots(value: SSAValue, wanted: Quantized) -> dict[str, Slot]:
    """The buffers of a quantized value as a product reads it."""
    names = [one.name for one in wanted.results]
    return {name: Slot((value,), f"{wanted.name}.{name}") for name in names}


def pair(value: SSAValue) -> tuple[int, int]:
    """Rows and columns."""
    rows, columns = shape_of(value)
    return rows, columns
