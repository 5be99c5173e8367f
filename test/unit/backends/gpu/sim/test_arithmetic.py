"""Instructions on numbers, one at a time, against numpy and Python."""

import numpy as np
import pytest

RNG = np.random.default_rng(3)
U32 = np.concatenate(
    [RNG.integers(0, 1 << 32, 56, np.uint64), [0, 1, 2**31, 2**32 - 1, 31, 32, 33, 7]]
).astype(np.uint32)
V32 = np.roll(U32, 13)
W32 = np.roll(U32, 29)
S32, T32 = U32.view(np.int32), V32.view(np.int32)
U64 = U32.astype(np.uint64) << np.uint64(32) | V32
V64 = W32.astype(np.uint64) << np.uint64(32) | U32
F32 = np.concatenate(
    [
        RNG.standard_normal(54) * 10.0 ** RNG.integers(-8, 8, 54),
        [0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3.4e38, 0.5, 1.5],
    ]
).astype(np.float32)
G32, H32 = np.roll(F32, 11), np.roll(F32, 23)
MASK = 0xFFFFFFFF


def each(function, *arrays):
    """A Python function on the elements of arrays, as u32."""
    rows = zip(*(one.tolist() for one in arrays), strict=True)
    return np.array([function(*row) & MASK for row in rows], np.uint64).astype(np.uint32)


INTEGERS = {
    "add.s32 d, a, b;": lambda a, b: a + b,
    "sub.u32 d, a, b;": lambda a, b: a - b,
    "mul.lo.s32 d, a, b;": lambda a, b: a * b,
    "mul.hi.u32 d, a, b;": lambda a, b: a * b >> 32,
    "and.b32 d, a, b;": lambda a, b: a & b,
    "or.b32 d, a, b;": lambda a, b: a | b,
    "xor.b32 d, a, b;": lambda a, b: a ^ b,
    "min.u32 d, a, b;": min,
    "max.u32 d, a, b;": max,
    "shl.b32 d, a, b;": lambda a, b: a << b if b < 32 else 0,
    "shr.u32 d, a, b;": lambda a, b: a >> b if b < 64 else 0,
    "bfe.u32 d, a, 5, 7;": lambda a, b: a >> 5 & 127,
    "bfe.u32 d, a, 28, 12;": lambda a, b: a >> 28,
    "bfi.b32 d, a, b, 4, 9;": lambda a, b: b & ~(511 << 4) | (a & 511) << 4,
    "not.b32 d, a;": lambda a, b: ~a,
    "cnot.b32 d, a;": lambda a, b: int(a == 0),
    "neg.s32 d, a;": lambda a, b: -a,
    "popc.b32 d, a;": lambda a, b: a.bit_count(),
    "clz.b32 d, a;": lambda a, b: 32 - a.bit_length(),
    "bfind.u32 d, a;": lambda a, b: a.bit_length() - 1,
    "brev.b32 d, a;": lambda a, b: int(f"{a:032b}"[::-1], 2),
    "mul24.lo.u32 d, a, b;": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "shf.l.wrap.b32 d, a, b, 9;": lambda a, b: (b << 32 | a) << 9 >> 32,
    "shf.r.clamp.b32 d, a, b, 40;": lambda a, b: b,
    "shf.r.wrap.b32 d, a, b, 40;": lambda a, b: (b << 32 | a) >> 8,
    "bmsk.clamp.b32 d, 3, 7;": lambda a, b: 127 << 3,
}


@pytest.mark.parametrize("instruction", INTEGERS)
def test_integers(instruction, ptx):
    found = ptx.apply(instruction, np.uint32, U32, V32)
    assert (found == each(INTEGERS[instruction], U32, V32)).all()


SIGNED = {
    "mul.hi.s32 d, a, b;": lambda a, b: a * b >> 32,
    "min.s32 d, a, b;": min,
    "max.s32 d, a, b;": max,
    "abs.s32 d, a;": lambda a, b: abs(a),
    "bfe.s32 d, a, 3, 6;": lambda a, b: ((a >> 3 & 63) ^ 32) - 32,
    "bfe.s32 d, a, 30, 6;": lambda a, b: a >> 30,
    "add.sat.s32 d, a, b;": lambda a, b: max(-(2**31), min(2**31 - 1, a + b)),
    "shr.s32 d, a, 40;": lambda a, b: -1 if a < 0 else 0,
    "bfind.s32 d, a;": lambda a, b: (a if a >= 0 else ~a).bit_length() - 1,
}


@pytest.mark.parametrize("instruction", SIGNED)
def test_signed_integers(instruction, ptx):
    found = ptx.apply(instruction, np.uint32, S32, T32)
    assert (found == each(SIGNED[instruction], S32, T32)).all()


@pytest.mark.parametrize("kind", ["u", "s"])
def test_division_is_towards_zero(kind, ptx):
    a, b = (U32, V32) if kind == "u" else (S32, T32)
    b = np.where(b == 0, b.dtype.type(3), b)
    truncated = [int(abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) for x, y in
                 zip(a.tolist(), b.tolist(), strict=True)]  # fmt: skip
    quotient = ptx.apply(f"div.{kind}32 d, a, b;", np.uint32, a, b)
    assert quotient.tolist() == [one & MASK for one in truncated]
    remainder = ptx.apply(f"rem.{kind}32 d, a, b;", np.uint32, a, b)
    pairs = zip(a.tolist(), b.tolist(), truncated, strict=True)
    assert remainder.tolist() == [(x - y * q) & MASK for x, y, q in pairs]


def test_integer_division_by_zero_is_found(ptx):
    body = ptx.prologue("out") + "div.u32 %r1, %r0, 0;\nst.global.u32 [%rd1], %r1;\nret;"
    out = np.zeros(1, np.uint32)
    report = ptx.run(ptx.kernel(body, ptx.pointers("out")), [out], block=1)
    assert ptx.kinds(report) == {"division"}
    assert out[0] == MASK


def test_wide_products(ptx):
    wide = ptx.apply("mul.wide.u32 d, a, b;", np.uint64, U32, V32)
    assert (wide == U32.astype(np.uint64) * V32).all()
    wide = ptx.apply("mad.wide.s32 d, a, b, c;", np.int64, S32, T32, U64.view(np.int64))
    assert (wide == S32.astype(np.int64) * T32 + U64.view(np.int64)).all()
    high = ptx.apply("mul.hi.u64 d, a, b;", np.uint64, U64, V64)
    assert high.tolist() == [x * y >> 64 for x, y in zip(U64.tolist(), V64.tolist(), strict=True)]
    signed = ptx.apply("mul.hi.s64 d, a, b;", np.int64, U64.view(np.int64), V64.view(np.int64))
    pairs = zip(U64.view(np.int64).tolist(), V64.view(np.int64).tolist(), strict=True)
    assert signed.tolist() == [x * y >> 64 for x, y in pairs]


@pytest.mark.parametrize("table", [0xEA, 0x64, 0x96, 0xCA, 0x1B, 0xD8, 0x00, 0xFF])
def test_lop3(table, ptx):
    def bitwise(a, b, c):
        places = ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1) for i in range(32))
        return sum((table >> place & 1) << i for i, place in enumerate(places))

    found = ptx.apply(f"lop3.b32 d, a, b, c, {table};", np.uint32, U32, V32, W32)
    assert (found == each(bitwise, U32, V32, W32)).all()


def test_prmt(ptx):
    def permute(a, b, selector):
        octets = (b << 32 | a).to_bytes(8, "little")
        made = 0
        for i in range(4):
            nibble = selector >> 4 * i & 15
            byte = octets[nibble & 7]
            made |= (255 * (byte >> 7) if nibble & 8 else byte) << 8 * i
        return made

    found = ptx.apply("prmt.b32 d, a, b, c;", np.uint32, U32, V32, W32)
    assert (found == each(permute, U32, V32, W32)).all()


def test_dp4a_and_dp2a(ptx):
    a, b = U32.view(np.uint8).reshape(-1, 4), V32.view(np.int8).reshape(-1, 4)
    dot = (a.astype(np.int64) * b).sum(1) + W32.view(np.int32)
    found = ptx.apply("dp4a.u32.s32 d, a, b, c;", np.uint32, U32, V32, W32)
    assert (found == (dot & MASK)).all()
    halves = U32.view(np.int16).reshape(-1, 2)
    dot = (halves.astype(np.int64) * b[:, 2:]).sum(1) + W32.view(np.int32)
    found = ptx.apply("dp2a.hi.s32.s32 d, a, b, c;", np.uint32, U32, V32, W32)
    assert (found == (dot & MASK)).all()


def same(found, expected):
    """Equal bits, and NaN where NaN is."""
    nan = np.isnan(expected)
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[found.itemsize]
    assert (np.isnan(found) == nan).all()
    assert (found.view(bits)[~nan] == expected.view(bits)[~nan]).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("instruction", "function"),
    [
        ("add.rn.f32 d, a, b;", lambda a, b: a + b),
        ("sub.f32 d, a, b;", lambda a, b: a - b),
        ("mul.rn.f32 d, a, b;", lambda a, b: a * b),
        ("div.rn.f32 d, a, b;", lambda a, b: a / b),
        ("sqrt.rn.f32 d, a;", lambda a, b: np.sqrt(a)),
        ("rcp.rn.f32 d, a;", lambda a, b: 1 / a),
        ("neg.f32 d, a;", lambda a, b: -a),
        ("abs.f32 d, a;", lambda a, b: np.abs(a)),
        ("copysign.f32 d, a, b;", lambda a, b: np.copysign(b, a)),
    ],
)
def test_floats(instruction, function, ptx):
    same(ptx.apply(instruction, np.float32, F32, G32), function(F32, G32))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fused_multiply_add_rounds_once(ptx):
    from fractions import Fraction

    a, b, c = F32, G32, H32
    found = ptx.apply("fma.rn.f32 d, a, b, c;", np.float32, a, b, c)
    tie = np.float32(1 + 2**-12)
    extra = ptx.apply(
        "fma.rn.f32 d, a, b, c;", np.float32, *(np.array([v], np.float32) for v in
        (tie, tie, 2.0**-60)),
    )  # fmt: skip
    exact = Fraction(float(tie)) ** 2 + Fraction(2.0**-60)
    assert abs(Fraction(float(extra[0])) - exact) <= abs(
        Fraction(float(np.nextafter(extra[0], np.float32(2)))) - exact
    )
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    for x, y, z, got in zip(a[finite], b[finite], c[finite], found[finite], strict=True):
        if np.isfinite(got):
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            error = abs(Fraction(float(got)) - exact)
            assert error <= Fraction(float(np.spacing(np.abs(got)))) / 2


@pytest.mark.parametrize(
    ("name", "a", "b", "expected"),
    [
        ("max", np.nan, 1.0, 1.0),
        ("max", 1.0, np.nan, 1.0),
        ("max.NaN", 1.0, np.nan, np.nan),
        ("min", np.nan, np.inf, np.inf),
        ("min", -np.inf, 3.0, -np.inf),
        ("max", -0.0, 0.0, 0.0),
        ("max", 0.0, -0.0, 0.0),
        ("min", 0.0, -0.0, -0.0),
        ("max", np.nan, np.nan, np.nan),
    ],
)
def test_extremes(name, a, b, expected, ptx):
    arrays = [np.array([one], np.float32) for one in (a, b)]
    found = ptx.apply(f"{name}.f32 d, a, b;", np.float32, *arrays)
    same(found, np.array([expected], np.float32))


def test_flush_to_zero_and_saturation(ptx):
    tiny = np.array([1e-40, -1e-40, 2.0, -1.0, np.nan], np.float32)
    one = np.ones(5, np.float32)
    flushed = ptx.apply("mul.ftz.f32 d, a, b;", np.float32, tiny, one)
    same(flushed, np.array([0.0, -0.0, 2.0, -1.0, np.nan], np.float32))
    saturated = ptx.apply("mul.sat.f32 d, a, b;", np.float32, tiny, one)
    same(saturated, np.array([1e-40, 0, 1, 0, 0], np.float32))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["ex2", "lg2", "rcp", "rsqrt", "sin", "cos", "tanh", "sqrt"])
def test_approximations(name, ptx):
    functions = {
        "ex2": np.exp2, "lg2": np.log2, "rcp": lambda x: 1 / x, "rsqrt": lambda x: x**-0.5,
        "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "sqrt": np.sqrt,
    }  # fmt: skip
    a = np.abs(RNG.standard_normal(32)).astype(np.float32)
    found = ptx.apply(f"{name}.approx{'' if name == 'tanh' else '.ftz'}.f32 d, a;", np.float32, a)
    assert np.allclose(found, functions[name](a.astype(np.float64)), rtol=1e-6)
    assert np.isnan(ptx.apply(f"{name}.approx.f32 d, a;", np.float32, a * np.nan)).all()


HALVES = np.concatenate([RNG.standard_normal(26), [np.inf, np.nan, 65504, 6e-8, 2048, 1]]).astype(
    np.float16
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_halves_round(ptx):
    other = np.roll(HALVES, 3)
    same(ptx.apply("add.f16 d, a, b;", np.float16, HALVES, other), HALVES + other)
    same(ptx.apply("mul.f16 d, a, b;", np.float16, HALVES, other), HALVES * other)
    a, b, c = (np.array([one], np.float16) for one in (2049 / 2048, 2049 / 2048, -1))
    exact = np.float64(a) * np.float64(b) + np.float64(c)
    same(ptx.apply("fma.rn.f16 d, a, b, c;", np.float16, a, b, c), exact.astype(np.float16))
    wide = np.array([2049, 2051, 1e6, 1e-8, 65519, 65520], np.float32)
    found = ptx.apply("cvt.rn.f16.f32 d, a;", np.float16, wide)
    same(found, wide.astype(np.float16))
    toward = ptx.apply("cvt.rz.f16.f32 d, a;", np.float16, wide)
    assert toward[:3].tolist() == [2048, 2050, 65504]


def test_packed_halves(ptx):
    a, b, c = (RNG.standard_normal(64).astype(np.float16).view(np.uint32) for _ in range(3))
    pairs = [one.view(np.float16).astype(np.float64) for one in (a, b, c)]
    found = ptx.apply("fma.rn.f16x2 d, a, b, c;", np.uint32, a, b, c)
    same(found.view(np.float16), (pairs[0] * pairs[1] + pairs[2]).astype(np.float16))
    found = ptx.apply("add.f16x2 d, a, b;", np.uint32, a, b)
    same(found.view(np.float16), a.view(np.float16) + b.view(np.float16))
    x, y = (RNG.standard_normal(8).astype(np.float32) for _ in range(2))
    packed = ptx.apply("cvt.rn.f16x2.f32 d, a, b;", np.uint32, x, y)
    assert (packed.view(np.float16)[1::2] == x.astype(np.float16)).all()
    assert (packed.view(np.float16)[::2] == y.astype(np.float16)).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_pairs_of_floats(ptx):
    """Of sm_100 and later, in registers of 64 bits."""
    x, y, z = (RNG.standard_normal(80).astype(np.float32) for _ in range(3))
    a, b, c = (one.view(np.uint64) for one in (x, y, z))
    same(ptx.apply("add.rn.f32x2 d, a, b;", np.uint64, a, b).view(np.float32), x + y)
    same(ptx.apply("mul.f32x2 d, a, b;", np.uint64, a, b).view(np.float32), x * y)
    exact = (x.astype(np.float64) * y + z).astype(np.float32)
    same(ptx.apply("fma.rn.f32x2 d, a, b, c;", np.uint64, a, b, c).view(np.float32), exact)
    tiny = np.full(80, 2.0**-70, np.float32).view(np.uint64)
    kept = ptx.apply("mul.rn.f32x2 d, a, b;", np.uint64, tiny, tiny).view(np.float32)
    gone = ptx.apply("mul.rn.ftz.f32x2 d, a, b;", np.uint64, tiny, tiny).view(np.float32)
    assert (kept == np.float32(2.0**-140)).all()
    assert not gone.any()


def test_halves_with_floats(ptx):
    """Mixed precision of PTX ISA 8.6, which LLVM writes for sm_120a."""
    wide = RNG.standard_normal(40).astype(np.float32)
    a, b = (RNG.standard_normal(40).astype(np.float16) for _ in range(2))
    same(ptx.apply("add.rn.f32.f16 d, a, b;", np.float32, a, wide), a.astype(np.float32) + wide)
    same(ptx.apply("sub.f32.f16 d, a, b;", np.float32, a, wide), a.astype(np.float32) - wide)
    exact = a.astype(np.float64) * b.astype(np.float64) + wide
    found = ptx.apply("fma.rn.f32.f16 d, a, b, c;", np.float32, a, b, wide)
    same(found, exact.astype(np.float32))
    bits = bf16(wide)
    back = (bits.astype(np.uint32) << 16).view(np.float32)
    other = RNG.standard_normal(40).astype(np.float32)
    same(ptx.apply("add.f32.bf16 d, a, b;", np.float32, bits, other), back + other)


def bf16(values):
    """f32 rounded to bf16, to nearest even, as u16."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def test_bf16(ptx):
    x, y = F32[:54], G32[12:54][:42]
    assert (ptx.apply("cvt.rn.bf16.f32 d, a;", np.uint16, x) == bf16(x)).all()
    a, b = bf16(x[:40]), bf16(y[:40])
    wide = [(one.astype(np.uint32) << 16).view(np.float32) for one in (a, b)]
    found = ptx.apply("mul.bf16 d, a, b;", np.uint16, a, b)
    assert (found == bf16(wide[0] * wide[1])).all()
    back = ptx.apply("cvt.f32.bf16 d, a;", np.float32, a)
    assert (back == wide[0]).all()


@pytest.mark.parametrize(
    ("kind", "values", "codes"),
    [
        ("e4m3", [0, 1, -1, 448, 1e9, 0.001953125, 17, 2**-10], [0, 56, 184, 126, 126, 1, 88, 0]),
        ("e5m2", [0, 1, -2, 57344, 1e9, 1.5, 2**-16, np.nan], [0, 60, 192, 123, 123, 62, 1, 127]),
    ],
)
def test_fp8(kind, values, codes, ptx):
    high = np.array(values, np.float32)
    found = ptx.apply(f"cvt.rn.satfinite.{kind}x2.f32 d, a, b;", np.uint16, high, high)
    assert (found >> 8).tolist() == codes
    assert (found & 255).tolist() == codes
    back = ptx.apply(f"cvt.rn.f16x2.{kind}x2 d, a;", np.uint32, found)
    again = back.view(np.float16)[::2]
    assert np.array_equal(again[:3], high[:3].astype(np.float16))


@pytest.mark.parametrize(
    ("instruction", "value", "expected"),
    [
        ("cvt.rni.s32.f32 d, a;", 2.5, 2),
        ("cvt.rni.s32.f32 d, a;", -3.5, -4),
        ("cvt.rzi.s32.f32 d, a;", -3.9, -3),
        ("cvt.rmi.s32.f32 d, a;", -3.1, -4),
        ("cvt.rpi.s32.f32 d, a;", 3.1, 4),
        ("cvt.rzi.s32.f32 d, a;", 1e20, 2**31 - 1),
        ("cvt.rzi.s32.f32 d, a;", -1e20, -(2**31)),
        ("cvt.rzi.s32.f32 d, a;", np.nan, 0),
    ],
)
def test_floats_to_integers(instruction, value, expected, ptx):
    found = ptx.apply(instruction, np.int32, np.array([value], np.float32))
    assert found[0] == expected


def test_integers_between_widths(ptx):
    small = np.array([-1, 127, -128, 5], np.int8)
    assert (ptx.apply("cvt.s32.s8 d, a;", np.int32, small) == small).all()
    assert ptx.apply("cvt.u32.u8 d, a;", np.uint32, small.view(np.uint8)).tolist() == [
        255, 127, 128, 5,
    ]  # fmt: skip
    wide = np.array([300, -300, 7], np.int32)
    assert ptx.apply("cvt.sat.s8.s32 d, a;", np.int16, wide).tolist() == [127, -128, 7]
    assert (ptx.apply("cvt.rn.f32.u64 d, a;", np.float32, U64) == U64.astype(np.float32)).all()
    assert (ptx.apply("cvt.rn.f32.s32 d, a;", np.float32, S32) == S32.astype(np.float32)).all()


COMPARISONS = {
    "lt": lambda a, b: a < b, "ge": lambda a, b: a >= b, "eq": lambda a, b: a == b,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b), "neu": lambda a, b: a != b,
    "ltu": lambda a, b: ~(a >= b), "nan": lambda a, b: (a != a) | (b != b),
    "num": lambda a, b: (a == a) & (b == b),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_floats(name, ptx):
    text = f"setp.{name}.f32 %p1, a, b;\nselp.u32 d, 1, 0, %p1;"
    found = ptx.apply(text, np.uint32, F32, G32)
    assert (found == COMPARISONS[name](F32, G32)).all()


def test_comparisons_combine(ptx):
    text = (
        "setp.gt.s32 %p1, a, 0;\nsetp.lt.and.u32 %p2|%p3, a, b, %p1;\n"
        "selp.u32 d, 1, 0, %p2;\n@%p3 add.u32 d, d, 2;"
    )
    found = ptx.apply(text, np.uint32, U32, V32)
    positive = S32 > 0
    assert (found == (positive & (U32 < V32)) + 2 * (positive & (U32 >= V32))).all()
    found = ptx.apply("set.lt.u32.f32 d, a, b;", np.uint32, F32, G32)
    assert (found == np.where(F32 < G32, MASK, 0)).all()


def test_moves_between_parts(ptx):
    text = "mov.b32 {%h1, %h2}, a;\nmov.b32 d, {%h2, %h1};"
    assert (ptx.apply(text, np.uint32, U32) == (U32 >> 16 | U32 << 16)).all()
    text = "mov.b64 d, {a, b};"
    assert (ptx.apply(text, np.uint64, U32, V32) == (V32.astype(np.uint64) << 32 | U32)).all()
