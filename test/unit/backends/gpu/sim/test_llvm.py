"""Kernels that LLVM's own NVPTX backend wrote, against numpy."""

import numpy as np
import pytest

from nybble.backends.llvm.toolchain import run as run_tool

RNG = np.random.default_rng(23)

KERNEL = """
target triple = "nvptx64-nvidia-cuda"
@tile = internal addrspace(3) global [128 x float] undef, align 16
@table = internal addrspace(4) constant [4 x i32] [i32 1, i32 -2, i32 3, i32 -4], align 4
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare void @llvm.nvvm.barrier.cta.sync.aligned.all(i32)
declare <4 x half> @llvm.fma.v4f16(<4 x half>, <4 x half>, <4 x half>)
declare i32 @llvm.fshl.i32(i32, i32, i32)
declare i32 @llvm.ctpop.i32(i32)
define ptx_kernel void @mixed(ptr addrspace(1) %x, ptr addrspace(1) %h, ptr addrspace(1) %out) {
entry:
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %b = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %base = mul i32 %b, 128
  %i = add i32 %base, %t
  %px = getelementptr float, ptr addrspace(1) %x, i32 %i
  %v = load float, ptr addrspace(1) %px
  %ps = getelementptr [128 x float], ptr addrspace(3) @tile, i32 0, i32 %t
  store float %v, ptr addrspace(3) %ps
  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)
  %m = sub i32 127, %t
  %pm = getelementptr [128 x float], ptr addrspace(3) @tile, i32 0, i32 %m
  %w = load float, ptr addrspace(3) %pm
  %k = and i32 %t, 3
  %pt = getelementptr [4 x i32], ptr addrspace(4) @table, i32 0, i32 %k
  %c = load i32, ptr addrspace(4) %pt
  %r = call i32 @llvm.fshl.i32(i32 %c, i32 %i, i32 5)
  %n = call i32 @llvm.ctpop.i32(i32 %r)
  %nf = sitofp i32 %n to float
  %ph = getelementptr <4 x half>, ptr addrspace(1) %h, i32 %i
  %hv = load <4 x half>, ptr addrspace(1) %ph
  %sq = call <4 x half> @llvm.fma.v4f16(<4 x half> %hv, <4 x half> %hv, <4 x half> %hv)
  %h3 = extractelement <4 x half> %sq, i32 3
  %hf = fpext half %h3 to float
  %s1 = fadd float %w, %nf
  %s2 = fadd float %s1, %hf
  %po = getelementptr float, ptr addrspace(1) %out, i32 %i
  store float %s2, ptr addrspace(1) %po
  ret void
}
"""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("options", [[], ["--nvptx-short-ptr"]])
def test_mixed(architecture, options, ptx):
    flags = ["-O3", "-mtriple=nvptx64-nvidia-cuda", f"-mcpu={architecture}", *options]
    text = run_tool("llc", flags, KERNEL.encode()).decode()
    x = RNG.standard_normal(256).astype(np.float32)
    h = RNG.standard_normal((256, 4)).astype(np.float16)
    out = np.zeros(256, np.float32)
    report = ptx.run(text, [x, h, out], block=128, grid=2)
    assert not report.findings, report.text()
    i = np.arange(256)
    c = np.array([1, -2, 3, -4])[i % 4]
    shifted = ((c.astype(np.int64) << 5) | (i >> 27)) & 0xFFFFFFFF
    wide = h[:, 3].astype(np.float64)
    squares = (wide * wide + wide).astype(np.float16).astype(np.float32)
    turned = x.reshape(2, 128)[:, ::-1].reshape(-1)
    assert (out == turned + np.bitwise_count(shifted).astype(np.float32) + squares).all()
