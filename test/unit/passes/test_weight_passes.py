"""`insert-hadamard` and `fold-smoothing` change weights, and nothing that a model computes."""

import re

import numpy as np
import pytest
from xdsl.dialects import func

from nybble.dialects.interpreter import Interpreter
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.steps import prepared
from nybble.dialects.lowbit.types import LowBitTensorType
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.preparation import argument_attributes, steps_of

TOKENS, CONTEXT, HIDDEN, INNER, WORDS = 5, 8, 48, 96, 40
HEADS, KEPT, SIZE = 4, 2, 16
VALUES = KEPT * SIZE
VECTORS = {  # what a calibration would find
    "smooth.norm1": HIDDEN,
    "smooth.norm2": HIDDEN,
    "smooth.final": HIDDEN,
    "smooth.o": HEADS * SIZE,
    "smooth.v": VALUES,
    "smooth.down": INNER,
}
MODEL = """
func.func @model(%ids: tensor<?xi32>, %pos: index, %cos: tensor<8x8xf32>, %sin: tensor<8x8xf32>,
    %keys: tensor<2x8x16xf32>, %values: tensor<2x8x16xf32>,
    %table: W<40x48> "embed.weight", %g1: tensor<48xf32> "norm1.weight",
    %wq: W<64x48> "q.weight", %bq: tensor<64xf32> "q.bias", %wk: W<32x48> "k.weight",
    %wv: W<32x48> "v.weight", %bv: tensor<32xf32> "v.bias", %wo: W<48x64> "o.weight",
    %bo: tensor<48xf32> "o.bias", %g2: tensor<48xf32> "norm2.weight",
    %wg: W<96x48> "gate.weight", %wu: W<96x48> "up.weight", %bu: tensor<96xf32> "up.bias",
    %wd: W<48x96> "down.weight", %g3: tensor<48xf32> "final.weight", %wh: W<40x48> "head.weight")
    -> (tensor<?x40xf32>, tensor<2x8x16xf32>) {
  %h = fused.embed %ids, %table scale 2.0 : tensor<?xi32>, W<40x48> -> tensor<?x48xf32>
  %n1 = fused.rms_norm %h, %g1 eps 1.0e-05 : tensor<?x48xf32>, tensor<48xf32> -> tensor<?x48xf32>
  %q = mpgemm.matmul %n1, %wq bias %bq : tensor<64xf32>
      : tensor<?x48xf32>, W<64x48> -> tensor<?x64xf32>
  %k = mpgemm.matmul %n1, %wk : tensor<?x48xf32>, W<32x48> -> tensor<?x32xf32>
  %v = mpgemm.matmul %n1, %wv bias %bv : tensor<32xf32>
      : tensor<?x48xf32>, W<32x48> -> tensor<?x32xf32>
  %rq = fused.rope %q, %cos, %sin at %pos : tensor<?x64xf32>, tensor<8x8xf32> -> tensor<?x64xf32>
  %rk = fused.rope %k, %cos, %sin at %pos : tensor<?x32xf32>, tensor<8x8xf32> -> tensor<?x32xf32>
  %ck = sparse_attn.append_kv %rk into %keys at %pos
      : tensor<?x32xf32> into tensor<2x8x16xf32> -> tensor<2x8x16xf32>
  %cv = sparse_attn.append_kv %v into %values at %pos
      : tensor<?x32xf32> into tensor<2x8x16xf32> -> tensor<2x8x16xf32>
  %a = sparse_attn.attention %rq, %ck, %cv at %pos mask <"causal"> scale 0.25
      : tensor<?x64xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32> -> tensor<?x64xf32>
  %o = mpgemm.matmul %a, %wo bias %bo : tensor<48xf32>
      : tensor<?x64xf32>, W<48x64> -> tensor<?x48xf32>
  %h1 = arith.addf %h, %o : tensor<?x48xf32>
  %n2 = fused.rms_norm %h1, %g2 eps 1.0e-05 : tensor<?x48xf32>, tensor<48xf32> -> tensor<?x48xf32>
  %g = mpgemm.matmul %n2, %wg : tensor<?x48xf32>, W<96x48> -> tensor<?x96xf32>
  %u = mpgemm.matmul %n2, %wu bias %bu : tensor<96xf32>
      : tensor<?x48xf32>, W<96x48> -> tensor<?x96xf32>
  %m = fused.glu "silu" %g, %u : tensor<?x96xf32>
  %d = mpgemm.matmul %m, %wd : tensor<?x96xf32>, W<48x96> -> tensor<?x48xf32>
  %h2 = arith.addf %h1, %d : tensor<?x48xf32>
  %n3 = fused.rms_norm %h2, %g3 eps 1.0e-05 : tensor<?x48xf32>, tensor<48xf32> -> tensor<?x48xf32>
  %l = mpgemm.matmul %n3, %wh : tensor<?x48xf32>, W<40x48> -> tensor<?x40xf32>
  func.return %l, %cv : tensor<?x40xf32>, tensor<2x8x16xf32>
}
"""
TEXT = re.sub(r'("[a-z0-9]+\.(weight|bias)")', r"{nybble.weight = \1}", MODEL).replace(
    "W<", "!lowbit.tensor<"
)
TEXT = re.sub(r"!lowbit\.tensor<(\d+x\d+)>", r'!lowbit.tensor<\1, "f32">', TEXT)


@pytest.fixture
def parameters():
    """Vector and matrix parameters by name, and the vectors of a calibration."""
    rng = np.random.default_rng(3)
    shapes = re.findall(r'(?:W|tensor)<([0-9x]+?)(?:xf32)?> "([a-z0-9.]+)"', MODEL)
    found = {
        name: rng.standard_normal([int(size) for size in shape.split("x")]).astype(np.float32)
        for shape, name in shapes
    }
    found |= {name: rng.uniform(0.2, 5, size).astype(np.float32) for name, size in VECTORS.items()}
    # The heads of queries that share a head of values have its factors.
    of_values = found["smooth.v"].reshape(KEPT, 1, SIZE)
    repeated = np.repeat(of_values, HEADS // KEPT, axis=1)
    return found | {"smooth.o": repeated.reshape(-1)}


def run(pipeline, parameters):
    """The logits of the model after a pipeline, and the module."""
    context = make_context()
    module = parse_module(context, TEXT, "model.mlir")
    run_passes(context, module, build_pipeline(pipeline))
    (function,) = [op for op in module.ops if isinstance(op, func.FuncOp)]
    angles = np.outer(np.arange(CONTEXT), 1.0 / np.arange(1, SIZE // 2 + 1)).astype(np.float32)
    cache = np.zeros((KEPT, CONTEXT, SIZE), np.float32)
    ids = np.array([3, 1, 4, 1, 5], np.int32)
    given = [ids, 0, np.cos(angles), np.sin(angles), cache, cache]
    for index, argument in enumerate(function.body.block.args[len(given) :], len(given)):
        name = argument_attributes(function, index)["nybble.weight"].data
        values = prepared(steps_of(function, index), parameters[name], parameters.__getitem__)
        is_matrix = isinstance(argument.type, LowBitTensorType)
        given.append(formats.get("f32").quantize(values) if is_matrix else values)
    logits, caches = Interpreter(module).call("model", *given)
    return logits, caches, str(module)


@pytest.mark.parametrize(
    "pipeline",
    [
        "insert-hadamard",
        "insert-hadamard{stream=false}",
        "fold-smoothing",
        "insert-hadamard,fold-smoothing",
        "insert-hadamard{stream=false},fold-smoothing",
    ],
)
def test_the_function_is_the_same(pipeline, parameters):
    want, plain_values, before = run("", parameters)
    got, values, after = run(pipeline, parameters)
    assert np.abs(got - want).max() <= 2e-6 * np.abs(want).max()
    assert "nybble.prepare" in after
    assert "nybble.prepare" not in before
    # The cache holds other numbers: values are changed where they are made.
    assert np.abs(values - plain_values).max() > 0.1


@pytest.mark.parametrize("step", range(3))
def test_every_step_matters(step, parameters, monkeypatch):
    """Without one of the steps of a weight the function is another one."""
    want, _, _ = run("", parameters)
    full = steps_of
    name = ["down.weight", "q.weight", "v.bias"][step]

    def without_last(function, index):
        found = full(function, index)
        source = argument_attributes(function, index).get("nybble.weight")
        return found[:-1] if source is not None and source.data == name else found

    monkeypatch.setitem(globals(), "steps_of", without_last)
    got, _, _ = run("insert-hadamard,fold-smoothing", parameters)
    assert np.abs(got - want).max() > 1e-3 * np.abs(want).max()


def test_a_norm_with_an_offset_is_smoothed_exactly():
    text = """
func.func @f(%x: tensor<?x8xf32>, %g: tensor<8xf32> {nybble.weight = "g.weight"},
    %w: !lowbit.tensor<4x8, "f32"> {nybble.weight = "w.weight"}) -> tensor<?x4xf32> {
  %n = fused.rms_norm %x, %g eps 1.0e-05 unit_offset : tensor<?x8xf32>, tensor<8xf32> ->
      tensor<?x8xf32>
  %y = mpgemm.matmul %n, %w : tensor<?x8xf32>, !lowbit.tensor<4x8, "f32"> -> tensor<?x4xf32>
  func.return %y : tensor<?x4xf32>
}
"""
    rng = np.random.default_rng(0)
    x, g, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 8), 8, (4, 8)))
    factors = {"smooth.g": rng.uniform(0.2, 5, 8).astype(np.float32)}
    results = []
    for pipeline in ("", "fold-smoothing"):
        module = parse_module(make_context(), text, "f.mlir")
        run_passes(make_context(), module, build_pipeline(pipeline))
        (function,) = module.ops
        gain, weight = (
            prepared(steps_of(function, index), values, factors.__getitem__)
            for index, values in ((1, g), (2, w))
        )
        results += Interpreter(module).call("f", x, gain, formats.get("f32").quantize(weight))
    assert np.abs(results[1] - results[0]).max() <= 1e-6 * np.abs(results[0]).max()
