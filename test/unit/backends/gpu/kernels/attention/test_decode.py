"""Decode attention in the simulator against f64, for every cache, split and group of heads."""

import numpy as np
import pytest

from nybble.backends.gpu import ptxas
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.kernels.attention.fragments import STREAM
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.dialects.errors import NybbleError

F16, BF16 = 1e-6, 3e-5
"""NMSE of weights and results rounded to the type."""


@pytest.mark.parametrize(
    ("lengths", "changes", "tolerance"),
    [
        ((128, 7), {}, F16),
        ((1, 100), {"group": 16, "kv_heads": 2}, F16),
        ((0, 33), {"cache": "bf16", "head_dim": 64, "group": 7, "warps": 1}, BF16),
        ((100, 200), {"splits": 3, "context": 256}, F16),
        ((256,), {"splits": 18, "context": 256, "sequences": 1, "group": 1}, F16),
        ((100, 128), {"cache": "kv8(32)", "group": 5}, F16),
        ((100, 256), {"cache": "kv4", "context": 256, "splits": 2}, F16),
        ((63, 128), {"cache": "kv2", "group": 8}, F16),
        ((256, 7), {"context": 256}, F16),
        ((256, 70), {"context": 256, "cache": "kv2", "softmax": "unified"}, F16),
        ((500, 256), {"block": 64, "context": 512, "kv_heads": 2, "splits": 2}, F16),
        ((250, 256), {"block": 128, "context": 256, "cache": "kv4", "sequences": 2}, F16),
    ],
)
def test_attends(problem, decode_spec, compiled, lengths, changes, tolerance):
    one = problem(decode_spec(**changes), lengths)
    report = one.run(compiled(one.spec))
    assert one.nmse() < tolerance
    assert report.bank_conflicts == 0
    assert all(count == 0 for name, count in report.unwritten.items() if name == "out")
    if one.spec.splits > 1:
        assert not one.arguments["counters"].any()  # so that the next launch can count


@pytest.mark.parametrize("anchor", [3.0, 30.0, -30.0])
def test_a_wrong_anchor_costs_time_and_no_accuracy(problem, decode_spec, compiled, anchor):
    spec = decode_spec(softmax="unified", anchor=anchor)
    one = problem(spec, (100, 128))
    report = one.run(compiled(spec))
    assert one.nmse() < F16
    products = 24 * (7 + 8)  # of each 16 keys, once
    assert (report.mma_count > products) is (anchor != 3.0)


def test_large_logits_do_not_overflow(problem, decode_spec, compiled):
    spec = decode_spec()
    one = problem(spec, (128, 128), seed=1)
    one.q *= 40
    one.arguments["q"][:] = one.q.astype(np.float16).view(np.uint16)
    one.run(compiled(spec))
    assert one.nmse() < F16


def test_a_wrong_result_would_be_seen(problem, decode_spec, compiled):
    spec = decode_spec()
    one = problem(spec, (128, 7))
    one.run(compiled(spec))
    one.values[0, 0, 0] += 0.5
    assert one.nmse() > F16


def test_reads_every_sector_once(problem, decode_spec, compiled):
    one = problem(decode_spec(), (128, 128))
    report = one.run(compiled(one.spec))
    lines = compiled(one.spec).ptx.splitlines()
    streamed = [row for row in report.globals if STREAM in lines[row.line - 1]]
    asked = 2 * sum(row.bytes for row in streamed)
    assert streamed
    assert all(row.taken == row.ideal for row in streamed)
    # a warp asks for one step more than it has, so at most twice the cache
    assert asked <= 2 * 2 * 2 * one.spec.cache_bytes


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120a"])
@pytest.mark.parametrize("cache", ["f16", "kv4"])
def test_assembles_without_spills(decode_spec, compiled, arch, cache):
    try:
        ptxas.tool("ptxas")
    except GpuError as error:
        pytest.skip(error.message)
    image = compiled(decode_spec(cache=cache, splits=8, warps=4), arch)
    made = ptxas.assemble(image.ptx, arch)
    assert made.spills == 0
    assert made.registers * image.block[0] * 2 <= 65536  # two blocks a multiprocessor


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head_dim": 96}, r"head dimension 96 \(accepted: 64 or 128\)"),
        ({"group": 17}, r"a group of 17 query heads"),
        ({"cache": "kv3"}, r"a cache of 'kv3' \(accepted: f16, bf16, kv8"),
        ({"cache": "kv2", "head_dim": 64}, r"a 'kv2' cache of rows of 64"),
        ({"cache": "kv4(128)"}, r"a group of 128 keys \(accepted: 16, 32, 64 tokens"),
        ({"cache": "kv4-i8"}, r"a cache of 'kv4-i8'"),
        ({"cache": "gear4(2,1,32,32)"}, r"a cache of 'gear4\(2,1,32,32\)'"),
        ({"cache": "lowrank"}, r"a cache of 'lowrank'"),
        ({"cache": "f32"}, r"a cache of 'f32'"),
        ({"room": 5}, r"room for 5 tokens as they are in 'f16' \(accepted: 0\)"),
        ({"cache": "kivi4(32,32)"}, r"room for 0 .* in 'kivi4\(32,32\)' \(accepted: 97 or more"),
        ({"cache": "kv4", "room": 65, "block": 64}, r"blocks of 64 tokens of 'kv4'"),
        ({"cache": "kivi4(32,96)", "room": 161}, r"keeps 96 tokens as they are and rounds 64"),
        ({"context": 100}, r"a cache of 100 tokens \(accepted: a multiple of 16\)"),
        ({"cache": "kv4", "context": 96}, r"a cache of 96 tokens \(accepted: a multiple of 64\)"),
        ({"scale": 0.0}, r"a scale of 0\.0"),
        ({"block": 24}, r"blocks of 24 tokens \(accepted: a multiple of 16 that divides 128"),
        ({"block": 48}, r"blocks of 48 tokens"),
    ],
)
def test_refuses(decode_spec, change, said):
    with pytest.raises(NybbleError, match=said):
        decode_spec(**change)


def test_knows_the_size_of_a_cache():
    spec = DecodeSpec(2, 8, 4, 128, 32768, 0.1, cache="kv4")
    assert spec.cache_bytes == 2 * 8 * 32768 * 64
