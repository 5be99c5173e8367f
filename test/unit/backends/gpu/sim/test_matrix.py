"""Matrix instructions against numpy: mma of every type, ldmatrix, stmatrix and movmatrix."""

import numpy as np
import pytest

from nybble.backends.gpu.sim.floats import table
from nybble.backends.gpu.sim.ptx import PtxError

RNG = np.random.default_rng(5)
LANE = np.arange(32)
G, T = LANE // 4, LANE % 4
BITS = {"f16": 16, "bf16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "s8": 8, "u8": 8, "s4": 4, "u4": 4,
        "b1": 1}  # fmt: skip


def draw(kind, rows, columns):
    """A random matrix: its values, and its rows as 32-bit words."""
    bits = BITS[kind]
    if kind == "tf32":
        values = RNG.integers(-64, 64, (rows, columns)).astype(np.float32)
        return values, values.view(np.uint32)
    if kind in ("f16", "bf16"):
        values = RNG.standard_normal((rows, columns)).astype(np.float32)
        raw = values.astype(np.float16).view(np.uint16)
        if kind == "bf16":
            raw = (values.view(np.uint32) >> 16).astype(np.uint16)
            values = (raw.astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view(np.float16).astype(np.float32)
        return values, raw.view(np.uint32)
    if kind in ("e4m3", "e5m2"):
        raw = RNG.integers(0, 0x70, (rows, columns)).astype(np.uint8)
        return table(kind)[raw], raw.view(np.uint32)
    low, high = (0, 1 << bits) if kind[0] in "ub" else (-(1 << (bits - 1)), 1 << (bits - 1))
    values = RNG.integers(low, high, (rows, columns))
    if bits == 8:
        return values, values.astype(np.int16).astype(np.uint8).view(np.uint32)
    codes = (values & ((1 << bits) - 1)).astype(np.uint64).reshape(rows, -1, 32 // bits)
    words = (codes << (np.arange(32 // bits, dtype=np.uint64) * np.uint64(bits))).sum(-1)
    return values, words.astype(np.uint32)


def fragments(words, halves):
    """Registers [count, 32 lanes] of rows of words, by the layout in the PTX ISA."""
    count = halves * words.shape[1] // 4
    return np.stack(
        [words[G + 8 * (i % halves), T + 4 * (i // halves)] for i in range(count)]
    ).astype(np.uint32)


def run_mma(ptx, modifiers, result, a, b, c):
    """D of one mma as [16, 8]; c: registers [count, 32]."""
    counts = [len(a), len(b), len(c)]
    d_count = 2 if result == "f16" else 4
    body = ptx.prologue("out", "a", "b", "c")
    names = []
    for pointer, letter, count in zip((2, 3, 4), "abc", counts, strict=True):
        body += f".reg .b32 %{letter}<8>;\nmad.wide.u32 %rd20, %r0, 4, %rd{pointer};\n"
        for i in range(count):
            body += f"ld.global.u32 %{letter}{i}, [%rd20+{128 * i}];\n"
        names.append("{" + ", ".join(f"%{letter}{i}" for i in range(count)) + "}")
    body += f".reg .b32 %d<8>;\nmma.sync.aligned.{modifiers} "
    body += "{" + ", ".join(f"%d{i}" for i in range(d_count)) + "}, " + ", ".join(names) + ";\n"
    body += "mad.wide.u32 %rd21, %r0, 4, %rd1;\n"
    body += "".join(f"st.global.u32 [%rd21+{128 * i}], %d{i};\n" for i in range(d_count))
    out = np.zeros((d_count, 32), np.uint32)
    text = ptx.kernel(body + "ret;", ptx.pointers("out", "a", "b", "c"))
    report = ptx.run(text, [out, a, b, c])
    assert not report.findings, report.text()
    assert report.mma_count == 1
    made = np.zeros((16, 8), np.float64)
    if result == "f16":
        pairs = out.view(np.float16).reshape(2, 32, 2)
        values = [pairs[i // 2, :, i % 2] for i in range(4)]
    else:
        values = out.view(np.float32 if result == "f32" else np.int32)
    for i in range(4):
        made[G + 8 * (i // 2), 2 * T + i % 2] = values[i]
    return made


def c_registers(values, kind):
    """Registers of C [16, 8]."""
    four = [values[G + 8 * (i // 2), 2 * T + i % 2] for i in range(4)]
    if kind == "f16":
        pairs = np.stack([np.stack(four[2 * i : 2 * i + 2], -1) for i in range(2)])
        return pairs.astype(np.float16).view(np.uint32)[..., 0].copy()
    dtype = np.float32 if kind == "f32" else np.int32
    return np.stack(four).astype(dtype).view(np.uint32)


@pytest.mark.parametrize(
    ("shape", "kind", "result"),
    [
        ("m16n8k16", "f16", "f32"),
        ("m16n8k16", "f16", "f16"),
        ("m16n8k8", "f16", "f32"),
        ("m16n8k16", "bf16", "f32"),
        ("m16n8k8", "bf16", "f32"),
        ("m16n8k8", "tf32", "f32"),
        ("m16n8k4", "tf32", "f32"),
        ("m16n8k32", "e4m3", "f32"),
        ("m16n8k32", "e5m2", "f32"),
        ("m16n8k32", "s8", "s32"),
        ("m16n8k16", "u8", "s32"),
        ("m16n8k64", "s4", "s32"),
        ("m16n8k32", "u4", "s32"),
    ],
)
def test_mma(shape, kind, result, ptx):
    k = int(shape.partition("k")[2])
    a, a_words = draw(kind, 16, k)
    b, b_words = draw(kind, 8, k)
    c = RNG.integers(-50, 50, (16, 8))
    modifiers = f"{shape}.row.col.{result}.{kind}.{kind}.{result}"
    found = run_mma(
        ptx, modifiers, result, fragments(a_words, 2), fragments(b_words, 1), c_registers(c, result)
    )
    expected = a.astype(np.float64) @ b.T.astype(np.float64) + c
    if result == "s32":
        assert (found == expected).all()
    else:
        scale = np.abs(a).astype(np.float64) @ np.abs(b).T + 50
        assert (np.abs(found - expected) <= scale * (1e-3 if result == "f16" else 1e-6)).all()


@pytest.mark.parametrize("k", [128, 256])
@pytest.mark.parametrize("operation", ["and", "xor"])
def test_mma_of_bits(operation, k, ptx):
    a, a_words = draw("b1", 16, k)
    b, b_words = draw("b1", 8, k)
    c = RNG.integers(-50, 50, (16, 8))
    modifiers = f"m16n8k{k}.row.col.s32.b1.b1.s32.{operation}.popc"
    found = run_mma(
        ptx, modifiers, "s32", fragments(a_words, 2), fragments(b_words, 1), c_registers(c, "s32")
    )
    pairs = (a[:, None] & b) if operation == "and" else (a[:, None] ^ b)
    assert (found == pairs.sum(-1) + c).all()


def test_mma_saturates_or_wraps(ptx):
    a = np.full((4, 32), 0x7F7F7F7F, np.uint32)
    c = np.full((4, 32), 2**31 - 10, np.uint32)
    for modifier, expected in (("satfinite.", 2**31 - 1), ("", 2**31 - 10 + 32 * 127**2 - 2**32)):
        modifiers = f"m16n8k32.row.col.{modifier}s32.s8.s8.s32"
        assert (run_mma(ptx, modifiers, "s32", a, a[:2].copy(), c) == expected).all()


def test_mma_needs_whole_warps_and_the_right_registers(ptx):
    registers = "{%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r1, %r1, %r1, %r1};"
    body = "mov.u32 %r1, 0;\nmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r2,%r3,%r4,%r5}, "
    text = ptx.kernel(ptx.prologue() + body + registers + "ret;")
    with pytest.raises(PtxError, match="by a part of a warp"):
        ptx.run(text, [], block=20)
    wrong = ptx.kernel(ptx.prologue() + body + registers.replace("{%r1, %r1},", "{%r1},") + "ret;")
    with pytest.raises(PtxError, match="takes 2 registers, not 1"):
        ptx.run(wrong, [])


def matrix_kernel(ptx, load, store):
    """Copy 4 matrices from `in` to shared memory, move them through registers, and to `out`."""
    body = ptx.prologue("out", "in") + (
        ".shared .align 16 .b8 first[512];\n.shared .align 16 .b8 second[512];\n"
        "mad.wide.u32 %rd10, %r0, 16, %rd2;\nmov.u32 %r1, first;\nmov.u32 %r2, second;\n"
        "mad.lo.u32 %r3, %r0, 16, %r1;\nmad.lo.u32 %r4, %r0, 16, %r2;\n"
        "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd10];\n"
        "st.shared.v4.u32 [%r3], {%r10, %r11, %r12, %r13};\nbar.sync 0;\n"
        f"{load}\n{store}\nbar.sync 0;\n"
        "ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r4];\n"
        "mad.wide.u32 %rd11, %r0, 16, %rd1;\nst.global.v4.u32 [%rd11], {%r10, %r11, %r12, %r13};\n"
        "ret;"
    )
    return ptx.kernel(body, ptx.pointers("out", "in"))


FOUR = "{%r20, %r21, %r22, %r23}"


@pytest.mark.parametrize("turns", [(False, False), (True, False), (False, True), (True, True)])
def test_ldmatrix_and_stmatrix(turns, ptx):
    loaded, stored = (".trans" if one else "" for one in turns)
    text = matrix_kernel(
        ptx,
        f"ldmatrix.sync.aligned.m8n8.x4{loaded}.shared.b16 {FOUR}, [%r3];",
        f"stmatrix.sync.aligned.m8n8.x4{stored}.shared.b16 [%r4], {FOUR};",
    )
    given = RNG.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    out = np.zeros_like(given)
    report = ptx.run(text, [out, given])
    assert not report.findings
    turned = turns[0] != turns[1]
    assert (out == (given.transpose(0, 2, 1) if turned else given)).all()
    assert report.bank_conflicts == 0


def test_movmatrix_transposes(ptx):
    move = "".join(
        f"movmatrix.sync.aligned.m8n8.trans.b16 %r{20 + i}, %r{20 + i};\n" for i in range(4)
    )
    text = matrix_kernel(
        ptx,
        f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {FOUR}, [%r3];\n{move}",
        f"stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r4], {FOUR};",
    )
    given = RNG.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    out = np.zeros_like(given)
    assert not ptx.run(text, [out, given]).findings
    assert (out == given.transpose(0, 2, 1)).all()


def test_ldmatrix_of_fewer_matrices_reads_fewer_rows(ptx):
    text = matrix_kernel(
        ptx,
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r20, %r21}, [%r3];",
        "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r4], {%r20, %r21};\n"
        "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r4+256], {%r20, %r21};",
    )
    given = RNG.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    out = np.zeros_like(given)
    report = ptx.run(text, [out, given])
    assert not report.findings
    assert (out[:2] == given[:2]).all()
    assert (out[2:] == given[:2]).all()


def test_misaligned_rows_are_found(ptx):
    text = matrix_kernel(ptx, f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {FOUR}, [%r3+8];", "")
    given = RNG.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    report = ptx.run(text, [np.zeros_like(given), given])
    assert "misaligned" in ptx.kinds(report)
