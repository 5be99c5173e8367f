"""Outliers, low rank, rotation and smoothing: what they mean and what they gain."""

from itertools import pairwise

import numpy as np
import pytest

from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.transforms import rotate, smoothing_vector


def normal(rows: int, cols: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def error(spec: str, values: np.ndarray, **options: np.ndarray) -> float:
    rounding = formats.Rounding(activations=options.get("activations"))
    difference = formats.get(spec).quantize(values, rounding).dequantize() - values
    return float(np.square(difference).sum() / np.square(values).sum())


def test_outliers_repair_the_worst() -> None:
    values = normal(32, 256)
    values[np.random.default_rng(0).random(values.shape) < 0.005] *= 30
    form = formats.get("i3:g=32:s=f16:fix=outliers.csr.10.f32")
    weight = form.quantize(values)
    assert weight.outliers is not None
    assert len(weight.outliers.values) == 32 * 256 * 10 // 1000
    places = np.ravel_multi_index((weight.outliers.rows, weight.outliers.cols), values.shape)
    assert (np.diff(places) > 0).all()
    exact = weight.dequantize()[weight.outliers.rows, weight.outliers.cols]
    np.testing.assert_allclose(exact, values[weight.outliers.rows, weight.outliers.cols], rtol=1e-6)
    # Scales are fitted to the other weights, so that all of them gain.
    assert error(form.spec, values) < error("w3g32", values) / 3


def loo_gain(group: np.ndarray, bits: int) -> np.ndarray:
    """SpQR's leave-one-out gain of one group with an identity Hessian, as its authors define it."""

    def squared(numbers: np.ndarray) -> float:
        low, high = min(numbers.min(), 0), max(numbers.max(), 0)
        scale = (high - low) / (2**bits - 1)
        zero = -low / scale
        codes = np.clip(np.rint(numbers / scale + zero), 0, 2**bits - 1)
        return float(np.square(scale * (codes - zero) - numbers).sum())

    return np.array([squared(group) - squared(np.delete(group, one)) for one in range(len(group))])


def test_outliers_are_those_of_leave_one_out() -> None:
    values = normal(16, 64) + 0.1
    values[3, 5], values[9, 60] = 9, -7
    form = formats.get("u3:g=16:s=f32:z=scaled.f32:fix=outliers.csr.5.f32")
    weight = form.quantize(values)
    assert weight.outliers is not None
    gains = np.concatenate([loo_gain(row, 3) for row in values.reshape(-1, 16)])
    expected = np.sort(np.argsort(-gains, kind="stable")[: len(weight.outliers.values)])
    places = np.ravel_multi_index((weight.outliers.rows, weight.outliers.cols), values.shape)
    np.testing.assert_array_equal(places, expected)


def test_spqr_is_stored_as_its_authors_do() -> None:
    """3-bit codes; per 16 x 16 tile 3-bit scales and zeros with an f16 step and an f16 low end."""
    form = formats.get("spqr3")
    weight = form.quantize(normal(40, 64))
    for parts in (weight.scale_parts, weight.zero_parts):
        assert parts is not None
        assert parts.low is not None
        assert parts.base.shape == parts.low.shape == (3, 4)
        assert parts.codes.max() <= 7
    scale, zero = weight.scale_parts, weight.zero_parts
    assert scale is not None
    assert zero is not None
    assert scale.low is not None
    assert zero.low is not None
    row, group = 21, 2
    step = scale.base[1, 2] * scale.codes[row, group] + scale.low[1, 2]
    point = zero.base[1, 2] * zero.codes[row, group] + zero.low[1, 2]
    codes = weight.require_codes()[row, 32:48].astype(np.float32)
    plain = step * (codes - point)
    at = np.ones(16, bool)
    assert weight.outliers is not None
    near = weight.outliers.cols[weight.outliers.rows == row]
    at[near[(near >= 32) & (near < 48)] - 32] = False
    np.testing.assert_allclose(weight.dequantize()[row, 32:48][at], plain[at], rtol=1e-5, atol=1e-6)


def test_low_rank_repairs_everything_at_full_rank() -> None:
    values = normal(32, 256)
    weight = formats.get("i3:g=32:s=f16:fix=lowrank.32.f32").quantize(values)
    np.testing.assert_allclose(weight.dequantize(), values, atol=1e-4)
    errors = [error(f"i2:g=32:s=f16:fix=lowrank.{rank}.f16", values) for rank in (1, 4, 16)]
    assert all(less < more for more, less in pairwise(errors))


@pytest.mark.parametrize("size", [2, 16, 128])
def test_rotation_is_orthonormal_and_its_own_inverse(size: int) -> None:
    block = rotate(np.eye(size, dtype=np.float32), size)
    np.testing.assert_allclose(block @ block, np.eye(size), atol=1e-6)
    np.testing.assert_array_equal(block, block.T)
    signs = [[(-1) ** (row & col).bit_count() for col in range(size)] for row in range(size)]
    np.testing.assert_allclose(block * np.sqrt(size), signs, rtol=1e-6)
    values = normal(3, 2 * size)
    expected = np.concatenate([values[:, :size] @ block, values[:, size:] @ block], axis=1)
    np.testing.assert_allclose(rotate(values, size), expected, atol=1e-5)


def test_products_may_transform_the_activations_instead() -> None:
    values, x = normal(24, 128), normal(5, 128, seed=2)
    weight = formats.get("i4:g=32:s=f16:fix=smooth:fix=hadamard.64").quantize(values)
    assert weight.smoothing is not None
    assert weight.rotation == 64
    moved = rotate(x * weight.smoothing, 64)
    np.testing.assert_allclose(
        moved @ weight.in_its_basis().T, x @ weight.dequantize().T, atol=1e-4
    )


def test_rotation_spreads_outliers() -> None:
    values = normal(64, 256)
    values[:, 7] *= 20
    assert error("i4:g=256:s=f16:fix=hadamard.256", values) < error("w4g256", values) / 2


def test_smoothing_follows_the_activations() -> None:
    values = normal(64, 128)
    loud = np.ones(128, np.float32)
    loud[5] = 100
    vector = smoothing_vector(values, loud)
    np.testing.assert_allclose(vector, np.sqrt(np.abs(values).max(axis=0) / loud), rtol=1e-6)
    weight = formats.get("i4:g=32:s=f16:fix=smooth").quantize(
        values, formats.Rounding(activations=loud)
    )
    np.testing.assert_array_equal(weight.smoothing, vector)
    values[:, 3] = 0
    loud[9] = 0
    vector = smoothing_vector(values, loud)
    usable = np.delete(vector, [3, 9])
    assert vector[3] == vector[9] == np.median(usable)
    np.testing.assert_array_equal(smoothing_vector(values[:0], None), 1)
    np.testing.assert_array_equal(smoothing_vector(values[:, 3:4], None), 1)


def test_ternary_scales() -> None:
    values = normal(4, 256)
    form = formats.get("b1_58")
    absmean = form.quantize(values, formats.Rounding(ternary="absmean"))
    np.testing.assert_allclose(absmean.scale[:, 0], np.abs(values).mean(axis=1), rtol=1e-6)
    gamma = absmean.scale  # RoundClip(W / gamma, -1, 1), BitNet b1.58
    np.testing.assert_array_equal(
        absmean.require_codes(), np.clip(np.rint(values / gamma), -1, 1) + 1
    )
    assert not np.array_equal(absmean.scale, form.quantize(values).scale)
    with pytest.raises(formats.FormatError, match=r"ternary scale 'max' .*twn, absmean"):
        formats.Rounding(ternary="max")


def reference_bitmod(values: np.ndarray, base: list[float], specials: list[float]) -> np.ndarray:
    """The authors' search: scale by the largest magnitude of each table, the least error wins."""
    best, least = np.zeros_like(values), np.full(len(values), np.inf)
    for special in specials:
        table = np.array(sorted({0.0, special, *base, *(-one for one in base)}))
        scale = np.abs(values).max(axis=1, keepdims=True) / np.abs(table).max()
        nearest = table[np.abs(values[:, :, None] / scale[:, :, None] - table).argmin(axis=2)]
        rounded = nearest * scale
        squared = np.square(rounded - values).sum(axis=1)
        best[squared < least] = rounded[squared < least]
        least = np.minimum(least, squared)
    return best


@pytest.mark.parametrize(
    ("bits", "base", "specials"),
    [(3, [1, 2, 4], [3, -3, 6, -6]), (4, [0.5, 1, 1.5, 2, 3, 4, 6], [5, -5, 8, -8])],
)
def test_bitmod_search_is_as_good_as_its_authors(
    bits: int, base: list[float], specials: list[float]
) -> None:
    values = normal(64, 128)
    ours = formats.get(f"bitmod{bits}[{','.join(map(str, specials))}]:g=128:s=f32").quantize(values)
    theirs = reference_bitmod(values, base, specials)
    difference = np.square(ours.dequantize() - values).sum(axis=1)
    reference = np.square(theirs - values).sum(axis=1)
    assert (difference <= reference * (1 + 1e-5)).mean() > 0.9
    assert difference.sum() <= reference.sum()


def test_nvfp4_with_a_scale_of_the_matrix_reaches_any_magnitude() -> None:
    values = normal(8, 64)
    for factor in (1e-12, 1.0, 1e9):
        assert error("nvfp4_scaled", values * np.float32(factor)) < 0.01
    weight = formats.get("nvfp4_scaled").quantize(values)
    assert weight.scale_parts is not None
    assert weight.scale_parts.base.shape == (1, 1)
    assert weight.scale_parts.codes.max() == 0x7E  # 448
    # As a checkpoint has it: element times scale times the matrix's own.
    from nybble.dialects.lowbit.formats.numeric import decode_floats

    floats = decode_floats("e4m3", weight.scale_parts.codes)
    np.testing.assert_array_equal(weight.scale, weight.scale_parts.base * floats)
