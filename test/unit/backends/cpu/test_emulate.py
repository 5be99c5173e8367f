"""Emulated intrinsics against numpy, and against the instruction itself where this host has it."""

import numpy as np
import pytest
from xdsl.dialects.builtin import IntegerType, ModuleOp, i16

from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.emulate import SEMANTICS, EmulationError, emulate
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder, i8, i32, i64, vec
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import native

TYPES = {8: i8, 16: i16, 32: i32}
NUMPY = {8: np.int8, 16: np.int16, 32: np.int32}
HOST_NEEDS = {
    "llvm.x86.ssse3": "x86-64-v2",
    "llvm.x86.sse2": "x86-64-v2",
    "llvm.x86.avx2": "x86-64-v3",
}
"""Prefixes of intrinsics that every machine of a level executes."""


def dot(count, x_type, y_type):
    def of(acc, x, y):
        wide = [v.view(t).astype(np.int64) for v, t in ((x, x_type), (y, y_type))]
        return acc + (wide[0] * wide[1]).reshape(-1, count).sum(1).astype(np.int32)

    return of


def pmaddubsw(x, y):
    pairs = (x.view(np.uint8).astype(int) * y).reshape(-1, 2).sum(1)
    return np.clip(pairs, -(2**15), 2**15 - 1).astype(np.int16)


def pmaddwd(x, y):
    return (x.astype(np.int64) * y).reshape(-1, 2).sum(1).astype(np.int32)


def pshufb(table, index):
    blocks, picks = table.reshape(-1, 16), index.reshape(-1, 16)
    found = np.take_along_axis(blocks, (picks & 15).astype(int), 1)
    return np.where(picks < 0, 0, found).reshape(-1)


def permute(table, index):
    return table[index & len(table) - 1]


def permute_two(low, index, high):
    return np.concatenate([low, high])[index & 2 * len(low) - 1]


def pternlog(a, b, c, table):
    bits = [np.unpackbits(v.view(np.uint8), bitorder="little").astype(int) for v in (a, b, c)]
    found = int(table) >> (4 * bits[0] + 2 * bits[1] + bits[2]) & 1
    return np.packbits(found.astype(np.uint8), bitorder="little").view(np.int32)


def tbl(*operands):
    table, index = np.concatenate(operands[:-1]), operands[-1].view(np.uint8)
    return np.where(index < len(table), table[index % len(table)], 0)


S8, U8, S16 = np.int8, np.uint8, np.int16


def dots(name, bits, count, x_type, y_type, *widths):
    sizes = [(name.format(w), w) for w in widths]
    return {
        n: (dot(count, x_type, y_type), [(w // 32, 32), *[(w // bits, bits)] * 2]) for n, w in sizes
    }


# Intrinsic -> (its meaning in numpy, (lanes, bits) of each vector operand).
CASES = {
    **dots("x86.avx512.vpdpbusd.{}", 8, 4, U8, S8, 128, 256, 512),
    **dots("x86.avx512.vpdpwssd.{}", 16, 2, S16, S16, 128, 256, 512),
    "x86.ssse3.pmadd.ub.sw.128": (pmaddubsw, [(16, 8)] * 2),
    "x86.avx2.pmadd.ub.sw": (pmaddubsw, [(32, 8)] * 2),
    "x86.avx512.pmaddubs.w.512": (pmaddubsw, [(64, 8)] * 2),
    "x86.sse2.pmadd.wd": (pmaddwd, [(8, 16)] * 2),
    "x86.avx2.pmadd.wd": (pmaddwd, [(16, 16)] * 2),
    "x86.avx512.pmaddw.d.512": (pmaddwd, [(32, 16)] * 2),
    "x86.ssse3.pshuf.b.128": (pshufb, [(16, 8)] * 2),
    "x86.avx2.pshuf.b": (pshufb, [(32, 8)] * 2),
    "x86.avx512.pshuf.b.512": (pshufb, [(64, 8)] * 2),
    "x86.avx512.permvar.qi.256": (permute, [(32, 8)] * 2),
    "x86.avx512.permvar.qi.512": (permute, [(64, 8)] * 2),
    "x86.avx512.permvar.hi.512": (permute, [(32, 16)] * 2),
    "x86.avx512.permvar.si.512": (permute, [(16, 32)] * 2),
    "x86.avx2.permd": (permute, [(8, 32)] * 2),
    "x86.avx512.vpermi2var.qi.256": (permute_two, [(32, 8)] * 3),
    "x86.avx512.vpermi2var.qi.512": (permute_two, [(64, 8)] * 3),
    "x86.avx512.vpermi2var.hi.512": (permute_two, [(32, 16)] * 3),
    "x86.avx512.vpermi2var.d.512": (permute_two, [(16, 32)] * 3),
    "x86.avx512.pternlog.d.128": (pternlog, [(4, 32)] * 3),
    "x86.avx512.pternlog.d.256": (pternlog, [(8, 32)] * 3),
    "x86.avx512.pternlog.d.512": (pternlog, [(16, 32)] * 3),
    **dots("aarch64.neon.sdot.v4i32.v16i8", 8, 4, S8, S8, 128),
    **dots("aarch64.neon.udot.v4i32.v16i8", 8, 4, U8, U8, 128),
    **dots("aarch64.neon.usdot.v4i32.v16i8", 8, 4, U8, S8, 128),
    **dots("aarch64.neon.sdot.v2i32.v8i8", 8, 4, S8, S8, 64),
    **dots("aarch64.neon.udot.v2i32.v8i8", 8, 4, U8, U8, 64),
    **dots("aarch64.neon.usdot.v2i32.v8i8", 8, 4, U8, S8, 64),
    **{f"aarch64.neon.tbl{n}.v16i8": (tbl, [(16, 8)] * (n + 1)) for n in (1, 2, 3, 4)},
    **{f"aarch64.neon.tbl{n}.v8i8": (tbl, [*[(16, 8)] * n, (8, 8)]) for n in (1, 2, 3, 4)},
}
TABLES = (0xCA, 0x96, 0x1B)


def kernel(name, shapes, result, immediate, symbol="f"):
    """A kernel y = intrinsic(x0, x1, ..[, immediate])."""
    specs = [BufferSpec(f"x{i}", n, TYPES[bits]) for i, (n, bits) in enumerate(shapes)]
    count, bits = result
    b = KernelBuilder(symbol, [*specs, BufferSpec("y", count, TYPES[bits])])
    operands = [b.buffer(f"x{i}").vload(0, n) for i, (n, _) in enumerate(shapes)]
    if immediate is not None:
        operands.append(b.immediate(immediate, IntegerType(32)))
    value = b.intrinsic(f"llvm.{name}", operands, vec(count, TYPES[bits]))
    b.buffer("y").vstore(value, 0)
    return b.finish()


def inputs(shapes, rng, draw):
    """Operands full of random bits; every second draw full of the edges of their range."""
    found = []
    for count, bits in shapes:
        limits = np.iinfo(NUMPY[bits])
        values = rng.integers(limits.min, limits.max + 1, count)
        if draw % 2:
            values = rng.choice([limits.min, -1, 0, limits.max], count)
        found.append(values.astype(NUMPY[bits]))
    return found


def result_of(reference, shapes):
    with np.errstate(over="ignore"):
        made = reference(*(np.zeros(n, NUMPY[bits]) for n, bits in shapes), *extra(reference)[:1])
    return len(made), 8 * made.dtype.itemsize


def extra(reference):
    return TABLES if reference is pternlog else ()


def variants():
    for name, (reference, shapes) in CASES.items():
        for immediate in extra(reference) or (None,):
            yield name, reference, shapes, immediate


@pytest.fixture(scope="module")
def libraries():
    """Emulated kernels k0, k1, .. of `variants`, and those that this host executes itself."""
    kernels = [
        kernel(name, shapes, result_of(reference, shapes), immediate, f"k{i}")
        for i, (name, reference, shapes, immediate) in enumerate(variants())
    ]
    level = native().cpu
    ranks = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
    have = ranks[: ranks.index(level) + 1] if level in ranks else ()
    real = [
        made.clone()
        for made, (name, *_) in zip(kernels, variants(), strict=True)
        if any(f"llvm.{name}".startswith(p) and n in have for p, n in HOST_NEEDS.items())
    ]
    return [
        load([compile_module(module, opt=1)])
        for module in (emulate(ModuleOp(kernels)), ModuleOp(real))
    ]


def test_every_row_has_a_case():
    assert {f"llvm.{name}" for name in CASES} == set(SEMANTICS)


def test_emulated_is_what_the_manual_says(libraries):
    rng = np.random.default_rng(7)
    emulated, real = libraries
    for i, (name, reference, shapes, immediate) in enumerate(variants()):
        fixed = () if immediate is None else (immediate,)
        for draw in range(20):
            given = inputs(shapes, rng, draw)
            with np.errstate(over="ignore"):
                want = reference(*given, *fixed)
            for library in (emulated, real):
                if f"k{i}" not in library.names:
                    continue
                got = np.full_like(want, 77)
                library.call(f"k{i}", *given, got, 1, 0, 0, 1)
                np.testing.assert_array_equal(got, want, name)


@pytest.mark.skipif(native().cpu not in ("x86-64-v3", "x86-64-v4"), reason="needs AVX2")
def test_this_host_checked_some_rows_by_executing_them(libraries):
    assert len(libraries[1].names) >= 7


def test_unknown_intrinsic_is_refused():
    b = KernelBuilder("f", [BufferSpec("y", 4, i32)])
    b.buffer("y").vstore(b.intrinsic("llvm.x86.unheard.of", (), vec(4, i32)), 0)
    with pytest.raises(EmulationError, match=r"'llvm.x86.unheard.of'.*vpdpbusd"):
        emulate(ModuleOp([b.finish()]))


def test_module_itself_is_left_alone():
    name, (reference, shapes) = "x86.avx2.pmadd.wd", CASES["x86.avx2.pmadd.wd"]
    module = ModuleOp([kernel(name, shapes, result_of(reference, shapes), None)])
    before = str(module)
    made = emulate(module)
    made.verify()
    assert str(module) == before
    assert "llvm.call_intrinsic" in before
    assert "llvm.call_intrinsic" not in str(made)


def test_tiles_are_loaded_multiplied_and_stored():
    """y += products of 16 x 32 and 32 x 16 bf16, by rows that are apart."""
    sizes = {"x": (16 * 20, i32), "w": (16 * 16, i32), "y": (16 * 24, i32)}
    b = KernelBuilder("f", [BufferSpec(name, *size) for name, size in sizes.items()])
    b.intrinsic_effect("llvm.x86.ldtilecfg", (b.buffer("x").pointer(),))
    for number, (name, stride) in enumerate((("y", 96), ("x", 80), ("w", 64))):
        place = (b.immediate(number), b.buffer(name).pointer(), b.const(stride, i64))
        b.intrinsic_effect("llvm.x86.tileloadd64", place)
    b.intrinsic_effect("llvm.x86.tdpbf16ps", [b.immediate(number) for number in range(3)])
    place = (b.immediate(0), b.buffer("y").pointer(), b.const(96, i64))
    b.intrinsic_effect("llvm.x86.tilestored64", place)
    b.intrinsic_effect("llvm.x86.tilerelease", ())
    library = load([compile_module(emulate(ModuleOp([b.finish()])), opt=1)])
    rng = np.random.default_rng(3)
    x, w = (rng.integers(-64, 65, shape).astype(np.float32) / 8 for shape in ((16, 40), (32, 16)))
    y = rng.integers(-9, 10, (16, 24)).astype(np.float32)
    x[0], y[0] = 1e-38, 0  # denormal, which counts as zero
    want = y.copy()
    want[1:, :16] += x[1:, :32] @ w
    pairs = np.ascontiguousarray(w.reshape(16, 2, 16).transpose(0, 2, 1))
    halves = [(one.view(np.uint32) >> 16).astype(np.uint16).view(np.int32) for one in (x, pairs)]
    library.call("f", halves[0].reshape(-1), halves[1].reshape(-1), y.view(np.int32), 1, 0, 0, 1)
    np.testing.assert_array_equal(y, want)
