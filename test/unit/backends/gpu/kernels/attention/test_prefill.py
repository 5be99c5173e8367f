"""Prefill attention in the simulator against f64: tails, past keys, lists of blocks."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.gpu import ptxas
from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.kernels.attention.prefill import ROWS, PrefillSpec, prefill_image
from nybble.backends.gpu.kernels.attention.spec import AttentionError
from nybble.backends.gpu.sim.simulate import simulate

SMALL = PrefillSpec(2, 1, 2, 64, 192, 70, 0.125)


def lists(spec, lengths, random):
    """For each 64 tokens of a head some of the blocks up to its last one, which is among them."""
    table = np.zeros((spec.sequences, spec.heads, spec.row_tiles, spec.context // ROWS), np.int32)
    counts = np.zeros(table.shape[:3], np.int32)
    for place in np.ndindex(*counts.shape):
        rows = min(spec.tokens, (place[2] + 1) * ROWS)
        last = (lengths[place[0]] - spec.tokens + rows - 1) // ROWS
        chosen = [one for one in range(last) if random.random() < 0.5]
        counts[place] = len(chosen) + 1
        table[place][: counts[place]] = [last, *chosen]
    return {"block_list": table, "block_counts": counts}


def exact(spec, arguments):
    """f64, shaped as the query."""
    q, k, v = (arguments[name].astype(np.float64) for name in "qkv")
    result, keys = np.zeros(q.shape), np.arange(spec.context)
    for sequence, head in np.ndindex(spec.sequences, spec.heads):
        past = arguments["lengths"][sequence] - spec.tokens
        seen = keys <= past + np.arange(spec.tokens)[:, None]
        for tile in range(spec.row_tiles if spec.block_lists else 0):
            count = arguments["block_counts"][sequence, head, tile]
            named = arguments["block_list"][sequence, head, tile, :count]
            seen[tile * ROWS : (tile + 1) * ROWS] &= np.isin(keys // ROWS, named)
        cached = sequence, head // spec.group
        weights = np.exp(q[sequence, :, head] @ k[cached].T * spec.scale) * seen
        total = np.maximum(weights.sum(1, keepdims=True), 1e-30)  # a row may see no key: 0
        result[sequence, :, head] = weights / total @ v[cached]
    return result


@pytest.mark.parametrize(
    ("lengths", "changes"),
    [
        ((150, 70), {}),
        ((64, 190), {"tokens": 64, "head_dim": 128, "scale": 0.09}),
        ((1, 129), {"tokens": 1, "kv_heads": 2, "group": 1}),
        ((130, 192), {"block_lists": True}),
    ],
)
def test_attends(lengths, changes):
    spec, random = replace(SMALL, **changes), np.random.default_rng(2)
    cache = (spec.sequences, spec.kv_heads, spec.context, spec.head_dim)
    query = (spec.sequences, spec.tokens, spec.heads, spec.head_dim)
    shapes = {"q": query, "k": cache, "v": cache}
    made = {n: random.standard_normal(shape).astype(np.float16) for n, shape in shapes.items()}
    made |= {"lengths": np.array(lengths, np.int32), "out": np.full(query, np.nan, np.float16)}
    if spec.block_lists:
        made |= lists(spec, lengths, random)
    report = simulate(prefill_image(spec, find_arch("sm_90a")), made)
    report.check()
    wanted = exact(spec, made)
    error = ((made["out"].astype(np.float64) - wanted) ** 2).sum() / (wanted**2).sum()
    assert error < 1e-6
    assert report.bank_conflicts == 0


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_assembles_without_spills(arch):
    try:
        ptxas.tool("ptxas")
    except GpuError as error:
        pytest.skip(error.message)
    spec = replace(SMALL, head_dim=128, half="bf16")
    assert ptxas.assemble(prefill_image(spec, find_arch(arch)).ptx, arch).spills == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head_dim": 80}, r"head dimension 80 \(accepted: 64 or 128\)"),
        ({"half": "kv8"}, r"a cache of 'kv8' \(accepted: f16 or bf16\)"),
        ({"context": 100}, r"a cache of 100 tokens \(accepted: a multiple of 64\)"),
        ({"tokens": 193}, r"193 new tokens \(accepted: 1 to 192"),
        ({"scale": -1.0}, r"a scale of -1\.0"),
    ],
)
def test_refuses(change, said):
    with pytest.raises(AttentionError, match=said):
        replace(SMALL, **change)
