"""The builder makes valid upstream operations that compute what they read like."""

import numpy as np
import pytest
from xdsl.dialects import arith, func
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import VerifyException

from nybble.backends.cpu.codegen import jit
from nybble.backends.cpu.kernels.builder import (
    BufferSpec,
    KernelBuilder,
    bf16,
    f16,
    f32,
    i1,
    i8,
    i32,
    i64,
    vec,
)

F16S, FLOATS, WORDS = vec(16, f16), vec(16, f32), vec(16, i32)


@pytest.fixture
def check(rng):
    """Run `body(b, x, y)` on 64 random f32 (x, `inputs` first); x, and what y (64 f32) holds."""

    def run(body, inputs=None, n=3, pos=5, tid=0, nth=1):
        b = KernelBuilder("k", [BufferSpec("x", 64, f32), BufferSpec("y", 64, f32)])
        body(b, *b.buffers)
        function = b.finish()
        module = ModuleOp([function])
        module.verify()
        x, y = rng.standard_normal(64).astype(np.float32), np.zeros(64, np.float32)
        if inputs is not None:
            x[: len(inputs)] = inputs
        jit(module).call("k", x, y, n, pos, tid, nth)
        return x, y

    return run


def test_float_arithmetic(check):
    def body(b, x, y):
        a, c = x.vload(0, 16), x.vload(16, 16)
        y.vstore(b.fma(a, c, 1.0 - a) / (c * c + 1.0), 0)
        y.vstore(b.max(a, 0.0) - b.min(c, a) + -c, 16)
        y.vstore(b.sqrt(b.abs(a)) + b.roundeven(c * 3.0), 32)
        y.vstore(b.select((a < c) ^ (a >= 0.5), a, 2.0), 48)

    x, y = check(body)
    a, c = x[:16], x[16:32]
    np.testing.assert_allclose(y[:16], (a * c + 1 - a) / (c * c + 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[16:32], np.maximum(a, 0) - np.minimum(c, a) + -c)
    np.testing.assert_array_equal(y[32:48], np.sqrt(np.abs(a)) + np.rint(c * np.float32(3)))
    np.testing.assert_array_equal(y[48:], np.where((a < c) ^ (a >= 0.5), a, np.float32(2)))


def test_integers_and_casts(check):
    def body(b, x, y):
        bits = b.bitcast(x.vload(0, 16), WORDS)
        mixed = ((bits >> 9) ^ (bits << 3)) + bits.shr(20) * 7 - 5
        y.vstore(b.sitofp(mixed & 0xFFFF), 0)
        y.vstore(b.sitofp(b.sext(b.trunc(bits, i8), i32)), 16)
        y.vstore(b.uitofp(b.zext(b.trunc(bits, i8), i32)), 32)
        y.vstore(b.sitofp(b.fptosi(x.vload(0, 16) * 100.0) % 7 // 2), 48)

    x, y = check(body)
    bits = x[:16].view(np.int32)
    mixed = ((bits >> 9) ^ (bits << 3)) + (bits.view(np.uint32) >> 20).view(np.int32) * 7 - 5
    np.testing.assert_array_equal(y[:16], mixed & 0xFFFF)
    np.testing.assert_array_equal(y[16:32], bits.astype(np.int8))
    np.testing.assert_array_equal(y[32:48], bits.astype(np.uint8))
    whole = np.trunc(x[:16] * np.float32(100))
    np.testing.assert_array_equal(y[48:], np.trunc(np.fmod(whole, 7) / 2))


def test_float_types(check):
    def body(b, x, y):
        for i, narrow in enumerate((f16, bf16, f32)):
            y.vstore(b.to_float(b.to_float(x.vload(0, 16), narrow)), 16 * i)

    x, y = check(body)
    np.testing.assert_array_equal(y[:16], x[:16].astype(np.float16))
    np.testing.assert_allclose(y[16:32], x[:16], rtol=2**-8)
    assert not (y[16:32].view(np.uint32) & 0xFFFF).any()
    np.testing.assert_array_equal(y[32:48], x[:16])


def test_rounding_to_bf16(check):
    """To nearest, ties to even; infinities stay, a NaN does, whichever bits it has."""
    cases = {
        0x3F808000: 0x3F80,
        0x3F818000: 0x3F82,
        0x3F808001: 0x3F81,
        0x7F7FFFFF: 0x7F80,
        0xFF800000: 0xFF80,
        0x7F800001: 0x7FC0,
        0x00008001: 0x0001,
        0x80000000: 0x8000,
    }
    inputs = np.array([*cases] * 2, np.uint32).view(np.float32)

    def body(b, x, y):
        y.vstore(b.to_float(b.to_float(x.vload(0, 16), bf16)), 0)

    _, y = check(body, inputs)
    np.testing.assert_array_equal(y[:16].view(np.uint32) >> 16, [*cases.values()] * 2)


def test_loops_and_branches(check):
    def body(b, x, y):
        with b.for_(0, 64, 16, inits=[b.const(0.0, FLOATS), b.const(1)]) as loop:
            total, count = loop.args
            loop.yield_(total + x.vload(loop.iv, 16), count * 2)
        y.store(b.reduce("add", loop.results[0]), 0)
        y.store(b.sitofp(b.from_index(loop.results[1], i64)), 1)
        for i, want in enumerate((3, 4)):
            with b.if_(b.n.eq(want)) as branch:
                y.store(b.const(1.0, f32), 2 + i)
            with branch.otherwise():
                y.store(b.const(2.0, f32), 2 + i)
        lo, hi = b.partition(50)
        y.store(b.sitofp(b.from_index(lo * 100 + hi, i32)), 4)
        y.store(b.sitofp(b.from_index(b.pos % 3 + b.pos // 2, i32)), 5)

    x, y = check(body, tid=1, nth=4)
    np.testing.assert_allclose(y[0], x.sum(), rtol=1e-5)
    np.testing.assert_array_equal(y[1:6], [16, 1, 2, 12 * 100 + 25, 4])


@pytest.mark.parametrize("nth", [1, 2, 3, 7, 60])
def test_partition_covers_everything_once(nth):
    shares = [(50 * t // nth, 50 * (t + 1) // nth) for t in range(nth)]
    assert [k for lo, hi in shares for k in range(lo, hi)] == list(range(50))


def test_buffers(check):
    def body(b, x, y):
        mask = b.first_lanes(b.n, 16)
        y.vstore_masked(x.vload_masked(2, mask, b.const(9.0, FLOATS)), 1, b.first_lanes(b.pos, 16))
        y.vstore(x.gather(1, b.const([*range(0, 32, 2)], WORDS)), 16)
        y.part(b.const(32), 16).vstore(x.part(b.pos, 16).vload(b.n, 8), 0)
        x.prefetch(1 << 20)

    x, y = check(body)
    np.testing.assert_array_equal(y[:8], [0, *x[2:5], 9, 9, 0, 0])
    np.testing.assert_array_equal(y[16:32], x[1:33:2])
    np.testing.assert_array_equal(y[32:40], x[8:16])


def test_lanes(check):
    def body(b, x, y):
        a, c = x.vload(0, 8), x.vload(8, 8)
        y.vstore(b.interleave(a, c), 0)
        y.vstore(b.shuffle(a, c, [15, 0, 1, 8]), 16)
        y.vstore(b.slice(a, 2, 4), 20)
        y.store(b.extract(c, 3), 24)
        y.vstore(b.broadcast(x.load(5), 4), 25)

    x, y = check(body)
    np.testing.assert_array_equal(y[:16], np.stack([x[:8], x[8:16]], 1).reshape(-1))
    np.testing.assert_array_equal(y[16:29], [*x[[15, 0, 1, 8]], *x[2:6], x[11], *[x[5]] * 4])


def test_views_of_bytes():
    b = KernelBuilder("k", [BufferSpec("bytes", 128, i8), BufferSpec("y", 64, f32)])
    data, y = b.buffers
    y.vstore(data.view(f32).vload(0, 16), 0)
    y.vstore(b.to_float(data.view(f16, 64, 16).vload(0, 16)), 16)
    y.vstore(data.view(i8, b.n, 64).view(f32, 4, 15).vload(0, 8), 32)
    function = b.finish()
    function.verify()
    floats, halves = np.arange(16, dtype=np.float32), np.arange(32, dtype=np.float16)
    raw, out = np.concatenate([floats.view(np.uint8), halves.view(np.uint8)]), np.zeros(64, "f4")
    jit(ModuleOp([function])).call("k", raw, out, 8, 0, 0, 1)
    np.testing.assert_array_equal(out[:32], [*floats, *halves[:16]])
    np.testing.assert_array_equal(out[32:40], floats[3:11])


def test_index_arithmetic_folds():
    b = KernelBuilder("k", [])
    assert (b.const(6) * 7 + 2).known == 44
    assert (b.const(9) // 2 % 3).known == 1
    assert b.n + 0 is b.n
    assert b.n * 1 is b.n
    assert (b.n * 0).known == 0
    assert b.const(0) + b.n is b.n
    assert not list(b.block.ops)


def test_constants_are_kept_once_and_come_first():
    b = KernelBuilder("k", [])
    with b.for_(0, b.n):
        assert b.const(1.0, FLOATS) is b.const(1.0, FLOATS)
        assert b.const(1, i1) is not b.const(1, i32)
    function = b.finish()
    first, *rest = function.body.block.ops
    assert isinstance(first, arith.ConstantOp)
    assert isinstance(rest[-1], func.ReturnOp)
    function.verify()


def test_wrong_types_do_not_verify():
    b = KernelBuilder("k", [BufferSpec("x", 64, f32)])
    b.sext(b.const(1, i32), i8)
    function = b.finish()
    with pytest.raises(VerifyException, match=r"'arith.extsi' needs a wider result"):
        function.verify()


def test_forgotten_yield_is_noticed():
    b = KernelBuilder("k", [])
    with pytest.raises(AssertionError, match="every carried value"), b.for_(0, 4, 1, [b.n]):
        pass
