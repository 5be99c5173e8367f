"""`nybble verify --target cuda --op sparse_attn.attention`: kernels of all kinds, a wrong one."""

import json
from collections import Counter

import pytest

from nybble.backends.gpu.arch import ARCHS, IMAGINED
from nybble.backends.gpu.kernels.attention.prefill import PrefillSpec
from nybble.tools.verify import gpu_attention
from nybble.tools.verify.gpu_attention import KEPT, drawn, run_case


def test_cases_follow_from_the_seed_and_have_every_kind():
    cases = [drawn(1, number, ("sm_80", "sm_90a")) for number in range(60)]
    assert cases == [drawn(1, number, ("sm_80", "sm_90a")) for number in range(60)]
    prefill = [one.spec for one in cases if isinstance(one.spec, PrefillSpec)]
    decode = [one.spec for one in cases if not isinstance(one.spec, PrefillSpec)]
    assert {one.cache for one in decode} == {"f16", "bf16", "kv8", "kv4", "kv2", *KEPT}
    assert {one.head_dim for one in decode if one.room} == {64, 128}
    assert {bool(one.block) for one in decode} == {one.block_lists for one in prefill}
    assert {one.splits for one in decode} == {1, 2}
    assert {one.half for one in prefill} == {"f16", "bf16"}
    assert {one.cache for one in prefill} == {"", *KEPT}


def test_kernels_are_right_and_a_wrong_one_is_found(run_nybble, monkeypatch):
    given = ["verify", "--target", "cuda:sm_80", "--op", "sparse_attn.attention", "--cases", "3"]
    outcome = run_nybble(*given, "--json", "-")
    assert outcome.code == 0, outcome.out + outcome.err
    found = json.loads(outcome.out)
    assert (found["cases"], found["failed"], found["op"]) == (3, 0, "sparse_attn.attention")
    whole = gpu_attention.Problem.causal

    def one_more(self):
        self.lengths = tuple(one - 1 for one in self.lengths)
        return whole(self)

    monkeypatch.setattr(gpu_attention.Problem, "causal", one_more)
    outcome = run_nybble(*given[:-2], "--case", "2")
    assert outcome.code == 1
    assert "is right" in outcome.out


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--op", "sparse_attn.attention", "--formats", "w4g64"], "--formats with target cuda:sm_80"),
     (["--op", "fused.rms_norm"], "--op fused.rms_norm with target cuda")],
)  # fmt: skip
def test_what_is_refused(run_nybble, options, message):
    outcome = run_nybble("verify", "--target", "cuda:sm_80", *options)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.exhaustive
@pytest.mark.parametrize("arch", [one for one in ARCHS if one not in IMAGINED])
def test_twenty_shapes_and_more_of_each_kind_on_every_architecture(arch):
    cases = [drawn(11, number, (arch,)) for number in range(66)]
    kinds = Counter(isinstance(one.spec, PrefillSpec) for one in cases)
    assert min(kinds.values()) >= 20
    faults = [one.report() for one in (run_case(11, case) for case in cases) if one.fault]
    assert not faults
