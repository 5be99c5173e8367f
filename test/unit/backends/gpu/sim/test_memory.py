"""Accesses to memory: what they do, what is wrong with them, and what they cost."""

import numpy as np
import pytest

from nybble.backends.gpu.image import Access, KernelImage, Parameter
from nybble.backends.gpu.sim.simulate import Options, simulate

RNG = np.random.default_rng(7)
SHARED = ".shared .align 16 .b8 box[4096];\nmov.u32 %r50, box;\nmad.lo.u32 %r51, %r0, 4, %r50;\n"


def go(ptx, body, *arrays, block=32, declarations="", **options):
    """Run a body whose pointers a, b, .. are arrays."""
    names = "abcd"[: len(arrays)]
    text = ptx.kernel(ptx.prologue(*names) + body + "\nret;", ptx.pointers(*names),
                      declarations=declarations)  # fmt: skip
    return ptx.run(text, list(arrays), block=block, **options)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_vectors_of_every_width(count, size, ptx):
    bytes_ = count * size // 8
    vector = f".v{count}" if count > 1 else ""
    prefix = {8: "%h", 16: "%h", 32: "%r", 64: "%rd"}[size]
    names = ", ".join(f"{prefix}{20 + i}" for i in range(count))
    group = f"{{{names}}}" if count > 1 else names
    body = (
        f"mad.wide.u32 %rd10, %r0, {bytes_}, %rd1;\nmad.wide.u32 %rd11, %r0, {bytes_}, %rd2;\n"
        f"ld.global.nc.L1::no_allocate{vector}.b{size} {group}, [%rd11];\n"
        f"st.global.cs{vector}.b{size} [%rd10], {group};"
    )
    given = RNG.integers(0, 256, 32 * bytes_).astype(np.uint8)
    out = np.zeros_like(given)
    report = go(ptx, body, out, given)
    assert not report.findings
    assert (out == given).all()
    assert report.sector_efficiency == 1
    assert report.global_bytes == 2 * len(given)


def test_vector_of_eight(ptx):
    names = "{" + ", ".join(f"%r{20 + i}" for i in range(8)) + "}"
    body = (
        "mad.wide.u32 %rd10, %r0, 32, %rd1;\nmad.wide.u32 %rd11, %r0, 32, %rd2;\n"
        f"ld.global.v8.b32 {names}, [%rd11];\nst.global.v8.b32 [%rd10], {names};"
    )
    given = RNG.integers(0, 256, 1024).astype(np.uint8)
    out = np.zeros_like(given)
    assert not go(ptx, body, out, given).findings
    assert (out == given).all()


def test_signed_bytes_extend(ptx):
    body = (
        "cvt.u64.u32 %rd5, %r0;\nadd.u64 %rd6, %rd2, %rd5;\nld.global.s8 %r1, [%rd6];\n"
        "mad.wide.u32 %rd7, %r0, 4, %rd1;\nst.global.u32 [%rd7], %r1;"
    )
    given = np.arange(-16, 16).astype(np.int8)
    out = np.zeros(32, np.int32)
    assert not go(ptx, body, out, given).findings
    assert (out == given).all()


def test_generic_addresses_of_every_space(ptx):
    body = SHARED + (
        ".local .align 4 .b8 depot[8];\nmov.u64 %rd5, depot;\ncvta.local.u64 %rd6, %rd5;\n"
        "cvt.u64.u32 %rd7, %r51;\ncvta.shared.u64 %rd8, %rd7;\n"
        "setp.lt.u32 %p1, %r0, 16;\nselp.b64 %rd9, %rd6, %rd8, %p1;\n"
        "st.u32 [%rd9], %r0;\nld.u32 %r1, [%rd9];\nisspacep.shared %p2, %rd9;\n"
        "@%p2 add.u32 %r1, %r1, 100;\n"
        "cvta.to.shared.u64 %rd12, %rd8;\nst.local.u32 [%rd5+4], %r1;\n"
        "ld.local.u32 %r2, [depot+4];\n"
        "mad.wide.u32 %rd10, %r0, 4, %rd1;\nst.u32 [%rd10], %r2;"
    )
    out = np.zeros(32, np.uint32)
    report = go(ptx, body, out)
    assert not report.findings
    assert out.tolist() == [*range(16), *range(116, 132)]


def test_constants_and_global_variables(ptx):
    declared = (
        ".const .align 4 .u32 primes[4] = {2, 3, 5, 7};\n.global .align 4 .b8 counter[4];\n"
        ".global .f32 half = 0f3F000000;\n"
    )
    body = (
        "and.b32 %r1, %r0, 3;\nmul.wide.u32 %rd5, %r1, 4;\nmov.u64 %rd6, primes;\n"
        "add.u64 %rd7, %rd6, %rd5;\nld.const.u32 %r2, [%rd7];\n"
        "atom.global.add.u32 %r3, [counter], %r2;\nld.global.f32 %f1, [half];\n"
        "mad.wide.u32 %rd10, %r0, 4, %rd1;\nst.global.f32 [%rd10], %f1;\n"
        "bar.sync 0;\nld.global.u32 %r4, [counter];\nsetp.eq.u32 %p1, %r0, 0;\n"
        "@%p1 st.global.u32 [%rd1], %r4;"
    )
    out = np.zeros(32, np.float32)
    report = go(ptx, body, out, declarations=declared)
    assert not report.findings
    assert out.view(np.uint32)[0] == 8 * 17
    assert (out[1:] == 0.5).all()


ATOMICS = {
    "add.u32": lambda old, x: old + x, "min.s32": min, "max.u32": max,
    "and.b32": lambda old, x: old & x, "or.b32": lambda old, x: old | x,
    "xor.b32": lambda old, x: old ^ x, "exch.b32": lambda old, x: x,
    "inc.u32": lambda old, x: 0 if old >= x else old + 1,
    "dec.u32": lambda old, x: x if not 0 < old <= x else old - 1,
}  # fmt: skip


@pytest.mark.parametrize("operation", ATOMICS)
def test_atomics_happen_one_after_the_other(operation, ptx):
    body = (
        "shr.u32 %r1, %r0, 2;\nmad.wide.u32 %rd5, %r1, 4, %rd1;\nmad.wide.u32 %rd6, %r0, 4, %rd2;\n"
        f"ld.global.u32 %r2, [%rd6];\natom.global.{operation} %r3, [%rd5], %r2;\n"
        "mad.wide.u32 %rd7, %r0, 4, %rd3;\nst.global.u32 [%rd7], %r3;"
    )
    table = RNG.integers(0, 100, 8).astype(np.uint32)
    values = RNG.integers(0, 100, 32).astype(np.uint32)
    expected, seen = table.tolist(), []
    for i, value in enumerate(values.tolist()):
        seen.append(expected[i // 4])
        expected[i // 4] = ATOMICS[operation](expected[i // 4], value)
    before = np.zeros(32, np.uint32)
    assert not go(ptx, body, table, values, before).findings
    assert table.tolist() == expected
    assert before.tolist() == seen


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("f32", np.float32), ("f64", np.float64), ("noftz.f16", np.float16), ("noftz.f16x2", None)],
)
def test_reductions_of_floats(kind, dtype, ptx):
    size = np.dtype(dtype or np.uint32).itemsize
    prefix = {2: "%h", 4: "%r", 8: "%rd"}[size]
    body = (
        f"mad.wide.u32 %rd6, %r0, {size}, %rd2;\nld.global.b{size * 8} {prefix}20, [%rd6];\n"
        f"red.global.add.{kind} [%rd1], {prefix}20;"
    )
    values = RNG.integers(-8, 8, 32 * (2 if dtype is None else 1)).astype(dtype or np.float16)
    total = np.zeros(2 if dtype is None else 1, values.dtype)
    assert not go(ptx, body, total, values).findings
    assert (total == values.reshape(32, -1).sum(0)).all()


def test_compare_and_swap_locks(ptx):
    """Each thread takes a lock, counts, and frees it; a plain counter is then right."""
    body = (
        "TRY:\natom.global.acquire.gpu.cas.b32 %r1, [%rd2], 0, 1;\nsetp.ne.u32 %p1, %r1, 0;\n"
        "@%p1 bra TRY;\nld.volatile.global.u32 %r2, [%rd1];\nadd.u32 %r2, %r2, 1;\n"
        "st.volatile.global.u32 [%rd1], %r2;\natom.global.release.gpu.exch.b32 %r3, [%rd2], 0;"
    )
    count, lock = np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    report = go(ptx, body, count, lock, block=40)
    assert count[0] == 40
    assert not report.findings


# -- what is wrong


@pytest.mark.parametrize(
    ("body", "kinds", "message"),
    [
        ("ld.global.u32 %r1, [%rd1+128];", {"out-of-bounds"}, "byte 128 of 'a', which has 128"),
        ("ld.global.u32 %r1, [%rd1+-4];", {"out-of-bounds"}, "byte -4 of 'a'"),
        ("st.global.v2.u32 [%rd1+124], {%r0, %r0};", {"out-of-bounds"}, "a write of 8 bytes"),
        ("ld.global.u32 %r1, [8];", {"out-of-bounds"}, "where no buffer is"),
        ("ld.global.u32 %r1, [%rd1+2];", {"misaligned"}, "a read of 4 bytes at byte 2"),
        ("ld.shared.u32 %r1, [4096];", {"out-of-bounds"}, "byte 4096 of 4096"),
        ("ld.shared.u32 %r1, [-4];", {"out-of-bounds"}, "of shared memory"),
        ("st.shared.v4.u32 [8], {%r0, %r0, %r0, %r0};", {"misaligned"}, "byte 8"),
        ("ld.shared.u32 %r1, [0];", {"uninitialized"}, "shared memory that nothing wrote"),
        ("st.global.u32 [%rd1], %r9;", {"uninitialized"}, "register %r9, which has no value"),
        ("@%p5 mov.u32 %r1, 0;", {"uninitialized"}, "register %p5"),
        ("add.u32 %r1, %r9, 1;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra L;\nL:", {"uninitialized"},
         "register %p1"),
        ("st.global.u32 [%rd1], %r0;", {"race"}, "different values to one place"),
        ("st.shared.u32 [0], %r0;", {"race"}, "different values to one place of shared"),
    ],
)  # fmt: skip
def test_wrong_accesses(body, kinds, message, ptx):
    report = go(ptx, SHARED + body, np.zeros(32, np.uint32))
    assert ptx.kinds(report) == kinds
    assert message in report.text()


@pytest.mark.parametrize(
    "body",
    [
        "add.u32 %r1, %r9, 1;",
        "mov.u32 %r1, 0;\nsetp.eq.u32 %p1, %r0, 0;\n@%p1 mov.u32 %r1, %r9;\n"
        "@!%p1 add.u32 %r2, %r1, 1;",
        "setp.eq.u32 %p1, %r0, 0;\n@%p1 mov.u32 %r1, 5;\nshfl.sync.idx.b32 %r2, %r1, 0, 31, -1;\n"
        "mad.wide.u32 %rd9, %r0, 4, %rd1;\nst.global.u32 [%rd9], %r2;",
        "mov.u32 %r1, 3;\nsetp.ge.u32 %p1, %r0, 0;\nselp.u32 %r2, %r1, %r9, %p1;\n"
        "mad.wide.u32 %rd9, %r0, 4, %rd1;\nst.global.u32 [%rd9], %r2;",
        "setp.lt.u32 %p1, %r0, 32;\n@%p1 st.shared.u32 [0], 5;",
    ],
)
def test_what_has_no_value_may_be_moved_but_not_used(body, ptx):
    report = go(ptx, SHARED + body, np.zeros(32, np.uint32))
    assert not report.findings, report.text()


EXCHANGE = (
    "st.shared.u32 [%r51], %r0;\nSYNC\nxor.b32 %r2, %r0, DISTANCE;\nmad.lo.u32 %r3, %r2, 4, %r50;\n"
    "ld.shared.u32 %r4, [%r3];\nmad.wide.u32 %rd9, %r0, 4, %rd1;\nst.global.u32 [%rd9], %r4;"
)


@pytest.mark.parametrize(
    ("distance", "sync", "races"),
    [
        (32, "bar.sync 0;", False),
        (32, "", True),
        (32, "bar.warp.sync -1;", True),
        (1, "bar.warp.sync -1;", False),
        (1, "", True),
        (0, "", False),
    ],
)
def test_exchange_through_shared_memory(distance, sync, races, ptx):
    body = SHARED + EXCHANGE.replace("SYNC", sync).replace("DISTANCE", str(distance))
    report = go(ptx, body, np.zeros(64, np.uint32), block=64)
    assert ptx.kinds(report) == ({"race"} if races else set())
    if races:
        (finding,) = report.findings
        lines = [i for i, line in enumerate(body.split("\n")) if ".shared.u32" in line]
        assert finding.other is not None
        assert finding.line - finding.other == lines[1] - lines[0]


def test_writing_over_what_others_read_is_a_race(ptx):
    for sync, races in (("bar.sync 0;", False), ("", True)):
        body = SHARED + EXCHANGE.replace("SYNC", "bar.sync 0;").replace("DISTANCE", "32")
        report = go(
            ptx, body + f"\n{sync}\nst.shared.u32 [%r51], 1;", np.zeros(64, np.uint32), block=64
        )
        assert ptx.kinds(report) == ({"race"} if races else set())


def test_bytes_of_one_word_do_not_race(ptx):
    body = SHARED + "add.u32 %r1, %r50, %r0;\nst.shared.u8 [%r1], %r0;"
    assert not go(ptx, body, np.zeros(1, np.uint32), block=64).findings


@pytest.mark.parametrize(
    ("body", "races"),
    [
        ("st.global.u32 [%rd1], 1;", True),
        ("red.global.add.u32 [%rd1], 1;", False),
        ("red.global.add.u32 [%rd1], 1;\nld.global.u32 %r1, [%rd1];", True),
        ("ld.global.u32 %r1, [%rd1];", False),
        ("ld.global.u32 %r1, [%rd1];\nmad.wide.u32 %rd5, %r40, 4, %rd1;\nst.global.u32 [%rd5], 1;",
         True),
    ],
)  # fmt: skip
def test_blocks_race_in_global_memory(body, races, ptx):
    for resident in (1, 1 << 14):
        text = "mov.u32 %r40, %ctaid.x;\n" + body
        report = go(ptx, text, np.zeros(4, np.uint32), block=1, grid=4, resident=resident)
        assert ptx.kinds(report) == ({"race"} if races else set()), resident


def test_warps_race_in_global_memory(ptx):
    exchange = (
        "mad.wide.u32 %rd5, %r0, 4, %rd1;\nst.global.u32 [%rd5], %r0;\nSYNC\n"
        "xor.b32 %r1, %r0, 32;\n"
        "mad.wide.u32 %rd6, %r1, 4, %rd1;\nld.global.u32 %r2, [%rd6];"
    )
    for sync, races in (("bar.sync 0;", False), ("", True)):
        report = go(ptx, exchange.replace("SYNC", sync), np.zeros(64, np.uint32), block=64)
        assert ptx.kinds(report) == ({"race"} if races else set())


# -- images


def image(ptx, body, *accesses):
    names = "abcd"[: len(accesses)]
    text = ptx.kernel(ptx.prologue(*names) + body + "\nret;", ptx.pointers(*names))
    parameters = tuple(
        Parameter(name, "u32", access, 128) for name, access in zip(names, accesses, strict=True)
    )
    return KernelImage("k", "sm_90a", text, parameters, (1, 1, 1), (32, 1, 1))


COPY = (
    "mad.wide.u32 %rd5, %r0, 4, %rd1;\nmad.wide.u32 %rd6, %r0, 4, %rd2;\n"
    "ld.global.u32 %r1, [%rd5];\nst.global.u32 [%rd6], %r1;"
)
LOOSE = Options(strict=False)


def test_image_says_what_its_buffers_are_for(ptx):
    given, out = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    good = image(ptx, COPY, Access.READ, Access.WRITE)
    report = simulate(good, {"b": out, "a": given})
    assert (out == given).all()
    assert report.unwritten == {"b": 0}
    swapped = simulate(image(ptx, COPY, Access.WRITE, Access.READ), [given, out], options=LOOSE)
    assert {(str(one.kind), one.message[:5]) for one in swapped.findings} == {
        ("uninitialized", "reads"),
        ("out-of-bounds", "a wri"),
    }
    half = COPY.replace("st.global", "setp.lt.u32 %p1, %r0, 8;\n@%p1 st.global")
    report = simulate(image(ptx, half, Access.READ, Access.WRITE), [given, out])
    assert report.unwritten == {"b": 96}
    assert "not written: 96 bytes of b" in report.text()


def test_what_is_only_read_is_left_alone(ptx):
    given, out = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    given.flags.writeable = False
    simulate(image(ptx, COPY, Access.READ, Access.WRITE), [given, out])
    np.testing.assert_array_equal(out, given)
    np.testing.assert_array_equal(given, np.arange(32))


# -- counts


@pytest.mark.parametrize(
    ("stride", "size", "wavefronts"),
    [(4, 4, 1), (8, 4, 2), (128, 4, 32), (132, 4, 1), (0, 4, 1), (8, 8, 2), (16, 16, 4),
     (64, 16, 16), (80, 16, 4)],
)  # fmt: skip
def test_bank_conflicts(stride, size, wavefronts, ptx):
    vector = {4: ("", "%r0"), 8: (".v2", "{%r0, %r0}"), 16: (".v4", "{%r0, %r0, %r0, %r0}")}[size]
    body = (
        ".shared .align 16 .b8 box[8192];\nmov.u32 %r50, box;\n"
        f"mad.lo.u32 %r51, %r0, {stride}, %r50;\nst.shared{vector[0]}.u32 [%r51], {vector[1]};"
    )
    report = go(ptx, body, np.zeros(1, np.uint32))
    assert report.shared_wavefronts == wavefronts
    assert report.shared_ideal == max(1, size // 4)


@pytest.mark.parametrize("lanes", [1, 12, 20])
def test_lanes_that_are_not_there_are_in_no_bank(lanes, ptx):
    body = (
        ".shared .align 16 .b8 box[512];\nmov.u32 %r50, box;\nmad.lo.u32 %r51, %r0, 16, %r50;\n"
        f"setp.lt.u32 %p1, %r0, {lanes};\n@%p1 st.shared.v4.u32 [%r51], {{%r0, %r0, %r0, %r0}};"
    )
    assert go(ptx, body, np.zeros(1, np.uint32)).bank_conflicts == 0


@pytest.mark.parametrize(("stride", "sectors"), [(4, 4), (8, 8), (32, 32), (0, 1)])
def test_sectors(stride, sectors, ptx):
    body = f"mad.wide.u32 %rd5, %r0, {stride}, %rd1;\nld.global.u32 %r1, [%rd5];"
    report = go(ptx, body, np.zeros(1024, np.uint8))
    assert report.global_sectors == sectors
    assert report.as_json()["global_sectors"] == sectors


def test_counts_can_be_left_out(ptx):
    report = go(ptx, "ld.global.u32 %r1, [%rd1];", np.zeros(4, np.uint32), counts=False)
    assert report.globals == []
    assert report.instructions == 4 * 32
    assert report.warp_instructions == 4
    assert report.classes == {"memory": 64, "move": 32, "control": 32}
