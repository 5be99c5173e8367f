"""Counts of machine code: innermost loops by their jumps, and a trip of them by llvm-mca."""

import re

import pytest
from xdsl.dialects.builtin import ModuleOp, f32

from nybble.backends.cpu import isa
from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.kernels.builder import BufferSpec, KernelBuilder
from nybble.backends.cpu.machine import cpu_flags, for_level
from nybble.backends.cpu.object_code import (
    Instruction,
    disassembled,
    innermost,
    inspect,
    throughput,
)
from nybble.backends.llvm.toolchain import CodegenError
from nybble.tools.cost.collect import Built
from nybble.tools.cost.kernel_workloads import row_text
from nybble.tools.cost.subject import Subject


def loops(*code):
    """First and last address of each innermost loop."""
    found = innermost([Instruction(at, text) for at, text in code])
    return [(loop[0].at, loop[-1].at) for loop in found]


def test_innermost_loops_are_those_without_another():
    nest = [(0, "movq"), (4, "vaddps"), (8, "jne\t0x4 <k+0x4>"), (12, "jb\t0x0 <k>"), (16, "ret")]
    assert loops(*nest) == [(4, 8)]
    twice = [(0, "a"), (4, "jne\t0x0 <k>"), (8, "b"), (12, "jne\t0x8 <k+0x8>")]
    assert loops(*twice) == [(0, 4), (8, 12)]


def test_jumps_ahead_and_elsewhere_make_no_loop():
    assert loops((0, "je\t0x8 <k+0x8>"), (4, "jmp\t0x400 <other>"), (8, "ret")) == []


def test_two_ways_back_are_one_loop():
    assert loops((0, "a"), (4, "jne\t0x0 <k>"), (8, "jb\t0x0 <k>")) == [(0, 4)]


@pytest.fixture(scope="module")
def code():
    """The object of a norm on 256 columns."""
    built = Built(Subject(row_text("norm", "1", 256, 1), 1, isa.get("x86-64-v3")))
    built.add([built.subject.choices.settle({})])
    return built.objects[0]


def test_counts_of_a_kernel(code):
    (counts,) = inspect(code).values()
    assert counts["instructions"] > counts["vector"] > counts["multiplies"] > 0
    assert counts["instructions"] > counts["inner"] > counts["inner_stack"] >= 0
    assert 0 < counts["registers"] <= isa.detect(cpu_flags()).registers


def test_a_trip_of_the_main_loop(code):
    (trip,) = throughput(code, "znver3").values()
    (counts,) = inspect(code).values()
    assert 0 < trip.instructions <= counts["inner"]
    assert trip.micro_operations >= trip.instructions
    assert trip.cycles >= trip.instructions / 6  # what a Zen 3 starts in a cycle
    assert "\0" not in str(trip)
    assert trip.limit.startswith("Zn3")


def test_a_processor_that_llvm_does_not_know(code):
    with pytest.raises(CodegenError, match="llvm-mca failed"):
        throughput(code, "z80000")


@pytest.mark.parametrize(("level", "size"), [("x86-64-v3", 32), ("x86-64-v4", 64)])
def test_registers_on_the_stack_never_lie_across_lines_of_the_cache(level, size):
    lanes, count = size // 4, 48
    b = KernelBuilder("f", [BufferSpec("x", count * lanes, f32)])
    (x,) = b.buffers
    for i, value in enumerate(reversed([x.vload(i * lanes, lanes) for i in range(count)])):
        x.vstore(value, i * lanes)
    machine = for_level(isa.get(level))
    (code,) = disassembled(compile_module(ModuleOp([b.finish()]), machine)).values()
    places = [place for one in code for place in re.findall(r"%[yz]mm\d+, (.*)\(%rsp\)", one.code)]
    assert len(places) >= count - 32
    assert all(int(place or "0", 0) % size == 0 for place in places)
    assert any(one.code.split() == ["andq", f"$-0x{size:x},", "%rsp"] for one in code)
