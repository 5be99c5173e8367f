"""The interpreter: what it runs, and how it refuses what it cannot run."""

import numpy as np
import pytest

from nybble.dialects.errors import NybbleError
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit import formats
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context

TEXT = """
func.func @product(%x: tensor<2x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<2x8xf32> {
  %q = lowbit.quantize %x : tensor<2x64xf32> -> !lowbit.tensor<2x64, "a8g32">
  %y = mpgemm.int_matmul %q, %w
    : !lowbit.tensor<2x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}
func.func @kernel(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %y = fused.kernel "add"(%x) : (tensor<1x4xf32>) -> tensor<1x4xf32> {
  ^bb0(%a: tensor<1x4xf32>):
    %s = arith.addf %a, %a : tensor<1x4xf32>
    fused.yield %s : tensor<1x4xf32>
  }
  func.return %y : tensor<1x4xf32>
}
func.func @caller(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %y = func.call @kernel(%x) : (tensor<1x4xf32>) -> tensor<1x4xf32>
  func.return %y : tensor<1x4xf32>
}
func.func @unknown(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %y = math.exp %x : tensor<1x4xf32>
  func.return %y : tensor<1x4xf32>
}
func.func private @declared(tensor<1x4xf32>)
"""


@pytest.fixture
def interpreter():
    return Interpreter(parse_module(make_context(), TEXT, "test"))


def test_product_is_that_of_the_rounded_operands(interpreter):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 64), dtype=np.float32)
    weight = formats.get("q4_0").quantize(rng.standard_normal((8, 64), dtype=np.float32))
    (y,) = interpreter.call("product", x, weight)
    rounded = formats.get("a8g32").quantize(x).dequantize()
    np.testing.assert_allclose(y, rounded @ weight.dequantize().T, rtol=1e-5, atol=1e-5)
    assert np.abs(y - x @ weight.dequantize().T).max() > 0


def test_kernels_and_calls_run(interpreter):
    x = np.arange(4, dtype=np.float32)[None]
    (y,) = interpreter.call("caller", x)
    np.testing.assert_array_equal(y, 2 * x)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("absent", (), "no function 'absent'"),
        ("declared", (), "no function 'declared' with a body"),
        ("kernel", (), "'kernel' takes 1 arguments, got 0"),
        ("unknown", (np.zeros((1, 4), np.float32),), "no rule for 'math.exp'"),
    ],
)
def test_what_cannot_run_is_said(interpreter, name, arguments, message):
    with pytest.raises(NybbleError, match=message):
        interpreter.call(name, *arguments)
