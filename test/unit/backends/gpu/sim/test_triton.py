"""Kernels that Triton compiled for two architectures, against numpy."""

import numpy as np
import pytest

triton = pytest.importorskip("triton", reason="needs triton")

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

RNG = np.random.default_rng(11)
ARCHITECTURES = [80, 90]


@triton.jit
def add_vectors(x, y, out, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    inside = i < n
    tl.store(out + i, tl.load(x + i, inside) + tl.load(y + i, inside), inside)


@triton.jit
def softmax(x, out, n, B: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, B)
    values = tl.load(x + row * n + i, i < n, other=float("-inf"))
    values = tl.exp(values - tl.max(values, 0))
    tl.store(out + row * n + i, values / tl.sum(values, 0), i < n)


@triton.jit
def product(a, b, c, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, T: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), T)
    for start in range(0, k, BK):
        x = tl.load(a + rows[:, None] * k + (start + inner)[None, :])
        y = tl.load(b + (start + inner)[:, None] * n + columns[None, :])
        total = tl.dot(x, y, total, out_dtype=T)
    tl.store(c + rows[:, None] * n + columns[None, :], total)


@triton.jit
def attention(q, k, v, out, length, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    inner = tl.arange(0, D)
    queries = tl.load(q + rows[:, None] * D + inner[None, :])
    top = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    for start in range(0, length, BN):
        columns = start + tl.arange(0, BN)
        keys = tl.load(k + columns[None, :] * D + inner[:, None])
        values = tl.load(v + columns[:, None] * D + inner[None, :])
        scores = tl.dot(queries, keys) * 0.18
        higher = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp2(scores - higher[:, None])
        fade = tl.exp2(top - higher)
        total = total * fade + tl.sum(weights, 1)
        acc = tl.dot(weights.to(tl.float16), values, acc * fade[:, None])
        top = higher
    tl.store(out + rows[:, None] * D + inner[None, :], acc / total[:, None])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A function from a kernel, types and constants to its PTX and bytes of shared memory."""
    folder = str(tmp_path_factory.mktemp("triton"))

    def make(function, types, constants, architecture, **options):
        signature = {**types, **dict.fromkeys(constants, "constexpr")}
        aligned = {(i,): [["tt.divisibility", 16]] for i in range(len(types))}
        source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
        target = GPUTarget("cuda", architecture, 32)
        with triton.knobs.cache.scope():
            triton.knobs.cache.dir = folder
            made = triton.compile(source, target=target, options={"num_warps": 4, **options})
        return made.asm["ptx"], made.metadata.shared

    return make


def run(ptx, kernel, arguments, grid):
    """Run a kernel of four warps; the last two arguments are scratch memory it does not use."""
    text, shared = kernel
    scratch = np.zeros(1, np.uint8)
    report = ptx.run(text, [*arguments, scratch, scratch], block=128, grid=grid, shared=shared)
    assert not report.findings, report.text()
    return report


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_add_vectors(architecture, compiled, ptx):
    types = {"x": "*fp32", "y": "*fp32", "out": "*fp32", "n": "i32"}
    kernel = compiled(add_vectors, types, {"B": 256}, architecture)
    x, y = (RNG.standard_normal(1000).astype(np.float32) for _ in range(2))
    out = np.zeros_like(x)
    run(ptx, kernel, [x, y, out, 1000], 4)
    assert (out == x + y).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_softmax(architecture, compiled, ptx):
    types = {"x": "*fp32", "out": "*fp32", "n": "i32"}
    kernel = compiled(softmax, types, {"B": 512}, architecture)
    x = RNG.standard_normal((3, 500)).astype(np.float32)
    out = np.zeros_like(x)
    run(ptx, kernel, [x, out, 500], 3)
    weights = np.exp(x - x.max(1, keepdims=True))
    assert np.allclose(out, weights / weights.sum(1, keepdims=True), atol=1e-7)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["i8", "fp16"])
def test_product(architecture, kind, compiled, ptx):
    result = "i32" if kind == "i8" else "fp32"
    types = {"a": f"*{kind}", "b": f"*{kind}", "c": f"*{result}", "n": "i32", "k": "i32"}
    constants = {"BM": 64, "BN": 64, "BK": 32, "T": tl.int32 if kind == "i8" else tl.float32}
    kernel = compiled(product, types, constants, architecture, num_stages=3)
    if kind == "i8":
        a, b = (RNG.integers(-128, 128, (64, 128)).astype(np.int8) for _ in range(2))
    else:
        a, b = (RNG.standard_normal((64, 128)).astype(np.float16) for _ in range(2))
    b = b.T.copy()
    c = np.zeros((64, 64), np.int32 if kind == "i8" else np.float32)
    report = run(ptx, kernel, [a, b, c, 64, 128], (1, 1, 1))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert np.array_equal(c, exact) if kind == "i8" else np.allclose(c, exact, atol=1e-4)
    (name,) = report.mma
    assert name.startswith("wgmma" if architecture == 90 else "mma")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attention(architecture, compiled, ptx):
    types = {"q": "*fp16", "k": "*fp16", "v": "*fp16", "out": "*fp32", "length": "i32"}
    constants = {"D": 64, "BM": 64, "BN": 64}
    kernel = compiled(attention, types, constants, architecture, num_stages=2)
    q, k, v = (RNG.standard_normal((128, 64)).astype(np.float16) for _ in range(3))
    out = np.zeros((64, 64), np.float32)
    run(ptx, kernel, [q[:64].copy(), k, v, out, 128], 1)
    q, k, v = (one.astype(np.float64) for one in (q, k, v))
    scores = q[:64] @ k.T * 0.18
    weights = np.exp2(scores - scores.max(1, keepdims=True))
    assert np.allclose(out, weights @ v / weights.sum(1, keepdims=True), atol=1e-3)
