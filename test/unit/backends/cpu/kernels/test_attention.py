"""Attention against the f64 reference: offsets, tails, windows, soft cap, splits, threads."""

from dataclasses import replace

import numpy as np
import pytest

from nybble.backends.cpu import isa as levels
from nybble.backends.cpu.kernels.attention import Attention
from nybble.backends.cpu.kernels.attention_merge import AttentionMerge
from nybble.backends.cpu.kernels.attention_shape import ACCUMULATORS, RegisterTile, accumulators
from nybble.backends.cpu.kernels.kv import KvCache
from nybble.dialects.numpy_ref.attention import attention
from nybble.dialects.sparse_attn.masks import Causal, Window, dense, parse

THREADS = 4
BOUND = 1e-5


class Case:
    """Random queries and a cache whose unwritten positions are NaN."""

    def __init__(self, rng, spec, n, pos):
        cache = spec.cache
        shape = (cache.kv_heads, cache.padded, cache.head_dim)
        self.spec, self.n, self.pos = spec, n, pos
        self.q = rng.standard_normal((n, spec.width)).astype(np.float32) * 2
        self.k, self.v = rng.standard_normal((2, *shape)).astype(cache.empty().dtype)
        self.k[:, pos + n :] = np.nan
        self.v[:, pos + n :] = np.nan

    def run(self, run, threads=1):
        k, v = self.spec.cache.keys_from_rows(self.k), self.v
        return run(self.spec, n=self.n, pos=self.pos, threads=threads, q=self.q, k=k, v=v)

    def want(self):
        spec, end = self.spec, self.pos + self.n
        return attention(
            self.q,
            self.k,
            self.v,
            self.pos,
            scale=spec.scale,
            seen=dense(spec.mask, np.arange(self.pos, end), np.arange(end), spec.cache.kv_heads),
            softcap=spec.softcap,
        )

    def check(self, run, relative_error, threads=1):
        out = self.run(run, threads)["out"]
        assert relative_error(out[: self.q.size].reshape(self.q.shape), self.want()) <= BOUND
        assert np.all(np.isnan(out[self.q.size :]))


SHAPES = [(9, 3, 64), (4, 1, 128), (2, 2, 80), (7, 1, 16), (8, 1, 32)]


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), SHAPES)
def test_decode(run, rng, relative_error, heads, kv_heads, dim):
    spec = Attention(KvCache(kv_heads, dim, 300), heads, 1, dim**-0.5, THREADS)
    for pos in (0, 1, 15, 16, 63, 64, 127, 200, 299):
        Case(rng, spec, 1, pos).check(run, relative_error)


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), SHAPES)
def test_prefill(run, rng, relative_error, heads, kv_heads, dim):
    spec = Attention(KvCache(kv_heads, dim, 300), heads, 70, dim**-0.5, THREADS)
    for n, pos in ((1, 0), (2, 40), (17, 63), (33, 0), (70, 230)):
        Case(rng, spec, n, pos).check(run, relative_error)


def test_every_number_of_rows(run, rng, relative_error):
    spec = Attention(KvCache(1, 16, 128), 2, 33, 0.25, THREADS)
    for n in range(1, 34):
        Case(rng, spec, n, pos=50).check(run, relative_error)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("window", [None, 1, 16, 50])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_options(run, rng, relative_error, rows, dtype, window, softcap):
    cache = KvCache(2, 32, 200, dtype)
    mask = Causal() if window is None else Window(window)
    spec = Attention(cache, 6, rows, 0.3, THREADS, mask, softcap)
    for n, pos in ((1, 0), (1, 199), (rows, 64), (rows, 130)):
        Case(rng, spec, n, pos).check(run, relative_error)


def test_window_skips_blocks_that_nobody_sees(run, rng):
    spec = Attention(KvCache(1, 32, 256), 1, 16, 0.3, THREADS, Window(20))
    case = Case(rng, spec, 16, 200)
    case.k[:, :128] = np.nan
    case.v[:, :128] = np.nan
    assert np.all(np.isfinite(case.run(run)["out"][: case.q.size]))


@pytest.mark.parametrize("rows", [1, 50])
def test_result_does_not_depend_on_threads(run, rng, rows):
    case = Case(rng, Attention(KvCache(3, 32, 256), 6, rows, 0.2, THREADS), rows, 180)
    outs = [case.run(run, threads)["out"] for threads in (1, 2, 3, 4)]
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


@pytest.mark.parametrize("mask", ["causal", "window(100)"])
@pytest.mark.parametrize("splits", [2, 5])
def test_splits_and_merge(run, rng, relative_error, splits, mask):
    spec = Attention(KvCache(3, 64, 512), 9, 1, 0.125, THREADS, parse(mask), splits=splits)
    merge = AttentionMerge(spec.partial)
    for pos in (0, 63, 64, 200, 511):
        case = Case(rng, spec, 1, pos)
        parts = [case.run(run, threads)["partial"] for threads in (1, 2, 4)]
        outs = [run(merge, threads=t, partial=p)["out"] for t, p in enumerate(parts, 1)]
        assert relative_error(outs[0], case.want()[0]) <= BOUND
        for out in outs[1:]:
            np.testing.assert_array_equal(out, outs[0])


@pytest.mark.parametrize("rows", [1, 20])
def test_large_logits_do_not_overflow(run, rng, relative_error, rows):
    spec = Attention(KvCache(1, 16, 128), 1, rows, 1.0, THREADS)
    case = Case(rng, spec, rows, 90)
    case.q *= 1e4
    out = case.run(run)["out"][: case.q.size].reshape(case.q.shape)
    assert relative_error(out, case.want()) <= 1e-2  # logits near 1e5 hold 2^-7
    case.q *= 0
    out = case.run(run)["out"][: case.q.size].reshape(case.q.shape)
    assert relative_error(out, case.want()) <= BOUND


def test_a_nan_query_spoils_its_row_alone(run, rng):
    case = Case(rng, Attention(KvCache(1, 16, 128), 1, 20, 1.0, THREADS), 20, 3)
    case.q[7, 2] = np.nan
    out = case.run(run)["out"][: case.q.size].reshape(case.q.shape)
    np.testing.assert_array_equal(np.isnan(out).any(axis=1), np.arange(20) == 7)


@pytest.mark.parametrize(
    ("heads", "options", "fault"),
    [
        (5, {}, "5 query heads do not divide over 2 KV heads"),
        (4, {"softcap": 0.0}, "soft cap 0.0 is not positive"),
        (4, {"splits": 2}, "2 splits of 8 rows: only decode can split"),
        (4, {"key_block": 48}, "key block 48"),
    ],
)
def test_specifications_that_cannot_be(heads, options, fault):
    with pytest.raises(ValueError, match=fault):
        Attention(KvCache(2, 64, 64), heads, 8, 1.0, THREADS, **options)


def test_sums_of_a_tile_fit_the_registers():
    assert accumulators(levels.AMX) == ACCUMULATORS
    assert accumulators(levels.X86_64_V3) == accumulators(levels.NEON) == 4


@pytest.mark.parametrize(
    ("level", "dtype", "options", "block"),
    [
        (levels.AVX512_VNNI, "f32", {}, 32),
        (levels.AVX512_VNNI, "bf16", {}, 64),
        (levels.AVX512_VNNI, "f32", {"rows": 40}, 64),
        (levels.AVX512_VNNI, "f32", {"registers": RegisterTile(4, 1, 4)}, 64),
        (levels.AVX512_VNNI, "f32", {"mask": parse("stride(64,2)")}, 64),
        (levels.X86_64_V3, "f32", {}, 64),
    ],
)
def test_blocks_that_are_read_as_they_lie(level, dtype, options, block):
    cache = KvCache(2, 128, 256, dtype)
    spec = Attention(cache, 8, 1, 0.1, 1, accumulators=accumulators(level))
    spec = replace(spec, **options)
    assert spec.shape.near_block == block
    sums = spec.shape.value_rows * spec.shape.value_vectors
    assert sums <= accumulators(level)


@pytest.mark.parametrize("rows", [1, 33])
def test_size_of_a_tile_changes_no_bit(run, rng, rows):
    spec = Attention(KvCache(3, 32, 256), 9, rows, 0.2, THREADS)
    case = Case(rng, spec, rows, 100)
    want = case.run(run)["out"]
    case.spec = replace(spec, accumulators=4)
    np.testing.assert_array_equal(case.run(run)["out"], want)
