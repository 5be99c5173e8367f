"""Layouts of indices are invertible, laid out as documented, and refuse what they cannot hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.backends.cpu.lut_packing import LutLayout, byte_rows, pack, unpack
from nybble.backends.cpu.tile_layout import LayoutError
from nybble.dialects.lowbit.formats import Weight

ORDERS = ["lut1", "lut4"]


def made_up(rng, layout):
    def floats():
        values = rng.standard_normal((layout.rows, layout.groups)).astype(np.float16)
        return values.astype(np.float32)

    codes = rng.integers(0, 2**layout.bits, (layout.rows, layout.cols)).astype(np.uint8)
    return Weight("made up", codes, floats(), zero=floats() if layout.has_zero else None)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 140),
    groups=st.integers(1, 4),
    bits=st.integers(1, 4),
    chunks=st.integers(1, 4),
    has_zero=st.booleans(),
    order=st.sampled_from(ORDERS),
)
def test_unpack_inverts_pack(seed, rows, groups, bits, chunks, has_zero, order):
    group = 32 * chunks
    layout = LutLayout(rows, groups * group, bits, group, has_zero, order=order)
    weight = made_up(np.random.default_rng(seed), layout)
    data = pack(weight, layout)
    assert data.shape == (layout.size,)
    codes, scale, zero = unpack(data, layout)
    np.testing.assert_array_equal(codes, weight.codes)
    np.testing.assert_array_equal(scale, weight.scale)
    assert (zero is None) == (weight.zero is None)
    if zero is not None:
        np.testing.assert_array_equal(zero, weight.zero)


def index_of(weight, row, col, plane):
    return sum((int(weight.codes[row, col + j]) >> plane & 1) << j for j in range(4))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [1, 3])
def test_place_of_every_index(order, bits):
    layout = LutLayout(130, 128, bits, 64, order=order)
    weight = made_up(np.random.default_rng(bits), layout)
    data = pack(weight, layout)
    rows = byte_rows().tolist()
    for row, col in ((0, 0), (17, 60), (63, 64), (64, 4), (129, 124), (100, 80), (40, 28)):
        group, in_group = divmod(col, 64)
        chunk, in_chunk = divmod(in_group, 32)
        tile, in_tile = divmod(row, 64)
        start = tile * layout.tile_bytes + group * layout.block_bytes + chunk * bits * 256
        if order == "lut1":
            vector, half = divmod(in_chunk // 4, 2)
            byte = rows.index(in_tile)
        else:
            half, column = divmod(in_chunk // 4, 4)
            vector, lane = divmod(in_tile, 16)
            byte = 4 * lane + column
        for plane in range(bits):
            found = data[start + plane * 256 + vector * 64 + byte] >> 4 * half & 15
            assert found == index_of(weight, row, col, plane)


def test_even_and_odd_bytes_are_sub_tiles():
    assert byte_rows()[:4].tolist() == [0, 16, 1, 17]
    assert byte_rows()[32:34].tolist() == [32, 48]
    assert sorted(byte_rows()) == [*range(64)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 5}, "codes of 5 bits are too wide to be looked up"),
        ({"group": 16}, "groups of 16 columns are not looked up"),
        ({"cols": 80}, "no whole groups of 32"),
    ],
)
def test_refused(change, message):
    with pytest.raises(LayoutError, match=message):
        LutLayout(**{"rows": 64, "cols": 64, "bits": 2, "group": 32, **change})
