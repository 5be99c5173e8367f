"""Which dataflow a product gets, and the layout that a weight gets with it, on a target of ours."""

import pytest

from nybble.backends.cpu.dataflows import DATAFLOWS
from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.dialects.mpgemm.ops import DequantMatmulOp, IntMatmulOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes import select_dataflow
from nybble.passes.assign_layout import AssignLayout
from nybble.passes.dataflow_rewrites import REWRITES
from nybble.passes.pipeline import run_passes
from nybble.passes.select_dataflow import SelectDataflow
from nybble.passes.targets import TARGETS, Product, Verdict, load_target

TWICE = """
func.func @f(%x: tensor<1x64xf32>, %z: tensor<4x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">)
    -> (tensor<1x8xf32>, tensor<4x8xf32>) {
  %a = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %b = mpgemm.matmul %z, %w : tensor<4x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<4x8xf32>
  func.return %a, %b : tensor<1x8xf32>, tensor<4x8xf32>
}
"""
TIED = """
func.func @f(%x: tensor<1x64xf32>, %i: tensor<1xi32>, %w: !lowbit.tensor<8x64, "q4_0">)
    -> (tensor<1x8xf32>, tensor<1x64xf32>) {
  %a = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %b = fused.embed %i, %w scale 1.0 : tensor<1xi32>, !lowbit.tensor<8x64, "q4_0"> ->
      tensor<1x64xf32>
  func.return %a, %b : tensor<1x8xf32>, tensor<1x64xf32>
}
"""


class Fake:
    """Two dataflows with layouts of their own: `costs[tokens]` are (int_dot, dequantize)."""

    name = "fake"
    modes = ("i8",)

    def __init__(self, costs):
        self.costs = costs

    def verdicts(self, product):
        integer, decoded = self.costs[product.tokens]
        return (
            Verdict("int_dot", "planes", integer or 0.0, None if integer else "too few tokens"),
            Verdict("dequantize", "tile64", decoded),
        )


@pytest.fixture
def select(monkeypatch):
    def run(text, costs):
        """The names of the products after the pass, on a target of these costs."""
        monkeypatch.setattr(select_dataflow, "load_target", lambda name: Fake(costs))
        module = parse_module(make_context(), text, "<test>")
        run_passes(make_context(), module, [SelectDataflow()])
        kinds = (IntMatmulOp, DequantMatmulOp)
        return [op.DATAFLOW for op in module.walk() if isinstance(op, kinds)], module

    return run


@pytest.mark.parametrize(
    ("costs", "chosen"),
    [
        ({1: (1, 2), 4: (1, 2)}, ["int_dot", "int_dot"]),
        ({1: (1, 2), 4: (90, 50)}, ["dequantize", "dequantize"]),
        ({1: (1, 50), 4: (90, 50)}, ["int_dot", "int_dot"]),
        ({1: (1, 50), 4: (None, 50)}, ["dequantize", "dequantize"]),
    ],
)
def test_products_of_one_weight_agree_on_its_layout(select, costs, chosen):
    assert select(TWICE, costs)[0] == chosen


def test_a_tied_weight_keeps_the_layout_of_its_table(select):
    assert select(TIED, {1: (1, 50)})[0] == ["dequantize"]


def test_reason_has_estimates_and_refusals(select):
    _, module = select(TWICE, {1: (1, 50), 4: (None, 50)})
    reasons = [op.because.data for op in module.walk() if isinstance(op, DequantMatmulOp)]
    assert reasons == [
        "estimated cycles: int_dot 1, dequantize 50",
        "estimated cycles: dequantize 50; no int_dot: too few tokens",
    ]


def test_operations_that_want_different_layouts_are_an_error(select, monkeypatch):
    _, module = select(TIED, {1: (1, 50)})
    monkeypatch.setattr(DequantMatmulOp, "WEIGHT_LAYOUT", "storage")
    with pytest.raises(NybbleError, match=r"different layouts: .*embed 'tile64'.*'storage'|'stor"):
        run_passes(make_context(), module, [AssignLayout()])


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_what_its_row_says(name):
    target = load_target(name)
    assert target.name == name
    module = parse_module(make_context(), TWICE, "<test>")
    run_passes(make_context(), module, [SelectDataflow(target=name, activations=target.modes[0])])


def test_every_dataflow_has_a_rewrite():
    others = {
        one.dataflow
        for name in set(TARGETS) - {"cpu"}
        for one in load_target(name).verdicts(
            Product(formats.get("w4g64"), 16, 64, 1, load_target(name).modes[0])
        )
    }
    assert set(DATAFLOWS) | others == set(REWRITES)
