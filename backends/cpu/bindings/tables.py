"""Bindings of kernels that build lookup tables, alone or with the quantization before them."""

from nybble.backends.cpu.bindings.site import Binding, In, Kernel, Out, Scratch, Site, Slot, columns
from nybble.backends.cpu.kernels.tables import (
    BuildTables,
    QuantizeTables,
    RmsNormQuantizeTables,
    TableRows,
)
from nybble.backends.cpu.weights import digits_of
from nybble.dialects.fused.ops import RmsNormOp
from nybble.dialects.lowbit.ops import QuantizeOp
from nybble.dialects.mpgemm.lut import LutPrecomputeOp
from nybble.dialects.mpgemm.tables import TableType

PARTS = ("t", "s", "z", "u")
"""The buffers that tables are in, by the names that kernels have for them."""


def table_rows(type_: TableType, tokens: int) -> TableRows:
    """The tables of at most `tokens` rows."""
    assert digits_of(type_.number_format) == 1
    group = type_.number_format.group
    return TableRows(type_.cols, tokens, group, type_.exact, type_.symmetric)


def bind_tables(site: Site) -> Binding:
    """Tables of an activation that is quantized already."""
    precompute = site.only(LutPrecomputeOp)
    kernel = BuildTables(table_rows(precompute.tables.type, site.tokens))
    source, result = site.place(precompute.activation), site.result(precompute.tables)
    slots: dict[str, Slot] = {name: In(source, part) for part, name in enumerate(("q", "qs", "qz"))}
    return _binding(kernel, slots, result)


def bind_quantize_tables(site: Site) -> Binding:
    """Quantization of an activation that only tables are built of."""
    quantize, precompute = site.only(QuantizeOp), site.only(LutPrecomputeOp)
    tables = table_rows(precompute.tables.type, site.tokens)
    kernel = QuantizeTables(
        width=tables.width,
        rows=tables.rows,
        group=tables.group,
        lanes=site.lanes,
        exact=tables.exact,
        symmetric=tables.symmetric,
    )
    slots: dict[str, Slot] = {"x": In(site.place(quantize.input))}
    return _binding(kernel, slots, site.result(precompute.tables))


def bind_norm_quantize_tables(site: Site) -> Binding:
    """RMSNorm, its quantization and the tables of that, which alone are read."""
    norm, precompute = site.only(RmsNormOp), site.only(LutPrecomputeOp)
    if columns(norm.weight) != columns(norm.input) or len(site.op.outputs) != 1:
        raise site.error("must norm whole rows and yield the tables of them alone")
    tables = table_rows(precompute.tables.type, site.tokens)
    kernel = RmsNormQuantizeTables(
        width=tables.width,
        rows=tables.rows,
        eps=norm.eps.value.data,
        group=tables.group,
        offset=norm.unit_offset is not None,
        lanes=site.lanes,
        exact=tables.exact,
        symmetric=tables.symmetric,
    )
    slots: dict[str, Slot] = {"x": In(site.place(norm.input)), "w": In(site.place(norm.weight))}
    return _binding(kernel, slots, site.result(precompute.tables))


def _binding(kernel: Kernel, inputs: dict[str, Slot], result: int) -> Binding:
    """Slots by the names of buffers: inputs, parts of the tables, and scratch."""
    slots = {name: Out(result, part) for part, name in enumerate(PARTS)} | inputs
    return Binding(kernel, tuple(slots.get(spec.name, Scratch()) for spec in kernel.buffers))
