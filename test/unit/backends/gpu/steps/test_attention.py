"""Attention to listed blocks, and in parts that are merged, from a file to results in f64."""

import numpy as np
import pytest

from nybble.backends.gpu.kernels.attention.parts import FinishSpec, MergeSpec
from nybble.backends.gpu.kernels.attention.prefill import PrefillSpec
from nybble.backends.gpu.kernels.attention.spec import AttentionError, DecodeSpec
from nybble.dialects.errors import NybbleError

LOST = 4 * 2.0**-11
"""Error allowed, of the largest value: weights and results are rounded to f16."""
CACHE = "tensor<{}x{}x64xf16>"
LISTED = """
func.func @f(%q: tensor<{rows}x{width}xf32>, %k: {cache}, %v: {cache}, %p: index,
             %l: tensor<{heads}x{lists}x{entries}xi32>) -> tensor<{rows}x{width}xf32> {{
  %r = sparse_attn.attention %q, %k, %v at %p mask <"{mask}">
    selected %l : tensor<{heads}x{lists}x{entries}xi32> scale 1.25e-01
    : tensor<{rows}x{width}xf32>, {cache}, {cache} -> tensor<{rows}x{width}xf32>
  func.return %r : tensor<{rows}x{width}xf32>
}}
"""


def listed(mask, rows=1, heads=2, group=3, context=256, entries=4, lists=1):
    cache = CACHE.format(heads, context)
    return LISTED.format(
        mask=mask, rows=rows, width=heads * group * 64, cache=cache, heads=heads, lists=lists,
        entries=entries,
    )  # fmt: skip


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float16)


LISTS = {
    "some": [[3, -1, 0, 5], [1, 2, 3, 0]],
    "one of them twice": [[2, 2, 0, 2], [0, 0, 0, 0]],
    "none": [[-1, -1, -1, -1], [1, -1, -1, -1]],
}


@pytest.mark.parametrize(
    ("mask", "rows", "length"),
    [
        ("pages(64,4)", 1, 256), ("pages(64,4)", 1, 100), ("blocks(32)", 1, 77),
        ("pages(16,4)", 1, 60), ("blocks(64)", 8, 256), ("blocks(64)", 70, 200),
        ("pages(64,4)", 64, 64),
    ],
)  # fmt: skip
def test_attention_to_listed_blocks(launches, mask, rows, length):
    made = launches(listed(mask, rows))
    assert ["list" in one.kernel for one in made.launches] == [True, False]
    width = 2 * 3 * 64
    q, k, v = normal(rows, width), normal(2, 256, 64, seed=1), normal(2, 256, 64, seed=2)
    for entries in LISTS.values():
        table = np.array(entries, np.int32)[:, None]
        memory = made.run((q, k, v, None, table), length)
        found = memory[made.results[0]][: 2 * q.size].view(np.float16).reshape(q.shape)
        (exact,) = made.exact(q.astype(np.float32), k, v, length - rows, table)
        assert np.abs(found - exact).max() < LOST * np.abs(v).max()


def test_a_list_that_is_not_read_would_be_seen(launches):
    made = launches(listed("blocks(64)"))
    q, k, v = normal(1, 384), normal(2, 256, 64, seed=1), normal(2, 256, 64, seed=2)
    table, other = (np.array(LISTS[one], np.int32)[:, None] for one in ("some", "none"))
    memory = made.run((q, k, v, None, table), 256)
    found = memory[made.results[0]][: 2 * q.size].view(np.float16).reshape(q.shape)
    (exact,) = made.exact(q.astype(np.float32), k, v, 255, other)
    assert np.abs(found - exact).max() > 10 * LOST * np.abs(v).max()


PART = """
  %{n}m, %{n}s, %{n}a = sparse_attn.partial {shared} {q}, {k}, {v} at {p} mask <"causal">
    scale 1.25e-01 : {qt}, {cache}, {cache} -> {row}, {row}, {qt}
"""


def merged(texts, heads=2, group=2, context=512):
    """A text's own keys, and those that it has in common with others.

    Of one text both parts are of one token; of several the second is of the keys they share.
    """
    width = heads * group * 64
    cache = CACHE.format(heads, context)
    types = {"qt": f"tensor<{texts}x{width}xf32>", "row": f"tensor<{texts}x{heads * group}xf32>"}
    parts = [
        PART.format(
            n=n, q="%q", k=f"%{n}k", v=f"%{n}v", p=f"%{n}p", cache=cache,
            shared="shared" if texts > 1 else "", **types,
        )
        for n in "xy"
    ]  # fmt: skip
    arguments = ", ".join(f"%{n}{one}: {cache}" for n in "xy" for one in "kv")
    return f"""
func.func @f(%q: {types["qt"]}, {arguments}, %xp: index, %yp: index) -> {types["qt"]} {{
{parts[0]}{parts[1]}
  %m, %s, %a = sparse_attn.merge (%xm, %xs, %xa), (%ym, %ys, %ya) : {types["row"]}, {types["qt"]}
  %r = sparse_attn.finish %a by %s : {types["qt"]} by {types["row"]}
  func.return %r : {types["qt"]}
}}
"""


@pytest.mark.parametrize(
    ("texts", "group", "length"), [(1, 2, 100), (1, 16, 128), (3, 2, 500), (5, 4, 65), (20, 1, 7)]
)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_parts_over_shared_keys_are_merged(launches, arch, texts, group, length):
    made = launches(merged(texts, group=group), arch, texts)
    kinds = [type(made.lowering._steps[one.kernel].spec) for one in made.launches]
    assert kinds == [DecodeSpec, DecodeSpec, MergeSpec, FinishSpec]
    q = normal(texts, 2 * group * 64)
    caches = [normal(2, 512, 64, seed=i) for i in range(1, 5)]
    memory = made.run((q, *caches, None, None), length)
    found = memory[made.results[0]][: 4 * q.size].view(np.float32).reshape(q.shape)
    wide = q.astype(np.float32)
    (exact,) = made.exact(wide, *caches, length - 1, length - 1)
    assert np.abs(found - exact).max() < LOST * max(np.abs(one).max() for one in caches[1::2])
    alone = launches(merged(1, group=group), arch)
    other = alone.run((q[-1:], *caches, None, None), length)
    same = other[alone.results[0]][: 4 * q[-1:].size].view(np.float32)
    np.testing.assert_allclose(found[-1], same, rtol=1e-5, atol=1e-6)


def test_a_part_of_no_keys_weighs_nothing(launches):
    made = launches(merged(3), tokens=3)
    q, caches = normal(3, 256), [normal(2, 512, 64, seed=i) for i in range(1, 5)]
    memory = made.run((q, *caches, None, None), 0)
    found = memory[made.results[0]][: 4 * q.size].view(np.float32)
    assert not found.any()
    part = made.launches[0].buffers
    names = [one.name for one in made.images[made.launches[0].kernel].parameters]
    most = memory[part[names.index("max")]][: 4 * 12].view(np.float32)
    assert np.isneginf(most).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (listed("blocks(64)", lists=2, rows=8), "attention with a list of 2 row"),
        (listed("blocks(32)", rows=8), "attention of 8 tokens to blocks of 32 keys"),
        (listed("blocks(8)"), "blocks of 8 tokens"),
        (listed("heavy(4,16)"), r"attention with mask 'heavy\(4,16\)'"),
        (listed("pages(64,4)+window(16)"), "attention with mask .*window"),
        (merged(2).replace("shared", ""), "a part of attention of 2 tokens of one text"),
    ],
)
def test_what_has_no_kernel_is_refused(launches, text, message):
    with pytest.raises(NybbleError, match=message):
        launches(text, tokens=8)


def test_texts_share_the_keys_of_one_sequence():
    with pytest.raises(AttentionError, match="2 texts with the keys of 3 sequences"):
        DecodeSpec(3, 1, 1, 64, 64, 0.1, texts=2)


def test_prefill_reads_a_list_for_each_head_and_tile(launches):
    made = launches(listed("blocks(64)", 70), tokens=70)
    spec = made.lowering._steps[made.launches[1].kernel].spec
    assert isinstance(spec, PrefillSpec)
    lists = made.lowering._steps[made.launches[0].kernel].spec
    assert (spec.block_lists, lists.copies) == (True, 3 * 2)
