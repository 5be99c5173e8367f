"""What is fused to the end of products, in the simulator, against the reference."""

import numpy as np
import pytest

from nybble.backends.gpu.kernels.matmul.spec import Epilogue, Tuning
from nybble.backends.gpu.products import ProductError, compile_product, product_spec
from nybble.backends.gpu.simulated import run_product
from nybble.dialects.lowbit import formats

SILU, BOTH = Epilogue("silu"), Epilogue("gelu_tanh", residual=True)
ADDED = Epilogue(residual=True)
CASES = [
    # every kind of activations, rows that fill tiles or not, tokens of several tiles and passes
    (ADDED, "w4g128", 40, 256, 3, "f16"), (ADDED, "w2g64", 33, 512, 9, "i8"),
    (ADDED, "w2g128", 16, 128, 1, "b2"), (SILU, "w4g128", 40, 256, 3, "f16"),
    (SILU, "w4g128z", 16, 128, 1, "f16"), (SILU, "w1g128", 70, 256, 2, "f16"),
    (SILU, "w4g64m", 33, 320, 17, "i8"), (BOTH, "nf4", 24, 128, 9, "f16"),
    (BOTH, "w2g256", 20, 512, 5, "b2"),
]  # fmt: skip


def weights(name: str, rows: int, cols: int):
    rng = np.random.default_rng(rows + cols)
    shape = (2, rows, cols)
    values = rng.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(cols))
    return [formats.get(name).quantize(one) for one in values]


@pytest.mark.parametrize(("epilogue", "name", "rows", "cols", "tokens", "mode"), CASES)
def test_epilogues(epilogue, name, rows, cols, tokens, mode):
    up, gate = weights(name, rows, cols)
    product = compile_product(
        name, rows, cols, tokens, activations=mode, output="f32", epilogue=epilogue
    )
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((tokens, cols)).astype(np.float32)
    added = rng.standard_normal((tokens, rows)).astype(np.float32) if epilogue.residual else None
    gate = gate if epilogue.gate else None
    ran = run_product(product, x, product.pack(up, gate), added, quantizes=False)
    exact = product.reference(ran.x, up, gate, added)
    np.testing.assert_allclose(ran.y, exact, rtol=2e-3, atol=3e-3)
    assert ran.report.bank_conflicts == 0


def test_a_gate_takes_whole_pairs_of_fragments():
    with pytest.raises(ProductError, match="a gated unit of 1 fragments"):
        product_spec("w4g128", 16, 128, 1, tuning=Tuning(fragments=1), epilogue=SILU)


def test_weights_of_a_gate_are_packed_together():
    up, gate = weights("w4g128", 16, 128)
    with pytest.raises(ProductError, match="1 weight"):
        compile_product("w4g128", 16, 128, 1, epilogue=SILU).pack(up)
    with pytest.raises(ProductError, match="2 weight"):
        compile_product("w4g128", 16, 128, 1).pack(up, gate)
