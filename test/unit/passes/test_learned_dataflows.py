"""Dataflows compared by the learned model: which kernels it is asked about, and when it is not."""

from dataclasses import replace

import pytest

from nybble.backends.cpu.bindings.table import bind
from nybble.backends.cpu.isa import LEVELS
from nybble.costmodel.features.estimate import CLOCK
from nybble.costmodel.features.facts import facts_of
from nybble.costmodel.learned.files import ModelFileError
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.lowbit import formats
from nybble.dialects.mpgemm.ops import ProductOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.learned_dataflows import Learned, learned_costs
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.targets import Product, load_target

ISA = "x86-64-v3"
CPU = load_target("cpu")
SCHEDULED = "precompute-tables,symmetrize-tables,assign-layout,fuse-kernels,schedule-kernels"


def module_of(spec, rows, cols, tokens, select):
    weight = f'!lowbit.tensor<{rows}x{cols}, "{spec}">'
    x, y = f"tensor<{tokens}x{cols}xf32>", f"tensor<{tokens}x{rows}xf32>"
    text = f"""func.func @f(%x: {x}, %w: {weight}) -> {y} {{
  %y = mpgemm.matmul %x, %w : {x}, {weight} -> {y}
  func.return %y : {y}
}}"""
    context = make_context()
    module = parse_module(context, text, "<test>")
    run_passes(context, module, build_pipeline(f"select-dataflow{{isa={ISA} {select}}}"))
    return context, module


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize(
    ("spec", "mode"), [("w2g128", "i8"), ("q4_0", "i16"), ("w2g64", "i8-lut"), ("w2g64", "b2")]
)
def test_a_sketch_is_the_kernel_that_the_passes_make(spec, mode, tokens):
    product = Product(formats.get(spec), 192, 256, tokens, mode, ISA)
    able = [one.dataflow for one in CPU.verdicts(product) if one.refusal is None]
    assert len(able) > 1
    for dataflow in able:
        select = f"activations={mode} dataflow={dataflow}"
        context, module = module_of(spec, 192, 256, tokens, select)
        run_passes(context, module, build_pipeline(SCHEDULED))
        kernels = [one for one in module.walk() if isinstance(one, KernelOp)]
        (kernel,) = [one for one in kernels if one.kernel_name.data.startswith("product")]
        sketch, facts = CPU.sketch(product, dataflow), facts_of(kernel)
        assert (sketch.facts, dict(sketch.facts.numbers)) == (facts, dict(facts.numbers))
        choices = bind(kernel, LEVELS[ISA], 1).choices
        assert (choices and choices.values()) == (sketch.choices and sketch.choices.values())


def test_the_learned_costs_are_written_down():
    _, module = module_of("w2g128", 192, 4096, 2, "costs=learned")
    (product,) = [one for one in module.walk() if isinstance(one, ProductOp)]
    assert product.because.data.startswith("learned cycles: int_dot ")


def test_seconds_and_what_prepares_the_activation_add_up():
    learned = learned_costs(CPU, ISA)
    product = Product(formats.get("w2g128"), 192, 4096, 2, "i8", ISA)
    verdicts = {one.dataflow: one for one in CPU.verdicts(product)}
    found = {one.dataflow: one for one in learned.costs(product, list(verdicts.values()))}
    assert verdicts["lut"].setup > verdicts["int_dot"].setup > verdicts["dequantize"].setup == 0
    for name in ("int_dot", "lut", "dequantize"):
        measured = {"int_dot": 24.0e-6, "lut": 19.9e-6, "dequantize": 96e-6}[name]
        cycles = measured * CLOCK + verdicts[name].setup
        assert found[name].cycles == pytest.approx(cycles, rel=0.4)
    assert found["bitserial"] == verdicts["bitserial"]  # a refusal stays one


def test_many_tokens_cost_as_many_calls():
    learned = learned_costs(CPU, ISA)
    product = Product(formats.get("q4_0"), 512, 1152, 128, "i16", ISA)
    costs = [
        {one.dataflow: one.cycles for one in learned.costs(asked, CPU.verdicts(asked))}
        for asked in (product, replace(product, tokens=1280))
    ]
    assert costs[1]["int_dot"] == pytest.approx(10 * costs[0]["int_dot"])


def test_what_nobody_measured_stays_estimated():
    product = Product(formats.get("q4_0"), 512, 1152, 1, "i8", ISA)
    strange = replace(product, rows=1 << 20, cols=1 << 20)
    learned = learned_costs(CPU, ISA)
    assert learned.costs(product, CPU.verdicts(product)) is not None
    assert learned.costs(strange, CPU.verdicts(strange)) is None
    gpu = load_target("cuda")
    on_gpu = replace(product, activations="f16", isa="sm_90a")
    assert Learned(learned.model, learned.machine, gpu).costs(on_gpu, gpu.verdicts(on_gpu)) is None


def test_a_model_of_another_level_says_nothing():
    product = Product(formats.get("q4_0"), 512, 1152, 1, "i8", "avx512-vnni")
    assert learned_costs(CPU, product.isa).costs(product, CPU.verdicts(product)) is None


def test_a_model_that_is_none(tmp_path):
    (tmp_path / "bad.model").write_text("{}")
    with pytest.raises(ModelFileError):
        module_of("q4_0", 64, 64, 1, f'costs="{tmp_path}/bad.model"')
