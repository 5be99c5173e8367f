"""Attention over caches with codes and what makes them codes, against the reference."""

import numpy as np
import pytest

from nybble.backends.cpu.isa import LEVELS, detect
from nybble.backends.cpu.kernels.attention import Attention
from nybble.backends.cpu.kernels.attention_merge import AttentionMerge
from nybble.backends.cpu.kernels.kv_append import KvQuantize
from nybble.backends.cpu.kernels.kv_pages import KvPages
from nybble.backends.cpu.kernels.mathlib import LOG2_E
from nybble.backends.cpu.kernels.rope import RopeAppend
from nybble.backends.cpu.machine import cpu_flags
from nybble.dialects.numpy_ref.attention import partial
from nybble.dialects.numpy_ref.merge import finish, merge
from nybble.dialects.sparse_attn.kv import KEYS, VALUES, KvError, parse, products
from nybble.dialects.sparse_attn.kv.corrections import Correction
from nybble.dialects.sparse_attn.masks import dense
from nybble.dialects.sparse_attn.masks import parse as parse_mask

THREADS = 2
BOUND = 2e-5
WEIGHTS_BOUND = 5e-3
"""Where a weight of 7 bits may fall on the other side of a half."""
ROTATION = (("cos", 1.0), ("sin", 0.0))
NAMES = ("kv8", "kv4", "kv2", "kivi4(32,32)", "kivi2(16,64)", "kivi2(32,64,64)")
CORRECTED = ("gear4(4,1,32,32)", "gear2(2,0,16,64,64)", "gear4(0,1,32,0)", "lowrank(7)")


def pages_of(name, dim=32, context=512, rows=70, heads=2):
    kv = parse(name)
    return KvPages(heads, dim, context, kv, kv.room(rows))


class Case:
    """Random queries and tokens; `end` tokens are in the cache."""

    def __init__(self, rng, spec, n, pos):
        pages = spec.cache
        shape = (pages.kv_heads, pages.padded, pages.head_dim)
        self.spec, self.n, self.pos, self.end = spec, n, pos, pos + n
        self.q = rng.standard_normal((n, spec.width)).astype(np.float32) * 2
        self.k, self.v = rng.standard_normal((2, *shape)).astype(np.float16)
        self.k *= np.float16(1) + np.arange(pages.head_dim, dtype=np.float16)  # KIVI's channels

    def inputs(self):
        pages = self.spec.cache
        return {
            "q": self.q,
            **pages.pack(KEYS, self.k, self.end),
            **pages.pack(VALUES, self.v, self.end),
        }

    def want(self):
        spec, kv = self.spec, self.spec.cache.format
        places = np.arange(self.pos, self.end)
        seen = dense(spec.mask, places, np.arange(self.end), spec.cache.kv_heads)
        first = kv.boundaries(places)
        coded = kv.is_code(np.arange(self.end), first[:, None])
        last = int(first.max())
        meant = kv.decoded(KEYS, self.k, last), kv.decoded(VALUES, self.v, last)
        known = {}
        if kv.integers and last:
            factor = spec.scale * LOG2_E
            known["scores"] = products.scores(kv, self.q, self.k, last, factor) / LOG2_E
            known["weighted"] = lambda weights: products.weighted(
                kv, weights, self.v, last, spec.key_block
            )
        left = partial(self.q, *meant, self.pos, scale=spec.scale, seen=seen & coded, **known)
        right = partial(self.q, self.k, self.v, self.pos, scale=spec.scale, seen=seen & ~coded)
        _, total, acc = merge(left, right)
        return finish(total, acc).reshape(self.q.shape)

    def run(self, run, threads=1):
        return run(self.spec, n=self.n, pos=self.pos, threads=threads, **self.inputs())

    def check(self, run, threads=1):
        got = self.run(run, threads)["out"][: self.q.size].reshape(self.q.shape)
        want = self.want()
        bound = WEIGHTS_BOUND if self.spec.integers else BOUND
        np.testing.assert_allclose(got, want, atol=bound * max(1, np.abs(want).max()))


def spec_of(name, rows, mask="causal", dim=32, heads=6, **options):
    return Attention(pages_of(name, dim), heads, rows, 0.02, THREADS, parse_mask(mask), **options)


@pytest.mark.parametrize(
    ("name", "key_block"), [*((name, 64) for name in NAMES), ("kv8", 16), ("kv2(32)", 32)]
)
def test_decode(run, rng, name, key_block):
    spec = spec_of(name, 1, key_block=key_block)
    for pos in (0, 1, 63, 64, 130, 300, 511):
        Case(rng, spec, 1, pos).check(run, threads=2)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *((name, "x86-64-v3") for name in ("kv4-i8", "kivi2(16,64)-i8")),
        *((name, detect(cpu_flags()).name) for name in ("kv8-i8", "kv4-i8", "kivi2(16,64)-i8")),
        ("kv8-i8", "aarch64-neon"),
    ],
)
def test_codes_as_integers(run, rng, name, level):
    """The last level has no products of integers; what this machine has beyond the first is used
    where a tile has sums for every plane of codes."""
    for rows, mask in ((1, "causal"), (40, "window(300)")):
        spec = spec_of(name, rows, mask, isa=LEVELS[level])
        for n, pos in ((1, 130), (rows, 460)):
            Case(rng, spec, n, pos).check(run, threads=2)


@pytest.mark.parametrize(
    ("name", "rows", "key_block"),
    [*((name, 1, 64) for name in CORRECTED), (CORRECTED[0], 40, 16), ("lowrank(7)", 40, 64)],
)
def test_corrected_codes(run, rng, name, rows, key_block):
    spec = spec_of(name, rows, key_block=key_block)
    for n, pos in ((1, 200), (rows, 460)):
        Case(rng, spec, n, pos).check(run, threads=2)


@pytest.mark.parametrize(("name", "dim"), [*((name, 32) for name in CORRECTED), (CORRECTED[0], 96)])
def test_pages_get_the_corrections_of_the_reference(run, rng, name, dim):
    pages = pages_of(name, dim)
    form, (pos, n) = pages.format, (190, 70)
    tokens = rng.standard_normal((2, pages.kv_heads, pages.padded, dim)).astype(np.float16)
    tokens[:, 0, :, 3] = 0  # a line without a range
    tokens[:, 1, :64] = tokens[:, 1, :1]  # a matrix of rank 1
    tokens[0, 0, 130, 5] = 1000
    first, last = (form.boundary(one) for one in (pos - 1, pos + n - 1))
    sides = tuple(zip((KEYS, VALUES), tokens, strict=True))
    rings = {side[0]: pages.pack(side, one, pos + n)[side[0]] for side, one in sides}
    found = run(KvQuantize(pages, 2), n=n, pos=pos, threads=2, **rings)
    assert last - first >= form.page
    for side, one in sides:
        whole = pages.pack(side, one, pos + n)
        for part in [spec.name for spec in pages.buffers_of(side)][1:]:
            mine, wanted = found[part], whole[part]
            if not part.endswith("_fix"):
                mine, wanted = (tokens_of(pages, part, flat) for flat in (mine, wanted))
                np.testing.assert_array_equal(mine[:, first:last], wanted[:, first:last])
                continue
            for page in range(first // form.page, last // form.page):
                a, b = (added_of(pages, side, flat, page) for flat in (mine, wanted))
                np.testing.assert_allclose(a, b, atol=3e-3 * max(1, np.abs(b).max()))


def added_of(pages, side, flat, page):
    """What the corrections of a page add: f32 [kv_heads, lines, length]."""
    form, heads = pages.format, pages.kv_heads
    (n, m), r = form.sizes(side, pages.head_dim), form.rank
    records = flat.reshape(heads, pages.padded // form.page, -1)[:, page]
    cuts = np.cumsum([r * n, r * m, *((2 * n, 2 * n) if form.outliers else ())])[:-1]
    left, right, *ends = np.split(records, cuts, axis=1)
    ends = [one.reshape(heads, 2, n) for one in ends] or (None, None)
    return Correction(left.reshape(heads, r, n), right.reshape(heads, r, m), *ends).added()


@pytest.mark.parametrize("name", NAMES)
def test_prefill(run, rng, name):
    spec = spec_of(name, 70)
    for n, pos in ((1, 0), (70, 0), (33, 50), (70, 200), (17, 495)):
        Case(rng, spec, n, pos).check(run)


@pytest.mark.parametrize(
    ("name", "dim", "heads", "rows"),
    [("kv4", 16, 2, 1), ("kv2", 80, 2, 1), ("kivi2(16,16)", 80, 4, 20), ("kv8", 128, 14, 1)],
)
def test_heads(run, rng, name, dim, heads, rows):
    Case(rng, spec_of(name, rows, dim=dim, heads=heads), rows, 470).check(run)


@pytest.mark.parametrize(
    ("mask", "softmax", "rows"),
    [
        ("window(100)", "online", 1),
        ("sink(4)+window(70)", "two_pass", 40),
        ("stride(64,3,1)&window(300)", "unified", 1),
        ("window(100)", "unified", 40),
    ],
)
def test_masks_and_kinds_of_softmax(run, rng, mask, softmax, rows):
    spec = spec_of("kv4", rows, mask, softmax=softmax)
    for n, pos in ((1, 100), (rows, 63), (rows, 440)):
        Case(rng, spec, n, pos).check(run)


def test_splits(run, rng):
    spec = spec_of("kivi4(32,32)", 1, splits=3)
    case = Case(rng, spec, 1, 400)
    parts = case.run(run, 2)["partial"]
    out = run(AttentionMerge(spec.partial), partial=parts)["out"]
    np.testing.assert_allclose(out, case.want()[0], atol=BOUND * 10)


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        *(("kv8", 32), ("kv4", 80), ("kv2", 80)),
        *(("kivi4(32,32)", 96), ("kivi2(16,64)", 32), ("kivi2(32,32,128)", 32)),
    ],
)
def test_pages_become_the_codes_of_the_reference(run, rng, name, dim):
    pages = pages_of(name, dim)
    size, (pos, n) = pages.format.page, (190, 70)
    tokens = rng.standard_normal((2, pages.kv_heads, pages.padded, dim)).astype(np.float16)
    tokens[:, 0, :, 3] = 0  # groups without a range
    tokens[:, 1, :64, 5] = 6e-8 * rng.integers(0, 3, 64)  # denormal ones
    tokens[0, 0, 130, :] = 65504
    first, last = (pages.format.boundary(one) for one in (pos - 1, pos + n - 1))
    want = [
        pages.pack(side, one, pos + n) for side, one in zip((KEYS, VALUES), tokens, strict=True)
    ]
    rings = {name: one[name] for name, one in zip("kv", want, strict=True)}
    found = run(KvQuantize(pages), n=n, pos=pos, threads=2, **rings)
    assert last - first >= size
    for side, expected in zip((KEYS, VALUES), want, strict=True):
        mine = {one.name: found[one.name] for one in pages.buffers_of(side)}
        for part in (f"{side[0]}_codes", f"{side[0]}_scales"):
            a, b = (tokens_of(pages, part, one[part]) for one in (mine, expected))
            np.testing.assert_array_equal(a[:, first:last], b[:, first:last])


def tokens_of(pages, part, flat):
    """[kv_heads, tokens, ..] of codes or scales, each repeated for the tokens that it holds for."""
    heads = pages.kv_heads
    if part == "k_codes":
        rows = flat.reshape(heads, pages.padded // 16, -1).repeat(16, axis=1)
    elif part == "k_scales":
        rows = flat.reshape(heads, pages.key_groups, -1).repeat(pages.format.key_group, axis=1)
    elif part == "v_codes":
        rows = flat.reshape(heads, pages.padded // pages.span, -1).repeat(pages.span, axis=1)
    else:
        rows = flat.reshape(heads, pages.value_groups, 2, pages.padded).transpose(0, 3, 1, 2)
    return rows


def test_one_row_turns_the_page_it_leaves_behind_into_codes(run, rng):
    pages = pages_of("kivi4(32,32)")
    tokens = rng.standard_normal((2, pages.kv_heads, pages.padded, pages.head_dim))
    tokens = tokens.astype(np.float16)
    pos = 160  # the boundary goes from 64 to 128
    want = [pages.pack(side, one, pos) for side, one in zip((KEYS, VALUES), tokens, strict=True)]
    rows = {name: tokens[i, :, pos].astype(np.float32) for i, name in enumerate(("new_k", "new_v"))}
    tables = {name: np.full(pages.context * 16, value, np.float32) for name, value in ROTATION}
    rings = {name: one[name] for name, one in zip("kv", want, strict=True)}
    spec = RopeAppend(pages, 2, 1)
    found = run(spec, n=1, pos=pos, threads=2, q=rows["new_k"], **rows, **tables, **rings)
    for side, expected in zip((KEYS, VALUES), want, strict=True):
        for part in (f"{side[0]}_codes", f"{side[0]}_scales"):
            a, b = (tokens_of(pages, part, one[part]) for one in (found, expected))
            np.testing.assert_array_equal(a[:, 64:128], b[:, 64:128])
    ring = pages.exact.keys_as_rows(found["k"])  # nothing is pinned
    np.testing.assert_array_equal(ring[:, pos % pages.exact.padded], tokens[0, :, pos])


def test_pinned_tokens_are_read_as_they_are(run, rng):
    """The first ones have codes too, which nothing reads; the ring no longer has them."""
    case = Case(rng, spec_of("kivi2(32,64,64)", 20), 20, 480)
    inputs = case.inputs()
    pages = case.spec.cache
    codes = inputs["v_codes"].reshape(pages.kv_heads, pages.padded // pages.span, -1)
    codes[:, : pages.format.pinned // pages.span] = 0
    assert pages.exact.padded < case.pos
    case.q /= 20  # so that all keys count
    inputs["q"] = case.q
    out = run(case.spec, n=case.n, pos=case.pos, **inputs)["out"][: case.q.size]
    np.testing.assert_allclose(out.reshape(case.q.shape), case.want(), atol=BOUND * 10)
    inputs["v"].reshape(pages.kv_heads, pages.exact.slots, -1)[:, pages.exact.padded :] += 1
    other = run(case.spec, n=case.n, pos=case.pos, **inputs)["out"][: case.q.size]
    assert np.abs(other - out).max() > 1e-2


def test_a_wrong_code_would_be_seen(run, rng):
    case = Case(rng, spec_of("kv2", 1), 1, 300)
    inputs = case.inputs()
    inputs["v_codes"] = inputs["v_codes"] ^ np.int8(1)
    out = run(case.spec, n=1, pos=300, **inputs)["out"]
    assert np.abs(out - case.want()[0]).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "dim", "context", "said"),
    [
        (
            "kivi4",
            80,
            512,
            r"kivi4 has groups of 32 features of heads of 80 .accepted: groups of 16",
        ),
        (
            "kivi4",
            32,
            128,
            r"keeps 128 tokens as they are and rounds 64 at once, of a context of 128",
        ),
    ],
)
def test_caches_that_cannot_be(name, dim, context, said):
    with pytest.raises(KvError, match=said):
        pages_of(name, dim, context)


def test_blocks_lie_inside_pages():
    with pytest.raises(ValueError, match="key block 128 does not divide the pages of kv4"):
        spec_of("kv4", 1, key_block=128)
