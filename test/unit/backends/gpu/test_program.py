"""From IR to images: a kernel for each product, and what has none."""

import numpy as np
import pytest

from nybble.backends.gpu.products import compile_product, product_spec
from nybble.backends.gpu.program import compile_program, described
from nybble.backends.gpu.sim.simulate import simulate
from nybble.backends.gpu.steps.step import LookupProduct
from nybble.backends.gpu.steps.works import product_of
from nybble.dialects.errors import NybbleError
from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit import formats
from nybble.dialects.mpgemm.stream import StreamLookupMatmulOp
from nybble.dialects.numpy_ref.norm import rms_norm
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.stages import stages_between

TWO = """
func.func @two(%x: tensor<2x128xf32>, %a: !lowbit.tensor<16x128, "w4g64">,
    %b: !lowbit.tensor<24x128, "w2g64">) -> (tensor<2x16xf32>, tensor<2x24xf32>) {
  %0 = mpgemm.matmul %x, %a : tensor<2x128xf32>, !lowbit.tensor<16x128, "w4g64"> -> tensor<2x16xf32>
  %1 = mpgemm.matmul %x, %b : tensor<2x128xf32>, !lowbit.tensor<24x128, "w2g64"> -> tensor<2x24xf32>
  func.return %0, %1 : tensor<2x16xf32>, tensor<2x24xf32>
}
"""
BIAS = """
func.func @b(%x: tensor<2x64xf32>, %a: !lowbit.tensor<8x64, "w4g64">, %b: tensor<8xf32>)
    -> tensor<2x8xf32> {
  %0 = mpgemm.matmul %x, %a bias %b : tensor<8xf32> : tensor<2x64xf32>,
      !lowbit.tensor<8x64, "w4g64"> -> tensor<2x8xf32>
  func.return %0 : tensor<2x8xf32>
}
"""
DYNAMIC = """
func.func @d(%x: tensor<?x64xf32>, %a: !lowbit.tensor<8x64, "w4g64">) -> tensor<?x8xf32> {
  %0 = mpgemm.matmul %x, %a : tensor<?x64xf32>, !lowbit.tensor<8x64, "w4g64"> -> tensor<?x8xf32>
  func.return %0 : tensor<?x8xf32>
}
"""
SOFTMAX = """
func.func @n(%x: tensor<1x64xf32>) -> tensor<1x64xf32> {
  %0 = fused.softmax %x : tensor<1x64xf32>
  func.return %0 : tensor<1x64xf32>
}
"""


GATED = """
func.func @g(%x: tensor<2x128xf32>, %a: !lowbit.tensor<24x128, "w4g64">,
    %b: !lowbit.tensor<24x128, "UP">) -> tensor<2x24xf32> {
  %0 = mpgemm.matmul %x, %a : tensor<2x128xf32>, !lowbit.tensor<24x128, "w4g64"> -> tensor<2x24xf32>
  %1 = mpgemm.matmul %x, %b : tensor<2x128xf32>, !lowbit.tensor<24x128, "UP"> -> tensor<2x24xf32>
  %2 = fused.glu "silu" %0, %1 : tensor<2x24xf32>
  func.return %2 : tensor<2x24xf32>
}
"""
ADDED = """
func.func @r(%x: tensor<2x128xf32>, %a: !lowbit.tensor<24x128, "w4g64">, %r: tensor<2x24xf32>)
    -> tensor<2x24xf32> {
  %0 = mpgemm.matmul %x, %a : tensor<2x128xf32>, !lowbit.tensor<24x128, "w4g64"> -> tensor<2x24xf32>
  %1 = arith.addf %r, %0 : tensor<2x24xf32>
  func.return %1 : tensor<2x24xf32>
}
"""


NORMED = """
func.func @p(%x: tensor<2x1152xf32>, %g: tensor<1152xf32>, %a: !lowbit.tensor<24x1152, "w4g64">)
    -> tensor<2x24xf32> {
  %0 = fused.rms_norm %x, %g eps 1.0e-05 unit_offset : tensor<2x1152xf32>, tensor<1152xf32>
      -> tensor<2x1152xf32>
  %1 = mpgemm.matmul %0, %a : tensor<2x1152xf32>, !lowbit.tensor<24x1152, "w4g64">
      -> tensor<2x24xf32>
  func.return %1 : tensor<2x24xf32>
}
"""


def scheduled(text: str, mode: str = "f16", isa: str = "sm_90a", dataflow: str = ""):
    module = parse_module(make_context(), text, "<test>")
    options = {"target": "cuda", "isa": isa, "activations": mode, "prefill": mode}
    options["dataflow"] = dataflow
    for stage in stages_between("operators", "scheduled"):
        run_passes(make_context(), module, configure(build_pipeline(stage.passes), options))
        stage.form.check(module, stage.name)
    return module


def test_every_product_is_a_kernel_that_computes_it():
    images = [one.image for one in compile_program(scheduled(TWO), "sm_90a")]
    assert [one.name for one in images] == ["k_two_0", "k_two_1"]
    image = images[1]
    product = compile_product("w2g64", 24, 128, 2)
    rng = np.random.default_rng(0)
    weight = formats.get("w2g64").quantize(rng.standard_normal((24, 128)).astype(np.float32))
    x = rng.standard_normal((2, 128)).astype(np.float16)
    y = np.zeros((2, 24), np.float16)
    sums, counters = (
        np.zeros(image.parameter(name).bytes, np.uint8) for name in ("sums", "counters")
    )
    simulate(image, [x, product.pack(weight), y, sums, counters])
    exact = product.reference(x.astype(np.float32), weight)
    np.testing.assert_allclose(y.astype(np.float32), exact, rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize(("mode", "orders"), [("i8", 2), ("b2", 1)])
def test_a_quantization_is_a_kernel_for_each_order_in_which_it_is_read(mode: str, orders: int):
    text = TWO.replace('16x128, "w4g64"', '16x128, "w4g128"').replace("w2g64", "w2g128")
    text = text.replace("w4g128", "iq4_nl") if mode == "i8" else text
    images = [one.image for one in compile_program(scheduled(text, mode), "sm_90a")]
    assert [one.name for one in images] == [f"k_two_{index}" for index in range(orders + 2)]
    assert [one.name for one in images[0].parameters] == ["input", "x", "scales", "totals"]


@pytest.mark.parametrize(
    ("text", "mode", "names"),
    [
        (GATED, "f16", ["x", "w", "y"]),
        (ADDED, "f16", ["x", "w", "residual", "y"]),
        (GATED, "i8", ["x", "scales", "totals", "w", "y"]),
    ],
)
def test_what_is_fused_to_products_is_in_their_kernel(text: str, mode: str, names: list[str]):
    *others, product = compile_program(scheduled(text.replace("UP", "w4g64"), mode), "sm_90a")
    assert len(others) == (mode == "i8"), "the quantization"
    found = [one.name for one in product.image.parameters]
    assert found == [*names, "sums", "counters"]
    assert product.image.parameter("y").bytes == 2 * 24 * (4 if mode == "i8" else 2)


def test_a_norm_is_computed_by_the_quantization_of_its_result():
    quantize, product = [one.image for one in compile_program(scheduled(NORMED, "i8"), "sm_90a")]
    assert [one.name for one in quantize.parameters][:2] == ["input", "weight"]
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 1152)), rng.standard_normal(1152)
    made = {one.name: np.zeros(one.bytes, np.uint8) for one in product.parameters[:3]}
    given = {"input": x.astype(np.float32), "weight": weight.astype(np.float32)}
    simulate(quantize, {**given, **made}).check()
    normed = rms_norm(given["input"], given["weight"], 1e-5, offset=True)
    spec = product_spec("w4g64", 24, 1152, 2, "sm_90a", "i8").quantized
    assert spec is not None
    _, expected = spec.reference(normed)
    np.testing.assert_allclose(made["scales"].view(np.float32), expected["scales"][0], rtol=1e-6)
    errors = made["x"].view(np.int8).reshape(2, -1).astype(int) - expected["x"]
    assert np.abs(errors).max() <= 1
    assert np.count_nonzero(errors) <= 4, "what lies between two integers may go either way"


def test_a_quantization_that_nobody_reads_is_refused():
    alone = """
func.func @q(%x: tensor<2x64xf32>) -> !lowbit.tensor<2x64, "a8"> {
  %0 = lowbit.quantize %x : tensor<2x64xf32> -> !lowbit.tensor<2x64, "a8">
  func.return %0 : !lowbit.tensor<2x64, "a8">
}
"""
    with pytest.raises(NybbleError, match="a quantization that no product of the function reads"):
        compile_program(scheduled(alone, "i8"), "sm_90a")


def test_a_manifest_has_all_but_the_code():
    image = compile_program(scheduled(TWO), "sm_90a")[0].image
    row = described(image)
    assert row["file"] == "k_two_0.ptx"
    assert "ptx" not in row
    assert [one["name"] for one in row["parameters"]] == ["x", "w", "y", "sums", "counters"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BIAS, "'mpgemm.stream_matmul' with a bias has no kernel on a GPU"),
        (DYNAMIC, "a product of a number of tokens that is not known"),
        (SOFTMAX, "'fused.softmax' has no kernel on a GPU"),
    ],
)
def test_what_has_no_kernel_is_named_with_its_place(text: str, message: str):
    with pytest.raises(NybbleError, match=message) as caught:
        compile_program(scheduled(text), "sm_90a")
    assert caught.value.location is not None


def test_tables_are_made_once_for_products_that_look_up():
    module = scheduled(TWO, isa="sm_90a+lmma", dataflow="stream_lookup")
    compiled = compile_program(module, "sm_90a+lmma")
    assert [one.image.arch for one in compiled] == ["sm_90a+lmma"] * 3
    products = [one for one in module.walk() if isinstance(one, StreamLookupMatmulOp)]
    assert [product_of(one, "sm_90a+lmma").activations for one in products] == ["f16"] * 2
    rng = np.random.default_rng(1)
    weights = [
        formats.get(f"w{bits}g64").quantize(rng.standard_normal((rows, 128)).astype(np.float32))
        for bits, rows in ((4, 16), (2, 24))
    ]
    x, tables = rng.standard_normal((2, 128)).astype(np.float32), np.zeros(2048, np.float16)
    simulate(compiled[0].image, {"x": x, "tables": tables}).check()
    expected = Interpreter(module).call("two", x, *weights)
    for one, weight, wanted in zip(compiled[1:], weights, expected, strict=True):
        assert isinstance(one, LookupProduct)
        y = np.full_like(wanted, np.nan)
        simulate(one.image, {"tables": tables, "w": one.pack(weight), "y": y}).check()
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-4)


def test_products_that_look_up_have_no_bias():
    module = scheduled(BIAS, isa="sm_90a+lmma", dataflow="stream_lookup")
    with pytest.raises(NybbleError, match="stream_lookup_matmul' with a bias"):
        compile_program(module, "sm_90a+lmma")


@pytest.mark.parametrize(("text", "count"), [(GATED.replace("UP", "w4g64"), 4), (ADDED, 3)])
def test_what_is_done_to_products_that_look_up_is_a_launch_of_its_own(text: str, count: int):
    module = scheduled(text, isa="sm_90a+lmma", dataflow="stream_lookup")
    assert len(compile_program(module, "sm_90a+lmma")) == count
