"""Every kernel compiles for every machine without outside symbols, and runs on plain AVX2."""

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from nybble.backends.cpu.codegen import compile_module
from nybble.backends.cpu.kernels.attention import Attention
from nybble.backends.cpu.kernels.attention_merge import AttentionMerge
from nybble.backends.cpu.kernels.elementwise import Add, Glu
from nybble.backends.cpu.kernels.embed import Embed
from nybble.backends.cpu.kernels.kv import KvCache
from nybble.backends.cpu.kernels.last_row import LastRow
from nybble.backends.cpu.kernels.matmul import Codes, Dense
from nybble.backends.cpu.kernels.norm import RmsNorm, RmsNormQuantize
from nybble.backends.cpu.kernels.quantize import Quantize
from nybble.backends.cpu.kernels.rope import HeadNorm, RopeAppend
from nybble.backends.cpu.kernels.sample import Sample
from nybble.backends.cpu.kernels.softmax import NegativeLogLikelihood
from nybble.backends.cpu.loader import load
from nybble.backends.cpu.machine import AARCH64, X86_64, Machine, cpu_flags
from nybble.dialects.numpy_ref.attention import attention
from nybble.dialects.numpy_ref.quantize import quantize_rows
from nybble.dialects.numpy_ref.sample import SamplingOptions, sample
from nybble.dialects.sparse_attn.masks import Window

CACHE = KvCache(1, 32, 128, "f16")
DECODE = Attention(CACHE, 2, 1, 0.2, 1, Window(64), softcap=20.0, splits=2)
PREFILL = Attention(CACHE, 2, 20, 0.2, 1)
SPECS = {
    "norm": RmsNorm(40, 4, 1e-5),
    "norm_quantize": RmsNormQuantize(64, 4, 1e-5),
    "quantize": Quantize(256, 4, 64),
    "silu": Glu(40, 4, "silu"),
    "gelu": Glu(40, 4, "gelu_tanh"),
    "add": Add(40, 4),
    "last": LastRow(40, 4),
    "rope": RopeAppend(CACHE, 2, 4, HeadNorm(1e-5)),
    "decode": DECODE,
    "merge": AttentionMerge(DECODE.partial),
    "prefill": PREFILL,
    "embed": Embed(Codes(8, 32, 0, True), (64, 64), 4),
    "embed_bf16": Embed(Dense("bf16"), (64, 64), 4),
    "sample": Sample(100),
    "likelihood": NegativeLogLikelihood(100, 4),
}
AVX2 = Machine(X86_64, "x86-64-v3")


def compiled(machine):
    return compile_module(ModuleOp([spec.build(name) for name, spec in SPECS.items()]), machine)


@pytest.mark.parametrize(
    "machine", [Machine(X86_64, "x86-64-v4"), Machine(AARCH64, "generic")], ids=str
)
def test_no_outside_symbols(machine):
    assert compiled(machine)


@pytest.mark.skipif("avx2" not in cpu_flags(), reason="needs AVX2")
def test_avx2_computes_the_same(rng, relative_error):
    library = load([compiled(AVX2)])
    x = rng.standard_normal((4, 256)).astype(np.float32)
    out = [
        np.zeros(b.size, t) for b, t in zip(SPECS["quantize"].output.buffers, "bfi", strict=True)
    ]
    padded = np.concatenate([x] * 4)
    library.call("quantize", padded, *out, 4, 0, 0, 1)
    for got, want in zip(out, quantize_rows(x, 64), strict=True):
        np.testing.assert_array_equal(got[: want.size], want.reshape(-1))

    k, v = rng.standard_normal((2, 1, 128, 32)).astype(np.float16)
    q = rng.standard_normal((32, 64)).astype(np.float32)
    result, scratch = np.zeros_like(q), np.zeros(PREFILL.buffers[-1].size, np.float32)
    library.call("prefill", q, CACHE.keys_from_rows(k), v, result, scratch, 20, 90, 0, 1)
    want = attention(q[:20], k, v, 90, scale=0.2)
    assert relative_error(result[:20], want) <= 1e-5

    logits = rng.standard_normal(100).astype(np.float32)
    token, keys = np.zeros(1, np.int32), np.zeros(SPECS["sample"].buffers[-1].size, np.int32)
    options = (np.float32([0.8]), np.int32([20]), np.float32([0.9]), np.int64([7]), np.int64([3]))
    library.call("sample", logits, *options, token, keys, 1, 0, 0, 1)
    assert token[0] == sample(logits, SamplingOptions(0.8, 20, 0.9, 7), 3)
