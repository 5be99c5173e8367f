"""Integer products compiled for AArch64, linked into a program and executed by QEMU."""

import subprocess
from dataclasses import replace
from shutil import which

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu import packing
from nybble.backends.cpu.codegen import assemble, compile_module
from nybble.backends.cpu.isa import LEVELS
from nybble.backends.cpu.kernels.buffers import byte_width
from nybble.backends.cpu.kernels.matmul import Codes, MatmulSpec, lower_matmul, matmul_buffers
from nybble.backends.cpu.machine import for_level
from nybble.dialects.lowbit.formats import Weight
from nybble.dialects.numpy_ref.quantize import integers_of, quantize_rows

EMULATOR, LINKER = "qemu-aarch64", "aarch64-linux-gnu-ld"
pytestmark = pytest.mark.skipif(
    not (which(EMULATOR) and which(LINKER)),
    reason=f"needs {EMULATOR} and {LINKER}: apt-get install qemu-user binutils-aarch64-linux-gnu",
)
SPECS = (
    MatmulSpec(Codes(4, 32, 8), (65,), 64),
    MatmulSpec(Codes(8, 32, 128), (65,), 64, digits=2),
    MatmulSpec(Codes(2, 64, 1), (65,), 128, activation_group=64),
    MatmulSpec(Codes(4, 32, 8), (65,), 64, 3, digits=2),
    MatmulSpec(Codes(8, 32, 128), (65,), 64, 3),
)
ALIGNMENT = 64

# Standard input fills the memory, the kernel runs, the memory goes to standard output.
PROGRAM = """
@memory = internal global [{size} x i8] zeroinitializer, align 64
declare void @kernel({types}, i64, i64, i64, i64)
define internal i64 @call(i64 %number, i64 %a, ptr %b, i64 %c) noinline {{
  %r = call i64 asm sideeffect "svc 0", "={{x0}},{{x8}},{{x0}},{{x1}},{{x2}},~{{memory}}"(
      i64 %number, i64 %a, ptr %b, i64 %c)
  ret i64 %r
}}
define internal void @all(i64 %number, i64 %file) noinline {{
entry:
  br label %more
more:
  %at = phi i64 [ 0, %entry ], [ %next, %more ]
  %place = getelementptr i8, ptr @memory, i64 %at
  %left = sub i64 {size}, %at
  %done = call i64 @call(i64 %number, i64 %file, ptr %place, i64 %left)
  %next = add i64 %at, %done
  %end = icmp eq i64 %next, {size}
  br i1 %end, label %out, label %more
out:
  ret void
}}
define ptr @memset(ptr %to, i32 %value, i64 %count) noinline "no-builtins" {{
entry:
  %byte = trunc i32 %value to i8
  %none = icmp eq i64 %count, 0
  br i1 %none, label %out, label %more
more:
  %at = phi i64 [ 0, %entry ], [ %next, %more ]
  %place = getelementptr i8, ptr %to, i64 %at
  store volatile i8 %byte, ptr %place
  %next = add i64 %at, 1
  %end = icmp eq i64 %next, %count
  br i1 %end, label %out, label %more
out:
  ret ptr %to
}}
define void @_start() {{
  call void @all(i64 63, i64 0)
  call void @kernel({arguments}, i64 {tokens}, i64 0, i64 0, i64 1)
  call void @all(i64 64, i64 1)
  %r = call i64 @call(i64 93, i64 0, ptr null, i64 0)
  unreachable
}}
"""


def run_under_qemu(spec, given, folder):
    """y f32 [tokens, rows] of a spec's kernel for arrays by buffer name."""
    machine, buffers = for_level(spec.isa), matmul_buffers(spec)
    offsets, size = {}, 0
    for buffer in buffers:
        offsets[buffer.name] = size
        size += -(-buffer.size * byte_width(buffer.dtype) // ALIGNMENT) * ALIGNMENT
    places = [f"ptr getelementptr (i8, ptr @memory, i64 {at})" for at in offsets.values()]
    program = PROGRAM.format(
        size=size,
        types=", ".join(["ptr"] * len(buffers)),
        arguments=", ".join(places),
        tokens=spec.tokens,
    )
    (folder / "start.o").write_bytes(assemble(program, machine, 1))
    module = ModuleOp([lower_matmul(spec, "kernel")])
    (folder / "kernel.o").write_bytes(compile_module(module, machine, 1))
    command = [LINKER, "-static", "-o", "program", "start.o", "kernel.o"]
    subprocess.run(command, cwd=folder, check=True)
    memory = np.zeros(size, np.uint8)
    for name, values in given.items():
        flat = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        memory[offsets[name] : offsets[name] + flat.size] = flat
    done = subprocess.run(
        [EMULATOR, "./program"], cwd=folder, input=memory.tobytes(), capture_output=True, check=True
    )
    result = np.frombuffer(done.stdout, np.uint8)[offsets["y0"] :].view(np.float32)
    return result[: spec.tokens * spec.rows[0]].reshape(spec.tokens, -1)


@pytest.mark.parametrize("level", ["aarch64-neon", "aarch64-dotprod"])
@pytest.mark.parametrize("number", range(len(SPECS)))
def test_products_are_exact(level, number, tmp_path):
    spec = replace(SPECS[number], isa=LEVELS[level])
    rng = np.random.default_rng(number)
    (rows,), cols, weight = spec.rows, spec.cols, spec.weight
    codes = rng.integers(0, 2**weight.bits, (rows, cols)).astype(np.uint8)
    ones = np.ones((rows, cols // weight.group), np.float32)
    x = rng.standard_normal((spec.tokens, cols)).astype(np.float32)
    q, s, z = quantize_rows(x, spec.activation_group, spec.digits)
    digits = q.reshape(spec.digits, spec.tokens, cols)
    padded = np.pad(digits, ((0, 0), (0, spec.padded - spec.tokens), (0, 0)))
    made = Weight("made up", codes, ones, zero_point=weight.zero_point)
    packed = packing.pack(made, weight.layout(rows, cols))
    given = {"q": padded, "s": np.ones_like(s), "z": z, "w0": packed}
    got = run_under_qemu(spec, given, tmp_path)
    numbers, weights = integers_of(q).astype(np.int64), codes.astype(np.int64) - weight.zero_point
    want = np.zeros(got.shape, np.float32)
    for first in range(0, cols, spec.activation_group):
        group = slice(first, first + spec.activation_group)
        want += (numbers[:, group] @ weights[:, group].T).astype(np.float32)
    np.testing.assert_array_equal(got, want)
