"""Every operation has a cost rule, and rules count what the references compute."""

import numpy as np
import pytest
from xdsl.dialects.builtin import UnregisteredOp

from nybble.costmodel.analytic.cost import Cost, tally
from nybble.costmodel.analytic.rules import RULES, NoRuleError, cost_of
from nybble.costmodel.analytic.sparse import UnknownEntriesError
from nybble.costmodel.analytic.work import CostOptions
from nybble.costmodel.targets.reader import find_target
from nybble.costmodel.targets.target import RateError
from nybble.dialects.lowbit import formats
from nybble.dialects.numpy_ref import attention as ref
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import DIALECTS, REGISTRY, make_context
from nybble.dialects.sparse_attn.masks import dense
from nybble.dialects.spgemm import program

AVX2, H100 = find_target("cpu-avx2"), find_target("h100")


def parsed(text, name):
    """The operations of one name in the body of a function."""
    module = parse_module(make_context(allow_unregistered=True), text, "test")
    return [op for op in module.walk() if op.name == name]


def product(spec, rows, cols, tokens="?"):
    text = f"""
    func.func @f(%x: tensor<{tokens}x{cols}xf32>, %w: !lowbit.tensor<{rows}x{cols}, "{spec}">) {{
      %y = mpgemm.matmul %x, %w : tensor<{tokens}x{cols}xf32>,
          !lowbit.tensor<{rows}x{cols}, "{spec}"> -> tensor<{tokens}x{rows}xf32>
      func.return
    }}"""
    return parsed(text, "mpgemm.matmul")[0]


LOWERED = {"fpga"}
"""Dialects of kernels that are lowered already: a backend's own analysis reads them."""
PROGRAM = frozenset(program.OPS)
"""Operations of programs, which are lowered already, too."""


def test_every_operation_has_a_rule():
    known = [op for name in set(DIALECTS) - LOWERED for op in REGISTRY.load(name).operations]
    assert len(known) > 15
    assert [op.name for op in known if op not in RULES and op not in PROGRAM] == []


def test_an_operation_without_a_rule_raises():
    op = UnregisteredOp.with_name("some.thing").create()
    with pytest.raises(NoRuleError, match=r"'.*' has no cost rule \(accepted: arith.addf, "):
        cost_of(op, AVX2)


def test_a_cost_that_depends_on_entries_is_refused():
    kind = '!spgemm.tensor<4x4, f32, "csr", i32>'
    text = f"""
    func.func @f(%a: {kind}) {{
      %c = spgemm.matmul %a, %a : {kind}, {kind} -> {kind}
      func.return
    }}"""
    with pytest.raises(UnknownEntriesError, match=r"'spgemm\.matmul' depends on"):
        cost_of(parsed(text, "spgemm.matmul")[0], AVX2)


@pytest.mark.parametrize(("rows", "cols", "tokens"), [(64, 64, 1), (33, 96, 5), (1, 32, 1)])
def test_product_multiplies_every_weight_with_every_token(rows, cols, tokens):
    cost = cost_of(product("q4_0", rows, cols), AVX2, CostOptions(tokens=tokens))
    assert cost.operations["i8"] == 2 * rows * cols * tokens
    assert cost.operations["unpack"] == rows * cols
    assert cost.read["dram"] == rows * formats.get("q4_0").row_bytes(cols)
    assert cost.launches == 1


def test_weights_that_fit_are_not_read_again_where_they_are_hot():
    op = product("q4_0", 256, 256, 1)
    cold, hot = (cost_of(op, AVX2, CostOptions(hot=hot, cores=1)) for hot in (False, True))
    assert cold.read["dram"] == 256 * 256 // 2 + 256 * 8 * 2
    assert hot.read["dram"] == 0
    assert hot.read["l2"] == cold.read["l2"]  # 37 KB are more than the first level holds
    assert hot.operations == cold.operations


def test_costs_add_and_multiply_exactly():
    one = cost_of(product("q4_0", 64, 64), AVX2, CostOptions(tokens=3))
    assert one + one == 2 * one == one * 2
    assert one + Cost() == one
    huge = Cost(tally({"i8": 2**70 + 1})) * 3
    assert huge.operations["i8"] == 3 * 2**70 + 3


def test_a_target_without_a_rate_is_refused():
    text = """
    func.func @f(%x: !mpgemm.table<1x64, "a8g32", "i16">,
                 %w: !lowbit.tensor<8x64, "q4_0", "lut1">) {
      %y = mpgemm.lut_matmul %x, %w : !mpgemm.table<1x64, "a8g32", "i16">,
          !lowbit.tensor<8x64, "q4_0", "lut1"> -> tensor<1x8xf32>
      func.return
    }"""
    from nybble.costmodel.analytic.roofline import time

    a100 = find_target("a100")
    cost = cost_of(parsed(text, "mpgemm.lut_matmul")[0], a100)
    assert cost.operations["lookup"] == 8 * 16 * 4 * 2
    with pytest.raises(RateError, match="'a100' has no rate for 'lookup'"):
        time(cost, a100)


def attention(tokens, mask):
    cache = "tensor<3x2048x64xf16>"
    text = f"""
    func.func @f(%q: tensor<?x576xf32>, %k: {cache}, %v: {cache}, %p: index) {{
      %y = sparse_attn.attention %q, %k, %v at %p mask {mask} scale 1.250000e-01 :
          tensor<?x576xf32>, {cache}, {cache} -> tensor<?x576xf32>
      func.return
    }}"""
    return parsed(text, "sparse_attn.attention")[0]


@pytest.mark.parametrize("span", [None, 1, 7, 300])
@pytest.mark.parametrize(("queries", "cached"), [(1, 0), (1, 40), (9, 0), (9, 5), (20, 100)])
def test_attention_counts_the_pairs_that_the_mask_lets_through(span, queries, cached):
    mask = '<"causal">' if span is None else f'<"window({span})">'
    op = attention(queries, mask)
    seen = dense(op.mask.mask, np.arange(queries) + cached, np.arange(queries + cached))[0]
    pairs = int(seen.sum())
    options = CostOptions(tokens=2 * queries, sequences=2, cached=cached)
    cost = cost_of(op, AVX2, options)
    assert cost.special == 2 * 9 * pairs
    assert cost.operations["f32"] == 2 * 9 * pairs * 4 * 64
    assert cost.read["dram"] == 2 * 2 * 3 * seen.any(0).sum() * 64 * 2
    assert ref.attention  # the reference that `dense` masks


@pytest.mark.parametrize("mask", ["sink(64)+window(64)", "heads(0:window(32);else:causal)"])
def test_attention_under_a_mask_costs_its_density(mask):
    op = attention(64, f'<"{mask}">')
    cost = cost_of(op, AVX2, CostOptions(tokens=64, sequences=1, cached=128))
    queries, keys = np.arange(64) + 128, np.arange(192)
    pairs = dense(op.mask.mask, queries, keys, 3).sum()
    assert cost.special == pytest.approx(3 * pairs, rel=1e-3)


def retaining(by, queries=0, rows="?"):
    """An attention to 512 tokens, 256 of them recent, of 9 heads over 3 of the cache."""
    keys, values, moves = "tensor<3x64x512xf16>", "tensor<3x512x64xf16>", "tensor<3x1x2048xi32>"
    mass, scores = f"tensor<3x{1 + queries}x512xf32>", f"tensor<{rows}x3xf32>"
    given, of = (f'by "{by}" %m', f"by {mass}") if by else ("", "")
    if by == "learned":
        given, of = f"{given} of %s", f"{of} of {scores}"
    new, names = (f"-> {mass}, {moves}", ", %d, %e") if by else ("", "")
    text = f"""
    func.func @f(%q: tensor<{rows}x576xf32>, %n: tensor<{rows}x192xf32>, %k: {keys}, %v: {values},
                 %w: {moves}, %m: {mass}, %s: {scores}, %p: index) {{
      %a, %b, %c{names} = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p {given} budget 256
          size 1 scale 1.250000e-01 : tensor<{rows}x576xf32>, tensor<{rows}x192xf32> into
          {keys}, {values}, {moves} {of} {new}
      func.return
    }}"""
    return parsed(text, "sparse_attn.retain")[0]


def test_what_a_choice_of_tokens_costs():
    """Attention to all slots; 4 or 8 bytes of each are read, and written if they change."""

    def found(by, queries=0):
        return cost_of(retaining(by, queries), AVX2, CostOptions(tokens=1))

    follows = found(None)
    assert follows.special == 9 * 512
    assert follows.operations["f32"] == 9 * 512 * 4 * 64
    for by, queries, size in (("accumulated", 0, 4), ("learned", 0, 4), ("last", 256, 8)):
        cost = found(by, queries)
        assert cost.read["dram"] - follows.read["dram"] == size * 3 * 512
        changed = 0 if by == "learned" else size * 3 * 512
        assert cost.written["dram"] - follows.written["dram"] == changed


def test_a_kernel_keeps_what_only_it_uses():
    text = """
    func.func @f(%x: tensor<?x64xf32>, %g: tensor<64xf32>) {
      %q = fused.kernel "norm_quantize"(%x, %g) : (tensor<?x64xf32>, tensor<64xf32>) ->
          !lowbit.tensor<?x64, "a8g32"> {
      ^bb0(%0: tensor<?x64xf32>, %1: tensor<64xf32>):
        %2 = fused.rms_norm %0, %1 eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> ->
            tensor<?x64xf32>
        %3 = lowbit.quantize %2 : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
        fused.yield %3 : !lowbit.tensor<?x64, "a8g32">
      }
      func.return
    }"""
    kernel, norm, quantize = (
        parsed(text, name)[0] for name in ("fused.kernel", "fused.rms_norm", "lowbit.quantize")
    )
    many = CostOptions(tokens=1 << 20)
    fused = cost_of(kernel, AVX2, many)
    parts = cost_of(norm, AVX2, many) + cost_of(quantize, AVX2, many)
    between = many.tokens * 64 * 4
    assert (fused.launches, parts.launches) == (1, 2)
    assert fused.operations == parts.operations
    assert fused.special == parts.special
    assert parts.read["dram"] - fused.read["dram"] == between
    assert parts.written["dram"] - fused.written["dram"] == between
