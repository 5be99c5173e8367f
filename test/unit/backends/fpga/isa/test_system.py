"""The system model against published figures, which no number of it was fitted to."""

import pytest

from nybble.backends.fpga.isa.machine import find_machine
from nybble.backends.fpga.isa.plan import make_plan
from nybble.backends.fpga.isa.store import compile_all
from nybble.backends.fpga.isa.system import Service
from nybble.dialects.errors import NybbleError
from nybble.frontend.weight_rules import parse_rules
from nybble.tools.shape_graph import shape_module
from nybble.tools.shape_model import find_shape

FLIGHTLLM = {
    (128, 512): (289.9, 4946.4),
    (128, 1024): (289.9, 10318.6),
    (128, 1536): (289.9, 16103.1),
    (512, 512): (1181.4, 5269.0),
    (512, 1024): (1181.4, 10950.5),
    (512, 1536): (1181.4, 17044.3),
}
"""Prompt and answer -> milliseconds of both: the README of FlightLLM's public test demo."""
FLIGHTLLM_WEIGHTS = "layers=w4,head=w4,q_proj=w4n11:16,k_proj=w4n11:16"
"""4 bits, and of queries and keys 0.7 of the weights, as the demo's intermediate form says."""
HUMMINGBIRD = {"kv260": 4.8, "zcu104": 8.6}
"""Tokens a second of LLaMA3-8B: arXiv:2507.03308."""


def plan_of(name, rules, target, context):
    """The plan of a published shape."""
    shape = find_shape(name)
    module = shape_module(shape, "w8", context, "f16", parse_rules(rules))
    return make_plan(module, ("layer_0",) * shape.layers, context, find_machine(target))


@pytest.fixture(scope="module")
def llama2():
    """LLaMA2-7B as FlightLLM's demo has it."""
    return plan_of("llama2-7b", FLIGHTLLM_WEIGHTS, "vhk158", 2048)


@pytest.mark.parametrize("case", FLIGHTLLM)
def test_flightllms_six_cases_on_the_vhk158_within_15_percent(llama2, case):
    service = Service(llama2, *case)
    prefill, decode = FLIGHTLLM[case]
    assert service.prefill.seconds * 1e3 == pytest.approx(prefill, rel=0.15)
    assert service.decode_seconds * 1e3 == pytest.approx(decode, rel=0.15)


@pytest.mark.parametrize("target", HUMMINGBIRD)
def test_hummingbird_within_10_percent_and_its_use_of_the_memory(target):
    plan = plan_of("llama3-8b", "layers=w4g128,head=w4g128", target, 256)
    service = Service(plan, 128, 32)
    assert service.tokens_per_second == pytest.approx(HUMMINGBIRD[target], rel=0.10)
    assert service.bandwidth_utilisation == pytest.approx(0.935, abs=0.015)


def test_the_streams_of_all_lengths_are_small(llama2):
    store = compile_all(llama2)
    assert len(store.streams) == 2048 // 16 + 2048 // 128
    assert store.bytes <= 1.2e9
    assert store.per_length >= 500 * store.bytes


def test_sparse_weights_are_faster():
    times = []
    for keep in (2, 4, 8):
        plan = plan_of("llama2-7b", f"w4n{keep}:16,head=w4n{keep}:16", "vhk158", 256)
        times.append(Service(plan, 128, 16).prefill.busy["mm"])
    dense = Service(plan_of("llama2-7b", "w4,head=w4", "vhk158", 256), 128, 16)
    assert times == sorted(times)
    assert 0.5 < times[-1] / dense.prefill.busy["mm"] < 0.6


def test_answers_are_counted_by_their_buckets(llama2):
    service = Service(llama2, 120, 30)
    assert [count for count, _ in service.decodes] == [8, 16, 6]
    total = sum(count * one.seconds for count, one in service.decodes)
    assert service.decode_seconds == total
    assert sum(service.energy().values()) > 0


@pytest.mark.parametrize("case", [(0, 5), (5, 0), (2000, 100)])
def test_a_text_that_the_caches_cannot_hold_is_refused(llama2, case):
    with pytest.raises(NybbleError, match="and up to 2048 together, the context"):
        Service(llama2, *case)
