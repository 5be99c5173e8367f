"""Products of many tokens by warpgroups in the simulator, against the reference."""

from functools import partial

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.matmul.spec import Epilogue, Tuning
from nybble.backends.gpu.kernels.matmul.warpgroup import WarpgroupSpec
from nybble.backends.gpu.products import ProductError, compile_product, product_spec
from nybble.backends.gpu.simulated import run_product as simulated
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.numeric import round_to

WARPGROUPS = {"warpgroups": True}


@pytest.mark.parametrize(
    ("name", "rows", "cols", "tokens", "options"),
    [
        # rows and tokens that fill nothing; a ring that goes round; several jobs, passes and blocks
        ("w4g128", 40, 256, 19, {}),
        ("w4g64", 300, 1152, 33, {"sms": 2}),
        ("w4g32", 16, 64, 150, {"sms": 1, "output": "f32"}),
        # planes, bytes, a table, small floats; scales of groups and of fragments; zeros, minima
        ("w3g64", 24, 128, 16, {}), ("w2g128", 24, 256, 16, {}), ("w8g128", 24, 128, 16, {}),
        ("nf4", 24, 128, 16, {}), ("mxfp4", 24, 64, 16, {}), ("nvfp4", 24, 64, 16, {}),
        ("q4_k", 24, 256, 16, {}),
        # lanes read whole loads of others; sums of groups that take each other's registers
        ("w1g16z", 24, 256, 16, {}), ("w3g16m", 24, 128, 16, {}), ("w6g16", 24, 128, 16, {}),
        ("q2_k", 24, 256, 16, {}), ("q6_k", 24, 256, 17, {"sms": 1}),
        ("q1_0", 24, 512, 16, {"activations": "bf16"}),
        ("w4g128z", 24, 128, 17, {"activations": "bf16"}),
    ],
)  # fmt: skip
def test_products(run_product, name, rows, cols, tokens, options):
    ran = run_product(name, rows, cols, tokens, **WARPGROUPS, **options)
    assert ran.worst < 1
    assert ran.report.bank_conflicts == 0


def test_gates_and_residuals_are_fused_to_them():
    rng = np.random.default_rng(3)
    epilogue = Epilogue("silu", residual=True)
    product = compile_product("w4g64", 24, 128, 18, output="f32", epilogue=epilogue, **WARPGROUPS)
    shape = (24, 128)
    gate, up = (
        formats.get("w4g64").quantize(rng.standard_normal(shape).astype(np.float32) / 8)
        for _ in range(2)
    )
    x = rng.standard_normal((18, 128)).astype(np.float32)
    residual = rng.standard_normal((18, 24)).astype(np.float32)
    ran = simulated(product, x, product.pack(up, gate), residual)
    exact = product.reference(round_to("f16", x), up, gate, residual)
    np.testing.assert_allclose(ran.y, exact, rtol=2e-3, atol=2e-3)


def test_jobs_are_divided_evenly_where_that_keeps_the_board_busy():
    made = partial(product_spec, "w4g128", 4096, 4096, **WARPGROUPS)
    assert (made(128).jobs, made(128).blocks) == (16, 128)
    assert (made(1024).jobs, made(1024).blocks) == (128, 128)
    assert (made(640).jobs, made(640).blocks) == (80, 132)


def test_one_packing_serves_few_tokens_and_many():
    made = partial(product_spec, "w4g128", 64, 256)
    assert made(1).layout == made(64, **WARPGROUPS).layout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "sm_80"}, "products of warpgroups on sm_80"),
        ({"tokens": 15}, "products of warpgroups of 15 tokens"),
        ({"activations": "i8"}, "products of warpgroups with activations i8"),
        ({"tuning": Tuning(warps=4)}, "products of warpgroups with Tuning"),
    ],
)
def test_what_warpgroups_do_not_multiply(arguments, message):
    with pytest.raises(ProductError, match=message):
        product_spec("w4g128", 64, 256, **{"tokens": 64, **arguments}, **WARPGROUPS)


@pytest.mark.parametrize(("name", "activations"), [("spqr3", "f16"), ("df11", "bf16")])
def test_warpgroups_add_no_outliers(name, activations):
    with pytest.raises(ProductError, match="of warpgroups of weights with outliers"):
        product_spec(name, 64, 256, 64, activations=activations, **WARPGROUPS)


def test_shared_memory_is_enough_for_every_width():
    for name in ("w1g16", "w3g16", "w7g16", "w8g16", "w8g16z", "q6_k", "mxfp4", "q4_k"):
        spec = product_spec(name, 4096, 4096, 512, **WARPGROUPS)
        assert isinstance(spec, WarpgroupSpec)
        assert spec.shared <= find_arch("sm_90a").shared
        assert spec.boxes >= 3
        assert spec.tuning.stages >= 2
        assert sorted(quad for part in spec.parts for quad in part) == [*range(spec.own_quads)]
