"""Facts of kernels: those read from IR and those said without it are equal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.costmodel.canonical import canonical, kernel_in, parse
from nybble.costmodel.features.facts import (
    AttentionSketch,
    ProductSketch,
    RowSketch,
    UnknownKernelError,
    facts_of,
)
from nybble.costmodel.features.table import COLUMNS, Call, table
from nybble.dialects.lowbit import formats
from nybble.tools.cost.kernel_workloads import attention_text, kernel_text, row_text

FORMATS = ("q4_0", "q8_0", "w4g128", "w2g128", "tq2_0", "q4_k", "nf4", "mxfp4", "w3g128z")
KINDS = ("plain", "residual", "glu")
OPERATIONS = {
    "int_dot": ("int_matmul", "tile64"),
    "dequantize": ("dequant_matmul", "tile64"),
    "lut": ("lut_matmul", "lut1"),
}
OPTIONS = st.fixed_dictionaries(
    {
        name: st.integers(1, 64)
        for name in ("k_block", "row_tiles", "subtiles", "token_tile", "unroll", "prefetch")
    }
)
GEMV = st.fixed_dictionaries(
    {name: st.integers(1, 16) for name in ("steps", "subtiles", "runs", "prefetch")}
)


def product_text(sketch: ProductSketch, tokens: str) -> str:
    """The IR that a sketch is of."""
    operation, layout = OPERATIONS[sketch.dataflow]
    x = f"tensor<{tokens}x{sketch.cols}xf32>"
    if sketch.dataflow == "int_dot":
        x = f'!lowbit.tensor<{tokens}x{sketch.cols}, "a{8 * sketch.digits}g{sketch.group}">'
    if sketch.dataflow == "lut":
        entries = "i16" if sketch.exact else "i8"
        form = ', "symmetric"' if sketch.symmetric else ""
        x = f'!mpgemm.table<{tokens}x{sketch.cols}, "a8g{sketch.group}", "{entries}"{form}>'
    w = f'!lowbit.tensor<{sketch.rows[0]}x{sketch.cols}, "{sketch.format}", "{layout}">'
    y = f"tensor<{tokens}x{sketch.rows[0]}xf32>"
    types, lines = [x, w], [f"%y = mpgemm.{operation} %a, %b : {x}, {w} -> {y}"]
    last, name = "%y", "product"
    if sketch.glu:
        types.append(w)
        lines.append(f"%z = mpgemm.{operation} %a, %c : {x}, {w} -> {y}")
        lines.append(f'%r = fused.glu "silu" %y, %z : {y}')
        last, name = "%r", "product_glu"
    if sketch.residual:
        types.append(y)
        lines.append(f"%r = arith.addf %y, %c : {y}")
        last, name = "%r", "product_add"
    return kernel_text(name, types, y, [*lines, f"fused.yield {last} : {y}"])


@st.composite
def sketches(draw: st.DrawFn) -> ProductSketch:
    """Products of every dataflow."""
    dataflow = draw(st.sampled_from(sorted(OPERATIONS)))
    name = draw(st.sampled_from(FORMATS if dataflow != "lut" else ("q4_0", "w2g128", "tq2_0")))
    form, kind = formats.get(name), draw(st.sampled_from(KINDS))
    cols, rows = form.block * draw(st.integers(1, 4)), draw(st.integers(1, 300))
    glu = kind == "glu"
    given_ = {
        "int_dot": {"digits": draw(st.sampled_from((1, 2))), "group": 32},
        "dequantize": {},
        "lut": {"exact": draw(st.booleans()), "symmetric": draw(st.booleans()), "group": 32},
    }[dataflow]
    if dataflow == "lut":
        given_["digits"] = 2 if given_["exact"] else 1
    shape = (rows, rows) if glu else (rows,)
    return ProductSketch(
        dataflow, form.spec, shape, cols, residual=kind == "residual", glu=glu, **given_
    )


@settings(max_examples=60, deadline=None)
@given(sketches(), st.sampled_from(("1", "?")), st.integers(1, 128), st.integers(1, 4), st.data())
def test_products_without_ir_are_those_with_it(
    sketch: ProductSketch, rows: str, tokens: int, shares: int, data: st.DataObject
):
    facts = facts_of(parse(product_text(sketch, rows)))
    assert facts == sketch.facts()
    options = [data.draw(GEMV if rows == "1" else OPTIONS) for _ in range(2)]
    call = Call(1 if rows == "1" else tokens, shares)
    left, right = table(facts, call, options), table(sketch.facts(), call, options)
    assert (left == right).all()
    assert left.shape == (2, len(COLUMNS))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from((32, 64, 128)))
def test_attention_without_ir(kv_heads: int, group: int, dim: int):
    heads = kv_heads * group
    found = facts_of(parse(attention_text("?", heads, kv_heads, dim)))
    assert found == AttentionSketch(heads, kv_heads, dim, 2).facts()


@pytest.mark.parametrize(
    ("name", "sketch"),
    [
        ("norm", RowSketch("norm", 96, 96)),
        ("norm_quantize", RowSketch("norm_quantize", 96, 96, 2, 32)),
        ("quantize", RowSketch("quantize", 96, 0, 2, 32)),
        ("glu", RowSketch("glu", 96)),
    ],
)
def test_row_kernels_without_ir(name: str, sketch: RowSketch):
    assert facts_of(parse(row_text(name, "?", 96, 2))) == sketch.facts()


def test_a_kernel_without_features():
    x = "tensor<1x8xf32>"
    text = kernel_text("last_row", [x], x, [f"fused.yield %a : {x}"])
    with pytest.raises(UnknownKernelError, match='no features of kernel "last_row"'):
        facts_of(parse(text))


def test_the_canonical_text_is_its_own_canonical_text():
    text = row_text("norm", "?", 96, 1)
    assert canonical(parse(text)) == text
    assert canonical(kernel_in(parse(text).get_toplevel_object())) == text
