"""A fusion whose code is predicted to spill much more than its parts do is not made."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.kernels import AnalyticModel
from nybble.costmodel.learned.files import ModelFileError, shipped
from nybble.costmodel.targets.reader import target_for_level
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.fuse_kernels import FuseKernels
from nybble.passes.learned_fusion import SPILLED, SpillVeto
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.targets import load_target
from nybble.tools.cost.graphs import FUSIONS

ISA = "x86-64-v3"
MACHINE = target_for_level(ISA)
INSTRUCTIONS = 1000.0


class Spilling:
    """Counts by what a kernel computes; strange: families that it has measured nothing like."""

    def __init__(self, gate=0.0, sum_=0.0, part=0.0, strange=()):
        self.spills = {"glu": gate, "residual": sum_}
        self.part = part
        self.strange = strange
        self.asked = []

    def knows(self, facts, call, target):
        return facts.family not in self.strange

    def counts(self, facts, call, options, target):
        self.asked.append((facts.family, call.tokens, options[0]))
        found = [name for name in self.spills if facts.numbers.get(name)]
        spills = self.spills[found[0]] if found else self.part
        return {"instructions": np.array([INSTRUCTIONS]), "spills": np.array([spills])}


def veto(model):
    analytic = AnalyticModel(MACHINE, CostOptions(32))
    return SpillVeto(analytic, model, MACHINE, load_target("cpu"), ISA, 32)


def operators(kind, select="activations=i8"):
    """The module of a kind before `fuse-kernels`, for one token and for many."""
    context = make_context()
    module = parse_module(context, FUSIONS[kind].format(k=256, m=128, spec="q4_0"), "<test>")
    line = f"specialize-tokens,select-dataflow{{isa={ISA} {select}}},assign-layout"
    run_passes(context, module, build_pipeline(line))
    return context, module


def fused(kind, model, monkeypatch):
    """Names of the kernels that the pass makes with a model, and what was written on them."""
    context, module = operators(kind)
    monkeypatch.setattr(FuseKernels, "model", lambda _self: veto(model))
    FuseKernels(isa=ISA, costs="learned").apply(context, module)
    module.verify()
    kernels = [one for one in module.walk() if isinstance(one, KernelOp)]
    return [(one.kernel_name.data, one.because.data if one.because else "") for one in kernels]


def test_a_gate_that_spills_is_a_kernel_of_its_own(monkeypatch):
    found = fused("product_glu", Spilling(gate=400.0, part=10.0), monkeypatch)
    assert [name for name, _ in found] == ["quantize", "product", "glu"] * 2
    because = "; no product_glu: its code spills 400 times, that of its parts 30"
    assert all(said.endswith(because) for name, said in found if name != "quantize")


def test_spills_that_the_parts_have_too_are_no_reason(monkeypatch):
    spills = Spilling(gate=400.0, part=100.0)
    assert SPILLED * INSTRUCTIONS > 400.0 - 3 * 100.0
    assert [name for name, _ in fused("product_glu", spills, monkeypatch)] == [
        *("quantize", "product_glu"),
        *("quantize", "product_glu"),
    ]


def test_what_was_never_measured_is_not_vetoed(monkeypatch):
    spills = Spilling(gate=400.0, sum_=400.0, strange=("int_dot",))
    assert [name for name, _ in fused("product_add", spills, monkeypatch)] == [
        *("quantize", "product_add"),
        *("quantize", "product_add"),
    ]


def test_the_model_is_asked_about_kernels_as_they_are_lowered(monkeypatch):
    model = Spilling()
    fused("product_add", model, monkeypatch)
    families = {(family, tokens) for family, tokens, _ in model.asked}
    assert families == {("int_dot", 1), ("int_dot", 32), ("add", 1), ("add", 32)}
    sizes = [{*options} for family, tokens, options in model.asked if family == "int_dot"]
    assert all("prefetch" in one for one in sizes)


def test_asking_leaves_the_operators_alone():
    _, module = operators("product_glu")
    before = str(module)
    block = next(iter(module.ops)).body.block
    ops = [op for op in block.ops if op.name != "func.return"]
    assert veto(Spilling(gate=400.0)).spilling(ops[1:]) is not None
    assert str(module) == before


def test_room_is_asked_for_first(monkeypatch):
    monkeypatch.setattr(AnalyticModel, "overflow", lambda _self, _ops: "no room")
    _, module = operators("product_add")
    ops = [op for op in next(iter(module.ops)).body.block.ops if op.name != "func.return"]
    assert veto(Spilling()).overflow(ops[1:]) == "no room"


@pytest.mark.parametrize("kind", FUSIONS)
def test_the_model_of_nybble_vetoes_none_of_the_usual_fusions(kind):
    context, module = operators(kind)
    run_passes(context, module, build_pipeline(f"fuse-kernels{{isa={ISA} costs=learned}}"))
    kernels = [one for one in module.walk() if isinstance(one, KernelOp)]
    wanted = "product" if kind == "products" else kind
    assert sum(one.kernel_name.data == wanted for one in kernels) == 2


def test_a_model_of_another_level_vetoes_nothing():
    _, module = operators("product_add")
    ops = [op for op in next(iter(module.ops)).body.block.ops if op.name != "func.return"]
    found = {isa: replace(veto(shipped()), machine=target_for_level(isa)) for isa in (ISA, "amx")}
    assert found[ISA].code(ops[1:]) is not None
    assert found["amx"].code(ops[1:]) is None


def test_a_model_that_is_none(tmp_path):
    (tmp_path / "bad.model").write_text("{}")
    context, module = operators("product_add")
    with pytest.raises(ModelFileError):
        run_passes(context, module, build_pipeline(f'fuse-kernels{{costs="{tmp_path}/bad.model"}}'))
