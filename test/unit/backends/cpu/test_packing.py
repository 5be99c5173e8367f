"""Compute layouts are invertible, laid out as documented, and refuse what they cannot hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.backends.cpu.packing import pack, pack_dense, unpack, unpack_dense
from nybble.backends.cpu.tile_layout import DenseLayout, LayoutError, TileLayout
from nybble.backends.cpu.weights import pack_weight, weight_kind
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import Weight


def made_up(rng, layout, zero_point=0):
    groups = (layout.rows, layout.groups)
    dtype = np.float16 if layout.scale == "f16" else np.float32
    floats = [rng.standard_normal(groups).astype(dtype).astype(np.float32) for _ in range(2)]
    codes = rng.integers(0, 2**layout.bits, (layout.rows, layout.cols)).astype(np.uint8)
    zero = floats[1] if layout.has_zero else None
    return Weight("made up", codes, floats[0], zero=zero, zero_point=zero_point)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 200),
    groups=st.integers(1, 5),
    bits=st.integers(1, 8),
    steps=st.integers(1, 5),
    has_zero=st.booleans(),
    scale=st.sampled_from(["f16", "f32"]),
)
def test_unpack_inverts_pack(seed, rows, groups, bits, steps, has_zero, scale):
    group = steps * TileLayout(1, 32, bits, 32).step
    layout = TileLayout(rows, groups * group, bits, group, has_zero, scale)
    weight = made_up(np.random.default_rng(seed), layout)
    data = pack(weight, layout)
    assert data.shape == (layout.size,)
    codes, scales, zeros = unpack(data, layout)
    np.testing.assert_array_equal(codes, weight.codes)
    np.testing.assert_array_equal(scales, weight.scale)
    assert (zeros is None) == (weight.zero is None)
    if zeros is not None:
        np.testing.assert_array_equal(zeros, weight.zero)


@pytest.mark.parametrize("bits", range(1, 9))
def test_place_of_every_code(bits):
    layout = TileLayout(130, 128, bits, 64, has_zero=True)
    widths = {3: (2, 1), 5: (4, 1), 6: (4, 2), 7: (8,)}.get(bits, (bits,))
    assert layout.widths == widths
    weight = made_up(np.random.default_rng(bits), layout)
    data = pack(weight, layout)
    for row, col in ((0, 0), (17, 63), (63, 64), (64, 1), (129, 127), (100, 70)):
        group, k = divmod(col, 64)
        step, k = divmod(k, layout.step)
        subtile, lane = divmod(row % 64, 16)
        block = row // 64 * layout.tile_bytes + group * layout.block_bytes
        code, start = 0, block + step * layout.step_bytes
        for width, shift in zip(widths, np.cumsum([0, *widths]), strict=False):
            vector, rest = divmod(k, 32 // width)
            plane, j = divmod(rest, 4)
            byte = data[start + (vector * 4 + subtile) * 64 + lane * 4 + j]
            code |= (byte >> (plane * width) & 2**width - 1) << int(shift)
            start += layout.step * width * 8
        assert code == weight.codes[row, col]
        at = block + layout.code_bytes + row % 64 * 2
        assert data[at : at + 2].view(np.float16)[0] == weight.scale[row, group]
        assert data[at + 128 : at + 130].view(np.float16)[0] == weight.zero[row, group]


TILED = "u4:g=32x16.tile:s=u4*bf16+min"


def test_codes_are_wider_where_their_pieces_fill_no_vectors():
    assert TileLayout(1, 48, 3, 16).widths == (4,)
    assert TileLayout(1, 48, 6, 16).widths == (4, 2)
    assert TileLayout(1, 48, 6, 8).widths == (8,)
    assert TileLayout(1, 48, 1, 12).widths == (8,)


@pytest.mark.parametrize(
    "name", ["q2_k", "q3_k", "q4_k", "q6_k", "w4g32z", "w3g64m", "spqr3", TILED]
)
def test_stored_scales_come_back(name):
    form = formats.get(name)
    weight = form.quantize(np.random.default_rng(5).standard_normal((70, 512)).astype(np.float32))
    layout = weight_kind(form, 512).layout(70, 512)
    codes, scales, zeros = unpack(pack_weight(form, weight)[: layout.size], layout)
    np.testing.assert_array_equal(codes, weight.codes)
    np.testing.assert_array_equal(scales, weight.scale)
    if weight.zero is not None:
        np.testing.assert_array_equal(zeros, weight.zero)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("q2_k", 3.125),
        ("q3_k", 4.5625),
        ("q4_k", 4.625),
        ("q6_k", 6.5625),
        ("w4g32z", 4.75),
        ("spqr3", 4.75),
        ("iq2_xs", 4.625),
    ],
)
def test_bits_of_a_weight(name, bits):
    layout = weight_kind(formats.get(name), 512).layout(64, 512)
    assert layout.size * 8 / (64 * 512) == bits


def test_padding_rows_are_zero():
    layout = TileLayout(1, 32, 4, 32)
    weight = made_up(np.random.default_rng(0), layout)
    padded = TileLayout(64, 32, 4, 32)
    codes, scales, _ = unpack(pack(weight, layout), padded)
    assert not codes[1:].any()
    assert not scales[1:].any()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_dense(dtype):
    layout = DenseLayout(70, 5, dtype)
    values = np.random.default_rng(0).standard_normal((70, 5)).astype(np.float32)
    values[3, 3], values[4, 4] = np.inf, np.nan
    once = unpack_dense(pack_dense(values, layout), layout)
    np.testing.assert_allclose(once, values, rtol={"f32": 0, "f16": 2**-11, "bf16": 2**-8}[dtype])
    np.testing.assert_array_equal(unpack_dense(pack_dense(once, layout), layout), once)


def test_bf16_rounds_to_nearest_even():
    values = np.array([[1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20]], np.float32)
    layout = DenseLayout(1, 3, "bf16")
    rounded = unpack_dense(pack_dense(values, layout), layout)
    np.testing.assert_array_equal(rounded, [[1, 1 + 2**-6, 1 + 2**-7]])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 64, 9, 32), "codes of 9 bits"),
        ((4, 64, 4, 6), "groups of 6 columns do not fill vectors of 4-bit codes"),
        ((4, 64, 4, 0), "groups of 0 columns"),
        ((4, 80, 4, 32), "a weight of 4 x 80 has no whole groups of 32"),
        ((0, 64, 4, 32), "a weight of 0 x 64"),
    ],
)
def test_refused_layout(shape, message):
    with pytest.raises(LayoutError, match=message):
        TileLayout(*shape)


def test_refused_weights():
    rng = np.random.default_rng(0)
    layout = TileLayout(4, 64, 4, 32)
    weight = made_up(rng, TileLayout(4, 64, 8, 32))
    with pytest.raises(LayoutError, match="more than 4 bits"):
        pack(weight, layout)
    with pytest.raises(LayoutError, match="do not fit"):
        pack(made_up(rng, TileLayout(4, 32, 4, 32)), layout)
    rounded = made_up(rng, TileLayout(4, 64, 4, 32, scale="f32"))
    with pytest.raises(LayoutError, match="a scale or zero of"):
        pack(rounded, layout)
    with pytest.raises(LayoutError, match="the weight lacks choices"):
        pack(made_up(rng, layout), TileLayout(4, 64, 4, 32, has_choice=True))
    with pytest.raises(LayoutError, match="the weight has zeros"):
        pack(made_up(rng, TileLayout(4, 64, 4, 32, True)), layout)
    with pytest.raises(LayoutError, match="empty"):
        DenseLayout(0, 4, "f32")
    with pytest.raises(LayoutError, match="is not 4 x 4"):
        pack_dense(np.zeros((4, 5), np.float32), DenseLayout(4, 4, "f32"))
