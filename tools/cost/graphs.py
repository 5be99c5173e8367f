"""Small graphs whose operators can be one kernel or several: what fusion is about."""

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from nybble.dialects.fused.kernel import KernelOp
from nybble.tools.explain import MATMUL

NORM_QUANTIZE = """
func.func @graph(%x: tensor<?x{k}xf32>, %g: tensor<{k}xf32>) -> !lowbit.tensor<?x{k}, "a8g32"> {{
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<?x{k}xf32>, tensor<{k}xf32> -> tensor<?x{k}xf32>
  %q = lowbit.quantize %n : tensor<?x{k}xf32> -> !lowbit.tensor<?x{k}, "a8g32">
  func.return %q : !lowbit.tensor<?x{k}, "a8g32">
}}
"""
PRODUCT_ADD = """
func.func @graph(%x: tensor<?x{k}xf32>, %w: !lowbit.tensor<{m}x{k}, "{spec}">,
    %r: tensor<?x{m}xf32>) -> tensor<?x{m}xf32> {{
  %y = mpgemm.matmul %x, %w : tensor<?x{k}xf32>, !lowbit.tensor<{m}x{k}, "{spec}">
      -> tensor<?x{m}xf32>
  %z = arith.addf %r, %y : tensor<?x{m}xf32>
  func.return %z : tensor<?x{m}xf32>
}}
"""
PRODUCT_GLU = """
func.func @graph(%x: tensor<?x{k}xf32>, %v: !lowbit.tensor<{m}x{k}, "{spec}">,
    %w: !lowbit.tensor<{m}x{k}, "{spec}">) -> tensor<?x{m}xf32> {{
  %y = mpgemm.matmul %x, %v : tensor<?x{k}xf32>, !lowbit.tensor<{m}x{k}, "{spec}">
      -> tensor<?x{m}xf32>
  %z = mpgemm.matmul %x, %w : tensor<?x{k}xf32>, !lowbit.tensor<{m}x{k}, "{spec}">
      -> tensor<?x{m}xf32>
  %g = fused.glu "silu" %y, %z : tensor<?x{m}xf32>
  func.return %g : tensor<?x{m}xf32>
}}
"""
PRODUCTS = """
func.func @graph(%x: tensor<?x{k}xf32>, %v: !lowbit.tensor<{m}x{k}, "{spec}">,
    %w: !lowbit.tensor<{m}x{k}, "{spec}">) -> (tensor<?x{m}xf32>, tensor<?x{m}xf32>) {{
  %y = mpgemm.matmul %x, %v : tensor<?x{k}xf32>, !lowbit.tensor<{m}x{k}, "{spec}">
      -> tensor<?x{m}xf32>
  %z = mpgemm.matmul %x, %w : tensor<?x{k}xf32>, !lowbit.tensor<{m}x{k}, "{spec}">
      -> tensor<?x{m}xf32>
  func.return %y, %z : tensor<?x{m}xf32>, tensor<?x{m}xf32>
}}
"""
PRODUCT_KINDS = {
    "product_add": PRODUCT_ADD,
    "product_glu": PRODUCT_GLU,
    "products": PRODUCTS,
}
FUSIONS = {"norm_quantize": NORM_QUANTIZE, **PRODUCT_KINDS}
KINDS = {"product": MATMUL.replace("{rows}", "{m}").replace("{cols}", "{k}"), **FUSIONS}
"""Name -> a function with columns k, rows m of each weight and number format spec left open."""


def kernels_of(module: ModuleOp, tokens: int) -> list[KernelOp]:
    """The kernels that the one function of a scheduled module runs for so many tokens."""
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, func.FuncOp)}
    suffix = ".decode" if tokens == 1 else ".prefill"
    (found,) = [op for name, op in functions.items() if name.endswith(suffix)]
    return [op for op in found.walk() if isinstance(op, KernelOp)]
