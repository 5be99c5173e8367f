"""Kernels as CUDA C++: NVIDIA's compiler makes programs of them that compute what the PTX does."""

from dataclasses import replace

import numpy as np
import pytest
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, bf16, f16, f32, f64, i1, i16, i32, i64
from xdsl.dialects.math import SqrtOp

from nybble.backends.gpu.arch import find_arch
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.cuda.source import NVRTC_OPTIONS, cuda_source
from nybble.backends.gpu.cuda.types import literal
from nybble.backends.gpu.driver import GpuError
from nybble.backends.gpu.image import Access, KernelImage, Parameter
from nybble.backends.gpu.kernels.attention.coded import CodedCache
from nybble.backends.gpu.kernels.attention.decode import Decode
from nybble.backends.gpu.kernels.attention.prefill import PrefillSpec
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec
from nybble.backends.gpu.kernels.rows.codes import CodesSpec
from nybble.backends.gpu.kernels.rows.rotate import Part, RotateSpec
from nybble.backends.gpu.nvrtc import compile_cuda, version
from nybble.backends.gpu.products import compile_product
from nybble.backends.gpu.sim.simulate import simulate
from nybble.backends.gpu.steps.step import Step
from nybble.dialects.errors import InternalError
from nybble.dialects.lowbit import formats

ARCH = "sm_90a"


@pytest.fixture(scope="module")
def by_nvrtc():
    """A function from an image and its source to the image of what NVRTC makes of that."""
    try:
        version()
    except GpuError as error:
        pytest.skip(error.message)

    def compiled(image: KernelImage, source: str) -> KernelImage:
        return replace(
            image, ptx=compile_cuda(source, ARCH, options=NVRTC_OPTIONS).rstrip(b"\0").decode()
        )

    return compiled


@pytest.mark.parametrize(
    ("name", "tokens", "activations", "warpgroups"),
    [
        ("w3g64z", 17, "bf16", False), ("mxfp4", 9, "bf16", False), ("nf4", 1, "f16", False),
        ("w4g32m", 17, "bf16", True), ("spqr3", 9, "f16", False), ("df11", 17, "bf16", False),
    ],
)  # fmt: skip
def test_products_are_those_of_the_ptx(by_nvrtc, name, tokens, activations, warpgroups):
    rows, cols = 40, 256
    product = compile_product(
        name, rows, cols, tokens, ARCH, activations, "f32", warpgroups=warpgroups
    )
    random = np.random.default_rng(tokens)
    weight = formats.get(name).quantize(random.standard_normal((rows, cols)).astype(np.float32))
    packed = product.pack(weight)
    x = random.integers(0, 0x3C00, (tokens, cols), np.uint16)  # floats from 0 to 1

    def run(image: KernelImage) -> np.ndarray:
        sizes = {one.name: one.bytes for one in image.parameters}
        y = np.full((tokens, rows), np.nan, np.float32)
        scratch = {"sums": np.zeros(sizes["sums"], np.uint8)}
        scratch["counters"] = np.zeros(sizes["counters"], np.uint8)
        simulate(image, {"x": x, "w": packed, "y": y, **scratch}).check()
        return y

    found = run(by_nvrtc(product.image, product.source()))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, run(product.image))


def test_attention_is_that_of_the_ptx(by_nvrtc):
    spec = DecodeSpec(1, 2, 4, 128, 128, 128**-0.5, "kv4", splits=2, warps=2)
    image = Decode(spec).build(find_arch(ARCH))
    source = cuda_source(Decode(spec).module(), [one.name for one in image.parameters])
    random = np.random.default_rng(7)

    def run(image: KernelImage) -> np.ndarray:
        arguments = {}
        for one in image.parameters:
            halves = one.dtype in ("f16", "bf16") or one.bytes % 2
            whole = random.integers(0, 256, one.bytes, np.uint8)
            arguments[one.name] = (
                random.integers(0, 0x3C00, one.bytes // 2, np.uint16) if halves else whole
            )
        arguments["lengths"] = np.array([100], np.int32)
        arguments["counters"] = np.zeros(spec.heads, np.int32)
        simulate(image, arguments).check()
        return arguments["out"]

    found = run(by_nvrtc(image, source))
    random = np.random.default_rng(7)
    np.testing.assert_array_equal(found, run(image))


CACHE = ("kivi2(16,16)", 100)


@pytest.mark.parametrize(
    "spec",
    [
        CodesSpec(20, CodedCache(2, 64, 128, *CACHE), ("keys", "values")),
        PrefillSpec(1, 1, 2, 64, 128, 20, 0.125, cache=CACHE[0], room=CACHE[1]),
        RotateSpec(3, 64, 128, (Part(2, output="bf16"), Part(1, ring=96, pinned=16, cached=True))),
    ],
    ids=["codes", "prefill", "rotate"],
)
def test_what_fills_and_reads_a_cache_is_that_of_the_ptx(by_nvrtc, spec):
    made = Step(spec).compile(find_arch(ARCH), "k")

    def run(image: KernelImage) -> list[np.ndarray]:
        random, arguments = np.random.default_rng(7), {}
        for one in image.parameters:
            halves = random.integers(0x2C00, 0x3C00, one.bytes // 2, np.uint16).view(np.float16)
            kinds = {"u8": halves.view(np.uint8), "i32": np.array([70], np.int32)}
            arguments[one.name] = kinds.get(one.dtype, halves[::2].astype(np.float32))
            if one.dtype in ("f16", "bf16"):
                arguments[one.name] = halves
        simulate(image, arguments).check()
        written = [one.name for one in image.parameters if one.access is not Access.READ]
        return [arguments[name].view(np.uint8) for name in written]

    for mine, other in zip(run(made.image), run(by_nvrtc(made.image, made.source())), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_kernel_reads_as_what_it_is():
    x, y = Parameter("x", "f32", Access.READ), Parameter("y", "f32", Access.WRITE)
    b = GpuBuilder("clipped", (x, y, Parameter("n", "i32", Access.VALUE)))
    source, target, count = b.parameters
    at = b.thread() + b.block_id() * 128
    with b.if_(at < count):
        value = b.load(b.offset(source, at * 4), f32)
        b.store(b.min(value + 1.5, 4.0), b.offset(target, at * 4))
    text = cuda_source(b.finish(128), ["x", "y", "n"])
    assert "clipped(char* x, char* y, uint32_t n) {" in text
    body = text[text.index("clipped(") :].splitlines()[1:-1]
    assert body == [
        "  const uint32_t v1 = threadIdx.x + (blockIdx.x * 128u);",
        "  if (((int)v1 < (int)n)) {",
        "    const float v2 = load<float>((x + (int)(v1 * 4u)));",
        "    const float v3 = v2 + 1.5f;",
        "    store<float>((y + (int)(v1 * 4u)), ((v3 < 4.0f) ? v3 : 4.0f));",
        "  }",
    ]


def test_values_that_a_loop_carries_change_at_once(by_nvrtc):
    out = Parameter("out", "i32", Access.WRITE, 8)
    b = GpuBuilder("fibonacci", (out,))
    with b.for_(b.const(0, i32), 10, 1, [b.const(0, i32), b.const(1, i32)]) as loop:
        first, second = loop.args
        loop.yield_(second, first + second)
    for index, value in enumerate(loop.results):
        b.store(value, b.offset(b.parameters[0], 4 * index))
    source = cuda_source(b.finish(1), ["out"])
    image = KernelImage("fibonacci", ARCH, "", (out,), (1, 1, 1), (1, 1, 1))
    found = np.zeros(2, np.int32)
    simulate(by_nvrtc(image, source), {"out": found}).check()
    assert found.tolist() == [55, 89]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (IntegerAttr(-1, i32), "0xffffffffu"),
        (IntegerAttr(7, i64), "7ull"),
        (IntegerAttr(3, i16), "(uint16_t)3"),
        (IntegerAttr(1, i1), "true"),
        (FloatAttr(2.0, f32), "2.0f"),
        (FloatAttr(0.1, f32), "0.100000001f"),
        (FloatAttr(float("-inf"), f32), "__int_as_float(0xff800000)"),
        (FloatAttr(1.0, f16), "__ushort_as_half(0x3c00)"),
        (FloatAttr(1.0, bf16), "__ushort_as_bfloat16(0x3f80)"),
        (FloatAttr(0.1, f64), "0.1"),
    ],
)
def test_constants_are_exact(value, text):
    assert literal(value) == text


def test_what_has_no_source_is_our_fault():
    b = GpuBuilder("root", (Parameter("y", "f32", Access.WRITE),))
    b.store(b.unary(SqrtOp, b.const(2.0, f32)), b.parameters[0])
    with pytest.raises(InternalError, match=r"'math\.sqrt' in a kernel has no CUDA C\+\+"):
        cuda_source(b.finish(1), ["y"])
