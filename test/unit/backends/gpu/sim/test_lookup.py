"""lmma against numpy, and what it is refused as."""

import numpy as np
import pytest

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.lookup import DEPTHS, SUMS, Lmma, find_lmma, looked_up, tables
from nybble.backends.gpu.sim.cycles import cycles_of, tensor_cycles
from nybble.backends.gpu.sim.ptx import PtxError
from nybble.backends.gpu.sim.report import Report

RNG = np.random.default_rng(3)
TYPES = {"f16": np.float16, "s16": np.int16, "s8": np.int8}


def test_a_lookup_is_a_product_of_odd_integers():
    x, codes = RNG.integers(-9, 9, (2, 12)), RNG.integers(0, 8, (5, 12))
    planes = np.stack([codes >> plane & 1 for plane in range(3)]).astype(np.uint8)
    np.testing.assert_array_equal(looked_up(tables(x), planes), x @ (2 * codes - 7).T)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("entry", DEPTHS)
def test_it_multiplies_rows_of_tables_and_of_bits(ptx, entry, bits):
    form = Lmma(entry, bits)
    largest = 31 if entry == "s8" else 127
    x = RNG.integers(-largest, largest, (2, form.depth)) / (8 if entry == "f16" else 1)
    codes = RNG.integers(0, 2**bits, (64, form.depth))
    kind = np.float32 if SUMS[entry] == "f32" else np.int32
    before = RNG.integers(-99, 99, (2, 64)).astype(kind)
    entries = tables(x).astype(TYPES[entry]).view(np.uint32).ravel()
    c = before.reshape(2, 32, 2).transpose(0, 2, 1).reshape(4, 32)
    d = run(ptx, form, entries, registers(codes, form), np.ascontiguousarray(c))
    found = d.view(kind).reshape(2, 2, 32).transpose(0, 2, 1).reshape(2, 64)
    np.testing.assert_array_equal(found, before + x @ (2 * codes - (2**bits - 1)).T)


def registers(codes, form):
    """Weights [64, depth] as they lie in registers, u32 [registers, 32]."""
    found = []
    for plane in range(form.bits):
        bits = (codes >> plane & 1).astype(np.uint8)
        words = np.packbits(bits, axis=1, bitorder="little").view(np.uint16)
        if form.depth == 16:
            found.append(words.reshape(32, 2).view(np.uint32)[:, 0])
        else:
            found += [words.view(np.uint32).reshape(32, 2)[:, i] for i in (0, 1)]
    return np.stack([np.ascontiguousarray(one) for one in found])


def run(ptx, form, entries, weights, c, name=""):
    """D as u32 [4, 32]."""
    body = ptx.prologue("out", "t", "w", "c")
    sizes = {"t": 1, "w": len(weights), "c": 4}
    for i, (letter, count) in enumerate(sizes.items()):
        body += f".reg .b32 %{letter}<8>;\nmad.wide.u32 %rd20, %r0, 4, %rd{i + 2};\n"
        for j in range(count):
            body += f"ld.global.u32 %{letter}{j}, [%rd20+{128 * j}];\n"
    body += ".reg .b32 %d<4>;\nmad.wide.u32 %rd21, %r0, 4, %rd1;\n"
    groups = [", ".join(f"%{letter}{i}" for i in range(n)) for letter, n in
              (("d", 4), *sizes.items())]  # fmt: skip
    body += f"{name or form.name} {', '.join(f'{{{one}}}' for one in groups)};\n"
    for i in range(4):
        body += f"st.global.u32 [%rd21+{128 * i}], %d{i};\n"
    out = np.zeros((4, 32), np.uint32)
    arguments = [out, entries, np.ascontiguousarray(weights), c]
    report = ptx.run(ptx.kernel(body + "ret;", ptx.pointers("out", "t", "w", "c")), arguments)
    assert not report.findings, report.text()
    assert report.mma == {form.name: 1}
    return out


@pytest.mark.parametrize(
    "name",
    ["lmma.sync.aligned.m2n64k32.f16.w2.f32.f32", "lmma.sync.aligned.m2n64k16.f16.w5.f32.f32",
     "lmma.sync.aligned.m2n64k16.s16.w2.f32.f32"],
)  # fmt: skip
def test_other_forms_are_refused(ptx, name):
    assert find_lmma(name) is None
    nothing = np.zeros((4, 32), np.uint32)
    with pytest.raises(PtxError, match="accepted: lmma"):
        run(ptx, Lmma("f16", 2), nothing[0], nothing[:2], nothing, name)


def test_wrong_counts_of_registers_are_refused(ptx):
    nothing = np.zeros((4, 32), np.uint32)
    with pytest.raises(PtxError, match="takes 4, 1, 2 and 4 registers"):
        run(ptx, Lmma("f16", 2), nothing[0], nothing[:3], nothing)


def test_cycles_follow_planes_and_types():
    arch = find_arch("sm_90a+lmma")
    one, four = (cycles_of(Lmma("f16", bits).name, arch) for bits in (1, 4))
    assert (one, four) == (1.0, 4.0)
    assert find_lmma(Lmma("s8", 3).name) == Lmma("s8", 3)
    half = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    octets = "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32"
    assert cycles_of(half, arch) == cycles_of(octets, arch) == 2048 / arch.products
    group = "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16"
    assert tensor_cycles({group: 2, "ldmatrix.x4": 5}, arch) == 2 * 64 * 64 * 16 / 2048


def test_a_report_says_how_long_tensor_cores_are_busy():
    report = Report("k", "sm_90a", (1, 1, 1), (32, 1, 1), 1, 32, mma={Lmma("f16", 4).name: 3})
    assert report.tensor_cycles == report.as_json()["tensor_cycles"] == 12.0
    assert "mma: 12 cycles of a multiprocessor, modelled" in report.text()
    unknown = Report("k", "sm_10", (1, 1, 1), (32, 1, 1), 1, 32)
    assert unknown.as_json()["tensor_cycles"] is None
