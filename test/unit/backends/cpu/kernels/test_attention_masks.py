"""Attention under every kind of mask: against the reference, and without reading what is hidden."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.cpu.kernels.attention import Attention
from nybble.backends.cpu.kernels.attention_merge import AttentionMerge
from nybble.backends.cpu.kernels.attention_parts import PartsFinish, PartsMerge
from nybble.backends.cpu.kernels.attention_walk import KeyList
from nybble.backends.cpu.kernels.kv import KvCache
from nybble.dialects.numpy_ref.attention import attention, partial
from nybble.dialects.numpy_ref.merge import finish, merge
from nybble.dialects.sparse_attn.masks import block_form, dense, parse

THREADS = 2
BOUND = 1e-5
CACHE = KvCache(2, 16, 512)
STATIC = (
    "sink(4)+window(100)",
    "streaming(70,1)",
    "stride(64,3)",
    "stride(48,4,2)+window(20)",
    "stride(100,2,1)&window(300)",
    "(sink(130)+window(9))&stride(16,2)",
    "heads(0:streaming(4,64);else:causal)",
    "heads(1:stride(64,2,1);else:sink(1))",
)
LISTED = (
    "blocks(64)",
    "pages(128,2)+window(10)",
    "windowkv(64,2,16)+sink(3)",
    "heads(0:blocks(64)&window(256);else:pages(64,3))",
)


class Case:
    """Random inputs of a mask; lists of one row, or a row for each run of queries."""

    def __init__(self, rng, spec, n, pos):
        self.spec, self.n, self.pos, self.end = spec, n, pos, pos + n
        shape = (spec.cache.kv_heads, spec.cache.padded, spec.cache.head_dim)
        self.q = rng.standard_normal((n, spec.width)).astype(np.float32) * 2
        self.k, self.v = rng.standard_normal((2, *shape)).astype(np.float32)
        self.lists = [self._list(rng, one) for one in spec.lists]
        self.k[:, self.end :] = np.nan
        self.v[:, self.end :] = np.nan

    def _list(self, rng, one):
        runs = self.end // one.selection.size + 1
        shape = (self.spec.cache.kv_heads, one.rows, one.entries)
        return rng.integers(-1, runs, shape).astype(np.int32)

    def lists_of_call(self):
        """The lists as the mask wants them: as many rows as the call has runs of queries."""
        found = []
        for one, entries in zip(self.spec.lists, self.lists, strict=True):
            size = one.selection.size
            rows = (self.end - 1) // size - self.pos // size + 1
            found.append(entries[:, :1] if one.rows == 1 else entries[:, :rows])
        return found

    def hide(self, rows):
        """Make what no block of `rows` queries reads NaN."""
        spec = self.spec
        form = block_form(
            spec.mask, (self.pos, self.end), (rows, spec.key_block),
            spec.cache.kv_heads, self.lists_of_call(),
        )  # fmt: skip
        for head in range(spec.cache.kv_heads):
            unread = ~form.states[head].any(axis=0)
            for block in np.flatnonzero(unread):
                self.k[head, form.keys[block] : form.keys[block + 1]] = np.nan
                self.v[head, form.keys[block] : form.keys[block + 1]] = np.nan

    def inputs(self):
        lists = {f"list{i}": one for i, one in enumerate(self.lists)}
        return {"q": self.q, "k": self.spec.cache.keys_from_rows(self.k), "v": self.v, **lists}

    def want(self):
        spec = self.spec
        places = np.arange(self.pos, self.end)
        lists = self.lists_of_call()
        seen = dense(spec.mask, places, np.arange(self.end), spec.cache.kv_heads, lists)
        k, v = np.nan_to_num(self.k), np.nan_to_num(self.v)
        return attention(self.q, k, v, self.pos, scale=spec.scale, seen=seen)


def spec_of(text, rows, list_rows=1, **options):
    mask = parse(text)
    lists = tuple(KeyList(one, list_rows, one.count or 3) for one in mask.selections)
    return Attention(CACHE, 6, rows, 0.2, THREADS, mask, lists=lists, **options)


def check(run, case, threads=1, bound=BOUND):
    out = run(case.spec, n=case.n, pos=case.pos, threads=threads, **case.inputs())["out"]
    got, want = out[: case.q.size].reshape(case.q.shape), case.want()
    np.testing.assert_allclose(got, want, atol=bound * max(1, np.abs(want).max()))


@pytest.mark.parametrize("text", [*STATIC[:2], STATIC[-1], LISTED[0], LISTED[-1]])
def test_decode(run, rng, text):
    spec = spec_of(text, 1)
    for pos in (0, 1, 63, 64, 200, 511):
        case = Case(rng, spec, 1, pos)
        case.hide(1)
        check(run, case, threads=2)


@pytest.mark.parametrize(
    ("text", "list_rows"),
    [*((text, 1) for text in STATIC + LISTED[:2]), *((t, 10) for t in LISTED)],
)
def test_prefill(run, rng, text, list_rows):
    spec = spec_of(text, 70, list_rows)
    for n, pos in ((1, 0), (70, 0), (33, 50), (70, 442)):
        case = Case(rng, spec, n, pos)
        case.hide(spec.shape.row_block)
        check(run, case)


@pytest.mark.parametrize("text", ["pages(64,2)+sink(3)", "pages(128,2)&window(200)"])
def test_a_list_for_each_row(run, rng, text):
    mask = parse(text)
    lists = tuple(KeyList(one, 40, 2, of_each_row=True) for one in mask.selections)
    spec = Attention(CACHE, 6, 40, 0.2, THREADS, mask, lists=lists)
    for n, pos in ((1, 0), (40, 0), (33, 470)):
        case = Case(rng, spec, n, pos)
        case.lists = [one[:, :n] for one in case.lists]
        out = run(spec, n=n, pos=pos, threads=2, **case.inputs())["out"]
        seen = dense(mask, np.arange(pos, pos + n), np.arange(pos + n), 2, case.lists, (True,))
        k, v = np.nan_to_num(case.k), np.nan_to_num(case.v)
        want = attention(case.q, k, v, pos, scale=spec.scale, seen=seen)
        np.testing.assert_allclose(out[: want.size].reshape(want.shape), want, atol=BOUND * 10)


def test_a_tile_of_many_rows_has_no_list_of_each():
    (selection,) = parse("pages(64,2)").selections
    lists = (KeyList(selection, 40, 2, of_each_row=True),)
    with pytest.raises(ValueError, match=r"pages\(64,2\) has a list for each row of a tile"):
        Attention(CACHE, 6, 40, 0.2, THREADS, selection, lists=lists, row_block=4)


@pytest.mark.parametrize(("text", "splits"), [("stride(64,3,2)", 5), ("pages(64,3)", 2)])
def test_splits(run, rng, text, splits):
    spec = spec_of(text, 1, splits=splits)
    for pos in (0, 63, 130, 511):
        case = Case(rng, spec, 1, pos)
        parts = run(spec, n=1, pos=pos, threads=2, **case.inputs())["partial"]
        out = run(AttentionMerge(spec.partial), partial=parts)["out"]
        np.testing.assert_allclose(out, case.want()[0], atol=BOUND * 10)


@pytest.mark.parametrize(("dtype", "key_block"), [("f16", 16), ("f32", 128), ("f16", 128)])
def test_sizes_of_blocks_and_types(run, rng, dtype, key_block):
    spec = spec_of("sink(20)+stride(128,2)&window(300)", 20, key_block=key_block)
    spec = replace(spec, cache=replace(CACHE, dtype=dtype))
    case = Case(rng, spec, 20, 400)
    case.k, case.v = (x.astype(spec.cache.empty().dtype) for x in (case.k, case.v))
    check(run, case)


@pytest.mark.parametrize(
    ("text", "list_rows", "fault"),
    [
        ("pages(16,2)", 1, r"pages\(16,2\) lists runs of 16 keys, which is no multiple of 64"),
        ("blocks(64)", 0, r"0 lists for mask blocks\(64\)"),
    ],
)
def test_masks_that_a_kernel_cannot_have(text, list_rows, fault):
    mask = parse(text)
    lists = (KeyList(mask, 1, 2),) * list_rows
    with pytest.raises(ValueError, match=fault):
        Attention(CACHE, 6, 1, 0.2, THREADS, mask, lists=lists)


def test_a_tile_of_more_queries_than_a_list_is_for():
    mask = parse("blocks(16)")
    lists = (KeyList(mask, 4, 3),)
    with pytest.raises(ValueError, match="fewer than the 32 of a tile"):
        Attention(CACHE, 2, 70, 0.2, THREADS, mask, lists=lists, key_block=16, row_block=32)
    assert Attention(CACHE, 2, 70, 0.2, THREADS, mask, lists=lists, key_block=16).shape.rows == 16


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("softmax", ["two_pass", "unified"])
def test_kinds_of_softmax(run, rng, rows, softmax):
    spec = spec_of("sink(5)+window(150)", rows, softmax=softmax)
    for scale in (0.01, 1, 200, 1e4):
        case = Case(rng, spec, rows, 300)
        case.q *= np.float32(scale)
        inputs, place = case.inputs(), {"n": rows, "pos": 300}
        out = run(spec, **place, **inputs)["out"][: case.q.size]
        online = run(replace(spec, softmax="online"), **place, **inputs)["out"][: case.q.size]
        np.testing.assert_allclose(out, online, atol=1e-6 * np.abs(online).max())


def test_a_fixed_maximum_that_is_far_off(run, rng):
    """All logits near 3000 or -3000: sums overflow, or nothing is left of them."""
    spec = spec_of("causal", 20, softmax="unified")
    case = Case(rng, spec, 20, 30)
    case.k[:] = np.where(np.isnan(case.k), case.k, 1 + case.k / 1000)
    for sign in (1, -1):
        case.q[:] = sign * 1000
        check(run, case, bound=1e-3)  # logits near 3000 hold 2^-12


def test_parts_are_joined_and_divided(run, rng):
    """A prefix that texts share, their own keys, and rows that see nothing of the one or both."""
    rows, mask = 20, parse("sink(30)&stride(64,2,1)+window(9)")
    prefix = Attention(CACHE, 6, rows, 0.2, THREADS, mask, parts=True, shared=True)
    own = replace(prefix, mask=parse("stride(16,2,1)"), shared=False, key_block=16)
    cases = [Case(rng, prefix, rows, 90), Case(rng, own, rows, 0)]
    found = [run(c.spec, n=rows, pos=c.pos, threads=2, **c.inputs()) for c in cases]
    shape = prefix.part
    sides = zip(("left_", "right_"), found, strict=True)
    named = {side + part: f[part] for side, f in sides for part in ("max", "sum", "acc")}
    joined = run(PartsMerge(shape), n=rows, threads=2, **named)
    out = run(PartsFinish(shape), n=rows, sum=joined["sum"], acc=joined["acc"])["out"]

    level = dense(mask, np.array([90]), np.arange(91), 2).repeat(rows, axis=1)
    level = np.pad(level, ((0, 0), (0, 0), (0, rows - 1)))
    wants = [
        partial(cases[0].q, *clean(cases[0]), 90, scale=0.2, seen=level),
        partial(cases[1].q, *clean(cases[1]), 0, scale=0.2, seen=own_seen(own, rows)),
    ]
    for got, want in zip(found, wants, strict=True):
        np.testing.assert_allclose(got["max"][: rows * 6], want[0].reshape(-1), atol=1e-4)
    assert np.isneginf(found[1]["max"][: 16 * 6]).all()
    _, total, acc = merge(*wants)
    np.testing.assert_allclose(out[: acc.size], finish(total, acc).reshape(-1), atol=BOUND * 10)


@pytest.mark.parametrize("softmax", ["online", "two_pass", "unified"])
@pytest.mark.parametrize("text", ["causal", "window(3)", LISTED[1]])
@pytest.mark.parametrize("rows", [1, 20])
def test_a_row_before_the_text_is_0(run, rng, rows, text, softmax):
    case = Case(rng, spec_of(text, rows, softmax=softmax), rows, -1)
    out = run(case.spec, n=rows, pos=-1, threads=2, **case.inputs())["out"][: case.q.size]
    np.testing.assert_array_equal(out[: case.spec.width], 0)
    check(run, case)


def test_a_part_of_an_empty_cache_changes_no_other(run, rng):
    """Its maximum is -inf, its sum 0, and divided it is 0."""
    rows, text = 20, "sink(30)+window(9)"
    spec = spec_of(text, rows, parts=True, shared=True)
    empty, other = (Case(rng, spec, rows, pos) for pos in (-1, 90))
    empty.k[:], empty.v[:] = np.nan, np.nan
    none, some = (
        run(spec, n=rows, pos=one.pos, threads=2, **one.inputs()) for one in (empty, other)
    )
    count = rows * 6
    for name, want in (("max", -np.inf), ("sum", 0), ("acc", 0)):
        np.testing.assert_array_equal(none[name][:count], want)
    for left, right in ((none, some), (some, none)):
        sides = (("left_", left), ("right_", right))
        named = {side + part: f[part] for side, f in sides for part in ("max", "sum", "acc")}
        joined = run(PartsMerge(spec.part), n=rows, **named)
        for name in ("max", "sum", "acc"):
            np.testing.assert_array_equal(joined[name][:count], some[name][:count])
    out = run(PartsFinish(spec.part), n=rows, sum=none["sum"], acc=none["acc"])["out"]
    np.testing.assert_array_equal(out[: empty.q.size], 0)


def clean(case):
    return np.nan_to_num(case.k), np.nan_to_num(case.v)


def own_seen(spec, rows):
    return dense(spec.mask, np.arange(rows), np.arange(rows), 2)
