"""Functions become launches: what is fused, how values are kept, and what has no kernel."""

import pytest
from xdsl.dialects import func
from xdsl.traits import SymbolTable

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.kernels.matmul.warpgroup import WarpgroupSpec
from nybble.backends.gpu.kernels.rows.norm import NormBefore
from nybble.backends.gpu.kernels.rows.rotate import Part, RotateSpec
from nybble.backends.gpu.steps.lower import steps_of
from nybble.backends.gpu.steps.values import Storage, holder
from nybble.dialects.errors import NybbleError
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.options import configure
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.quantize_cache import quantize_caches
from nybble.passes.stages import stages_between

MLP = """
func.func @f(%x: tensor<?x128xf32>, %g: tensor<128xf32>, %a: !lowbit.tensor<64x128, "w4g128">,
    %b: !lowbit.tensor<64x128, "UP">, %c: !lowbit.tensor<128x64, "w8g64">) -> tensor<?x128xf32> {
  %n = fused.rms_norm %x, %g eps 7.62939453125e-06 : tensor<?x128xf32>, tensor<128xf32>
      -> tensor<?x128xf32>
  %0 = mpgemm.matmul %n, %a : tensor<?x128xf32>, !lowbit.tensor<64x128, "w4g128">
      -> tensor<?x64xf32>
  %1 = mpgemm.matmul %n, %b : tensor<?x128xf32>, !lowbit.tensor<64x128, "UP"> -> tensor<?x64xf32>
  %2 = fused.glu "silu" %0, %1 : tensor<?x64xf32>
  %3 = mpgemm.matmul %2, %c : tensor<?x64xf32>, !lowbit.tensor<128x64, "w8g64"> -> tensor<?x128xf32>
  %4 = arith.addf %x, %3 : tensor<?x128xf32>
  func.return %4 : tensor<?x128xf32>
}
"""
ATTENTION = """
func.func @f(%q: tensor<?x128xf32>, %k: tensor<?x64xf32>, %v: tensor<?x64xf32>,
    %g: tensor<64xf32>, %cos: tensor<64x32xf32>, %sin: tensor<64x32xf32>,
    %keys: tensor<1x64x64xKV>, %values: tensor<1x64x64xKV>, %at: index) -> tensor<?x128xf32> {
  %n = fused.rms_norm %k, %g eps 7.62939453125e-06 : tensor<?x64xf32>, tensor<64xf32>
      -> tensor<?x64xf32>
  %r = fused.rope %q, %cos, %sin at %at : tensor<?x128xf32>, tensor<64x32xf32> -> tensor<?x128xf32>
  %t = fused.rope %n, %cos, %sin at %at : tensor<?x64xf32>, tensor<64x32xf32> -> tensor<?x64xf32>
  %0 = sparse_attn.append_kv %t into %keys at %at : tensor<?x64xf32> into tensor<1x64x64xKV>
      -> tensor<1x64x64xKV>
  %1 = sparse_attn.append_kv %v into %values at %at : tensor<?x64xf32> into tensor<1x64x64xKV>
      -> tensor<1x64x64xKV>
  %2 = sparse_attn.attention %r, %0, %1 at %at mask <"causal"> scale 0.125
    : tensor<?x128xf32>, tensor<1x64x64xKV>, tensor<1x64x64xKV> -> tensor<?x128xf32>
  func.return %2 : tensor<?x128xf32>
}
"""
TOKENS = 4
NORM = NormBefore(2.0**-17)


def steps(text, mode="f16", phase="prefill", returned="f32", tokens=TOKENS, kv=""):
    module = parse_module(make_context(), text, "<test>")
    if kv:
        quantize_caches(module, kv, tokens)
    options = {"target": "cuda", "isa": "sm_90a", "activations": mode, "prefill": mode}
    options["tokens"] = tokens
    for stage in stages_between("operators", "scheduled"):
        run_passes(make_context(), module, configure(build_pipeline(stage.passes), options))
    function = SymbolTable.lookup_symbol(module, f"f.{phase}")
    assert isinstance(function, func.FuncOp)
    return steps_of(function, find_arch("sm_90a"), Storage(returned))


def held(step, name):
    """The value whose buffer a parameter is, and in which form."""
    (value,) = step.slots[name].values
    return holder(value), step.slots[name].form


def dtypes(step):
    return {one.name: one.dtype for one in step.spec.parameters}


def test_a_gated_unit_and_a_residual_end_products_of_floats():
    norm, gated, down = steps(MLP.replace("UP", "w4g128"))
    assert norm.name == "norm_f16_4x128_128"
    assert [gated.spec.epilogue.gate, down.spec.epilogue.residual] == ["silu", True]
    assert [dtypes(gated)[one] for one in "xy"] == ["f16", "f16"]
    assert [dtypes(down)[one] for one in ("x", "residual", "y")] == ["f16", "f32", "f32"]
    assert len(gated.slots["w"].values) == 2
    assert held(gated, "y") == held(down, "x")


def test_an_activation_of_integers_is_quantized_once_with_its_norm():
    quantize, gated, again, down = steps(MLP.replace("UP", "w4g128"), "i8")
    assert (quantize.spec.norm, again.spec.norm) == (NORM, None)
    for part in ("x", "scales", "totals"):
        assert held(gated, part) == held(quantize, part)
    assert dtypes(gated)["y"] == dtypes(again)["input"] == dtypes(down)["y"] == "f32"


def test_planes_are_made_of_what_is_normed():
    text = MLP.replace("UP", "w2g128").replace("128x64", "128x128").replace("w8g64", "w2g128")
    text = text.replace("<64x128,", "<128x128,").replace("?x64x", "?x128x")
    quantize, first, second, glu, *_ = steps(text, "b2")
    assert quantize.spec.norm == NORM
    assert held(first, "x") == held(second, "x") == held(quantize, "x")
    assert glu.name == "glu_silu_f32_4x128", "two formats are no gated unit"


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_rotations_norms_of_heads_and_appends_are_one_launch(phase):
    rotate, attention = steps(ATTENTION.replace("KV", "f16"), phase=phase, returned="")
    tokens = 1 if phase == "decode" else TOKENS
    parts = (
        Part(2), Part(1, cached=True, norm=NORM), Part(1, rotates=False, cached=True)
    )  # fmt: skip
    assert rotate.spec.parts == parts
    assert isinstance(rotate.spec, RotateSpec)
    assert rotate.spec.tokens == tokens
    assert attention.name == phase
    assert [one.name for one in attention.spec.parameters][:5] == ["q", "k", "v", "lengths", "out"]


PROJECTED = ATTENTION.replace("KV", "f16").replace(
    "%at: index", '%w: !lowbit.tensor<64x128, "w4g64">, %at: index'
)
PROJECTED = PROJECTED.replace(
    "  func.return %2 : tensor<?x128xf32>",
    """  %3 = mpgemm.matmul %2, %w : tensor<?x128xf32>, !lowbit.tensor<64x128, "w4g64">
      -> tensor<?x64xf32>
  func.return %3 : tensor<?x64xf32>""",
).replace("index) -> tensor<?x128xf32>", "index) -> tensor<?x64xf32>")


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_over_a_cache_of_bf16_all_is_bf16(phase):
    rotate, attention, product = steps(PROJECTED, "bf16", phase, kv="bf16")
    assert {dtypes(rotate)[f"y{i}"] for i in range(3)} == {"bf16"}
    assert {dtypes(attention)[one] for one in ("q", "k", "v", "out")} == {"bf16"}
    assert dtypes(product)["x"] == "bf16"


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_a_cache_with_codes_is_filled_and_read_in_its_parts(phase):
    rotate, codes, attention = steps(ATTENTION.replace("KV", "f16"), phase=phase, kv="kv4")
    keys, values = held(codes, "k")[0], held(codes, "v")[0]
    assert (held(rotate, "y1"), held(rotate, "y2")) == ((keys, "exact"), (values, "exact"))
    assert [(one.ring, one.pinned) for one in rotate.spec.parts] == [(0, 0), (80, 0), (80, 0)]
    for name in ("k", "v_scales", "k_minima", "v_exact"):
        assert held(codes, name) == held(attention, name)
    assert attention.name == phase


@pytest.mark.parametrize(
    ("mode", "kv", "message"),
    [
        ("f16", "bf16", "kept as bf16 where a kernel of a GPU reads f16"),
        ("bf16", "kv4", "kept as f16 where a kernel of a GPU reads bf16"),
        ("i8", "bf16", "kept as bf16 and rounded to integers"),
        ("f16", "kv4-i8", "a cache .*kv4-i8.* has no kernel on a GPU"),
        ("f16", "kivi2(32,0)-h", "a cache .*kivi2.32,0.-h.* on a GPU .* kiviN, without -h and -i8"),
    ],
)
def test_caches_that_do_not_go_with_products_are_refused(mode, kv, message):
    with pytest.raises(NybbleError, match=message):
        steps(PROJECTED, mode, kv=kv)


TWO_TABLES = ATTENTION.replace("KV", "f16").replace(
    "%at: index", "%c: tensor<64x32xf32>, %at: index"
)
TWO_TABLES = TWO_TABLES.replace("%n, %cos", "%n, %c")
TWICE_READ = MLP.replace("UP", "w4g128").replace("%x, %3", "%n, %3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ATTENTION.replace("KV", "f32"), "a cache tensor<1x64x64xf32> has no kernel"),
        (TWO_TABLES, "differ in head size"),
        (TWICE_READ, "kept as f32 where a kernel of a GPU reads f16"),
    ],
)
def test_what_has_no_kernel_is_refused(text, message):
    with pytest.raises(NybbleError, match=message) as raised:
        steps(text)
    assert raised.value.location is not None


def test_what_warpgroups_read_is_kept_as_they_read_it():
    text = """
func.func @f(%x: tensor<?x2048xf32>, %g: tensor<2048xf32>, %a: !lowbit.tensor<2048x2048, "w4g128">)
    -> tensor<?x2048xf32> {
  %n = fused.rms_norm %x, %g eps 7.62939453125e-06 : tensor<?x2048xf32>, tensor<2048xf32>
      -> tensor<?x2048xf32>
  %0 = mpgemm.matmul %n, %a : tensor<?x2048xf32>, !lowbit.tensor<2048x2048, "w4g128">
      -> tensor<?x2048xf32>
  func.return %0 : tensor<?x2048xf32>
}
"""
    norm, product = steps(text, tokens=256)
    assert isinstance(product.spec, WarpgroupSpec)
    assert dtypes(norm)["y"] == dtypes(product)["x"] == "f16"
