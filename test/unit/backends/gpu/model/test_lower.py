"""Operators of a model become launches; what has no kernel is refused by name."""

import numpy as np
import pytest
from xdsl.dialects import func
from xdsl.traits import SymbolTable

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.model.lower import Lowering
from nybble.backends.gpu.sim.simulate import simulate
from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import stages_between

ADD_AND_NORM = """
func.func @f(%a: tensor<?x64xf32>, %b: tensor<?x64xf32>, %w: tensor<64xf32>)
    -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %0 = arith.addf %a, %b : tensor<?x64xf32>
  %1 = fused.rms_norm %0, %w eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %2 = arith.addf %0, %1 : tensor<?x64xf32>
  func.return %1, %2 : tensor<?x64xf32>, tensor<?x64xf32>
}
"""
BIAS = """
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "w4g64">, %b: tensor<8xf32>)
    -> tensor<?x8xf32> {
  %0 = mpgemm.matmul %x, %w bias %b : tensor<8xf32> : tensor<?x64xf32>,
      !lowbit.tensor<8x64, "w4g64"> -> tensor<?x8xf32>
  func.return %0 : tensor<?x8xf32>
}
"""
FORMAT = """
func.func @f(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "f16">) -> tensor<?x8xf32> {
  %0 = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "f16"> -> tensor<?x8xf32>
  func.return %0 : tensor<?x8xf32>
}
"""
WINDOW = """
func.func @f(%q: tensor<?x128xf32>, %k: tensor<1x64x64xf16>, %v: tensor<1x64x64xf16>, %p: index)
    -> tensor<?x128xf32> {
  %0 = sparse_attn.attention %q, %k, %v at %p mask <"window(4)"> scale 0.125
    : tensor<?x128xf32>, tensor<1x64x64xf16>, tensor<1x64x64xf16> -> tensor<?x128xf32>
  func.return %0 : tensor<?x128xf32>
}
"""
HADAMARD = """
func.func @f(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %0 = fused.hadamard %x block 64 : tensor<?x64xf32>
  func.return %0 : tensor<?x64xf32>
}
"""


def lowered(text: str) -> tuple[Lowering, list[str]]:
    module = parse_module(make_context(), text, "<test>")
    options = {"target": "cuda", "isa": "sm_90a", "activations": "f16", "prefill": "f16"}
    for stage in stages_between("operators", "scheduled"):
        run_passes(make_context(), module, configure(build_pipeline(stage.passes), options))
    function = SymbolTable.lookup_symbol(module, "f.decode")
    assert isinstance(function, func.FuncOp)
    lowering = Lowering(find_arch("sm_90a"))
    names = [f"arg{index}" for index in range(len(function.body.block.args))]
    return lowering, lowering.call(function, names, "f")


def test_values_have_buffers():
    lowering, results = lowered(ADD_AND_NORM)
    launches = lowering.program()
    assert [one.kernel for one in launches] == ["add_1x64", "norm_f32_1x64_64", "add_1x64"]
    random = np.random.default_rng(1)
    images, _ = lowering.compile()
    memory = {name: random.standard_normal(64).astype(np.float32) for name in lowering.buffers}
    left, right, weight = (memory[f"arg{index}"] for index in range(3))
    for launch in launches:
        image = images[launch.kernel]
        names = [one.name for one in image.parameters]
        arguments = {p: memory[b] for p, b in zip(names, launch.buffers, strict=True)}
        simulate(image, arguments).check()
    total = left + right
    normed = total / np.sqrt(np.square(total).mean() + 1e-5) * weight
    np.testing.assert_allclose(memory[results[0]], normed, 1e-5, 1e-6)
    np.testing.assert_allclose(memory[results[1]], total + normed, 1e-5, 1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BIAS, "'mpgemm.stream_matmul' with a bias has no kernel on a GPU"),
        (FORMAT, "no dataflow of 'cuda' multiplies 'f16'.*it has no code per weight"),
        (WINDOW, r"attention with mask 'window\(4\)' has no kernel on a GPU"),
        (HADAMARD, "'fused.hadamard' has no kernel on a GPU"),
    ],
)
def test_what_has_no_kernel_is_refused(text, message):
    with pytest.raises(NybbleError, match=message) as raised:
        lowered(text)
    assert raised.value.location is not None
