"""`fuse-kernels` cuts groups as its cost model says, and takes them whole where it is in doubt."""

from dataclasses import dataclass, field, replace

import pytest
from xdsl.dialects.func import FuncOp

from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.kernels import AnalyticModel, Prediction
from nybble.costmodel.targets.reader import find_target
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.fuse_kernels import find_groups, fuse_block
from nybble.passes.fusion_cuts import name_of

TEXT = """
func.func @f(%x: tensor<1x64xf32>, %g: tensor<64xf32>, %a: !lowbit.tensor<8x64, "q4_0">,
    %b: !lowbit.tensor<8x64, "q4_0">, %c: !lowbit.tensor<8x64, "q4_0">)
    -> (tensor<1x8xf32>, tensor<1x8xf32>) {
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<1x64xf32>, tensor<64xf32> -> tensor<1x64xf32>
  %q = lowbit.quantize %n : tensor<1x64xf32> -> !lowbit.tensor<1x64, "a8g32">
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32">
      -> !mpgemm.table<1x64, "a8g32", "i16">
  %0 = mpgemm.lut_matmul %t, %a : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %1 = mpgemm.lut_matmul %t, %b : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %2 = fused.glu "silu" %0, %1 : tensor<1x8xf32>
  %3 = mpgemm.lut_matmul %t, %c : !mpgemm.table<1x64, "a8g32", "i16">,
      !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %2, %3 : tensor<1x8xf32>, tensor<1x8xf32>
}
"""


@dataclass
class Table:
    """A cost model that knows kernels by name: seconds, and those that do not fit."""

    seconds: dict[str, float]
    too_large: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def predict(self, ops):
        self.asked.append(name_of(ops))
        return Prediction(self.seconds.get(name_of(ops), 1.0), "table", "test")

    def overflow(self, ops):
        return "too large" if name_of(ops) in self.too_large else None


def kernels(model, margin=0, text=TEXT):
    """The kernels of the function, by name, and what was written on them."""
    module = parse_module(make_context(), text, "test")
    (function,) = (op for op in module.ops if isinstance(op, FuncOp))
    fuse_block(function.body.block, model, margin)
    module.verify()
    found = [op for op in module.walk() if isinstance(op, KernelOp)]
    return {op.kernel_name.data: op.because.data if op.because else "" for op in found}


WHOLE = ["norm_quantize_tables", "product_glu", "product"]


def test_groups_are_kernels_where_launches_cost_the_same():
    found = kernels(Table({}))
    assert list(found) == WHOLE
    assert found["product"] == ""
    assert found["norm_quantize_tables"] == (
        "test: norm_quantize_tables 1,000,000.00 us (table); next norm | quantize_tables "
        "2,000,000.00 us"
    )


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"norm_quantize_tables": 9, "quantize_tables": 4}, ["norm_quantize", "tables"]),
        ({"norm_quantize_tables": 9, "norm_quantize": 4}, ["norm", "quantize_tables"]),
        (
            {"norm_quantize_tables": 9, "norm_quantize": 4, "quantize_tables": 4},
            ["norm", "quantize", "tables"],
        ),
    ],
)
def test_the_fastest_cut_is_taken(seconds, expected):
    assert list(kernels(Table(seconds)))[: len(expected)] == expected


def test_a_cut_must_win_by_more_than_the_margin():
    barely = Table({"norm_quantize_tables": 2.05})
    assert list(kernels(barely, margin=3)) == WHOLE
    assert list(kernels(barely, margin=2))[:2] == ["norm", "quantize_tables"]


def test_what_has_no_room_is_cut_and_says_so():
    found = kernels(Table({}, too_large=("product_glu",)))
    assert list(found) == ["norm_quantize_tables", "product", "glu"]
    assert found["glu"].endswith("; no product_glu: too large")


def test_a_product_after_the_gate_is_a_kernel_of_its_own():
    module = parse_module(make_context(), TEXT, "test")
    groups = find_groups(next(iter(module.ops)).body.block)
    assert [group.name for group in groups] == WHOLE


def test_a_machine_with_little_room_cuts_by_the_analytic_model():
    machine = find_target("cpu-avx2")
    narrow = replace(machine, scratch=replace(machine.scratch, value=1024))
    whole, cut = (kernels(AnalyticModel(one, CostOptions())) for one in (machine, narrow))
    assert list(whole) == WHOLE
    assert "glu" in cut
    assert "a core of 'cpu-avx2' keeps 1,024 bytes, and this is" in cut["glu"]


@pytest.mark.parametrize("name", ["cpu-avx2", "cpu-avx512", "cpu-neon"])
def test_fusing_never_costs_in_the_analytic_model(name):
    model = AnalyticModel(find_target(name), CostOptions())
    for line in kernels(model).values():
        if line:
            whole, cut = (float(part.split()[-2].replace(",", "")) for part in times(line))
            assert whole < cut


def times(reason):
    """The two parts of a reason that end in a time."""
    chosen, other = reason.split("; ")
    return chosen.rpartition(" (")[0], other
