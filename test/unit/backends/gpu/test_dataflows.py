"""What a GPU answers when passes ask which products it computes, and at what cost."""

from dataclasses import replace

import pytest

from nybble.backends.gpu.arch import ARCHS, find_arch
from nybble.backends.gpu.dataflows import BEGIN, LOADED, bytes_per_cycle, covering, lookup_cycles
from nybble.backends.gpu.kernels.matmul.lookup import lookup_spec
from nybble.dialects.errors import UnknownNameError
from nybble.dialects.lowbit import formats
from nybble.passes.targets import Product, cheapest, load_target, nearest

FLOWS = ["stream", "stream_int", "stream_bitserial", "stream_warpgroup", "stream_lookup"]


def verdict(spec="w4g128", rows=8192, cols=8192, tokens=1, mode="f16", isa="sm_90a"):
    product = Product(formats.get(spec), rows, cols, tokens, mode, isa)
    found = load_target("cuda").verdicts(product)
    return min(found, key=lambda one: (one.refusal is not None, FLOWS.index(one.dataflow)))


def test_fewer_bits_cost_fewer_cycles_where_memory_is_waited_for():
    costs = [verdict(f"w{bits}g128").cycles for bits in (1, 2, 4, 8)]
    assert costs == sorted(costs)
    assert verdict(tokens=64).cycles < 2 * verdict().cycles
    assert verdict(tokens=1024).cycles > 8 * verdict().cycles


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_answers(arch):
    assert verdict(isa=arch).refusal is None
    assert verdict(isa=arch).layout == "stream"


def test_refusals_are_those_of_the_kernel():
    assert "it has no code per weight" in (verdict("iq2_xxs").refusal or "")
    assert "activations f16" in (verdict("w8g128", mode="bf16").refusal or "")
    assert verdict(mode="f32").refusal == "activations f32, it keeps f16, bf16"


def test_integers_have_dataflows_of_their_own():
    assert [verdict(mode=one).dataflow for one in ("bf16", "i8", "b2")] == FLOWS[:3]
    assert (verdict(mode="i8").layout, verdict(mode="b2").layout) == ("stream", "stream_planes")
    costs = [verdict("w1g256", tokens=4096, mode=one).cycles for one in ("b1", "i8", "f16")]
    assert costs == sorted(costs)
    product = Product(formats.get("w2g128"), 64, 256, 1, "b2", "sm_120a")
    refusals = {one.dataflow: one.refusal for one in load_target("cuda").verdicts(product)}
    assert refusals["stream_bitserial"] == (
        "products of bits on sm_120a (accepted: sm_80, sm_89, sm_90a)"
    )


def test_warpgroups_multiply_many_tokens_on_hopper():
    def fastest(tokens, isa):
        product = Product(formats.get("w4g128"), 4096, 4096, tokens, "f16", isa)
        return next(iter(cheapest(load_target("cuda").verdicts(product)))).dataflow

    assert [fastest(tokens, "sm_90a") for tokens in (1, 32, 96, 1024)] == [
        "stream", "stream", "stream_warpgroup", "stream_warpgroup",
    ]  # fmt: skip
    assert fastest(1024, "sm_80") == "stream"
    assert "stream_warpgroup" in covering(formats.get("w4g128"), "sm_90a", (64, 256))


def test_lookups_are_chosen_where_no_hardware_has_them():
    def found(spec, tokens, isa="sm_90a+lmma"):
        product = Product(formats.get(spec), 8192, 8192, tokens, "f16", isa)
        return load_target("cuda").verdicts(product)

    fastest = {
        (spec, n): cheapest(found(spec, n))[0] for spec in ("w1g128", "w4g128") for n in (1, 1024)
    }
    chosen = [key for key, one in fastest.items() if one.dataflow == "stream_lookup"]
    assert chosen == [("w1g128", 1024)]
    best = fastest["w1g128", 1024]
    assert best.layout == "stream_lookup"
    assert 0 < best.setup < best.cycles
    refusals = {one.dataflow: one.refusal for one in found("w1g128", 1, "sm_90a")}
    assert refusals["stream_lookup"] == "products by lmma on sm_90a (accepted: sm_90a+lmma)"
    refusals = {one.dataflow: one.refusal for one in found("w3g64", 1)}
    assert "'w3g64' by lmma" in (refusals["stream_lookup"] or "")


def test_a_product_that_looks_up_takes_the_slowest_of_memory_of_loads_and_of_arrays():
    arch = find_arch("sm_90a+lmma")
    few, many = (lookup_spec("w1g128", 8192, 8192, tokens) for tokens in (1, 1024))
    alone = replace(many, warp_pairs=1, warp_tiles=1)
    found = [lookup_cycles(one, arch) - BEGIN for one in (few, many, alone)]
    sms = arch.board.sms
    slowest = [
        few.weight_bytes / bytes_per_cycle(arch),
        many.tensor_cycles / sms,
        alone.loaded_bytes / (LOADED * sms),
    ]
    assert found == pytest.approx(slowest)


def test_an_unknown_level_is_named():
    with pytest.raises(UnknownNameError, match="unknown GPU architecture 'sm_1'"):
        verdict(isa="sm_1")


def test_the_nearest_product_is_found():
    near = nearest(load_target("cuda"), Product(formats.get("w4g32"), 64, 96, 1, "f16", "sm_90a"))
    assert near is not None
    assert near.cols % 64 == 0
