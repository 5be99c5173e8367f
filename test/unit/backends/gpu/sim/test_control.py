"""Branches, barriers and warps: who runs when, and what is wrong with it."""

import numpy as np
import pytest

from nybble.backends.gpu.sim.ptx import PtxError
from nybble.backends.gpu.sim.simulate import Launch, Options, simulate
from nybble.dialects.errors import LimitError, NybbleError

STORE = "mad.wide.u32 %rd20, %r0, 4, %rd1;\nst.global.u32 [%rd20], %r1;\n"


def outputs(ptx, body, block=32, **options):
    """What each thread stores of %r1, and the report."""
    out = np.full(block, 99, np.uint32)
    text = ptx.kernel(ptx.prologue("out") + body, ptx.pointers("out"))
    return out, ptx.run(text, [out], block=block, **options)


def test_loops_of_different_lengths(ptx):
    body = (
        "mov.u32 %r1, 0;\nmov.u32 %r2, %r0;\nLOOP:\nsetp.eq.u32 %p1, %r2, 0;\n@%p1 bra DONE;\n"
        "add.u32 %r1, %r1, %r2;\nsub.u32 %r2, %r2, 1;\nbra LOOP;\nDONE:\n" + STORE + "ret;"
    )
    out, report = outputs(ptx, body, block=70)
    assert out.tolist() == [i * (i + 1) // 2 for i in range(70)]
    assert not report.findings


def test_branch_table(ptx):
    body = (
        "and.b32 %r2, %r0, 3;\nTABLE: .branchtargets A, B, A, C;\nbrx.idx %r2, TABLE;\n"
        "A:\nmov.u32 %r1, 10;\nbra END;\nB:\nmov.u32 %r1, 20;\nbra END;\nC:\nmov.u32 %r1, 30;\n"
        "END:\n" + STORE + "ret;"
    )
    out, _ = outputs(ptx, body)
    assert out.reshape(-1, 4)[0].tolist() == [10, 20, 10, 30]


def test_scopes_have_registers_and_labels_of_their_own(ptx):
    scope = (
        "{\n.reg .b32 %t;\nmov.u32 %t, %r1;\nsetp.lt.u32 %p1, %t, 5;\n@%p1 bra SKIP;\n"
        "add.u32 %r1, %t, 100;\nSKIP:\nadd.u32 %r1, %r1, 1;\n}\n"
    )
    out, _ = outputs(ptx, "mov.u32 %r1, %r0;\n" + scope + scope + STORE + "ret;", block=8)
    assert out.tolist() == [2, 3, 4, 5, 106, 207, 208, 209]


def test_predicated_off_instruction_does_nothing(ptx):
    body = (
        "mov.u32 %r1, 5;\nsetp.gt.u32 %p1, %r0, 1000;\n@%p1 st.global.u32 [0], %r1;\n"
        "@!%p1 mov.u32 %r1, 6;\n" + STORE + "ret;"
    )
    out, report = outputs(ptx, body)
    assert (out == 6).all()
    assert not report.findings


def test_threads_may_end_before_a_barrier(ptx):
    body = "setp.ge.u32 %p1, %r0, 40;\n@%p1 ret;\nbar.sync 0;\nmov.u32 %r1, 1;\n" + STORE + "ret;"
    out, report = outputs(ptx, body, block=96)
    assert out.tolist() == [1] * 40 + [99] * 56
    assert not report.findings


def test_empty_grid_runs_nothing(ptx):
    text = ptx.kernel(ptx.prologue("out") + "ret;", ptx.pointers("out"))
    report = ptx.run(text, [np.zeros(1, np.uint32)], grid=(0, 1, 1))
    assert report.instructions == 0
    assert "findings: 0" in report.text()


def test_special_registers_in_three_dimensions(ptx):
    body = ptx.prologue("out") + (
        "mov.u32 %r1, %ctaid.z;\nmov.u32 %r2, %nctaid.y;\nmov.u32 %r3, %ctaid.y;\n"
        "mad.lo.u32 %r4, %r1, %r2, %r3;\nmov.u32 %r5, %ntid.x;\nmov.u32 %r6, %tid.y;\n"
        "mov.u32 %r7, %ntid.y;\nmad.lo.u32 %r8, %r4, %r7, %r6;\nmad.lo.u32 %r9, %r8, %r5, %r0;\n"
        "mad.wide.u32 %rd20, %r9, 4, %rd1;\nst.global.u32 [%rd20], %r9;\nret;"
    )
    out = np.zeros(2 * 3 * 5 * 7, np.uint32)
    report = ptx.run(ptx.kernel(body, ptx.pointers("out")), [out], block=(7, 5, 1), grid=(1, 3, 2))
    assert out.tolist() == list(range(len(out)))
    assert not report.findings


def test_batches_give_the_same(ptx):
    body = ptx.prologue("out") + (
        "mov.u32 %r1, %ctaid.x;\nmad.lo.u32 %r2, %r1, 48, %r0;\nmad.wide.u32 %rd20, %r2, 4, %rd1;\n"
        "st.global.u32 [%rd20], %r2;\nret;"
    )
    for resident in (1, 130, 1 << 14):
        out = np.zeros(48 * 9, np.uint32)
        text = ptx.kernel(body, ptx.pointers("out"))
        report = ptx.run(text, [out], block=48, grid=9, resident=resident)
        assert out.tolist() == list(range(len(out)))
        assert report.instructions == len(out) * 7


SHUFFLES = {
    "bfly.b32 %r1|%p1, %r0, 5, 31": lambda i: i ^ 5,
    "up.b32 %r1|%p1, %r0, 3, 0": lambda i: i - 3 if i >= 3 else i,
    "down.b32 %r1|%p1, %r0, 3, 31": lambda i: i + 3 if i + 3 < 32 else i,
    "idx.b32 %r1|%p1, %r0, 9, 31": lambda i: 9,
    "bfly.b32 %r1|%p1, %r0, 2, 0x181f": lambda i: i ^ 2,
    "idx.b32 %r1|%p1, %r0, 1, 0x181f": lambda i: i // 8 * 8 + 1,
}


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_shuffles(shuffle, ptx):
    out, _ = outputs(ptx, f"shfl.sync.{shuffle}, -1;\n" + STORE + "ret;")
    assert out.tolist() == [SHUFFLES[shuffle](i) for i in range(32)]


def test_votes_and_reductions(ptx):
    body = (
        "and.b32 %r2, %r0, 1;\nsetp.eq.u32 %p1, %r2, 1;\nvote.sync.ballot.b32 %r3, %p1, -1;\n"
        "vote.sync.any.pred %p2, %p1, -1;\nvote.sync.all.pred %p3, %p1, -1;\n"
        "selp.u32 %r4, 1, 0, %p2;\nselp.u32 %r5, 2, 0, %p3;\nadd.u32 %r6, %r4, %r5;\n"
        "redux.sync.add.u32 %r7, %r0, -1;\nredux.sync.max.s32 %r8, %r0, -1;\n"
        "match.any.sync.b32 %r9, %r2, -1;\nactivemask.b32 %r10;\n"
        "xor.b32 %r11, %r3, %r9;\nadd.u32 %r12, %r7, %r8;\nadd.u32 %r1, %r12, %r6;\n"
        "setp.ne.u32 %p4, %r11, 0;\n@%p4 add.u32 %r1, %r1, %r10;\n" + STORE + "ret;"
    )
    out, _ = outputs(ptx, body)
    total = 496 + 31 + 1
    assert out[1] == total
    assert out[0] == (total + 0xFFFFFFFF) % 2**32


def test_elect_chooses_one(ptx):
    body = "elect.sync %r2|%p1, -1;\nselp.u32 %r1, 1, 0, %p1;\n" + STORE + "ret;"
    out, _ = outputs(ptx, body, block=64)
    assert out.nonzero()[0].tolist() == [0, 32]


def test_partial_warp_shuffles_among_those_that_are_there(ptx):
    out, report = outputs(ptx, "shfl.sync.bfly.b32 %r1, %r0, 16, 31, 0xff;\n" + STORE + "ret;", 8)
    assert out.tolist() == list(range(8))
    assert not report.findings


def test_shuffle_waits_for_the_lanes_of_its_mask(ptx):
    body = (
        "mov.u32 %r1, 7;\nsetp.lt.u32 %p1, %r0, 16;\n@%p1 bra LOW;\nmov.u32 %r1, 8;\n"
        "shfl.sync.bfly.b32 %r1, %r1, 1, 31, 0xffff0000;\nbra END;\n"
        "LOW:\nshfl.sync.bfly.b32 %r1, %r1, 1, 31, 0xffff;\nEND:\n" + STORE + "ret;"
    )
    out, report = outputs(ptx, body)
    assert out.tolist() == [7] * 16 + [8] * 16
    assert not report.findings


def test_shuffle_of_half_a_warp_with_a_full_mask_hangs(ptx):
    body = (
        "setp.lt.u32 %p1, %r0, 16;\n@%p1 bra LOW;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;\n"
        "bra END;\nLOW:\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, -1;\nEND:\nret;"
    )
    _, report = outputs(ptx, body)
    assert ptx.kinds(report) == {"deadlock"}


def test_mask_of_lanes_that_have_ended(ptx):
    body = (
        "setp.lt.u32 %p1, %r0, 8;\n@%p1 ret;\nshfl.sync.bfly.b32 %r1, %r0, 1, 31, 0xfffffff0;\nret;"
    )
    _, report = outputs(ptx, body)
    assert ptx.kinds(report) == {"divergence"}


def test_barrier_reductions(ptx):
    body = (
        "setp.lt.u32 %p1, %r0, 40;\nbar.red.popc.u32 %r1, 0, %p1;\n"
        "barrier.cta.red.or.aligned.pred %p2, 0, %p1;\nbar.red.and.pred %p3, 0, %p1;\n"
        "@%p2 add.u32 %r1, %r1, 100;\n@%p3 add.u32 %r1, %r1, 1000;\n" + STORE + "ret;"
    )
    out, report = outputs(ptx, body, block=64)
    assert (out == 140).all()
    assert not report.findings


PRODUCER = (
    ".shared .align 4 .b8 box[256];\nmov.u32 %r2, box;\nmad.lo.u32 %r3, %r0, 4, %r2;\n"
    "setp.lt.u32 %p1, %r0, 32;\n@!%p1 bra CONSUME;\nadd.u32 %r4, %r0, 500;\n"
    "st.shared.u32 [%r3], %r4;\nbar.arrive 1, 64;\nret;\n"
    "CONSUME:\nbar.sync 1, 64;\nld.shared.u32 %r1, [%r3+-128];\n"
)


def test_named_barriers_order_warps(ptx):
    out, report = outputs(ptx, PRODUCER + STORE + "ret;", block=64)
    assert out[32:].tolist() == list(range(500, 532))
    assert not report.findings


def test_named_barrier_of_another_number_deadlocks(ptx):
    _, report = outputs(ptx, PRODUCER.replace("arrive 1", "arrive 2") + "ret;", block=64)
    assert "deadlock" in ptx.kinds(report)
    assert "32 of 64 threads" in report.text()


def test_barriers_at_different_places_are_found(ptx):
    body = "setp.lt.u32 %p1, %r0, 32;\n@%p1 bra LOW;\nbar.sync 0;\nret;\nLOW:\nbar.sync 0;\nret;"
    _, report = outputs(ptx, body, block=64)
    assert ptx.kinds(report) == {"divergence"}
    (finding,) = report.findings
    assert finding.other is not None


def test_barrier_in_a_branch_that_one_warp_leaves_out_deadlocks(ptx):
    body = "setp.lt.u32 %p1, %r0, 32;\n@%p1 bar.sync 0;\nbar.sync 1;\nret;"
    _, report = outputs(ptx, body, block=64)
    assert "deadlock" in ptx.kinds(report)


def test_polling_for_what_never_comes_ends(ptx):
    body = (
        "LOOP:\nld.volatile.global.u32 %r1, [%rd1];\nsetp.ne.u32 %p1, %r1, 1;\n@%p1 bra LOOP;\nret;"
    )
    _, report = outputs(ptx, body)
    assert ptx.kinds(report) == {"deadlock"}


def test_endless_loop_reaches_the_limit(ptx):
    with pytest.raises(LimitError, match="more than 1000 instructions"):
        outputs(ptx, "LOOP:\nbra LOOP;\nret;", limit=1000)


def test_blocks_hand_work_to_each_other_by_flags(ptx):
    """Block 0 writes, fences and sets a flag; block 1 polls for it and reads."""
    body = ptx.prologue("out", "flag") + (
        "mov.u32 %r2, %ctaid.x;\nsetp.eq.u32 %p1, %r2, 0;\n@%p1 bra FIRST;\n"
        "LOOP:\nld.acquire.gpu.global.u32 %r3, [%rd2];\nsetp.ne.u32 %p2, %r3, 1;\n@%p2 bra LOOP;\n"
        "ld.global.u32 %r4, [%rd1];\nst.global.u32 [%rd1+4], %r4;\nret;\n"
        "FIRST:\nst.global.u32 [%rd1], 42;\nFENCE\nst.RELEASE.gpu.global.u32 [%rd2], 1;\nret;"
    )
    cases = [("", "release", set()), ("fence.acq_rel.gpu;", "relaxed", set()),
             ("", "relaxed", {"race"})]  # fmt: skip
    for fence, order, expected in cases:
        text = ptx.kernel(body.replace("FENCE", fence).replace("RELEASE", order),
                          ptx.pointers("out", "flag"))  # fmt: skip
        out, flag = np.zeros(2, np.uint32), np.zeros(1, np.uint32)
        report = ptx.run(text, [out, flag], block=1, grid=2)
        assert ptx.kinds(report) == expected, (fence, order)
        assert out.tolist() == [42, 42]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("vset.u32.u32.eq %r1, %r0, %r0;\nret;", "'vset.u32.u32.eq' is not modelled"),
        ("add.cc.u32 %r1, %r0, %r0;\nret;", "'.cc' of 'add.cc.u32' is not modelled"),
        ("mul.f32.f16 %r1, %r0, %r0;\nret;", "of types .f32, .f16 is not modelled"),
        ("call foo;\nret;", "'call' is not modelled"),
        ("mov.u32 %r1, %nothing;\nret;", "'%nothing' is neither a register nor"),
        ("bra NOWHERE;", "there is no label 'NOWHERE'"),
        ("add.u32 %r1, %r0;", "has 2 operands, too few"),
        ("setp.lt.u32 %r1, %r0, 1;", "'%r1' is a .b32 register"),
        ("st.shared.v2.u32 [0], {%r0};", "has 1 registers for 2 values"),
        ("addc.u32 %r1, %r0, 1;", "carry flag"),
        ("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%fd0}, {%fd1}, {%fd2}, {%fd0};",
         "is not modelled"),
    ],
)  # fmt: skip
def test_what_is_not_modelled_is_an_error_with_its_line(body, message, ptx):
    text = ptx.kernel(ptx.prologue("out") + body, ptx.pointers("out"))
    with pytest.raises(PtxError, match=message) as raised:
        ptx.run(text, [np.zeros(1, np.uint32)])
    line = text[: text.index(body)].count("\n") + 1
    assert raised.value.location is not None
    assert raised.value.location.line == line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".entry k() { add.u32 %r1, {%r0; }", "brackets do not match"),
        (".entry k() { ret;", "kernel 'k' has no end"),
        (".entry k()", "kernel 'k' has no body"),
        ("nonsense here;", "'nonsense here' is not a declaration"),
        (".global .q8 x;", "'.q8' is not a type"),
        (".global .u32 x = {y};", "'y' is not a number"),
        (".entry k() { 12; }", "'12' is not an instruction"),
        (".entry k() { ret }", "no ';' ends this"),
        (".entry k() { mov.u32 a, b?c; }", "'b.c' is not an operand"),
    ],
)
def test_what_cannot_be_read_is_an_error(text, message):
    with pytest.raises(PtxError, match=message):
        simulate(text, [], Launch())


def test_launches_and_arguments_that_do_not_fit(ptx):
    text = ptx.kernel("ret;", ".param .u64 x, .param .u32 n")
    good = np.zeros(4, np.float32)
    for arguments, launch, message in [
        ([good], Launch(), "was given 1 arguments"),
        ({"x": good}, Launch(), "has no argument 'n'"),
        ({"x": good, "n": 1, "y": 2}, Launch(), "has no parameter 'y'"),
        ([good, 1 << 40], Launch(), "parameter 'n' of 4 bytes cannot be"),
        ([good, 1.5], Launch(), "parameter 'n' is a whole number"),
        ([good, good], Launch(), "parameter 'n' of 4 bytes is no pointer"),
        ([good[::2], 1], Launch(), "is not contiguous"),
        ([good, 1], None, "PTX needs a launch"),
        ([good, 1], Launch(shared=1 << 20), "bytes of shared memory"),
    ]:
        with pytest.raises(NybbleError, match=message):
            simulate(text, arguments, launch)
    with pytest.raises(PtxError, match="has no kernel 'other'"):
        simulate(text, [good, 1], Launch(), entry="other")
    with pytest.raises(NybbleError, match="2048 threads in a block"):
        Launch(block=(2048, 1, 1))
    with pytest.raises(NybbleError, match="in clusters of"):
        Launch(grid=(3, 1, 1), cluster=(2, 1, 1))
    with pytest.raises(NybbleError, match="a launch of grid"):
        Launch(grid=(-1, 1, 1))


def test_strict_simulation_raises_its_findings(ptx):
    text = ptx.kernel(
        ptx.prologue("out") + "st.global.u32 [%rd1+4], %r0;\nret;", ptx.pointers("out")
    )
    with pytest.raises(NybbleError, match="kernel 'k': line 15: out-of-bounds: a write of 4 bytes"):
        simulate(text, [np.zeros(1, np.uint32)], Launch())
    simulate(text, [np.zeros(1, np.uint32)], Launch(), options=Options(checks=frozenset()))
