"""Bindings of the two ends of a model: embedding, last row, likelihood, sampling."""

from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType
from xdsl.ir import SSAValue

from nybble.backends.cpu.bindings.site import Binding, In, Out, Scratch, Site, columns
from nybble.backends.cpu.kernels.embed import Embed
from nybble.backends.cpu.kernels.last_row import LastRow
from nybble.backends.cpu.kernels.sample import Sample
from nybble.backends.cpu.kernels.softmax import NegativeLogLikelihood
from nybble.backends.cpu.weights import added_of, weight_kind
from nybble.dialects.fused.ops import EmbedOp, LastRowOp, NllOp, SampleOp
from nybble.dialects.lowbit.types import LowBitTensorType


def bind_embed(site: Site) -> Binding:
    """Rows of a table in its compute layout."""
    embed = site.only(EmbedOp)
    table = embed.table.type
    assert isinstance(table, LowBitTensorType)
    added = added_of(table.number_format, table.cols)
    if added.rank:
        raise site.error(f"reads rows of '{table.format.data}', to which a product is added")
    kernel = Embed(
        weight=weight_kind(table.number_format, table.cols),
        shape=(table.rows, table.cols),
        rows=site.tokens,
        scale=embed.scale.value.data,
        isa=site.isa,
        added=added,
    )
    inputs = (In(site.place(embed.ids)), In(site.place(embed.table)))
    return Binding(kernel, (*inputs, Out(site.result(embed.result))))


def rows_of(site: Site, value: SSAValue) -> int:
    """Token rows of a matrix, the most that a call brings where their number is dynamic."""
    assert isinstance(value.type, TensorType)
    rows = value.type.get_shape()[0]
    return site.tokens if rows == DYNAMIC_INDEX else rows


def bind_last_row(site: Site) -> Binding:
    """Copy of the last row."""
    last = site.only(LastRowOp)
    kernel = LastRow(columns(last.input), rows_of(site, last.input), site.lanes)
    return Binding(kernel, (In(site.place(last.input)), Out(site.result(last.result))))


def bind_nll(site: Site) -> Binding:
    """Negative log-likelihood of targets."""
    nll = site.only(NllOp)
    kernel = NegativeLogLikelihood(columns(nll.logits), rows_of(site, nll.logits))
    inputs = (In(site.place(nll.logits)), In(site.place(nll.targets)))
    return Binding(kernel, (*inputs, Out(site.result(nll.result))))


def bind_sample(site: Site) -> Binding:
    """The next token; the options are inputs of one element each."""
    op = site.only(SampleOp)
    inputs = (In(site.place(value)) for value in op.operands)
    return Binding(Sample(columns(op.logits)), (*inputs, Out(site.result(op.token)), Scratch()))
