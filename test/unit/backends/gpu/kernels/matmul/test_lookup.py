"""Products by lmma, in the simulator, against the decoded weights; what has none."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.kernels.matmul.lookup import (
    TablesSpec,
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
    ("format", "rows", "cols", "tokens"),
    [("w4g64", 70, 128, 9), ("w1g32", 64, 96, 1), ("w2g64z", 130, 64, 3)],
)
def test_a_product_of_tables_and_planes(format, rows, cols, tokens):
    random = np.random.default_rng(rows)
    spec = lookup_spec(format, rows, cols, tokens)
    weight = formats.get(format).quantize(random.standard_normal((rows, cols)).astype(np.float32))
    x = random.standard_normal((tokens, cols)).astype(np.float32)
    tables = np.full(TablesSpec(tokens, cols).numbers, np.nan, np.float16)
    first = tables_kernel(TablesSpec(tokens, cols)).image(ARCH)
    simulate(first, {"x": x, "tables": tables}).check()
    y = np.full((tokens, rows), np.nan, np.float32)
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
