"""Symmetric tables give the very results that full ones give."""

import numpy as np
import pytest

from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit import formats
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import build_pipeline, run_passes

TEXT = """
func.func @f(%x: tensor<3x128xf32>, %a: !lowbit.tensor<8x128, "{spec}">) -> tensor<3x8xf32> {{
  %y = mpgemm.matmul %x, %a : tensor<3x128xf32>, !lowbit.tensor<8x128, "{spec}"> -> tensor<3x8xf32>
  func.return %y : tensor<3x8xf32>
}}
"""


def results(spec, flow, mode, passes):
    rng = np.random.default_rng(5)
    context = make_context()
    module = parse_module(context, TEXT.format(spec=spec), "text")
    select = f"select-dataflow{{dataflow={flow} activations={mode}}}"
    run_passes(context, module, build_pipeline(",".join([select, *passes])))
    x = rng.standard_normal((3, 128)).astype(np.float32)
    weight = formats.get(spec).quantize(rng.standard_normal((8, 128)).astype(np.float32))
    return Interpreter(module).call("f", x, weight)[0], str(module)


@pytest.mark.parametrize("spec", ["w1g64", "w2g32", "w3g128m", "q4_0", "b1_58", "bip4:g=64:s=f16"])
def test_exact_tables(spec):
    full, _ = results(spec, "lut", "i8", ["precompute-tables"])
    half, text = results(spec, "lut", "i8", ["precompute-tables", "symmetrize-tables"])
    assert '"symmetric"' in text
    np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize("spec", ["w2g32", "q4_0", "q4_1"])
def test_exact_tables_are_the_integer_product(spec):
    looked_up, _ = results(spec, "lut", "i8", ["precompute-tables", "symmetrize-tables"])
    multiplied, _ = results(spec, "int_dot", "i8", [])
    np.testing.assert_allclose(looked_up, multiplied, rtol=2e-6, atol=1e-6)


def test_rounding_is_never_silent():
    assert '"i8"' not in results("w2g32", "lut", "i8", [])[1]
    assert '"i8"' in results("w2g32", "lut", "i8-lut", [])[1]
