"""The calls that a choice of sizes is made for."""

from nybble.costmodel.features.facts import AttentionSketch, ProductSketch, RowSketch
from nybble.costmodel.features.table import Call
from nybble.costmodel.learned.files import shipped
from nybble.costmodel.search import search
from nybble.costmodel.targets.reader import target_for_level
from nybble.dialects.fused.kernel import KernelOp
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.pipeline import build_pipeline, run_passes
from nybble.passes.targets import load_target
from nybble.passes.tile_kernels import Chooser, calls_of

ISA = "x86-64-v3"
SCHEDULED = "precompute-tables,symmetrize-tables,assign-layout,fuse-kernels,schedule-kernels"

PRODUCT = ProductSketch("int_dot", "q4_0", (1536,), 576, 1, 32).facts()
ATTENTION = AttentionSketch(9, 3, 64, 2).facts()


def fixed(tokens: int) -> frozenset[str]:
    """What the question about a product leaves as it is."""
    weight, x = '!lowbit.tensor<256x512, "q4_0">', f"tensor<{tokens}x512xf32>"
    y = f"tensor<{tokens}x256xf32>"
    text = f"""func.func @f(%x: {x}, %w: {weight}) -> {y} {{
  %y = mpgemm.matmul %x, %w : {x}, {weight} -> {y}
  func.return %y : {y}
}}"""
    context = make_context()
    module = parse_module(context, text, "<test>")
    run_passes(context, module, build_pipeline(f"select-dataflow{{isa={ISA}}},{SCHEDULED}"))
    chooser = Chooser(shipped(), target_for_level(ISA), load_target("cpu"), ISA, 1)
    kernels = [one for one in module.walk() if isinstance(one, KernelOp)]
    questions = [chooser.question(one) for one in kernels]
    (asked,) = [one for one in questions if one and "weight_group" in one.facts.numbers]
    answer = search(asked, chooser.model, chooser.target)
    now = answer.candidates[answer.incumbent]
    assert all(one[name] == now[name] for one in answer.candidates for name in asked.fixed)
    return asked.fixed


def test_products_that_stream_their_weights_are_left_alone():
    assert fixed(1) == {"steps", "subtiles", "runs", "prefetch", "tiles"}
    assert fixed(16) == frozenset()


def test_one_token_is_one_call():
    assert calls_of(PRODUCT, 1, 1) == [Call(1, 2)]
    assert calls_of(RowSketch("norm", 576, 576).facts(), 1, 1) == [Call(1)]


def test_many_tokens_are_calls_of_every_size():
    assert [one.tokens for one in calls_of(PRODUCT, 512, 1)] == [128, 16, 512]
    assert [one.tokens for one in calls_of(PRODUCT, 64, 1)] == [64, 16]


def test_attention_keeps_to_its_cache():
    found = calls_of(ATTENTION, 1, 1, 2048)
    assert found == [Call(1, 1, 512), Call(1, 1, 64), Call(1, 1, 1024)]
    assert all(one.cached + one.tokens <= 640 for one in calls_of(ATTENTION, 128, 1, 640))
    assert calls_of(ATTENTION, 128, 1, 130) == [Call(16, 1, 64)]
    assert calls_of(ATTENTION, 1, 1, 32) == [Call(1, 1, 31)]
