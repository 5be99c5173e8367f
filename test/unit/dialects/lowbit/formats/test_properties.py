"""Properties of every family over random shapes: exact round trips, the f64 meaning, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.transforms import rotate

SPECS = (
    "w4g32", "w1g64", "w1g8z", "w1g16m", "w3g24z", "w8", "w2", "w5g4096", "bip3:g=8:s=f16",
    "b1_58", "tq1_0", "q3_k", "q4_k", "q8_0", "iq4_xs", "nf4", "mxfp4", "mxfp8_e5m2", "nvfp4",
    "nvfp4_scaled", "fp8_e4m3", "bitmod3g16", "bitmod4", "u4:g=32:s=f16:z=scaled.f16", "f16",
    "bf16", "df11", "spqr3", "i4:g=8:s=f16:sparse=2of4", "u4:g=8:s=f16:z=min.f16:sparse=3of8",
    "nf4:g=32:s=f16:sparse=4of16.block16", "u3:g=24:s=f16:z=int.u3:sparse=5of12",
    "i8:g=row:s=f32:sparse=bcsr2x4.400", "bip2:g=16:s=f16:sparse=csr.300",
    "u2:g=16:s=f16:z=min.f16:sparse=bitmap.600", "f32:sparse=bitmap", "bf16:sparse=csr.100",
    "bitmod3[3.0,-3.0]:g=8:s=f16:sparse=2of4", "u2:g=4.rows:s=f16:z=min.f16",
    "i4:g=row.rows:s=f32", "u3:g=4x2.rows:s=u4*f16:z=neg.u4*f16", "bitmod3[3.0,6.0]:g=4.rows:s=f16",
    "u4:g=4.rows:s=f16:z=int.u4", "i4:g=32x4.tile:s=u4*f16+min", "e4m3:g=16:s=e8m0*tensor",
    "i4:g=16:s=f16:fix=hadamard.64", "i4:g=16:s=f16:fix=smooth:fix=hadamard.16",
    "u4:g=32:s=f16:z=min.f16:fix=lowrank.2.f16:fix=outliers.coo.20.f16",
    "i3:g=16:s=f16:sparse=2of4:fix=outliers.csr.30.bf16", "f16:sparse=csr.500:fix=lowrank.1.f32",
    "i2:g=4.rows:s=f16:fix=outliers.coo.50.f32",
)  # fmt: skip


def steps(form: formats.Format) -> tuple[int, int]:
    """What rows and columns are a multiple of."""
    rows = next(n for n in range(1, 65) if accepts(form, n, form.block))
    return rows, form.block


def accepts(form: formats.Format, rows: int, cols: int) -> bool:
    try:
        form.check_shape((rows, cols))
    except formats.FormatError:
        return False
    return True


def meaning(weight: formats.Weight) -> np.ndarray:
    """The definition of a weight in f64, element by element of its parts."""
    rows, cols = weight.shape
    if weight.codes is None:
        result = weight.require_values().astype(np.float64)
    else:
        high, wide = weight.scale.shape
        at = np.ix_(np.arange(rows) // (rows // high), np.arange(cols) // (cols // wide))
        codes = weight.codes.astype(np.int64)
        if weight.table is None:
            units = (codes - weight.zero_point).astype(np.float64)
        elif weight.selector is None:
            units = weight.table.astype(np.float64)[codes]
        else:
            units = weight.table.astype(np.float64)[weight.selector[at], codes]
        result = weight.scale.astype(np.float64)[at] * units
        if weight.zero is not None:
            result = result + weight.zero.astype(np.float64)[at]
    if weight.kept is not None:
        result = np.where(weight.kept, result, 0)
    if weight.outliers is not None:
        for row, col, value in zip(
            weight.outliers.rows, weight.outliers.cols, weight.outliers.values, strict=True
        ):
            result[row, col] += value
    if weight.low_rank is not None:
        result = result + weight.low_rank[0].astype(np.float64) @ weight.low_rank[1]
    if weight.rotation is not None:
        block = rotate(np.eye(weight.rotation, dtype=np.float32), weight.rotation)
        turned = result.reshape(-1, weight.rotation) @ block.astype(np.float64)
        result = turned.reshape(result.shape)
    return result if weight.smoothing is None else result * weight.smoothing


def matrix(rows: int, cols: int, seed: int) -> np.ndarray:
    """Normal numbers with groups of zeros and a wide range of magnitudes."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, cols)) * np.exp2(random.integers(-9, 4, (rows, 1)))
    values[random.random(values.shape) < random.choice([0.0, 0.3])] = 0
    if cols and rows and seed % 3 == 0:
        values[:, : cols // 2] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=12, deadline=None)
@given(high=st.integers(1, 5), wide=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_round_trips_and_meaning(spec: str, high: int, wide: int, seed: int) -> None:
    form = formats.get(spec)
    row_step, col_step = steps(form)
    if form.block == 1 and spec != "spqr3":
        wide = wide * 7
    values = matrix(row_step * high, col_step * wide, seed)
    weight = form.quantize(values)
    packed = form.pack(weight)
    again = form.unpack(packed, values.shape[1])
    assert again.spec == weight.spec
    same(again, weight)
    np.testing.assert_array_equal(form.pack(again), packed)
    decoded = weight.dequantize()
    expected = meaning(weight)
    slack = 1e-5 * np.abs(expected).max(initial=0)
    np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=slack)
    assert decoded.dtype == np.float32
    if weight.codes is not None and weight.pruned_are_zero and weight.kept is not None:
        assert weight.codes.max() < 2**form.element.bits


def same(one: formats.Weight, other: formats.Weight) -> None:
    """Every part of two weights is equal, bit for bit."""
    for name in (
        "codes", "scale", "zero", "table", "selector", "values", "zero_codes", "zero_points",
        "kept", "smoothing",
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.zero_point, one.rotation) == (other.zero_point, other.rotation)
    for name in ("scale_parts", "zero_parts"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.tall == theirs.tall
            for part in ("base", "codes", "low"):
                np.testing.assert_array_equal(getattr(mine, part), getattr(theirs, part))
    assert (one.outliers is None) == (other.outliers is None)
    if one.outliers is not None and other.outliers is not None:
        for part in ("rows", "cols", "values"):
            np.testing.assert_array_equal(
                getattr(one.outliers, part), getattr(other.outliers, part)
            )
    assert (one.low_rank is None) == (other.low_rank is None)
    if one.low_rank is not None and other.low_rank is not None:
        for mine, theirs in zip(one.low_rank, other.low_rank, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("spec", SPECS)
def test_a_broken_group_is_refused(spec: str) -> None:
    form = formats.get(spec)
    rows, cols = steps(form)
    if cols > 1:
        with pytest.raises(formats.FormatError, match=rf"accepted: a multiple of {cols} columns"):
            form.quantize(np.zeros((rows, cols + 1), np.float32))
    if rows > 1:
        with pytest.raises(formats.FormatError, match=rf"accepted: a multiple of {rows} rows"):
            form.quantize(np.zeros((rows + 1, cols), np.float32))


@pytest.mark.parametrize("spec", SPECS)
def test_empty_matrices_have_every_part(spec: str) -> None:
    form = formats.get(spec)
    rows, cols = steps(form)
    for shape in ((0, cols), (rows, 0), (0, 0)):
        weight = form.quantize(np.zeros(shape, np.float32))
        assert weight.dequantize().shape == shape
        assert (weight.kept is None) == (form.sparsity is None)
        again = form.unpack(form.pack(weight), shape[1])
        assert again.shape == shape
        assert again.scale.shape == form.scale_shape(*shape)


@pytest.mark.parametrize("spec", SPECS)
def test_zeros_denormals_and_large_numbers_stay_finite(spec: str) -> None:
    form = formats.get(spec)
    row_step, col_step = steps(form)
    base = matrix(2 * row_step, 2 * col_step, 1).astype(np.float64)
    for factor in (0.0, 1e-45, 1e-38, 1e-9, 10.0):
        values = (base * factor).astype(np.float32)
        decoded = form.quantize(values).dequantize()
        assert np.isfinite(decoded).all()
        assert np.abs(decoded).max() <= 4 * np.abs(values).max() + 2.0**-22


@pytest.mark.parametrize("spec", [spec for spec in SPECS if formats.get(spec).has_codes])
def test_any_stored_scale_decodes_by_the_definition(spec: str) -> None:
    """Infinite, NaN, denormal and negative stored floats: no crash, the meaning of IEEE 754."""
    form = formats.get(spec)
    rows, cols = steps(form)
    packed = form.pack(form.quantize(matrix(rows, cols, 2)))
    random = np.random.default_rng(3)
    head = 8 * (3 + int(packed[16:24].view("<u8")[0])) if form.is_streamed else 0
    for _ in range(6):
        raw = packed.copy()
        flat = raw.reshape(-1)[head:]
        where = random.integers(0, flat.size, 4)
        flat[where] = random.choice([0, 0x7C, 0xFC, 0x7E, 0x80, 0xFF], 4)
        try:
            weight = form.unpack(raw, cols)
        except formats.FormatError:
            assert form.is_streamed  # its index is then none
            continue
        if weight.rotation is not None or weight.low_rank is not None:
            weight.dequantize()
            continue
        with np.errstate(all="ignore"):
            decoded, expected = weight.dequantize(), meaning(weight).astype(np.float32)
        same_kind = np.isfinite(decoded) == np.isfinite(expected)
        near_limit = np.abs(expected) > 1e38
        assert (same_kind | near_limit).all()
