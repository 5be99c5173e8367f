"""Products of bit planes in the simulator, against the reference."""

import numpy as np
import pytest

from nybble.backends.gpu import simulated
from nybble.backends.gpu.image import KernelImage
from nybble.backends.gpu.products import Product, ProductError, compile_product, product_spec
from nybble.dialects.lowbit import formats

SHAPES = [
    # one bit by one to four by four; groups of a record, of several, and of a row; one row and many
    ("w1g128", "b1", 16, 128, 1), ("w1g128", "b1", 40, 256, 3), ("w1g256", "b1", 33, 512, 9),
    ("w1", "b2", 5, 384, 2), ("w1g512", "b4", 70, 1024, 1), ("w2g128", "b1", 1, 128, 8),
    ("w2g256", "b2", 33, 512, 17), ("w2g128", "b2", 40, 384, 5), ("w2g128z", "b3", 16, 256, 2),
    ("w2", "b1", 24, 640, 33), ("b1_58", "b2", 20, 384, 2), ("b1_58", "b1", 3, 128, 1),
    ("w3g128", "b3", 17, 256, 2), ("w3g256m", "b2", 16, 256, 2), ("w4g128", "b4", 24, 256, 9),
    ("w4g128", "b1", 16, 128, 1), ("w4g128z", "b4", 40, 256, 2), ("w4g128m", "b4", 16, 128, 3),
    ("w4g256", "b2", 16, 512, 1), ("w4", "b4", 8, 256, 2),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mode", "rows", "cols", "tokens"), SHAPES)
def test_shapes(run_product, name, mode, rows, cols, tokens):
    ran = run_product(name, rows, cols, tokens, activations=mode)
    assert ran.worst < 1
    assert ran.report.bank_conflicts == 0


@pytest.mark.parametrize("arch", ["sm_80", "sm_89"])
def test_architectures(run_product, arch):
    assert run_product("w2g128", 24, 256, 2, activations="b2", arch=arch).worst < 1


def test_integers_are_exact():
    # all codes are the largest or the smallest: no count may lose a unit
    weight = formats.get("w4g256").quantize(np.tile([[7.0], [-8.0]], (1, 256)).astype(np.float32))
    weight.scale[:] = 1
    product = compile_product("w4g256", 2, 256, 2, activations="b4")
    x = np.tile(np.array([[15.0], [-15.0]], np.float32), (1, 256))
    ran = simulated.run_product(product, x, product.pack(weight))
    np.testing.assert_array_equal(ran.y, product.reference(x, weight))


@pytest.mark.parametrize(
    ("name", "scale"), [("w4g128", "f16"), ("w1g512", "f16"), ("b1_58", "f32")]
)
def test_numbers_of_groups_are_as_small_as_is_exact(name, scale):
    spec = product_spec(name, 16, 512, 1, activations="b2")
    assert spec.layout.scale == scale


def test_tokens_of_zeros():
    weight = formats.get("w2g128").quantize(np.ones((3, 128), np.float32))
    product = compile_product("w2g128", 3, 128, 1, activations="b2")
    assert not simulated.run_product(
        product, np.zeros((1, 128), np.float32), product.pack(weight)
    ).y.any()


@pytest.mark.parametrize(
    ("name", "mode", "cols"),
    [("w1g128", "b1", 384), ("w2g256", "b2", 512), ("w4", "b3", 128), ("w1", "b4", 1024)],
)
def test_the_quantization_is_the_reference_s(name, mode, cols):
    spec = product_spec(name, 8, cols, 3, "sm_80", mode)
    x = np.random.default_rng(cols).standard_normal((3, cols)).astype(np.float32)
    image = KernelImage("none", "sm_80", "", (), (1, 1, 1), (1, 1, 1))
    simulated.activations(Product(name, spec, image), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("w2g128", 8, 256, 1, "sm_120a", "b2"), "products of bits on sm_120a"),
        (("w2g64", 8, 256, 1, "sm_80", "b2"), "256 columns in groups of 64"),
        (("w2g128", 8, 128 + 64, 1, "sm_80", "b2"), "192"),
        (("w8g128", 8, 256, 1, "sm_80", "b2"), "no integers on a line, of up to 4 bits"),
        (("nf4", 8, 256, 1, "sm_80", "b2"), "no integers on a line, of up to 4 bits"),
        (("nf4", 8, 256, 1, "sm_80", "i8"), "no 8-bit integers with activations i8"),
    ],
)
def test_what_has_no_kernel_is_refused(arguments, message):
    with pytest.raises((ProductError, formats.FormatError), match=message):
        product_spec(*arguments)
