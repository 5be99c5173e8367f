"""Faults put into kernels that are right: each is found by a check, or gives a wrong result.

The kernels are pipelines by cp.async and mma (Ampere), and by TMA, mbarriers and wgmma (Hopper),
and one of nybble's own, whose wgmma takes its left operand from registers (Warpgroups).
"""

import re

import numpy as np
import pytest

from nybble.backends.gpu.image import Boxes
from nybble.dialects.errors import NybbleError


def change(pattern, replacement, text, seed=0):
    """The text with one of the places that match a pattern changed, chosen by a seed."""
    places = list(re.finditer(pattern, text))
    assert places, pattern
    found = places[int(np.random.default_rng(seed).integers(len(places))) if seed else 0]
    mutant = text[: found.start()] + found.expand(replacement) + text[found.end() :]
    assert mutant != text
    return mutant


LINE = r"(?m)^.*{}.*$"
AMPERE = {
    "no barrier": (LINE.format("bar.sync"), ""),
    "no wait": (LINE.format("cp.async.wait_group"), ""),
    "wait for one group less": (r"wait_group 1", "wait_group 2"),
    "no commit of the first group": (LINE.format("cp.async.commit_group"), ""),
    "copies of half the size": (r"(cp\.async\.)cg(.*), 16;", r"\1ca\2, 8;"),
    "copy to another place": (r"(cp\.async\.cg\.shared\.global \[%r\d+)\]", r"\1+16]"),
    "copy from another place": (r"(cp\.async\.cg.*\[%rd\d+)\]", r"\1+16]"),
    "copy beyond the buffer": (r"(cp\.async\.cg.*\[%rd\d+)\]", r"\1+65536]"),
    "misaligned copy": (r"(cp\.async\.cg.*\[%rd\d+)\]", r"\1+8]"),
    "table of lop3": (r"0xea;", "0xca;"),
    "another table of lop3": (r"0xea;", "0xfe;"),
    "mask of lop3": (r"0x000f000f", "0x00070007"),
    "magic number of lop3": (r"0x64006400", "0x64016400"),
    "trans": (r"(ldmatrix.*x4)", r"\1.trans"),
    "row of ldmatrix": (r"(ldmatrix.*\[%r\d+)\]", r"\1+64]"),
    "misaligned row": (r"(ldmatrix.*\[%r\d+)\]", r"\1+4]"),
    "registers of A swapped": (
        r"(mma.*\n?.*\}, \{)(%r\d+),\s?(%r\d+),\s?(%r\d+)", r"\1\3,\2,\4"),
    "registers of A and B": (r"(mma\.sync[^;]*\}, \{)(%r\d+)([^;]*\}, \{)(%r\d+)", r"\1\4\3\2"),
    "types of mma": (r"f32\.f16\.f16\.f32", "f32.bf16.bf16.f32"),
    "no accumulation": (r"(mma\.sync[^;]*, )\{[^}]*\}(;)", r"\1{%f900,%f900,%f900,%f900}\2"),
    "swizzle": (r"xor\.b32", "or.b32"),
    "sign of the zero point": (r"sub\.f16x2|sub\.rn\.f16x2", "add.f16x2"),
    "width of a load": (r"(ld\.shared\.v2)\.u32", r"\1.u16"),
    "another register stored": (
        r"(st\.global\.v2\.[fb]32 \[[^\]]*\], \{)(%\w+), (%\w+)", r"\1\3, \2"),
    "store to another place": (r"(st\.global\.v2\.[fb]32 \[%rd\d+)(\+\d+)?\]", r"\1+8192]"),
    "misaligned store": (r"(st\.global\.v2\.[fb]32 \[%rd\d+)(\+\d+)?\]", r"\1+4]"),
    "predicate inverted": (r"@%p(\d+) bra", r"@!%p\1 bra"),
    "shift": (r"shr\.u32 (%r\d+), (%r\d+), %r(\d+)", r"shl.b32 \1, \2, %r\3"),
    "loop that ends early": (r"(add\.s32 (%r\d+), \2), -2;", r"\1, -4;"),
    "no predicate": (r"@%p\d+ bra", "bra"),
}  # fmt: skip
DONE = "setp.eq.u32 done, 0, 0;"
HOPPER = {
    "no barrier behind the init": (LINE.format(r"bar.sync \t?0|barrier.sync \t?0"), ""),
    "no init": (LINE.format(r"mbarrier.init.*, 128"), ""),
    "init of another count": (r"(mbarrier.init.*), 128;", r"\1, 127;"),
    "init of too many": (r"(mbarrier.init.*), 128;", r"\1, 129;"),
    "too many bytes expected": (r"16384;", "16400;"),
    "too few bytes expected": (r"16384;", "8192;"),
    "no wait for a full stage": (r"(?s)(setmaxnreg\.inc.*?)mbarrier\.try_wait[^;]*;", r"\1" + DONE),
    "no wait for an empty stage": (
        r"(?s)\A((?:.*?try_wait){2}.*?)mbarrier\.try_wait[^;]*;",
        r"\1" + DONE,
    ),
    "no fence of registers": (LINE.format("wgmma.fence"), ""),
    "no wait for products": (LINE.format("wgmma.wait_group"), ""),
    "wait for one group less": (r"(wgmma\.wait_group\.sync\.aligned) 0", r"\1 1"),
    "no commit of products": (LINE.format("wgmma.commit_group"), ""),
    "no release of a stage": (LINE.format(r"mbarrier\.arrive\.shared::cta"), ""),
    "transposed operand": (r"1, 1, 1, 0, 0;", "1, 1, 1, 0, 1;"),
    "negated operand": (r"1, 1, 1, 0, 0;", "1, -1, 1, 0, 0;"),
    "no accumulation": (r"1, 1, 1, 0, 0;", "0, 1, 1, 0, 0;"),
    "swizzle of a descriptor": (r"4611686293305360384", "9223372311732748288"),
    "stride of a descriptor": (r"4611686293305360384", "4611686155866406912"),
    "no fence of the proxy": (LINE.format("fence.proxy.async"), ""),
    "no barrier before the store": (LINE.format(r"bar.sync \t?1"), ""),
    "barrier of fewer threads": (r"bar.sync 1, 128", "bar.sync 1, 96"),
    "coordinate of a store": (r"(bulk\.tensor\.2d\.global.*\{%r\d+, )%r\d+", r"\g<1>8"),
    "coordinate of a load": (r"(bulk\.tensor\.2d\.shared.*\{)%r\d+", r"\g<1>8"),
    "place of a load": (r"(complete_tx::bytes \[%r\d+)\]", r"\1+1024]"),
    "map of a load": (r"hopper_param_1\b(?!\[)", "hopper_param_0"),
    "another barrier for a load": (r"(complete_tx::bytes [^;]*\[%r\d+)\];", r"\1+16];"),
}

BEFORE_THE_WAIT = r"(?s)(mma_async\S+ \{(%r\d+)[^}]*\}, \{(%r\d+).*?)(wgmma\.wait_group)"
WARPGROUPS = {
    "no fence of registers": (r"wgmma\.fence\.sync\.aligned; ", ""),
    "no wait for products": (r"wgmma\.wait_group\.sync\.aligned 0;", ""),
    "no commit of products": (r"wgmma\.commit_group\.sync\.aligned; ", ""),
    "sums read in flight": (BEFORE_THE_WAIT, r"\1mov.b32 %r1, \2; \4"),
    "sums written in flight": (BEFORE_THE_WAIT, r"\1mov.b32 \2, 0; \4"),
    "weights written in flight": (BEFORE_THE_WAIT, r"\1mov.b32 \3, 0; \4"),
    "stride of a descriptor": (r"4611686293305360384", "4611686155866406912"),
    "swizzle of a descriptor": (r"4611686293305360384", "9223372311732748288"),
    "another descriptor": (r"4611686293305360386", "4611686293305360384"),
    "too many bytes expected": (r"(expect_tx.*), 2048;", r"\1, 4096;"),
    "too few bytes expected": (r"(expect_tx.*), 2048;", r"\1, 1024;"),
    "arrivals of too few warps": (r"(mbarrier.init.*), 8;", r"\1, 7;"),
    "a slot that is not given back": (LINE.format(r"mbarrier\.arrive\.shared"), ""),
    "no wait for a slot": (r"mbarrier\.try_wait[^;]*;", DONE),
    "no wait for a box": (r"(?s)(setmaxnreg\.inc.*?)mbarrier\.try_wait[^;]*;", r"\1" + DONE),
    "no barrier behind the init": (LINE.format("bar.sync"), ""),
    "column of a box": (r"(bulk\.tensor\.2d.*\{)%r\d+", r"\g<1>8"),
    "no wait for weights": (LINE.format("cp.async.wait_group"), ""),
}  # fmt: skip


def assert_found(kernel, mutant):
    """A fault is found: an error, a finding or a wrong result."""
    try:
        report, right = kernel.run(mutant)
    except NybbleError:
        return
    assert report.findings or not right


def test_kernels_are_right(ampere, hopper, warpgroups):
    for kernel in (ampere, hopper, warpgroups):
        report, right = kernel.run(kernel.text)
        assert right
        assert not report.findings, report.text()


@pytest.mark.parametrize("fault", AMPERE)
def test_faults_of_cp_async_and_mma(fault, ampere):
    pattern, replacement = AMPERE[fault]
    assert_found(ampere, change(pattern, replacement, ampere.text))


@pytest.mark.parametrize("fault", HOPPER)
def test_faults_of_tma_and_wgmma(fault, hopper):
    pattern, replacement = HOPPER[fault]
    assert_found(hopper, change(pattern, replacement, hopper.text))


@pytest.mark.parametrize("fault", WARPGROUPS)
def test_faults_of_warpgroups(fault, warpgroups):
    pattern, replacement = WARPGROUPS[fault]
    assert_found(warpgroups, change(pattern, replacement, warpgroups.text))


@pytest.mark.parametrize("swizzle", [0, 64])
def test_boxes_of_another_swizzle_are_found(swizzle, warpgroups):
    boxes = warpgroups.boxes
    other = Boxes(boxes.shape, boxes.box, swizzle)
    assert_found(warpgroups.with_boxes(other), warpgroups.text)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("sums read in flight", "uses register"), ("sums written in flight", "writes register"),
        ("weights written in flight", "writes register"),
    ],
)  # fmt: skip
def test_registers_in_flight_are_named(fault, text, warpgroups):
    report, _ = warpgroups.run(change(*WARPGROUPS[fault], warpgroups.text))
    assert "asynchronous" in {str(one.kind) for one in report.findings}
    assert text in report.text()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["ampere", "hopper"])
def test_accesses_at_other_places(name, seed, request):
    """Any access that is executed, moved by some bytes."""
    kernel = request.getfixturevalue(name)
    report, _ = kernel.run(kernel.text)
    random = np.random.default_rng(seed)
    lines = kernel.text.split("\n")
    accesses = [one.line for one in (*report.shared, *report.globals)]
    line = random.choice([one for one in accesses if "tensor" not in lines[one - 1]])
    step = random.choice([-64, -16, 4, 16, 32, 1024])
    lines[line - 1] = re.sub(r"\[(%\w+)(?:\+(-?\d+))?\]", lambda found: (
        f"[{found[1]}+{int(found[2] or 0) + step}]"
    ), lines[line - 1], count=1)  # fmt: skip
    assert_found(kernel, "\n".join(lines))


def test_a_race_names_both_lines(ampere):
    mutant = change(*AMPERE["no barrier"], ampere.text)
    report, _ = ampere.run(mutant)
    races = [one for one in report.findings if str(one.kind) == "race"]
    lines = mutant.split("\n")
    assert races
    for one in races:
        assert one.other is not None
        assert re.search(r"cp\.async|ldmatrix|ld\.shared", lines[one.line - 1])
        assert re.search(r"cp\.async|ldmatrix|ld\.shared", lines[one.other - 1])


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("no fence of the proxy", "proxy"),
        ("no fence of registers", "asynchronous"),
        ("no wait for products", "race"),
        ("no release of a stage", "deadlock"),
        ("too many bytes expected", "deadlock"),
        ("no barrier before the store", "race"),
        ("no init", "uninitialized"),
    ],
)
def test_faults_that_give_right_results_are_found_by_their_kind(fault, kind, hopper):
    report, _ = hopper.run(change(*HOPPER[fault], hopper.text))
    assert kind in {str(one.kind) for one in report.findings}


def test_results_in_flight_are_not_used(hopper):
    report, _ = hopper.run(re.sub(r"wgmma\.wait_group\.sync\.aligned 0;", "", hopper.text))
    assert "before wgmma.wait_group" in report.text()
