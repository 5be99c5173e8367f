"""Asynchronous copies, mbarriers, warpgroup products and clusters, one at a time."""

import numpy as np
import pytest

from nybble.backends.gpu.sim.floats import table
from nybble.backends.gpu.sim.ptx import PtxError
from nybble.backends.gpu.sim.simulate import Launch, Options, simulate
from nybble.backends.gpu.sim.tensormap import Swizzle, TensorMap
from nybble.dialects.errors import NybbleError

RNG = np.random.default_rng(29)
MAP = ".param .align 64 .b8 {}[128]"
LOOSE = Options(strict=False)
WAIT = (
    "WAIT:\nmbarrier.try_wait.parity.shared::cta.b64 %p9, [%r40], 0;\n@%p9 bra READY;\nbra WAIT;\n"
    "READY:\n"
)
SETUP = (
    ".shared .align 1024 .b8 box[32768];\n.shared .align 8 .b8 bar[8];\n"
    "mov.u32 %r41, box;\nmov.u32 %r40, bar;\nsetp.eq.u32 %p1, %r0, 0;\n"
    "@%p1 mbarrier.init.shared::cta.b64 [%r40], 1;\nbar.sync 0;\n"
)


def expect(size):
    """One thread arrives and says how many bytes will come."""
    return f"@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r40], {size};\n"


@pytest.mark.parametrize("size", [16, 12, 0, 5])
def test_cp_async_fills_with_zeros(size, ptx):
    body = ptx.prologue("out", "in") + (
        ".shared .align 16 .b8 box[512];\nmov.u32 %r41, box;\nmad.lo.u32 %r42, %r0, 16, %r41;\n"
        "mad.wide.u32 %rd5, %r0, 16, %rd2;\nmad.wide.u32 %rd6, %r0, 16, %rd1;\n"
        f"cp.async.ca.shared.global [%r42], [%rd5], 16, {size};\ncp.async.wait_all;\n"
        "ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r42];\n"
        "st.global.v4.u32 [%rd6], {%r1, %r2, %r3, %r4};\nret;"
    )
    given = RNG.integers(1, 255, (32, 16)).astype(np.uint8)
    out = np.zeros_like(given)
    report = ptx.run(ptx.kernel(body, ptx.pointers("out", "in")), [out, given])
    assert not report.findings
    assert (out[:, :size] == given[:, :size]).all()
    assert not out[:, size:].any()


@pytest.mark.parametrize(
    ("waited", "kinds"),
    [(WAIT, set()), ("", {"asynchronous", "race"}), (WAIT.replace(", 0;", ", 1;"), {"deadlock"})],
)
def test_bulk_copy_is_seen_after_its_barrier(waited, kinds, ptx):
    body = ptx.prologue("out", "in") + SETUP + expect(128) + (
        "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
        f"[%r41], [%rd2], 128, [%r40];\n{waited}"
        "mad.lo.u32 %r42, %r0, 4, %r41;\nld.shared.u32 %r1, [%r42];\n"
        "mad.wide.u32 %rd6, %r0, 4, %rd1;\nst.global.u32 [%rd6], %r1;\nret;"
    )  # fmt: skip
    given = RNG.integers(1, 255, 32).astype(np.uint32)
    out = np.zeros_like(given)
    report = ptx.run(ptx.kernel(body, ptx.pointers("out", "in")), [out, given])
    assert ptx.kinds(report) == kinds
    assert (out == given).all() == (not kinds)


@pytest.mark.parametrize(
    ("fence", "wait", "kinds"),
    [
        ("fence.proxy.async.shared::cta;", "cp.async.bulk.wait_group.read 0;", set()),
        ("", "cp.async.bulk.wait_group.read 0;", {"proxy"}),
        ("fence.proxy.async.shared::cta;", "", {"race"}),
        ("fence.proxy.async.shared::cta;", "cp.async.bulk.wait_group.read 1;", {"race"}),
    ],
)
def test_bulk_store_reads_what_was_fenced(fence, wait, kinds, ptx):
    body = ptx.prologue("out") + SETUP + (
        f"mad.lo.u32 %r42, %r0, 4, %r41;\nst.shared.u32 [%r42], %r0;\n{fence}\nbar.sync 0;\n"
        "@!%p1 bra AGAIN;\ncp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r41], 256;\n"
        f"cp.async.bulk.commit_group;\n{wait}\nAGAIN:\nbar.sync 0;\nst.shared.u32 [%r42], 7;\nret;"
    )  # fmt: skip
    out = np.zeros(64, np.uint32)
    report = ptx.run(ptx.kernel(body, ptx.pointers("out")), [out], block=64)
    assert ptx.kinds(report) == kinds
    assert out.tolist() == list(range(64))


@pytest.mark.parametrize(
    ("shape", "box", "corner"),
    [
        ((64,), (32,), (48,)),
        ((32, 10), (16, 4), (16, 8)),
        ((32, 6, 5), (8, 2, 3), (-4, 5, 1)),
        ((16, 3, 4, 5), (8, 2, 2, 2), (4, 2, -1, 4)),
        ((8, 3, 4, 2, 3), (8, 2, 1, 2, 2), (0, 1, 3, 0, 2)),
    ],
)
def test_boxes_of_tensors(shape, box, corner, ptx):
    """A box is read, with zeros for what is outside, and written back elsewhere."""
    given = RNG.integers(1, 100, shape[::-1]).astype(np.float32)
    out = np.zeros_like(given)
    size = int(np.prod(box)) * 4
    group = ", ".join(map(str, corner))
    rank = len(shape)
    body = ptx.prologue() + SETUP + expect(size) + (
        "mov.b64 %rd5, source;\ncvta.param.u64 %rd6, %rd5;\nmov.b64 %rd7, target;\n"
        f"@%p1 cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile"
        f".mbarrier::complete_tx::bytes [%r41], [%rd6, {{{group}}}], [%r40];\n{WAIT}"
        f"@%p1 cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group"
        f" [%rd7, {{{group}}}], [%r41];\ncp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;\n"
        "ret;"
    )  # fmt: skip
    text = ptx.kernel(body, f"{MAP.format('source')}, {MAP.format('target')}")
    maps = [TensorMap(one, 4, shape, box) for one in (given, out)]
    report = ptx.run(text, maps)
    assert not report.findings, report.text()
    inside = np.ones(shape[::-1], bool)
    for axis, (first, side, whole) in enumerate(zip(corner, box, shape, strict=True)):
        index = np.arange(whole)
        mask = (index >= first) & (index < first + side)
        inside &= mask.reshape([-1 if i == rank - 1 - axis else 1 for i in range(rank)])
    assert inside.any()
    assert (out == np.where(inside, given, 0)).all()


def operand(kind, rows, k):
    """Values and bytes of a random matrix."""
    if kind == "s8":
        values = RNG.integers(-128, 128, (rows, k)).astype(np.int8)
        return values.astype(np.float64), values
    if kind == "e4m3":
        codes = RNG.integers(0, 0x70, (rows, k)).astype(np.uint8)
        return table("e4m3")[codes].astype(np.float64), codes
    values = RNG.standard_normal((rows, k)).astype(np.float32)
    if kind == "f16":
        return values.astype(np.float16).astype(np.float64), values.astype(np.float16)
    codes = (values.view(np.uint32) >> 16).astype(np.uint16)
    return (codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64), codes


@pytest.mark.parametrize("kind", ["f16", "bf16", "s8", "e4m3"])
@pytest.mark.parametrize("swizzle", [32, 64, 128])
def test_products_of_swizzled_tiles(kind, swizzle, ptx):
    """What a tensor map swizzles, a descriptor of that swizzle reads."""
    bits = 16 if kind in ("f16", "bf16") else 8
    k, n = swizzle * 8 // bits, 16
    a, a_raw = operand(kind, 64, k)
    b, b_raw = operand(kind, n, k)
    mode = {128: 1, 64: 2, 32: 3}[swizzle]
    result = "s32" if kind == "s8" else "f32"
    registers = ", ".join(f"%r{100 + i}" for i in range(8))
    flags = {16: ", 1, 1, 0, 0", 8: ", 1, 1" if kind == "e4m3" else ""}[bits]
    constant = (1 << 16) | (8 * swizzle // 16 << 32) | (mode << 62)
    body = ptx.prologue("out") + SETUP + expect(80 * swizzle)
    body += "mov.b64 %rd5, ma;\nmov.b64 %rd6, mb;\nadd.u32 %r43, %r41, 16384;\n"
    for target, source in (("%r41", "%rd5"), ("%r43", "%rd6")):
        body += (
            "@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
            f"[{target}], [{source}, {{0, 0}}], [%r40];\n"
        )
    body += WAIT + "".join(f"mov.b32 %r{100 + i}, 0;\n" for i in range(8))
    body += f"wgmma.fence.sync.aligned;\nmov.b64 %rd12, {constant};\n"
    for step in range(swizzle // 32):
        for base, into in (("%r41", 10), ("%r43", 11)):
            body += f"add.u32 %r44, {base}, {32 * step};\nshr.u32 %r44, %r44, 4;\n"
            body += f"cvt.u64.u32 %rd{into}, %r44;\nor.b64 %rd{into}, %rd{into}, %rd12;\n"
        body += (
            f"wgmma.mma_async.sync.aligned.m64n{n}k{256 // bits}.{result}.{kind}.{kind} "
            f"{{{registers}}}, %rd10, %rd11, 1{flags};\n"
        )
    body += "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
    body += "mad.wide.u32 %rd20, %r0, 32, %rd1;\n"
    body += "".join(f"st.global.b32 [%rd20+{4 * i}], %r{100 + i};\n" for i in range(8))
    text = ptx.kernel(body + "ret;", f".param .u64 out, {MAP.format('ma')}, {MAP.format('mb')}")
    out = np.zeros((4, 8, 4, 8), np.int32 if kind == "s8" else np.float32)
    maps = [
        TensorMap(raw, bits // 8, (k, len(raw)), (k, len(raw)), swizzle=Swizzle(swizzle))
        for raw in (a_raw, b_raw)
    ]
    report = simulate(text, [out, *maps], Launch(block=(128, 1, 1)), options=LOOSE)
    assert not report.findings, report.text()
    # warp, row, quad, then (block of 8 columns, half of the rows, column)
    made = out.reshape(4, 8, 4, 2, 2, 2).transpose(0, 4, 1, 3, 2, 5).reshape(64, n)
    exact = a @ b.T
    if kind == "s8":
        assert (made == exact).all()
    else:
        assert np.allclose(made, exact, rtol=1e-5, atol=1e-4 * np.abs(exact).max())


def test_waits_for_arrivals_of_many_threads(ptx):
    body = ptx.prologue("out") + (
        ".shared .align 256 .b8 box[256];\n.shared .align 8 .b8 bar[8];\nmov.u32 %r40, bar;\n"
        "mov.u32 %r41, box;\nmad.lo.u32 %r42, %r0, 4, %r41;\nsetp.eq.u32 %p1, %r0, 0;\n"
        "@%p1 mbarrier.init.shared.b64 [%r40], 64;\nbar.sync 0;\nst.shared.u32 [%r42], %r0;\n"
        "mbarrier.arrive.shared.b64 %rd5, [%r40];\n"
        "LOOP:\nmbarrier.test_wait.shared.b64 %p2, [%r40], %rd5;\n@!%p2 bra LOOP;\n"
        "xor.b32 %r43, %r42, 128;\nld.shared.u32 %r1, [%r43];\nmad.wide.u32 %rd6, %r0, 4, %rd1;\n"
        "st.global.u32 [%rd6], %r1;\nmbarrier.inval.shared.b64 [%r40];\nret;"
    )
    out = np.zeros(64, np.uint32)
    report = ptx.run(ptx.kernel(body, ptx.pointers("out")), [out], block=64)
    assert not report.findings, report.text()
    assert out.tolist() == [i ^ 32 for i in range(64)]


def test_blocks_of_a_cluster_write_to_each_other(ptx):
    body = ptx.prologue("out") + (
        ".shared .align 4 .b8 box[128];\nmov.u32 %r41, box;\nmad.lo.u32 %r42, %r0, 4, %r41;\n"
        "mov.u32 %r2, %cluster_ctarank;\nxor.b32 %r3, %r2, 1;\n"
        "mapa.shared::cluster.u32 %r4, %r42, %r3;\ngetctarank.shared::cluster.u32 %r5, %r4;\n"
        "mad.lo.u32 %r6, %r2, 100, %r0;\nmad.lo.u32 %r6, %r5, 1000, %r6;\n"
        "st.shared::cluster.u32 [%r4], %r6;\n"
        "barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n"
        "ld.shared.u32 %r7, [%r42];\nmov.u32 %r8, %ctaid.x;\nmad.lo.u32 %r9, %r8, 32, %r0;\n"
        "mad.wide.u32 %rd6, %r9, 4, %rd1;\nst.global.u32 [%rd6], %r7;\nret;"
    )
    out = np.zeros((4, 32), np.uint32)
    text = ptx.kernel(body, ptx.pointers("out"))
    launch = Launch((4, 1, 1), (32, 1, 1), cluster=(2, 1, 1))
    assert not simulate(text, [out], launch, options=LOOSE).findings
    lanes = np.arange(32)
    assert (out == np.stack([100 + lanes, 1000 + lanes] * 2)).all()


def test_tensor_maps_that_cannot_be(ptx):
    array = np.zeros((64, 64), np.float16)
    for arguments, message in [
        (((64, 64), (64,)), "1 to 5 dimensions"),
        (((64, 64), (300, 1)), "a box of"),
        (((64, 64), (4, 8)), "multiples of 16 bytes"),
        (((60, 64), (64, 8)), "strides of"),
    ]:
        with pytest.raises(NybbleError, match=message):
            TensorMap(array, 2, *arguments)
    with pytest.raises(NybbleError, match="at most 64"):
        TensorMap(array, 2, (64, 64), (64, 8), swizzle=Swizzle.B64)
    with pytest.raises(NybbleError, match="is no tensor map"):
        ptx.run(ptx.kernel("ret;", ".param .u64 x"), [TensorMap(array, 2, (64, 64), (64, 8))])


def test_tensor_map_must_be_a_parameter(ptx):
    body = ptx.prologue("x") + SETUP + (
        "cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes "
        "[%r41], [%rd1, {0}], [%r40];\nret;"
    )  # fmt: skip
    with pytest.raises(PtxError, match="a tensor map that is no parameter"):
        ptx.run(ptx.kernel(body, ptx.pointers("x")), [np.zeros(64)], block=1)
