"""PTX for the tests of the simulator: written here, or by the compilers of others."""

import ctypes
import re
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from nybble.backends.gpu.products import compile_spec, product_spec
from nybble.backends.gpu.sim.simulate import Launch, Options, simulate
from nybble.backends.gpu.sim.tensormap import Swizzle, TensorMap
from nybble.dialects.lowbit import formats

HERE = Path(__file__).parent
HEADER = ".version 8.6\n.target sm_90a\n.address_size 64\n"
LOADS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


def kernel(body, parameters="", *, declarations=""):
    """The text of a kernel named k."""
    return f"{HEADER}{declarations}\n.visible .entry k({parameters})\n{{\n{body}\n}}\n"


def pointers(*names):
    """Parameters that are pointers."""
    return ", ".join(f".param .u64 {name}" for name in names)


def prologue(*names):
    """Registers for tests, and the addresses of parameters in %rd1, %rd2, .."""
    loads = "\n".join(f"ld.param.u64 %rd{i + 1}, [{n}];" for i, n in enumerate(names))
    return (
        ".reg .pred %p<10>;\n.reg .b16 %h<40>;\n.reg .b32 %r<200>;\n.reg .f32 %f<200>;\n"
        f".reg .b64 %rd<40>;\n.reg .f64 %fd<20>;\n{loads}\nmov.u32 %r0, %tid.x;\n"
    )


def run(text, arguments, block=32, grid=1, shared=0, **options):
    """Simulate with findings in the report."""
    launch = Launch(_triple(grid), _triple(block), shared)
    return simulate(text, arguments, launch, options=Options(strict=False, **options))


def _triple(extent):
    return extent if isinstance(extent, tuple) else (extent, 1, 1)


def kinds(report):
    """The kinds of the findings of a report."""
    return {str(one.kind) for one in report.findings}


def apply(instruction, result, *arrays, size=None):
    """What `instruction`, with d for its result and a, b, c for operands, makes of arrays.

    result: numpy type. Registers are typed by the bits of what they hold.
    """
    count = size or max(len(one) for one in arrays)
    names = ["out", *"abc"[: len(arrays)]]
    files = {"d": np.dtype(result).itemsize}
    files |= {n: one.itemsize for n, one in zip("abc", arrays, strict=False)}
    declared = "".join(f".reg .b{max(8 * n, 16)} %{name};\n" for name, n in files.items())
    body = prologue(*names) + declared
    for i, name in enumerate(names[1:]):
        body += f"mad.wide.u32 %rd20, %r0, {files[name]}, %rd{i + 2};\n"
        body += f"ld.global.{LOADS[files[name]]} %{name}, [%rd20];\n"
    body += re.sub(r"\b([abcd])\b(?=[,;\s}])", r"%\1", instruction) + "\n"
    body += f"mad.wide.u32 %rd21, %r0, {files['d']}, %rd1;\n"
    body += f"st.global.{LOADS[files['d']].replace('u', 'b')} [%rd21], %d;\nret;"
    out = np.zeros(count, result)
    report = run(kernel(body, pointers(*names)), [out, *arrays], block=count)
    assert not report.findings, report.text()
    return out


@cache
def nvrtc():
    """The library of the NVRTC wheel and the folder of its headers; skips where it is missing."""
    nvidia = pytest.importorskip("nvidia", reason="needs the NVRTC wheel")
    for root in nvidia.__path__:
        folder = Path(root) / "cu13"
        found = sorted(folder.glob("lib/libnvrtc.so.13"))
        if found:
            for builtins in folder.glob("lib/libnvrtc-builtins.so*"):
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(found[0])), folder / "include"
    return pytest.skip("needs the NVRTC wheel")


@cache
def compile_cuda(source, arch="sm_80", options=()):
    """The PTX of CUDA C++."""
    library, headers = nvrtc()
    if not (headers / "cuda_fp16.h").exists():
        pytest.skip("needs the CUDA runtime headers wheel")
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    flags = [f"--gpu-architecture={arch.replace('sm', 'compute')}", f"-I{headers}", *options]
    array = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
    failed = library.nvrtcCompileProgram(program, len(flags), array)
    kind = "ProgramLog" if failed else "PTX"
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{kind}")(program, buffer)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    assert not failed, buffer.value.decode()
    return re.sub(r"[ \t]+", " ", buffer.value.decode())


class Ampere:
    """A product of 4-bit weights by cp.async and mma, on random numbers."""

    def __init__(self, k=128):
        random = np.random.default_rng(17)
        self.text = compile_cuda((HERE / "ampere.cu").read_text(), "sm_80")
        self.k = k
        self.a = random.standard_normal((16, k)).astype(np.float16)
        codes = random.integers(0, 16, (64, k))
        nibbles = codes.reshape(64, -1, 4, 2).transpose(0, 1, 3, 2).reshape(64, -1, 8)
        shifts = np.arange(8, dtype=np.uint64) * np.uint64(4)
        self.w = (nibbles.astype(np.uint64) << shifts).sum(-1).astype(np.uint32)
        self.exact = self.a.astype(np.float64) @ (codes - 8).T

    def run(self, text):
        """The report, and whether the result is right."""
        c = np.zeros((16, 64), np.float32)
        report = run(text, [self.a, self.w, c, self.k], block=128, limit=5_000_000)
        return report, np.allclose(c, self.exact, rtol=1e-4, atol=1e-3)


class Hopper:
    """A product by TMA and wgmma, on random numbers."""

    def __init__(self, steps=4):
        random = np.random.default_rng(19)
        self.text = compile_cuda((HERE / "hopper.cu").read_text(), "sm_90a")
        self.steps = steps
        self.a, self.b = (
            random.standard_normal((64, 64 * steps)).astype(np.float16) for _ in range(2)
        )
        self.exact = self.a.astype(np.float64) @ self.b.T.astype(np.float64)

    def run(self, text):
        """The report, and whether the result is right."""
        c = np.zeros((64, 64), np.float16)
        shape = (64 * self.steps, 64)
        maps = [
            TensorMap(one, 2, shape, (64, 64), swizzle=Swizzle.B128) for one in (self.a, self.b)
        ]
        arguments = [*maps, TensorMap(c, 2, (64, 64), (64, 64)), self.steps]
        report = run(text, arguments, block=160, shared=5 * 8192 + 64, limit=5_000_000)
        return report, np.allclose(c, self.exact, rtol=2e-3, atol=2e-2)


class Warpgroups:
    """A product of 4-bit weights and 16 tokens by one block, whose rings go round."""

    def __init__(self):
        spec = product_spec("w4g64", 64, 384, 16, "sm_90a", output="f32", warpgroups=True)
        board = replace(spec.arch.board, sms=1)
        tuning = replace(spec.tuning, stages=2)
        spec = replace(spec, arch=replace(spec.arch, board=board), tuning=tuning, boxes=3)
        product = compile_spec("w4g64", spec, "warpgroups")
        self.image = product.image
        self.text = product.image.ptx
        self.boxes = product.image.parameters[0].boxes
        random = np.random.default_rng(23)
        weight = formats.get("w4g64").quantize(random.standard_normal((64, 384)).astype(np.float32))
        self.x = random.standard_normal((16, 384)).astype(np.float16)
        self.w = product.pack(weight)
        self.exact = product.reference(self.x.astype(np.float32), weight)

    def with_boxes(self, boxes):
        """The same, launched with another description of its activations."""
        x, *others = self.image.parameters
        made = copy(self)
        made.image = replace(self.image, parameters=(replace(x, boxes=boxes), *others))
        return made

    def run(self, text):
        """The report, and whether the result is right."""
        image = replace(self.image, ptx=text)
        y = np.full((16, 64), np.nan, np.float32)
        sizes = {one.name: one.bytes for one in image.parameters}
        scratch = {name: np.zeros(sizes[name], np.uint8) for name in ("sums", "counters")}
        arguments = {"x": self.x, "w": self.w, "y": y, **scratch}
        options = Options(strict=False, limit=5_000_000)
        report = simulate(image, arguments, options=options)
        return report, np.allclose(y, self.exact, rtol=2e-3, atol=2e-2)


class Tools:
    """What the tests share."""

    kernel = staticmethod(kernel)
    pointers = staticmethod(pointers)
    prologue = staticmethod(prologue)
    run = staticmethod(run)
    kinds = staticmethod(kinds)
    apply = staticmethod(apply)
    compile_cuda = staticmethod(compile_cuda)


@pytest.fixture(scope="session")
def ptx():
    """The helpers of this file."""
    return Tools


@pytest.fixture(scope="session")
def ampere():
    """A pipeline of cp.async, ldmatrix and mma."""
    return Ampere()


@pytest.fixture(scope="session")
def warpgroups():
    """A product by TMA, mbarriers and wgmma, of weights that registers hold."""
    return Warpgroups()


@pytest.fixture(scope="session")
def hopper():
    """A pipeline of TMA, mbarriers and wgmma."""
    return Hopper()
