"""Products of few tokens in the simulator, against the reference."""

import numpy as np
import pytest

from nybble.backends.gpu.kernels.matmul.spec import Tuning

SHAPES = [
    # rows that fill a tile, or not, or several blocks; columns of one step and of many
    ("w4g128", 16, 128, 1), ("w4g128", 200, 512, 2), ("w4g128", 17, 1152, 7),
    ("w4g128", 40, 640, 16), ("w4g128", 24, 256, 17), ("w4g128", 40, 256, 64),
    ("w4g128", 16, 256, 65), ("w4g32", 33, 192, 5), ("w4g32", 20, 64, 9), ("w4g16", 16, 128, 3),
    ("w4g64z", 48, 320, 3), ("w4g128z", 24, 256, 20), ("w4g128m", 33, 384, 8),
    ("w4g128m", 24, 256, 20), ("w4", 24, 576, 5), ("w4g512", 16, 1024, 2),
]  # fmt: skip
FORMATS = [
    "w1g128", "w2g128", "b1_58", "w3g64", "w5g64", "w7g128", "w8g128", "q4_0", "q4_1",
    "q2_k", "q3_k", "q4_k", "nf4", "iq4_nl", "fp4", "mxfp4", "nvfp4",
    "nvfp4_scaled", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e5m2", "fp8_e4m3",
]  # fmt: skip
BF16 = ["w1g64", "w2g64", "w3g64m", "w4g128z", "w6g64", "nf4", "mxfp4", "fp8_e4m3", "mxfp8_e5m2"]


@pytest.mark.parametrize(("name", "rows", "cols", "tokens"), SHAPES)
def test_shapes(run_product, name, rows, cols, tokens):
    ran = run_product(name, rows, cols, tokens)
    assert ran.worst < 1
    assert ran.report.bank_conflicts == 0
    # results of 2 bytes weigh more beside a weight of 1 KB that is read once
    assert ran.report.sector_efficiency > (0.94 if rows * cols > 2048 else 0.93)


@pytest.mark.parametrize("name", FORMATS)
def test_formats(run_product, name):
    ran = run_product(name, 40, 256, 3)
    assert ran.worst < 1
    assert ran.report.bank_conflicts == 0


@pytest.mark.parametrize("name", ["w1g128", "w2g128", "w3g64", "nf4", "mxfp4", "q3_k", "b1_58"])
def test_formats_with_more_tokens(run_product, name):
    assert run_product(name, 40, 256, 20).worst < 1


@pytest.mark.parametrize("name", BF16)
def test_bf16(run_product, name):
    # fragments of more than 16 tokens are decoded otherwise
    for tokens in (3, 20) if name in ("w3g64m", "w4g128z", "nf4") else (3,):
        assert run_product(name, 24, 128, tokens, activations="bf16").worst < 1


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_120a"])
@pytest.mark.parametrize("name", ["w4g128", "w2g128", "mxfp4"])
def test_architectures(run_product, arch, name):
    for tokens in (1, 17) if name == "w4g128" else (2,):
        assert run_product(name, 24, 256, tokens, arch=arch).worst < 1


@pytest.mark.parametrize("name", ["w4g128", "w2g128", "w1g128", "w8g128"])
def test_offsets_do_not_swamp_sums_of_activations_with_a_mean(run_product, name):
    assert run_product(name, 32, 512, 3, mean=4).worst < 1


@pytest.mark.parametrize(
    "tuning",
    [
        Tuning(warps=4, stages=2),
        Tuning(warps=8, stages=6, blocks_per_sm=2, evict_first=False),
        Tuning(warps=8, fragments=1, prefetch=True),
        Tuning(warps=8, fragments=4, subtract=True),
        Tuning(warps=8, subtract=True, scale=True),
        Tuning(warps=16, split=4),
        Tuning(warps=6, split=2, subtract=True, scale=True),
    ],
)
def test_tuning_changes_no_result(run_product, tuning):
    for name in ("w4g128z", "w4g64m"):
        assert run_product(name, 72, 768, 5, tuning=tuning).worst < 1


def test_results_of_f32_are_not_rounded(run_product):
    assert run_product("w4g128", 24, 256, 3, output="f32").worst < 1


def test_results_are_the_same_in_every_run(run_product):
    first, second = (run_product("w4g128", 48, 1280, 4) for _ in range(2))
    np.testing.assert_array_equal(first.y, second.y)
