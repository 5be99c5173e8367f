"""The layout of bit planes is invertible, laid out as documented, and refuses what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.backends.cpu.bit_planes import PlaneLayout, pack_planes, unpack_planes
from nybble.backends.cpu.plane_weights import planes_of
from nybble.backends.cpu.tile_layout import LayoutError
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats import FormatError, Weight


def made_up(rng, layout):
    dtype = np.float16 if layout.scale == "f16" else np.float32
    shape = (2, layout.rows, layout.groups)
    scale, zero = rng.standard_normal(shape).astype(dtype).astype(np.float32)
    codes = rng.integers(0, 2**layout.bits, (layout.rows, layout.cols)).astype(np.uint8)
    return Weight("made up", codes, scale, zero=zero if layout.has_zero else None)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 200),
    groups=st.integers(1, 4),
    bits=st.integers(1, 8),
    group=st.integers(1, 130),
    has_zero=st.booleans(),
    scale=st.sampled_from(["f16", "f32"]),
)
def test_unpack_inverts_pack(seed, rows, groups, bits, group, has_zero, scale):
    layout = PlaneLayout(rows, groups * group, bits, group, has_zero, scale)
    weight = made_up(np.random.default_rng(seed), layout)
    data = pack_planes(weight, layout)
    assert data.shape == (layout.size,)
    codes, scales, zeros = unpack_planes(data, layout)
    np.testing.assert_array_equal(codes, weight.codes)
    np.testing.assert_array_equal(scales, weight.scale)
    assert (zeros is None) == (weight.zero is None)
    if zeros is not None:
        np.testing.assert_array_equal(zeros, weight.zero)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_place_of_every_bit_and_of_padding(bits):
    layout = PlaneLayout(130, 80, bits, 40, has_zero=True)
    weight = made_up(np.random.default_rng(bits), layout)
    data = pack_planes(weight, layout)
    words = data.reshape(3, 2, layout.block_bytes)[:, :, : layout.code_bytes]
    words = words.copy().view(np.uint32).reshape(3, 2, 2, bits, 64)
    for row, col in ((0, 0), (17, 39), (63, 40), (64, 1), (129, 79), (100, 72)):
        group, k = divmod(col, 40)
        for plane in range(bits):
            word = words[row // 64, group, k // 32, plane, row % 64]
            assert word >> np.uint32(k % 32) & 1 == weight.codes[row, col] >> plane & 1
    assert not (words[:, :, 1] >> np.uint32(8)).any(), "columns beyond a group of 40"
    assert not words[2, ..., 2:].any(), "rows beyond 130"


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: PlaneLayout(1, 64, 9, 64), "codes of 9 bits do not fit a byte"),
        (lambda: PlaneLayout(1, 65, 1, 64), "a weight of 1 x 65 has no whole groups of 64"),
        (lambda: PlaneLayout(0, 64, 1, 64), "a weight of 0 x 64 has no whole groups of 64"),
    ],
)
def test_layouts_that_do_not_exist(make, fault):
    with pytest.raises(LayoutError, match=fault):
        make()


@pytest.mark.parametrize(
    ("layout", "fault"),
    [
        (PlaneLayout(3, 64, 2, 64), r"codes \(2, 64\) do not fit"),
        (PlaneLayout(2, 64, 2, 64, has_zero=True), "the weight lacks zeros"),
        (PlaneLayout(2, 64, 1, 64), "a code of 3 has more than 1 bits"),
    ],
)
def test_weights_that_are_not_as_described(layout, fault):
    codes = np.full((2, 64), 3, np.uint8)
    with pytest.raises(LayoutError, match=fault):
        pack_planes(Weight("made up", codes, np.ones((2, 1), np.float32)), layout)


@pytest.mark.parametrize(
    "spec", ["w1g64", "bip3", "w2g64", "b1_58", "q4_0", "q4_1", "q2_k", "w8g64z"]
)
def test_planes_mean_what_the_format_means(spec):
    form, cols = formats.get(spec), 512
    planes = planes_of(form, cols)
    codes = np.arange(2**form.element.bits)
    table = form.element.table
    values = codes - form.element.zero_point if table is None else table
    bipolar = 2 * codes - (2**planes.bits - 1)
    np.testing.assert_array_equal(planes.unit * (bipolar + planes.offset), values)
    assert planes.group == form.group_size(cols)
    assert planes.has_zero == (form.zero is not None)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("nf4", "codes of 'nf4' are no integers on a line"),
        ("f16", "codes of 'f16' are no integers on a line"),
        ("w4g64:sparse=2of4", "cannot hold the sparsity"),
        ("u4:g=64.rows:s=f16", "is grouped across rows"),
    ],
)
def test_formats_without_planes(spec, fault):
    with pytest.raises(FormatError, match=fault):
        planes_of(formats.get(spec.replace("w4g64", "i4:g=64:s=f16")), 128)
