"""Lossless bf16 in 12 bits: every pattern comes back, in numpy and out of a kernel at any level."""

from dataclasses import replace

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.emulate import compile_runnable
from nybble.backends.cpu.isa import LEVELS
from nybble.backends.cpu.kernels.matmul import MatmulSpec, lower_matmul, matmul_buffers
from nybble.backends.cpu.kernels.matmul.codes import Split
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.split_floats import SplitLayout, pack_split, unpack_split
from nybble.backends.cpu.tile_layout import LayoutError
from nybble.backends.cpu.weights import added_of, layout_of, pack_weight, packed_size, weight_kind
from nybble.dialects.lowbit import formats

DF11 = formats.get("df11")
HALF = np.uint32(16)


def floats(patterns):
    return (patterns.astype(np.uint32) << HALF).view(np.float32)


def restored(data, left, layout):
    patterns = unpack_split(data, layout)
    values = left.values.view(np.uint32) >> HALF
    assert not patterns[left.rows, left.cols].any()
    patterns[left.rows, left.cols] = values
    return patterns


def test_every_pattern():
    patterns = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    layout = SplitLayout(256, 256)
    data, left = pack_split(floats(patterns), layout)
    assert len(data) == layout.size == 256 * 256 * 12 // 8 + 4 * 64
    np.testing.assert_array_equal(restored(data, left, layout), patterns)


def test_numbers_that_are_none_stay_as_they_are():
    """The tables hold the high bytes of infinities and of both kinds of NaN."""
    high = np.resize(np.array([0x7F, 0xFF, 0x3F, 0xBF, 0x00, 0x80], np.uint16), (100, 1))
    patterns = high << np.uint16(8) | np.arange(256, dtype=np.uint16)
    layout = SplitLayout(*patterns.shape)
    data, left = pack_split(floats(patterns), layout)
    assert not len(left.values)
    np.testing.assert_array_equal(unpack_split(data, layout), patterns)


@pytest.mark.parametrize("shape", [(1, 8), (63, 64), (65, 24), (200, 136)])
def test_trained_weights_leave_few(shape):
    rng = np.random.default_rng(1)
    rows = np.exp2(rng.integers(-3, 4, (shape[0], 1)))
    values = DF11.quantize((rng.standard_normal(shape) * rows * 0.02).astype(np.float32))
    values = values.dequantize()
    values[0, :4] = 0.0, -0.0, 2.0**-130, np.inf
    layout = SplitLayout(*shape)
    data, left = pack_split(values, layout)
    assert len(left.values) <= 4 + values.size // 200
    np.testing.assert_array_equal(restored(data, left, layout), values.view(np.uint32) >> HALF)


def test_held_in_little_more_than_12_bits():
    assert 8 * packed_size(DF11, (4096, 4096)) / 4096**2 < 12.2
    assert weight_kind(DF11, 4096) == Split()
    assert weight_kind(DF11, 4097).dtype == "bf16"


def test_refused():
    with pytest.raises(LayoutError, match="a split weight of 4 x 12"):
        SplitLayout(4, 12)
    with pytest.raises(LayoutError, match=r"a weight of shape \(4, 8\)"):
        pack_split(np.zeros((4, 8), np.float32), SplitLayout(4, 16))
    with pytest.raises(LayoutError, match="more than 16 bits"):
        pack_split(np.full((4, 8), 0.1, np.float32), SplitLayout(4, 8))
    anything = floats(np.arange(1 << 12, dtype=np.uint16).reshape(64, 64) * np.uint16(16))
    weight = replace(DF11.quantize(np.zeros((64, 64), np.float32)), values=anything)
    with pytest.raises(LayoutError, match=r"of 64 x 64 lossless .* format 'bf16' holds any"):
        pack_weight(DF11, weight)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_kernel_reads_what_was_packed(level, tokens):
    """Rows of the identity pick columns: nothing is rounded."""
    if tokens > 1 and level == "amx":
        pytest.skip("tiles of bf16 are tested with other floats")
    rng = np.random.default_rng(2)
    rows, cols = 70, 64
    weight = DF11.quantize(rng.standard_normal((rows, cols)).astype(np.float32))
    weight.values[2, 5:9] = 1e-38, 2.0**127, -1e-40, 3e38
    weight = DF11.quantize(weight.values)
    spec = MatmulSpec(
        weight_kind(DF11, cols), (rows,), cols, tokens, "f32", added=added_of(DF11, cols),
        isa=LEVELS[level],
    )  # fmt: skip
    library = load([compile_runnable(ModuleOp([lower_matmul(spec, "f")]), spec.isa)])
    packed = pack_weight(DF11, weight)
    assert layout_of(DF11, (rows, cols)).size < len(packed)
    for first in (0, 5, 8, cols - tokens):
        x = np.eye(cols, dtype=np.float32)[first : first + tokens]
        arrays = []
        for buffer in matmul_buffers(spec):
            given = {"x": x, "w0": packed}.get(buffer.name, np.zeros(0, np.float32)).reshape(-1)
            array = np.zeros(buffer.size, np.int8 if str(buffer.dtype) == "i8" else np.float32)
            array[: given.size] = given.view(array.dtype)
            arrays.append(array)
        library.call("f", *arrays, tokens, 0, 0, 1)
        names = [buffer.name for buffer in matmul_buffers(spec)]
        got = arrays[names.index("y0")][: tokens * rows].reshape(tokens, rows)
        np.testing.assert_array_equal(got, weight.values[:, first : first + tokens].T)
