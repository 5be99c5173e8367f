"""The assembler, the disassembler and NVRTC on small kernels."""

import pytest

from nybble.backends.gpu import nvrtc, ptxas
from nybble.backends.gpu.driver import GpuError

SOURCE = """#include <cuda_fp16.h>
extern "C" __global__ void twice(float4 *out, const float4 *in) {
  float4 v = in[threadIdx.x];
  out[threadIdx.x] = make_float4(v.x * 2, v.y * 2, v.z * 2, v.w * 2);
}"""


def needs(tool):
    try:
        ptxas.tool(tool)
    except GpuError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def ptx():
    try:
        return nvrtc.compile_cuda(SOURCE, "sm_90a").rstrip(b"\0").decode()
    except GpuError as error:
        pytest.skip(error.message)


def test_nvrtc_compiles_to_ptx_and_to_a_cubin(ptx):
    assert ".target sm_90a" in ptx
    assert ".entry twice(" in ptx
    assert nvrtc.compile_cuda(SOURCE, "sm_80", want="cubin").startswith(b"\x7fELF")
    assert nvrtc.version() >= (12, 0)


def test_nvrtc_says_what_is_wrong_with_a_source(ptx):
    with pytest.raises(GpuError, match=r'for sm_90a: .*identifier "missing" is undefined'):
        nvrtc.compile_cuda("__device__ int f() { return missing; }", "sm_90a")


def test_nvrtc_refuses_an_option(ptx):
    with pytest.raises(GpuError, match=r"NVRTC refuses the source"):
        nvrtc.compile_cuda(SOURCE, "sm_90a", options=("--no-such-option",))


def test_assembles_and_reports(ptx):
    needs("ptxas")
    made = ptxas.assemble(ptx, "sm_90a")
    assert made.cubin.startswith(b"\x7fELF")
    assert 4 < made.registers < 40
    assert (made.spills, made.stack, made.shared, made.barriers) == (0, 0, 0, 0)


def test_says_what_the_assembler_refuses():
    needs("ptxas")
    bad = ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(){ frobnicate; }\n"
    with pytest.raises(GpuError, match=r"refuses the kernel for sm_90a: .*line 4.*frobnicate"):
        ptxas.assemble(bad, "sm_90a")


def test_lists_instructions(ptx):
    needs("ptxas")
    needs("nvdisasm")
    found = ptxas.opcodes(ptxas.disassemble(ptxas.assemble(ptx, "sm_90a").cubin))
    assert (found["LDG.E.128"], found["STG.E.128"], found["EXIT"]) == (1, 1, 1)
    with pytest.raises(GpuError, match="nvdisasm failed"):
        ptxas.disassemble(b"no cubin")


def test_reads_every_figure_of_a_report():
    report = """ptxas info    : Function properties for k
    16 bytes stack frame, 20 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 255 registers, used 2 barriers, 4096 bytes smem, 400 bytes cmem[0]"""
    assert ptxas.figures(report) == {
        "registers": 255,
        "stack": 16,
        "spill_stores": 20,
        "spill_loads": 24,
        "shared": 4096,
        "barriers": 2,
    }


def test_names_the_package_of_a_missing_tool(monkeypatch):
    monkeypatch.setattr(ptxas, "_places", lambda name: iter(()))
    ptxas.tool.cache_clear()
    with pytest.raises(
        GpuError, match=r"ptxas is not installed \(accepted: pip install nvidia-cuda"
    ):
        ptxas.tool("ptxas")
    ptxas.tool.cache_clear()


def test_names_the_packages_of_a_missing_nvrtc(monkeypatch):
    monkeypatch.setattr(nvrtc, "_wheel", lambda: None)
    monkeypatch.setattr(nvrtc, "_LIBRARY", "libabsent.so.13")
    nvrtc._library.cache_clear()
    with pytest.raises(
        GpuError, match=r"NVRTC is not installed \(accepted: pip install nvidia-cuda"
    ):
        nvrtc.version()
    nvrtc._library.cache_clear()
