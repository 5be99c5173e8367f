"""Rotary embedding with KV append against the references."""

import numpy as np
import pytest

from nybble.backends.cpu.kernels.kv import KvCache
from nybble.backends.cpu.kernels.rope import HeadNorm, Rope, RopeAppend
from nybble.dialects.numpy_ref.hadamard import hadamard
from nybble.dialects.numpy_ref.norm import head_rms_norm
from nybble.dialects.numpy_ref.rope import append_kv, rope, rope_tables

CONTEXT = 100


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(9, 3, 64), (2, 2, 80), (4, 1, 16)])
@pytest.mark.parametrize("norm", [None, HeadNorm(1e-6), HeadNorm(1e-5, offset=True)])
def test_rope_append(run, rng, relative_error, dtype, heads, kv_heads, dim, norm):
    cache = KvCache(kv_heads, dim, CONTEXT, dtype)
    cos, sin = rope_tables(CONTEXT, dim)
    for rows, n, pos, threads in ((1, 1, 0, 1), (1, 1, 99, 2), (40, 33, 14, 1), (40, 5, 95, 4)):
        q, k, v = (
            rng.standard_normal((n, count * dim)).astype(np.float32)
            for count in (heads, kv_heads, kv_heads)
        )
        inputs = {"q": q, "new_k": k, "new_v": v, "cos": cos, "sin": sin}
        old = rng.standard_normal((2, cache.size)).astype(cache.empty().dtype)
        inputs |= {"k": old[0], "v": old[1]}
        if norm:
            qw, kw = rng.standard_normal((2, dim)).astype(np.float32)
            inputs |= {"qw": qw, "kw": kw}
            q = head_rms_norm(q, qw, norm.eps, offset=norm.offset)
            k = head_rms_norm(k, kw, norm.eps, offset=norm.offset)
        spec = RopeAppend(cache, heads, rows, norm)
        out = run(spec, n=n, pos=pos, threads=threads, **inputs)
        assert relative_error(out["q"][: q.size].reshape(q.shape), rope(q, cos, sin, pos)) <= 1e-6
        keys = append_kv(cache.keys_as_rows(old[0]), rope(k, cos, sin, pos), pos)
        values = append_kv(old[1].reshape(kv_heads, cache.padded, dim), v, pos)
        np.testing.assert_array_equal(out["v"], values.reshape(-1))
        got = cache.keys_as_rows(out["k"])
        rounding = 1e-6 if dtype == "f32" else 1e-3
        np.testing.assert_allclose(got, keys, rtol=rounding, atol=1e-6)
        untouched = np.ones(cache.padded, bool)
        untouched[pos : pos + n] = False
        np.testing.assert_array_equal(got[:, untouched], keys[:, untouched])


@pytest.mark.parametrize("norm", [None, HeadNorm(1e-6)])
def test_rope_alone(run, rng, relative_error, norm):
    cos, sin = rope_tables(CONTEXT, 32)
    for rows, n, pos, threads in ((1, 1, 99, 2), (40, 33, 14, 2)):
        q, k = (rng.standard_normal((n, heads * 32)).astype(np.float32) for heads in (6, 2))
        inputs = {"a": q, "b": k, "cos": cos, "sin": sin}
        if norm:
            qw, kw = rng.standard_normal((2, 32)).astype(np.float32)
            inputs |= {"aw": qw, "bw": kw}
            q, k = head_rms_norm(q, qw, norm.eps), head_rms_norm(k, kw, norm.eps)
        spec = Rope((6, 2), 32, CONTEXT, rows, norm)
        out = run(spec, n=n, pos=pos, threads=threads, **inputs)
        for name, values in (("a", q), ("b", k)):
            got = out[name][: values.size].reshape(values.shape)
            assert relative_error(got, rope(values, cos, sin, pos)) <= 1e-6


def test_rotated_keys_are_kept_where_something_reads_them(run, rng, relative_error):
    cache = KvCache(2, 32, CONTEXT)
    cos, sin = rope_tables(CONTEXT, 32)
    q, k, v = rng.standard_normal((3, 1, 64)).astype(np.float32)
    spec = RopeAppend(cache, 2, 1, keeps_keys=True)
    inputs = {"q": q, "new_k": k, "new_v": v, "cos": cos, "sin": sin}
    out = run(spec, pos=7, **inputs, k=cache.empty(), v=cache.empty())
    assert relative_error(out["new_k"].reshape(1, 64), rope(k, cos, sin, 7)) <= 1e-6


@pytest.mark.parametrize("dim", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("norm", [None, HeadNorm(1e-6)])
def test_heads_are_transformed_after_their_rotation(run, rng, relative_error, dim, norm):
    cache = KvCache(2, dim, CONTEXT, "f32")
    cos, sin = rope_tables(CONTEXT, dim)
    for rows, n, pos, threads in ((1, 1, 7, 2), (40, 5, 90, 1)):
        q, k, v = (rng.standard_normal((n, heads * dim)).astype(np.float32) for heads in (4, 2, 2))
        inputs = {"q": q, "new_k": k, "new_v": v, "cos": cos, "sin": sin}
        if norm:
            inputs |= dict(zip(("qw", "kw"), rng.random((2, dim), np.float32), strict=True))
            q, k = head_rms_norm(q, inputs["qw"], 1e-6), head_rms_norm(k, inputs["kw"], 1e-6)
        spec = RopeAppend(cache, 4, rows, norm, hadamard=True)
        empty = {"k": cache.empty(), "v": cache.empty()}
        out = run(spec, n=n, pos=pos, threads=threads, **inputs, **empty)
        wanted = hadamard(rope(q, cos, sin, pos), dim)
        assert relative_error(out["q"][: q.size].reshape(q.shape), wanted) <= 1e-6
        keys = hadamard(rope(k, cos, sin, pos), dim).reshape(n, 2, dim)
        got = cache.keys_as_rows(out["k"])[:, pos : pos + n].swapaxes(0, 1)
        assert relative_error(got, keys) <= 1e-6
        held = out["v"].reshape(2, cache.padded, dim)[:, pos : pos + n]
        np.testing.assert_array_equal(held.swapaxes(0, 1).reshape(v.shape), v)


def test_key_layout_round_trip(rng):
    cache = KvCache(2, 32, 40)
    rows = rng.standard_normal((2, cache.padded, 32)).astype(np.float32)
    flat = cache.keys_from_rows(rows)
    np.testing.assert_array_equal(cache.keys_as_rows(flat), rows)
    assert flat[cache.padded * 32 + (17 // 16) * 32 * 16 + 5 * 16 + 17 % 16] == rows[1, 17, 5]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((2, 40, 64), "head size 40"),
        ((2, 512, 64), "head size 512"),
        ((0, 64, 64), "0 KV heads"),
        ((2, 64, 0), "context of 0"),
        ((2, 64, 64, "i8"), "type 'i8' is not one of f32, f16, bf16"),
    ],
)
def test_caches_that_cannot_be(arguments, fault):
    with pytest.raises(ValueError, match=fault):
        KvCache(*arguments)


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="5 query heads do not divide over 2 KV heads"):
        RopeAppend(KvCache(2, 64, 64), 5, 1)


def test_heads_that_no_transform_has():
    with pytest.raises(ValueError, match="Hadamard transform of heads of 80, no power of two"):
        RopeAppend(KvCache(2, 80, 64), 2, 1, hadamard=True)


def test_reference_rejects_positions_outside():
    cos, sin = rope_tables(8, 16)
    x = np.zeros((2, 16), np.float32)
    with pytest.raises(ValueError, match="position 8 is outside a context of 8"):
        rope(x, cos, sin, 7)
    with pytest.raises(ValueError, match="2 rows at position 7 do not fit a context of 8"):
        append_kv(np.zeros((1, 8, 16), np.float32), x, 7)
