"""Outliers behind the records of a stream, and lossless weights as codes, tables and outliers."""

import numpy as np
import pytest

from nybble.backends.gpu.packing.kind import Split, weight_kind
from nybble.backends.gpu.packing.outliers import (
    joined_halves,
    outliers_of,
    split_rows,
    tables_of,
    with_outliers,
)
from nybble.backends.gpu.packing.pack import PackingError, unpack_stream
from nybble.backends.gpu.products import (
    Product,
    bf16_bits,
    compile_product,
    product_spec,
    stream_layout,
)
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.weight import Outlying


def values(rows, cols, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


@pytest.fixture(scope="module", params=["spqr3", "i4:g=64:s=f16:fix=outliers.coo.20.f32"])
def corrected(request) -> Product:
    return compile_product(request.param, 40, 256, 1)


def test_outliers_lie_by_row_and_come_back(corrected: Product):
    weight = formats.get(corrected.format).quantize(values(40, 256))
    packed = corrected.pack(weight)
    assert packed.nbytes == corrected.image.parameter("w").bytes
    found, wanted = outliers_of(corrected.spec.layout, packed), weight.outliers
    assert wanted is not None
    assert len(wanted.rows) > 100
    for name in ("rows", "cols", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    codes, scale, _ = unpack_stream(corrected.spec.layout, packed)
    np.testing.assert_array_equal(codes, weight.codes)
    np.testing.assert_array_equal(scale, weight.scale)


def test_more_outliers_than_there_is_room_for_are_refused(corrected: Product):
    layout = corrected.spec.layout
    rows = np.zeros(layout.outliers + 1, np.int32)
    many = Outlying(rows, rows, rows.astype(np.float32))
    with pytest.raises(PackingError, match=f"{layout.outliers + 1} outliers .* of 40 x 256"):
        with_outliers(layout, np.zeros(layout.bytes, np.uint8), [many])


@pytest.mark.parametrize("shape", [(33, 256), (70, 128), (16, 64)])
def test_lossless_weights_come_back_bit_for_bit(shape):
    halves = bf16_bits(values(*shape) * 2.0 ** np.arange(shape[1]).clip(0, 9))
    layout = stream_layout(weight_kind(formats.get("df11"), shape[1]), *shape, "bf16")
    codes, tables, left = split_rows(layout, halves)
    found = joined_halves(codes, tables, layout.tile_rows)
    assert not found[left.rows, left.cols].any(), "what is left over is 0 among the codes"
    found[left.rows, left.cols] = bf16_bits(left.values)
    np.testing.assert_array_equal(found, halves)


def test_every_bf16_is_a_code_or_an_outlier():
    halves = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    layout = stream_layout(weight_kind(formats.get("df11"), 256), 256, 256, "bf16")
    codes, tables, left = split_rows(layout, halves)
    found = joined_halves(codes, tables, layout.tile_rows)
    found[left.rows, left.cols] = (left.values.view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(found, halves)


def test_a_packed_lossless_weight_has_its_codes_and_the_table_of_each_tile():
    product = compile_product("df11", 40, 128, 1, activations="bf16")
    weight = formats.get("df11").quantize(values(40, 128))
    layout, packed = product.spec.layout, product.pack(weight)
    assert isinstance(product.spec.kind.meaning, Split)
    codes, scale, zero = unpack_stream(layout, packed)
    assert codes.dtype == np.uint16
    assert (scale, zero) == (None, None)
    found = joined_halves(codes, tables_of(layout, packed), layout.tile_rows)
    left = outliers_of(layout, packed)
    found[left.rows, left.cols] = bf16_bits(left.values)
    np.testing.assert_array_equal(found, bf16_bits(weight.require_values()))


def test_lossless_weights_of_too_many_sizes_are_refused():
    product = compile_product("df11", 16, 64, 1, activations="bf16")
    wide = values(16, 64) * 2.0 ** np.random.default_rng(1).integers(-120, 120, (16, 64))
    with pytest.raises(PackingError, match="outliers in a weight of 16 x 64"):
        product.pack(formats.get("df11").quantize(wide.astype(np.float32)))


def test_twelve_bits_and_a_little_are_stored():
    layout = product_spec("df11", 4096, 4096, 1, activations="bf16").layout
    assert layout.bytes * 8 / 4096**2 < 12.25
