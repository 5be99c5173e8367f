"""Quantizing, packing and decoding of every coded family, and the inputs that are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.fitting import value_range
from nybble.dialects.numpy_ref.quantize import quantize_rows

# Largest normalised mean squared error of a normal random matrix, measured and rounded up.
NMSE = {
    "q4_0": 0.008, "q4_1": 0.0065, "q5_0": 0.002, "q5_1": 0.0016, "q8_0": 4e-5, "q2_k": 0.085,
    "q3_k": 0.024, "q4_k": 0.0065, "q5_k": 0.0016, "q6_k": 4e-4, "tq1_0": 0.68, "tq2_0": 0.68,
    "iq4_nl": 0.007, "iq4_xs": 0.0065, "mxfp4": 0.016, "nvfp4": 0.01, "mxfp6_e2m3": 0.0009,
    "mxfp6_e3m2": 0.003, "mxfp8_e4m3": 0.001, "mxfp8_e5m2": 0.003, "fp8_e4m3": 0.0009,
    "fp8_e5m2": 0.003, "fp4": 0.012, "nf4": 0.009, "bnb_fp4": 0.015, "b1_58": 0.2,
    "bitmod3": 0.04, "bitmod4": 0.011, "w8g128": 5e-5, "w8": 7e-5, "w5g64": 0.003,
    "w4g128": 0.012, "w3g32": 0.032, "w2g16": 0.12, "w1g64": 0.4, "w8g32z": 3e-5,
    "w4g32z": 0.007, "w3g128z": 0.05, "w2g128z": 0.27, "w4g32m": 0.0065, "w2g16m": 0.12,
    "w6g48m": 6e-4, "a8g32": 4e-5, "a4g32": 0.012, "a8": 7e-5,
    "bip2:g=32:s=f16": 0.25, "bip4:g=32:s=f16": 0.009, "bip8:g=16:s=bf16": 3e-5,
    "u3:g=16x16:s=u3*f16:z=int.u3": 0.026, "i5:g=8x3:s=u5-16*bf16": 0.0013,
    "table[-3,-1,1,4]:g=16:s=f16": 0.17, "table[-3,-1,1,4]:g=16:s=e4m3": 0.17,
    "i4:g=24:s=e8m0": 0.02, "i3:g=32:s=f16:z=min.f32": 0.03, "u4-15:g=32:s=f16": 0.42,
    "e2m1:g=32:s=u6*f16": 0.012, "nf4:g=32:s=f16:store=q4_0": 0.008,
    "w1g64z": 0.65, "w1g64m": 0.4, "w1": 0.4, "w2": 0.27, "w3": 0.07, "w5": 0.005, "w6": 0.0011,
    "w7g64": 2e-4, "w5g64z": 0.0023, "w6g64z": 6e-4, "w7g64z": 2e-4, "w3g64m": 0.045,
    "w7g64m": 1.4e-4, "w8g64m": 4e-5, "w1g4096": 0.4, "w4g4096": 0.024,
    "bip1:g=32:s=f16": 0.4, "bip3:g=32:s=f16": 0.045, "bip5:g=32:s=f16": 0.0023,
    "bip6:g=32:s=f16": 6e-4, "bip7:g=32:s=f16": 2e-4, "u4:g=32:s=f16:z=scaled.f16": 0.007,
    "i4:g=16x4.tile:s=u4*f16+min": 0.007, "i4:g=32:s=f16:sparse=2of4": 0.16,
    "u4:g=32:s=f16:z=min.f16:sparse=2of4": 0.16, "i4:g=32:s=f16:sparse=bitmap.500": 0.09,
    "bip1:g=32:s=f16:sparse=csr.500": 0.22, "i4:g=32:s=f16:sparse=bcsr1x4.500": 0.27,
    "i4:g=32:s=f16:fix=hadamard.256": 0.009, "i4:g=32:s=f16:fix=smooth": 0.008,
    "i3:g=32:s=f16:fix=outliers.csr.10.f16": 0.028,
    "u2:g=32:s=f16:z=min.f16:fix=outliers.coo.20.f16": 0.11,
    "bitmod3[1.5,3.0]:g=16x2:s=u6*f16": 0.025, "spqr3": 0.018, "nvfp4_scaled": 0.01, "q1_0": 0.4,
}  # fmt: skip
# Stored in the matrix itself: quantizing what was decoded changes nothing.
STABLE = ("q4_0", "q8_0", "mxfp4", "nf4", "w4g128", "bip4:g=32:s=f16", "tq2_0", "a8g32")


def normal(rows: int, cols: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def columns_of(form: formats.Format, at_least: int) -> int:
    return -(-at_least // form.block) * form.block


def test_every_named_format_that_quantizes_is_tested() -> None:
    coded = {name for name in formats.names() if formats.get(name).has_codes}
    assert coded <= set(NMSE)


@pytest.mark.parametrize("spec", NMSE)
def test_error_is_that_of_the_family(spec: str) -> None:
    form = formats.get(spec)
    values = normal(33, columns_of(form, 512))
    error = np.square(form.quantize(values).dequantize() - values).sum()
    assert error / np.square(values).sum() < NMSE[spec]


@pytest.mark.parametrize("spec", NMSE)
def test_packing_keeps_every_part(spec: str) -> None:
    form = formats.get(spec)
    values = normal(5, columns_of(form, 300)) * np.float32(0.02)
    weight = form.quantize(values)
    packed = form.pack(weight)
    if not form.is_streamed:
        assert packed.shape == (5, form.row_bytes(values.shape[1]))
    again = form.unpack(packed, values.shape[1])
    np.testing.assert_array_equal(again.codes, weight.codes)
    np.testing.assert_array_equal(again.dequantize(), weight.dequantize())
    np.testing.assert_array_equal(form.pack(again), packed)


@pytest.mark.parametrize("spec", NMSE)
def test_shapes_of_the_canonical_form(spec: str) -> None:
    form = formats.get(spec)
    cols = columns_of(form, 256)
    weight = form.quantize(normal(3, cols))
    groups = (3, cols // form.group_size(cols))
    assert weight.shape == weight.require_codes().shape == (3, cols)
    assert weight.require_codes().dtype == np.uint8
    assert weight.require_codes().max() < 2**form.element.bits
    assert (weight.scale.shape, weight.scale.dtype) == (groups, np.float32)
    assert (weight.zero is None) == (form.zero is None)
    if weight.zero is not None:
        assert (weight.zero.shape, weight.zero.dtype) == (groups, np.float32)
    decoded = weight.dequantize()
    assert (decoded.shape, decoded.dtype) == ((3, cols), np.float32)


@pytest.mark.parametrize("spec", NMSE)
def test_zero_groups_decode_to_zero(spec: str) -> None:
    form = formats.get(spec)
    cols = 2 * columns_of(form, 32)
    values = normal(4, cols)
    values[0] = 0
    values[1, : cols // 2] = 0
    decoded = form.quantize(values).dequantize()
    assert np.isfinite(decoded).all()
    if form.element.spell.startswith("bip"):  # has no zero, but its scale may be 0
        assert (decoded[0] == 0).all()
    else:
        per_row = form.grouping.size is None
        assert (decoded[0] == 0).all()
        assert per_row or (decoded[1, : cols // 2] == 0).all()


@pytest.mark.parametrize("spec", NMSE)
def test_tiny_and_large_numbers_stay_finite(spec: str) -> None:
    form = formats.get(spec)
    cols = columns_of(form, 64)
    largest = 100 if "e4m3" in form.spelling else 1e4
    for factor in (1e-45, 1e-38, 1e-9, largest):
        values = (normal(2, cols).astype(np.float64) * factor).astype(np.float32)
        decoded = form.quantize(values).dequantize()
        assert np.isfinite(decoded).all()
        assert np.abs(decoded).max() <= 2 * np.abs(values).max() + 2.0**-24


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("spec", NMSE)
def test_empty_and_odd_matrices(spec: str, rows: int) -> None:
    form = formats.get(spec)
    for cols in (0, form.block, columns_of(form, 100)):
        weight = form.quantize(np.zeros((rows, cols), np.float32))
        assert weight.dequantize().shape == (rows, cols)
        packed = form.pack(weight)
        if not form.is_streamed:
            assert packed.shape == (rows, form.row_bytes(cols))
        again = form.unpack(packed, cols)
        assert again.scale.shape == weight.scale.shape
        assert again.dequantize().shape == (rows, cols)


@pytest.mark.parametrize("spec", STABLE)
def test_quantizing_what_was_decoded_changes_nothing(spec: str) -> None:
    form = formats.get(spec)
    first = form.quantize(normal(16, 512)).dequantize()
    np.testing.assert_array_equal(form.quantize(first).dequantize(), first)


@given(
    bits=st.integers(2, 8),
    kind=st.sampled_from(("", "z", "m")),
    group=st.sampled_from((1, 8, 24, 32, 512)),
    seed=st.integers(0, 2**31),
)
def test_uniform_error_is_at_most_a_step(bits: int, kind: str, group: int, seed: int) -> None:
    form = formats.get(f"w{bits}g{group}{kind}")
    values = normal(3, group * 2, seed)
    weight = form.quantize(values)
    step = np.repeat(np.abs(weight.scale), group, axis=1)
    # Half a step of rounding, half of the missing top code, and the rounding of f16 scales.
    slack = np.abs(values).max() * 2.0**-8
    assert (np.abs(weight.dequantize() - values) <= step * 1.001 + slack).all()


def test_activations_are_symmetric_and_round_to_even() -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, :4] = (127, -127, 2.5, -3.5)
    weight = formats.get("a8g32").quantize(values)
    assert weight.scale[0, 0] == 1
    assert weight.zero_point == 128
    assert list(weight.require_codes()[0, :5]) == [255, 1, 130, 124, 128]


def test_activations_round_as_kernels_do_at_a_tie() -> None:
    values = np.zeros((1, 128), np.float32)
    values[0, :2] = (2.9350724, 0.79732287)
    expected = quantize_rows(values, 128)
    weight = formats.get("a8g128").quantize(values)
    # 127 / amax and its product with x are rounded; x / (amax / 127) is another number.
    assert expected.q[0, 1] != np.rint(values[0, 1] / expected.s[0, 0])
    np.testing.assert_array_equal(weight.dequantize(), expected.q * expected.s)


def test_bitmod_picks_the_special_value_that_occurs() -> None:
    groups = np.zeros((1, 4 * 64), np.float32)
    for choice, special in enumerate((3.0, -3.0, 6.0, -6.0)):
        groups[0, choice * 64 : choice * 64 + 8] = (4, -4, 2, -2, 1, -1, special, special)
    weight = formats.get("bitmod3g64").quantize(groups)
    assert weight.selector is not None
    # The last group takes +6 with a negative scale, which is the same.
    assert weight.selector.tolist() == [[0, 1, 2, 2]]
    np.testing.assert_array_equal(weight.dequantize(), groups)


def test_ternary_weights_are_exact() -> None:
    signs = np.random.default_rng(0).integers(-1, 2, (8, 256)).astype(np.float32)
    for name in ("b1_58", "tq1_0", "tq2_0"):
        np.testing.assert_array_equal(
            formats.get(name).quantize(signs * np.float32(0.5)).dequantize(), signs * 0.5
        )


def test_small_float_values() -> None:
    from nybble.dialects.lowbit.formats.table_element import SmallFloat

    assert list(SmallFloat(2, 1).values[:8]) == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert value_range(SmallFloat(2, 3)) == (-60, 60)  # in units of 1/8
    assert value_range(SmallFloat(3, 2)) == (-28, 28)
    assert value_range(SmallFloat(4, 3)) == (-448, 448)
    assert value_range(SmallFloat(5, 2)) == (-57344, 57344)
    assert np.isnan(SmallFloat(4, 3).values[[127, 255]]).all()
    assert SmallFloat(4, 3).values[1] == 2.0**-9
    assert SmallFloat(5, 2).values[124] == np.inf


def test_a_small_group_keeps_a_scale() -> None:
    values = np.ones((1, 256), np.float32)
    values[0, :32] = 0.005  # less than half of a sub-scale step
    wide = formats.get("e2m1:g=32x8:s=u4*f16").quantize(values)
    assert wide.scale_parts is not None
    assert wide.scale_parts.codes.tolist() == [[1] + [15] * 7]


def test_a_number_between_two_table_values_takes_the_lower_code() -> None:
    values = np.zeros((1, 32), np.float32)
    values[0, :6] = (6, 0.25, -0.25, 2.5, -2.5, -5)
    codes = formats.get("mxfp4").quantize(values).require_codes()
    assert list(codes[0, :7]) == [7, 0, 0, 4, 12, 14, 0]


BAD_VALUES = {
    "nan": (np.full((1, 32), np.nan, np.float32), "nan at row 0, column 0"),
    "inf": (np.full((1, 32), np.inf, np.float32), "inf at row 0"),
    "type": (np.zeros((1, 32), np.float64), "float64 array"),
    "rank": (np.zeros(32, np.float32), r"shape \(32,\)"),
    "width": (np.zeros((1, 33), np.float32), "33 columns .*multiple of 32"),
    "range": (np.full((1, 32), 1e9, np.float32), "does not fit f16"),
    "huge": (np.full((1, 32), 1e30, np.float32), "magnitudes up to"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
@pytest.mark.parametrize("spec", ["q4_0", "q4_1", "w4g32", "w4g32z", "w4g32m"])
def test_refused_values(spec: str, case: str) -> None:
    values, message = BAD_VALUES[case]
    if case == "range" and spec == "w4g32m":
        message = "fit f16"
    with pytest.raises(formats.FormatError, match=message):
        formats.get(spec).quantize(values)


def test_refused_bytes() -> None:
    form = formats.get("q4_0")
    for raw in (np.zeros((2, 17), np.uint8), np.zeros((2, 18), np.int8), np.zeros(18, np.uint8)):
        with pytest.raises(formats.FormatError, match=r"uint8 of shape \(rows, 18\)"):
            form.unpack(raw, 32)
    with pytest.raises(formats.FormatError, match="40 columns"):
        form.unpack(np.zeros((2, 18), np.uint8), 40)
    with pytest.raises(formats.FormatError, match=r"shape \(-1, 32\)"):
        form.check_shape((-1, 32))
    with pytest.raises(formats.FormatError, match="70000 does not fit f16"):
        formats.get("f16").quantize(np.full((1, 1), 7e4, np.float32))


def test_refused_weights() -> None:
    values = normal(1, 256)
    weight = formats.get("w4g32").quantize(values)
    with pytest.raises(formats.FormatError, match="'w4g32' packed as 'q4_0'"):
        formats.get("q4_0").pack(weight)
    with pytest.raises(formats.FormatError, match="has no codes"):
        formats.get("f32").quantize(values).require_codes()
    weight.require_codes()[0, 0] = 16
    with pytest.raises(formats.FormatError, match=r"code 16 .*0 to 15"):
        formats.get("w4g32").pack(weight)
