"""Sparse matrices on the host: what is refused, what is repaired, and every layout."""

import numpy as np
import pytest

from nybble.dialects.spgemm import matrix as module
from nybble.dialects.spgemm.elements import to_bf16, widened
from nybble.dialects.spgemm.errors import SparseError
from nybble.dialects.spgemm.layouts import Layout
from nybble.dialects.spgemm.matrix import SparseMatrix, check_fits
from nybble.dialects.spgemm.packed import Packed, pack, unpack
from nybble.dialects.spgemm.semiring import SEMIRINGS, semiring


def made(indptr, indices, values=None, shape=(3, 4), dtype=np.int32):
    indices = np.array(indices, dtype)
    values = np.arange(1, len(indices) + 1, dtype=np.float32) if values is None else values
    return SparseMatrix(shape, np.array(indptr, dtype), indices, np.asarray(values))


def same(one, other):
    return (
        one.shape == other.shape
        and np.array_equal(one.indptr, other.indptr)
        and np.array_equal(one.indices, other.indices)
        and np.array_equal(one.values, other.values)
    )


GOOD = made([0, 2, 2, 3], [0, 3, 1])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (made([0, 2, 3], [0, 3, 1]), "indptr of 3 entries"),
        (made([0, 2, 1, 3], [0, 3, 1]), "does not ascend"),
        (made([1, 2, 2, 3], [0, 3, 1]), "does not ascend from 0"),
        (made([0, 2, 2, 4], [0, 3, 1]), "indptr ends with 4, there are 3 indices"),
        (made([0, 2, 2, 3], [0, 3, 1], np.ones(2)), "3 indices and 2 values"),
        (made([0, 2, 2, 3], [0, 4, 1]), "column 4 (accepted: 0 to 3)"),
        (made([0, 2, 2, 3], [0, 3, -1]), "column -1"),
        (made([0, 2, 2, 3], [3, 0, 1]), "row 0 has column 0 unsorted"),
        (made([0, 0, 3, 3], [0, 1, 1]), "row 1 has column 1 a duplicate"),
        (made([0, 2, 2, 3], [0, 3, 1], np.ones(3, np.complex64)), "values of dtype complex64"),
        (made([0, 2, 2, 3], [0, 3, 1], dtype=np.int16), "indptr of int16"),
        (made([0, 0], [], shape=(1, -1)), "shape 1 x -1"),
        (made([0, 2, 2, 3], [[0], [3], [1]]), "indices of 2 dimensions"),
    ],
)
def test_malformed_matrices_are_refused(matrix, message):
    with pytest.raises(SparseError) as caught:
        matrix.check()
    assert message in str(caught.value)


def test_order_is_repaired_and_duplicates_add_up():
    assert GOOD.check() is GOOD.canonical() is GOOD
    found = made([0, 3, 3, 5], [3, 0, 3, 1, 1]).canonical()
    assert same(found, made([0, 2, 2, 3], [0, 3, 1], np.array([2, 4, 9], np.float32)))
    with pytest.raises(SparseError, match="column 7"):
        made([0, 3, 3, 5], [3, 0, 7, 1, 1]).canonical()
    small = made([0, 2, 2, 2], [1, 1], np.array([100, 100], np.int8))
    with pytest.raises(SparseError, match="more than i8 holds"):
        small.canonical()


def test_more_entries_than_an_index_counts_are_refused(monkeypatch):
    with pytest.raises(SparseError, match="2147483648 entries of a 2 x 2 matrix"):
        check_fits(1 << 31, (2, 2), 32)
    check_fits(1 << 31, (2, 2), 64)
    with pytest.raises(SparseError, match="indices of 16 bits"):
        check_fits(1, (2, 2), 16)
    wide = GOOD.with_index(64)
    monkeypatch.setattr(module, "LARGEST_32", 2)
    with pytest.raises(SparseError, match="3 entries"):
        wide.with_index(32)


def random_matrix(shape, density, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 9, shape).astype(np.float32)
    return SparseMatrix.from_dense(values * (rng.random(shape) < density))


LAYOUTS = ["csr", "csc", "coo", "rows", "bitmap", "bcsr(2x4)", "nm(2:4)"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "density"), [((6, 8), 0.2), ((4, 16), 0), ((0, 8), 0)])
def test_layouts_hold_every_matrix(layout, shape, density):
    matrix = random_matrix(shape, density)
    if layout == "nm(2:4)":
        dense = matrix.to_dense().reshape(-1, 4)
        dense[:, 2:] = 0
        matrix = SparseMatrix.from_dense(dense.reshape(shape))
    packed = pack(matrix, Layout.parse(layout))
    assert same(unpack(packed), matrix)
    assert packed.bytes == sum(array.nbytes for array in packed.arrays.values())


def test_low_bit_values_are_those_of_their_format():
    matrix = random_matrix((5, 40), 0.3)
    packed = pack(matrix, Layout.parse("csr"), "q8_0")
    assert packed.codes.spec == "q8_0"
    np.testing.assert_allclose(unpack(packed).values, matrix.values, rtol=0.02)
    assert not np.array_equal(unpack(packed).values, matrix.values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ell", "unknown layout 'ell'"),
        ("bcsr(0x4)", "layout 'bcsr"),
        ("nm(4:4)", "layout 'nm"),
        ("csr(2x2)", "layout 'csr"),
        ("nm(2x4)", "accepted: nm(N:M)"),
    ],
)
def test_unknown_layouts_are_refused(text, message):
    with pytest.raises(SparseError) as caught:
        Layout.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("coo", {"rows": np.array([0, 5])}, "row 5"),
        ("coo", {"rows": np.array([0])}, "1 rows, 2 columns"),
        ("coo", {"rows": np.array([0.0, 1.0])}, "rows float64"),
        ("coo", {"values": np.array([1, 1], np.complex128)}, "values of dtype complex128"),
        ("rows", {"rows": np.array([[0, 1]])}, "rows int64 of 2 dimensions"),
        ("csc", {"indices": np.array([9, 0], np.int32)}, "column 9"),
        ("nm(1:2)", {"indices": np.zeros((2, 2, 2), np.uint8)}, "places (2, 2, 2)"),
        ("rows", {"rows": np.array([1, 1])}, "list of rows"),
        ("bitmap", {"bits": np.zeros((2, 2), np.uint8)}, "bits uint8 (2, 2)"),
        ("bitmap", {"bits": np.full((2, 1), 3, np.uint8)}, "4 indices"),
        ("bcsr(1x2)", {"values": np.zeros((2, 2, 2))}, "blocks of (2, 2)"),
        ("nm(1:2)", {"indices": np.full((2, 2, 1), 2, np.uint8)}, "place 2"),
        ("nm(1:2)", {"values": np.zeros((2, 1, 1))}, "values (2, 1, 1)"),
        ("csr", {"extra": np.zeros(1)}, "csr of indptr, indices, values, extra"),
    ],
)
def test_arrays_of_no_layout_are_refused(layout, change, message):
    matrix = SparseMatrix.from_dense(np.array([[1.0, 0, 0, 0], [0, 0, 2, 0]]))
    packed = pack(matrix, Layout.parse(layout))
    wrong = Packed(packed.layout, packed.shape, {**packed.arrays, **change})
    with pytest.raises(SparseError) as caught:
        unpack(wrong)
    assert message in str(caught.value)


def damaged(array, rng):
    """The array with something wrong, or not."""
    kind = rng.integers(7)
    if kind < 3:
        return (array[:-1], np.concatenate((array, array[:1])), array[::-1].copy())[kind]
    if kind == 3:
        return array[None]
    if kind == 4:
        return array.astype(np.int16)
    copy = array.copy()
    if copy.size:
        number = rng.integers(0, 100) if kind == 5 or copy.dtype.kind == "u" else -5
        copy.reshape(-1)[rng.integers(copy.size)] = number
    return copy


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_is_refused_or_gives_a_matrix(layout):
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(60):
        dense = (rng.random((4, 8)) < 0.3) * 1.0
        dense[:, 2::4] = dense[:, 3::4] = 0
        packed = pack(SparseMatrix.from_dense(dense), Layout.parse(layout))
        name = str(rng.choice([*packed.arrays]))
        arrays = {**packed.arrays, name: damaged(packed.arrays[name], rng)}
        try:
            unpack(Packed(packed.layout, packed.shape, arrays)).check()
        except SparseError:
            refused += 1
    assert refused > 10


def test_layouts_that_a_matrix_does_not_fit():
    matrix = SparseMatrix.from_dense(np.ones((2, 4), np.float32))
    with pytest.raises(SparseError, match="row 0 has 4 entries in columns 0 to 3"):
        pack(matrix, Layout.parse("nm(2:4)"))
    with pytest.raises(SparseError, match="4 columns in bcsr"):
        pack(matrix, Layout.parse("bcsr(2x3)"))


def test_bf16_rounds_to_nearest_even():
    floats = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, np.inf, np.nan, -0.0], np.float32)
    found = widened(to_bf16(floats))
    np.testing.assert_array_equal(found[:4], np.array([1, 1, 1 + 2**-6, np.inf], np.float32))
    assert np.isnan(found[4])
    assert np.signbit(found[5])


def test_semirings_say_what_they_are_not_defined_for():
    with pytest.raises(SparseError, match="unknown semiring 'max'"):
        semiring("max")
    with pytest.raises(SparseError, match="or_and of f32"):
        SEMIRINGS["or_and"].check(np.ones(1, np.float32))
    with pytest.raises(SparseError, match="neither 0 nor 1"):
        SEMIRINGS["or_and"].check(np.array([2], np.int8))
    for bad in (np.nan, -np.inf):
        with pytest.raises(SparseError, match="min_plus of"):
            SEMIRINGS["min_plus"].check(np.array([bad]))
    SEMIRINGS["plus_times"].check(np.array([np.nan]))
