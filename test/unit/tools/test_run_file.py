"""Running a function of an MLIR file: every kind of value, and both references."""

import json

import numpy as np
import pytest

from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.quantize_cache import QuantizeCache
from nybble.passes.retain_tokens import RetainTokens
from nybble.passes.select_pages import SelectPages
from nybble.tools.mlir_file import find_function
from nybble.tools.run_file import compare, error, first_position

LAYER = """
func.func @attend(%x: tensor<?x64xf32>, %pos: index, %cos: tensor<128x8xf32>,
    %sin: tensor<128x8xf32>, %kc: tensor<2x128x16xf16>, %vc: tensor<2x128x16xf16>,
    %wq: !lowbit.tensor<64x64, "q4_1">, %wk: !lowbit.tensor<32x64, "q4_1">)
    -> (tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>) {
  %q = mpgemm.matmul %x, %wq : tensor<?x64xf32>, !lowbit.tensor<64x64, "q4_1"> -> tensor<?x64xf32>
  %k = mpgemm.matmul %x, %wk : tensor<?x64xf32>, !lowbit.tensor<32x64, "q4_1"> -> tensor<?x32xf32>
  %v = mpgemm.matmul %x, %wk : tensor<?x64xf32>, !lowbit.tensor<32x64, "q4_1"> -> tensor<?x32xf32>
  %qr = fused.rope %q, %cos, %sin at %pos : tensor<?x64xf32>, tensor<128x8xf32> -> tensor<?x64xf32>
  %kr = fused.rope %k, %cos, %sin at %pos : tensor<?x32xf32>, tensor<128x8xf32> -> tensor<?x32xf32>
  %k2 = sparse_attn.append_kv %kr into %kc at %pos : tensor<?x32xf32> into tensor<2x128x16xf16>
      -> tensor<2x128x16xf16>
  %v2 = sparse_attn.append_kv %v into %vc at %pos : tensor<?x32xf32> into tensor<2x128x16xf16>
      -> tensor<2x128x16xf16>
  %a = sparse_attn.attention %qr, %k2, %v2 at %pos mask <"causal"> scale 0.25 :
      tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return %a, %k2, %v2 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>
}
"""
READ_BACK = LAYER.replace(
    "-> (tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>)", "-> tensor<?x64xf32>"
).replace(
    "return %a, %k2, %v2 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>",
    "return %a : tensor<?x64xf32>",
)
READ = """
func.func @read(%q: tensor<?x32xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf16>,
    %p: index) -> tensor<?x32xf32> {
  %r = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 0.25 :
      tensor<?x32xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x32xf32>
  func.return %r : tensor<?x32xf32>
}
"""
ENDS = """
func.func @embed(%ids: tensor<?xi32>, %t: !lowbit.tensor<40x32, "q8_0">) -> tensor<?x32xf32> {
  %y = fused.embed %ids, %t scale 2.0 : tensor<?xi32>, !lowbit.tensor<40x32, "q8_0">
      -> tensor<?x32xf32>
  func.return %y : tensor<?x32xf32>
}
func.func @draw(%l: tensor<40xf32>, %t: f32, %k: i32, %p: f32, %s: i64, %n: i64) -> i32 {
  %y = fused.sample %l temperature %t top_k %k top_p %p seed %s at %n : tensor<40xf32> -> i32
  func.return %y : i32
}
func.func @sum(%x: tensor<?x32xf32>, %g: tensor<32xf32>) -> tensor<?x32xf32> {
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<?x32xf32>, tensor<32xf32> -> tensor<?x32xf32>
  %y = arith.addf %n, %x : tensor<?x32xf32>
  func.return %y : tensor<?x32xf32>
}
func.func @round(%x: tensor<?x64xf32>) -> !lowbit.tensor<?x64, "a8g32"> {
  %y = lowbit.quantize %x : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
  func.return %y : !lowbit.tensor<?x64, "a8g32">
}
func.func @rounded(%x: !lowbit.tensor<?x64, "a8g32">, %w: !lowbit.tensor<16x64, "q4_0">)
    -> tensor<?x16xf32> {
  %y = mpgemm.int_matmul %x, %w : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<16x64, "q4_0">
      -> tensor<?x16xf32>
  func.return %y : tensor<?x16xf32>
}
"""


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("mode", ["i8", "f32"])
def test_attention_in_the_middle_of_a_text(tokens, mode, run_nybble):
    given = ["--tokens", str(tokens), "--position", "21", "--threads", "2", "--activations", mode]
    outcome = run_nybble("run", "-", *given, "--json", "-", stdin=LAYER.encode())
    report = json.loads(outcome.out)
    assert outcome.code == 0, outcome.out
    assert report["agrees"]
    assert report["position"] == 21
    assert [one["shape"] for one in report["results"]] == [
        [tokens, 64], [2, 128, 16], [2, 128, 16],
    ]  # fmt: skip
    exact = [one["nmse_of_operators"] for one in report["results"]]
    assert mode != "f32" or max(exact) < 1e-9
    assert max(exact) < 1e-2


@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize(
    "choice",
    [
        RetainTokens("attend", 8, 24),
        RetainTokens("attend", 8, 24, "last", 4),
        RetainTokens("attend", 8, 24, "learned", hidden=40),
        RetainTokens("attend", 8, 24, "", 4),
        SelectPages("attend", "pages(16,2)+sink(3)"),
    ],
    ids=["accumulated", "last", "learned", "follows", "pages"],
)
def test_what_is_chosen_while_a_text_is_read(tokens, choice, run_nybble):
    module = parse_module(make_context(), LAYER, "<test>")
    choice.apply(make_context(), module)
    module.verify()
    given = ["--tokens", str(tokens), "--position", "50", "--threads", "2", "--activations", "f32"]
    outcome = run_nybble("run", "-", *given, "--json", "-", stdin=str(module).encode())
    report = json.loads(outcome.out)
    assert outcome.code == 0, outcome.out
    assert max(one["nmse_of_operators"] for one in report["results"]) < 1e-9


@pytest.mark.parametrize(("tokens", "position"), [(1, 3), (1, 100), (40, 80)])
@pytest.mark.parametrize(
    ("kv", "chosen"),
    [("kivi2(16,16)-h", ""), ("kivi4(16,0)-h-i8", ""), ("kivi2(16,16)-h", "pages(16,2)+sink(3)")],
)
def test_turned_keys(tokens, position, kv, chosen, run_nybble):
    """Prompts and decoding; the last with pages that are chosen by turned queries and bounds."""
    module = parse_module(make_context(), READ_BACK, "<test>")
    if chosen:
        SelectPages("attend", chosen).apply(make_context(), module)
    QuantizeCache(kv, 40).apply(make_context(), module)
    module.verify()
    given = ["--tokens", str(tokens), "--position", str(position), "--threads", "2"]
    given += ["--activations", "f32", "--json", "-"]
    outcome = run_nybble("run", "-", *given, stdin=str(module).encode())
    assert outcome.code == 0, outcome.out + outcome.err
    found = json.loads(outcome.out)["results"][0]
    assert found["nmse_of_operators"] < (1e-4 if "i8" in kv else 1e-9)


TURNED_QUERY = "%qh = fused.hadamard %qr block 16 : tensor<?x64xf32>\n  %a = "


@pytest.mark.parametrize(
    ("first", "other", "fault"),
    [
        ("attention %qh", "return %a :", "must transform heads of queries and of keys alike"),
        ("attention %qr", "return %qh :", "must read rotated heads after one transform"),
    ],
)
def test_transforms_between_a_rotation_and_an_append_that_no_kernel_has(
    first, other, fault, run_nybble
):
    text = READ_BACK.replace("%a = ", TURNED_QUERY).replace("attention %qr", first)
    text = text.replace("return %a :", other)
    outcome = run_nybble("run", "-", "--activations", "f32", stdin=text.encode())
    assert outcome.code == 1
    assert fault in outcome.err


@pytest.mark.parametrize("name", ["embed", "draw", "sum", "round", "rounded"])
def test_every_kind_of_value(name, run_nybble):
    given = ["--function", name, "--tokens", "3", "--seed", "4", "--isa", "x86-64-v3"]
    outcome = run_nybble("run", "-", *given, "--json", "-", stdin=ENDS.encode())
    assert outcome.code == 0, outcome.out + outcome.err
    assert json.loads(outcome.out)["results"][0]["nmse"] < 1e-9


LOOKED_UP = """
func.func @block(%x: tensor<?x256xf32>, %g: tensor<256xf32>, %a: !lowbit.tensor<70x256, "SPEC">,
    %b: !lowbit.tensor<70x256, "SPEC">, %c: !lowbit.tensor<70x256, "SPEC">,
    %h: tensor<?x70xf32>, %v: tensor<70xf32>) -> (tensor<?x70xf32>, tensor<?x70xf32>) {
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<?x256xf32>, tensor<256xf32> -> tensor<?x256xf32>
  %0 = mpgemm.matmul %n, %a : tensor<?x256xf32>, !lowbit.tensor<70x256, "SPEC"> -> tensor<?x70xf32>
  %1 = mpgemm.matmul %n, %b : tensor<?x256xf32>, !lowbit.tensor<70x256, "SPEC"> -> tensor<?x70xf32>
  %2 = fused.glu "silu" %0, %1 : tensor<?x70xf32>
  %3 = mpgemm.matmul %x, %c bias %v : tensor<70xf32> : tensor<?x256xf32>,
      !lowbit.tensor<70x256, "SPEC"> -> tensor<?x70xf32>
  %4 = arith.addf %h, %3 : tensor<?x70xf32>
  func.return %2, %4 : tensor<?x70xf32>, tensor<?x70xf32>
}
"""


@pytest.mark.parametrize(
    ("spec", "tokens", "mode"),
    [("w1g128", 1, "i8-only"), ("w2g64", 1, "i8-lut"), ("q2_k", 3, "i8-only")],
)
def test_products_by_tables(spec, tokens, mode, run_nybble):
    given = ["--tokens", str(tokens), "--activations", mode, "--isa", "x86-64-v3", "--threads", "2"]
    text = LOOKED_UP.replace("SPEC", spec).encode()
    report = json.loads(run_nybble("run", "-", *given, "--json", "-", stdin=text).out)
    assert all(one["nmse"] < 1e-11 for one in report["results"])
    assert max(one["nmse_of_operators"] for one in report["results"]) < 5e-3


def test_a_wrong_result_is_told_and_exits_with_1(run_nybble, monkeypatch):
    monkeypatch.setattr("nybble.tools.run_file.TOLERANCE", -1.0)
    outcome = run_nybble("run", "-", "--function", "sum", stdin=ENDS.encode())
    assert outcome.code == 1
    assert "agrees: False" in outcome.out


@pytest.mark.parametrize("side", ["keys", "values"])
def test_a_cache_with_codes_is_no_result(side, run_nybble):
    cache = f'!sparse_attn.cache<{side} 2x512x32, "kivi4(32,64)", 256>'
    text = f"""
func.func @f(%c: {cache}, %x: tensor<1x64xf32>, %p: index) -> {cache} {{
  %r = sparse_attn.append_kv %x into %c at %p : tensor<1x64xf32> into {cache} -> {cache}
  func.return %r : {cache}
}}
"""
    outcome = run_nybble("run", "-", stdin=text.encode())
    assert outcome.code == 1
    assert "a cache that is returned has no numbers to compare" in outcome.err
    assert "accepted: a function that returns what an attention makes of it" in outcome.err


def test_what_only_reads_a_cache_may_find_it_empty():
    for text, first in ((LAYER, 0), (READ, -1)):
        module = parse_module(make_context(), text, "<test>")
        assert first_position(find_function(module, None)) == first


def test_errors_of_results():
    wanted = np.array([[3.0, 4.0]])
    assert error(wanted, wanted) == 0
    assert error(wanted * 0, wanted) == 1
    assert error(np.zeros((1, 2)), np.zeros((1, 2))) == 0
    assert error(np.array([[np.nan, 4.0]]), wanted) == np.inf
    found = compare(np.array([[3.0, 4.5]]), wanted, wanted)
    assert found == {
        "shape": [1, 2], "nmse": 0.01, "max_error": 0.5, "nmse_of_operators": 0.01,
    }  # fmt: skip
