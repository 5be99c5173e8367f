"""Products of weights with outliers (SpQR), and of lossless ones (DFloat11), in the simulator."""

from functools import partial

import numpy as np
import pytest

from nybble.backends.gpu.kernels.matmul import outliers
from nybble.backends.gpu.kernels.matmul.spec import Epilogue, Tuning
from nybble.backends.gpu.products import compile_product
from nybble.backends.gpu.simulated import run_product as simulated
from nybble.dialects.lowbit import formats

FIXED = "i4:g=64:s=f16:fix=outliers.coo.20.f32"
BF16 = {"activations": "bf16", "output": "f32"}
SHAPES = [
    # tiles that are full or not, one pass or several, tokens of one lane or of all
    (16, 64, 1), (33, 256, 2), (40, 320, 7), (70, 128, 9), (24, 512, 20), (40, 128, 65),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "cols", "tokens"), SHAPES)
@pytest.mark.parametrize("name", ["spqr3", FIXED])
def test_outliers_are_added(run_product, name, rows, cols, tokens):
    cols = -(-cols // 256) * 256 if name == "spqr3" else cols
    ran = run_product(name, rows, cols, tokens, output="f32")
    assert ran.worst < 1
    assert ran.report.bank_conflicts == 0


@pytest.mark.parametrize(("rows", "cols", "tokens"), SHAPES)
def test_lossless_weights_lose_nothing_but_in_sums(rows, cols, tokens):
    random = np.random.default_rng(rows)
    values = random.standard_normal((rows, cols)) * (2.0**-20 if tokens % 2 else 1.0)
    weight = formats.get("df11").quantize(values.astype(np.float32))
    product = compile_product("df11", rows, cols, tokens, **BF16)
    x = random.standard_normal((tokens, cols)).astype(np.float32)
    ran = simulated(product, x, product.pack(weight))
    size = np.abs(ran.x) @ np.abs(weight.dequantize()).T
    assert (np.abs(ran.y - product.reference(ran.x, weight)) / size).max() < 2.0**-20
    assert ran.report.bank_conflicts == 0


def test_what_no_table_has_is_added():
    random = np.random.default_rng(5)
    values = random.standard_normal((32, 128)) * np.where(random.random((32, 128)) < 0.01, 1e6, 1)
    weight = formats.get("df11").quantize(values.astype(np.float32))
    product = compile_product("df11", 32, 128, 3, **BF16)
    x = random.standard_normal((3, 128)).astype(np.float32)
    packed = product.pack(weight)
    assert packed[product.spec.layout.added :].any()
    ran = simulated(product, x, packed)
    exact = product.reference(ran.x, weight)
    np.testing.assert_allclose(ran.y, exact, rtol=1e-4, atol=1e-6 * np.abs(exact).max())


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_120a"])
def test_architectures(run_product, arch):
    assert run_product("spqr3", 24, 256, 3, arch=arch).worst < 1
    assert run_product("df11", 24, 128, 17, arch=arch, activations="bf16").worst < 1


@pytest.mark.parametrize(
    "tuning", [Tuning(warps=8, split=4, subtract=True), Tuning(warps=4, fragments=4, stages=2)]
)
def test_tuning_changes_no_result(run_product, tuning):
    assert run_product("spqr3", 72, 1024, 5, tuning=tuning).worst < 1
    assert run_product("df11", 72, 768, 5, tuning=tuning, activations="bf16").worst < 1


@pytest.mark.parametrize(("name", "mode"), [("spqr3", "f16"), ("df11", "bf16")])
def test_gates_and_residuals(name, mode):
    random, shape = np.random.default_rng(3), (40, 256)
    made = partial(random.standard_normal, shape)
    up, gate = (formats.get(name).quantize(made().astype(np.float32) / 16) for _ in range(2))
    epilogue = Epilogue("silu", residual=True)
    product = compile_product(
        name, *shape, 9, activations=mode, output="f32", epilogue=epilogue
    )  # fmt: skip
    x = random.standard_normal((9, 256)).astype(np.float32)
    residual = random.standard_normal((9, 40)).astype(np.float32)
    ran = simulated(product, x, product.pack(up, gate), residual)
    exact = product.reference(ran.x, up, gate, residual)
    np.testing.assert_allclose(ran.y, exact, rtol=2e-3, atol=3e-3)


def test_a_kernel_without_outliers_would_be_seen(run_product, monkeypatch):
    monkeypatch.setattr(outliers.Outliers, "entry", lambda self, _: (
        self.b.load(self.b.offset(self.w, self.spec.layout.starts), self.b.word(0).type),
        self.b.const(0.0, outliers.f32),
    ))  # fmt: skip
    assert run_product("spqr3", 40, 256, 3, output="f32").worst > 1
