"""Products by lmma, in the simulator, against the decoded weights; what has none."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.kernels.matmul.lookup import (
    TablesSpec,
    amplitudes,
    lookup_kernel,
    lookup_spec,
    tables_kernel,
)
from nybble.backends.gpu.lookup import Lmma
from nybble.backends.gpu.nvrtc import compile_cuda
from nybble.backends.gpu.ptxas import assemble
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats

ARCH = find_arch("sm_90a+lmma")


@pytest.mark.parametrize(
    ("format", "rows", "cols", "tokens", "output"),
    [("w4g64", 70, 128, 9, "f32"), ("w1g32", 64, 96, 1, "f32"), ("w2g64z", 130, 64, 3, "f16"),
     ("w1g64", 130, 64, 7, "f32")],
)  # fmt: skip
def test_a_product_of_tables_and_planes(format, rows, cols, tokens, output):
    random = np.random.default_rng(rows)
    spec = lookup_spec(format, rows, cols, tokens, output)
    weight = formats.get(format).quantize(random.standard_normal((rows, cols)).astype(np.float32))
    x = random.standard_normal((tokens, cols)).astype(np.float32)
    tables = np.full(TablesSpec(tokens, cols).numbers, np.nan, np.float16)
    first = tables_kernel(TablesSpec(tokens, cols)).image(ARCH)
    simulate(first, {"x": x, "tables": tables}).check()
    assert tokens % 2 == 0 or not tables.reshape(-1, cols // 16, 2, 32)[-1, :, 1].any()
    y = np.full((tokens, rows), np.nan, {"f16": np.float16, "f32": np.float32}[output])
    image = lookup_kernel(spec).image(ARCH)
    report = simulate(image, {"tables": tables, "w": spec.pack(weight), "y": y})
    report.check()
    exact = x.astype(np.float64) @ weight.dequantize().T.astype(np.float64)
    assert (
        np.abs(y - exact).max() < 4 * 2.0**-11 * (np.abs(x) @ np.abs(weight.dequantize()).T).max()
    )
    steps, pairs = cols // 16 * spec.warps, spec.warp_pairs
    counts = {Lmma("f16", spec.bits).name: steps * pairs * spec.warp_tiles}
    assert report.mma == counts | ({Lmma("f16", 1).name: steps * pairs} if spec.has_addends else {})
    assert report.tensor_cycles == spec.tensor_cycles
    lines = image.ptx.splitlines()
    words = [row for row in report.globals if "ld.global.b32" in lines[row.line - 1]]
    assert sum(row.bytes for row in words) == spec.loaded_bytes
    with pytest.raises(GpuError, match="instructions that no hardware has"):
        assemble(image.ptx, image.arch)
    with pytest.raises(GpuError, match="instructions that no hardware has"):
        compile_cuda("", image.arch)


def unpacked(spec, packed):
    """Codes u8 [rows, cols], and what they mean, f64, of packed bytes."""
    planes = packed[: spec.plane_bytes].view(np.uint16)
    bits = planes.reshape(spec.tiles, spec.steps, spec.bits, -1, 1) >> np.arange(16) & 1
    codes = (bits << np.arange(spec.bits)[:, None, None]).sum(axis=2).swapaxes(1, 2)
    codes = codes.reshape(-1, spec.cols)[: spec.rows]
    numbers = packed[spec.plane_bytes :].view(np.float32).astype(np.float64)
    numbers = numbers.reshape(-1, spec.tiles, spec.cols // spec.group, 64).swapaxes(2, 3)
    each = numbers.reshape(len(numbers), -1, numbers.shape[-1])[:, : spec.rows]
    factor, *addend = np.repeat(each, spec.group, axis=-1)
    return codes.astype(np.uint8), factor * (2 * codes + 1 - 2**spec.bits) + sum(addend)


@pytest.mark.parametrize(
    ("format", "rows", "cols"),
    [
        ("w4g64", 70, 128),
        ("w1g32", 64, 96),
        ("w2g64z", 130, 64),
        ("q1_0", 3, 256),
        ("b1_58", 9, 64),
    ],
)
def test_packing_inverts(format, rows, cols):
    random, spec = np.random.default_rng(rows), lookup_spec(format, rows, cols, 1)
    weight = formats.get(format).quantize(random.standard_normal((rows, cols)).astype(np.float32))
    packed = spec.pack(weight)
    assert packed.size == spec.weight_bytes
    codes, values = unpacked(spec, packed)
    np.testing.assert_array_equal(codes, weight.codes)
    np.testing.assert_allclose(values, weight.dequantize(), rtol=1e-5, atol=1e-6)
    most = 2**spec.bits - 1
    numbers = (
        packed[spec.plane_bytes :].view(np.float32).reshape(-1, spec.tiles, cols // spec.group, 64)
    )
    largest = np.abs(numbers[0]) * most + np.abs(numbers[1:]).sum(axis=0)
    each = largest.swapaxes(1, 2).reshape(-1, cols // spec.group)[:rows]
    found = amplitudes(format, weight)
    np.testing.assert_allclose(found, np.repeat(each, spec.group, axis=1), rtol=1e-5, atol=1e-6)
    packed[0] ^= 1
    assert (unpacked(spec, packed)[0] != weight.codes).sum() == 1


@pytest.mark.parametrize(
    ("format", "cols", "message"),
    [("w3g64", 128, "'w3g64' by lmma"), ("nf4", 128, "'nf4' by lmma"),
     ("w4g8", 24, "24 columns in groups of 8")],
)  # fmt: skip
def test_what_has_none(format, cols, message):
    with pytest.raises(NybbleError, match=message):
        lookup_spec(format, 64, cols, 1)
