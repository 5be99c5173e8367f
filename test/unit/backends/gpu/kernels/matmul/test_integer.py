"""Products of 8-bit activations in the simulator, against the reference."""

import numpy as np
import pytest

from nybble.backends.gpu import simulated
from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.kernels.matmul.spec import Tuning
from nybble.backends.gpu.kernels.rows.quantize import QuantizeSpec, quantize_kernel
from nybble.backends.gpu.products import Product, compile_product, product_spec
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.lowbit import formats

SHAPES = [
    ("w4g128", 16, 128, 1), ("w4g128", 72, 512, 2), ("w4g128", 17, 1152, 7),
    ("w4g128", 24, 256, 17), ("w4g128", 16, 128, 65), ("w4g32", 33, 192, 5), ("w4g16", 16, 64, 3),
    ("w4g64z", 48, 320, 3), ("w4g128z", 24, 256, 20), ("w4g128m", 33, 384, 8),
    ("w4", 24, 576, 5), ("w4g512", 16, 1024, 2), ("w2g128", 16, 128, 1), ("w2g128", 40, 512, 9),
    ("w2g32", 5, 64, 1), ("w2g256", 16, 256, 2), ("w8g128", 24, 256, 5), ("w8g128", 1, 64 * 2, 1),
    ("w8g64", 40, 192, 16), ("w1g128", 70, 256, 3),
]  # fmt: skip
NO_IMAGE = KernelImage("none", "sm_80", "", (), (1, 1, 1), (1, 1, 1))
FORMATS = [
    "w3g64m", "w6g32z", "w7g128", "b1_58", "q4_1", "q3_k", "iq4_nl", "mxfp4", "nvfp4", "fp4",
    "nvfp4_scaled",
]  # fmt: skip


@pytest.mark.parametrize(("name", "rows", "cols", "tokens"), SHAPES)
def test_shapes(run_product, name, rows, cols, tokens):
    ran = run_product(name, rows, cols, tokens, activations="i8")
    assert ran.worst < 1
    assert ran.report.bank_conflicts == 0
    assert ran.report.sector_efficiency > 0.9


@pytest.mark.parametrize("name", FORMATS)
def test_formats(run_product, name):
    assert run_product(name, 24, 256, 2, activations="i8", output="f16").worst < 1


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_120a"])
def test_architectures(run_product, arch):
    assert run_product("w4g128", 24, 128, 9, activations="i8", arch=arch).worst < 1


def test_warps_that_share_rows(run_product):
    tuning = Tuning(warps=8, split=4, prefetch=True)
    assert run_product("w4g64z", 40, 512, 3, activations="i8", tuning=tuning).worst < 1


def test_integers_are_exact():
    # the largest of both in every column: no sum of a group may lose a unit
    for name in ("w8g128", "w4g128"):
        weight = formats.get(name).quantize(np.tile([[7.0], [-7.0]], (1, 128)).astype(np.float32))
        weight.scale[:] = 1
        product = compile_product(name, 2, 128, 2, activations="i8")
        x = np.tile(np.array([[127.0], [-127.0]], np.float32), (1, 128))
        ran = simulated.run_product(product, x, product.pack(weight))
        np.testing.assert_array_equal(ran.y, product.reference(x, weight))


def test_tokens_of_zeros_and_of_denormals():
    weight = formats.get("w4g64").quantize(np.ones((3, 64), np.float32))
    product = compile_product("w4g64", 3, 64, 2, activations="i8")
    x = np.zeros((2, 64), np.float32)
    x[1] = 1e-40
    assert not simulated.run_product(product, x, product.pack(weight)).y.any()


def test_a_token_that_is_not_finite_has_no_finite_scale():
    spec = QuantizeSpec(3, 64, 32, (0, 2, 1, 3), 64)
    x = np.ones((3, 64), np.float32)
    x[0, 5], x[2, 63] = np.inf, np.nan
    made = {one.name: np.zeros(one.bytes, np.uint8) for one in spec.results}
    image = quantize_kernel(spec).image(find_arch("sm_80"))
    simulate(image, {"input": x, **made}).check()
    assert np.isfinite(made["scales"].view(np.float32)).tolist() == [False, True, False]


@pytest.mark.parametrize(("name", "cols"), [("w4g64", 1088), ("w4g16", 64), ("iq4_nl", 1024)])
def test_the_quantization_is_the_reference_s(name, cols):
    # part of a round of a block, more than one, and each order of columns
    spec = product_spec(name, 8, cols, 3, "sm_80", "i8")
    x = np.random.default_rng(cols).standard_normal((3, cols)).astype(np.float32)
    simulated.activations(Product(name, spec, NO_IMAGE), x)
