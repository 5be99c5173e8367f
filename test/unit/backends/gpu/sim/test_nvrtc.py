"""Kernels that NVIDIA's compiler made of CUDA C++, against numpy."""

import numpy as np
import pytest

RNG = np.random.default_rng(13)

ADD = """
extern "C" __global__ void add(const float* x, const float* y, float* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = x[i] + y[i];
}
"""

SUM = """
extern "C" __global__ void sum(const float* x, float* out, int n) {
  __shared__ float parts[8];
  extern __shared__ float rest[];
  float total = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) total += x[blockIdx.x * n + i];
  for (int step = 16; step; step >>= 1) total += __shfl_xor_sync(~0u, total, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = total;
  rest[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < blockDim.x / 32; i++) total += parts[i];
    out[blockIdx.x] = total + 0 * rest[blockDim.x - 1];
  }
}
"""

GEMV = """
#include <cuda_fp16.h>
// weights of BITS bits less an offset, a scale for 64 of them: y = W x, a warp for each row
extern "C" __global__ void gemv(const half* x, const uint4* w, const half* s, float* y, int k) {
  constexpr int each = 32 / BITS, mask = (1 << BITS) - 1, zero = 1 << (BITS - 1);
  int lane = threadIdx.x & 31, row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  const uint4* mine = w + (size_t)row * (k / each / 4);
  float total = 0;
  for (int c = lane; c < k / each / 4; c += 32) {
    uint4 q = __ldg(mine + c);
    unsigned words[4] = {q.x, q.y, q.z, q.w};
    float part = 0;
    const half* values = x + c * each * 4;
    #pragma unroll
    for (int j = 0; j < 4; j++)
      #pragma unroll
      for (int e = 0; e < each; e += 2) {
        float2 pair = __half22float2(*(const half2*)(values + j * each + e));
        part += pair.x * (int((words[j] >> (BITS * e)) & mask) - zero);
        part += pair.y * (int((words[j] >> (BITS * e + BITS)) & mask) - zero);
      }
    total += part * __half2float(s[(size_t)row * (k / 64) + c * each * 4 / 64]);
  }
  for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(~0u, total, o);
  if (!lane) y[row] = total;
}
"""

LAST_BLOCK = """
// each block adds up its part; the block that is last adds up the parts
extern "C" __global__ void total(const float* x, float* parts, unsigned* count, float* out) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    float part = 0;
    for (int i = 0; i < 16; i++) part += x[blockIdx.x * 16 + i];
    parts[blockIdx.x] = part;
    FENCE
    last = atomicAdd(count, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float all = 0;
    for (int i = 0; i < gridDim.x; i++) all += parts[i];
    *out = all;
  }
}
"""

SWITCH = """
extern "C" __global__ void choose(const int* x, int* out) {
  int v = x[threadIdx.x], r;
  switch (v) {
    case 0: r = v * 7 + 1; break;
    case 1: r = v - threadIdx.x; break;
    case 2: r = v << threadIdx.x; break;
    case 3: r = __popc(v + threadIdx.x); break;
    case 4: r = v / (int)(threadIdx.x + 1); break;
    case 5: r = v % (int)(threadIdx.x + 1); break;
    case 6: r = __float2int_rn(sqrtf(threadIdx.x)); break;
    default: r = -1;
  }
  out[threadIdx.x] = r;
}
"""


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a", "sm_120a"])
def test_add(architecture, ptx):
    x, y = (RNG.standard_normal(300).astype(np.float32) for _ in range(2))
    out = np.zeros_like(x)
    report = ptx.run(ptx.compile_cuda(ADD, architecture), [x, y, out, 300], block=64, grid=5)
    assert not report.findings
    assert (out == x + y).all()


def test_sum(ptx):
    x = RNG.standard_normal((3, 500)).astype(np.float32)
    out = np.zeros(3, np.float32)
    text = ptx.compile_cuda(SUM)
    report = ptx.run(text, [x, out, 500], block=128, grid=3, shared=512)
    assert not report.findings, report.text()
    assert np.allclose(out, x.sum(1), rtol=1e-5)
    lost = ptx.run(text, [x, out, 500], block=128, grid=3, shared=256)
    assert ptx.kinds(lost) >= {"out-of-bounds"}


@pytest.mark.parametrize("bits", [2, 4])
def test_gemv(bits, ptx):
    k, rows = 1024, 8
    x = RNG.standard_normal(k).astype(np.float16)
    codes = RNG.integers(0, 1 << bits, (rows, k))
    scales = RNG.random((rows, k // 64)).astype(np.float16)
    each = 32 // bits
    shifts = np.arange(each, dtype=np.uint64) * np.uint64(bits)
    words = (codes.reshape(rows, -1, each).astype(np.uint64) << shifts).sum(-1).astype(np.uint32)
    y = np.zeros(rows, np.float32)
    text = ptx.compile_cuda(GEMV, options=(f"-DBITS={bits}",))
    report = ptx.run(text, [x, words, scales, y, k], block=128, grid=2)
    assert not report.findings
    weights = (codes - (1 << (bits - 1))) * np.repeat(scales.astype(np.float64), 64, axis=1)
    assert np.allclose(y, weights @ x.astype(np.float64), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("fence", "kinds"), [("__threadfence();", set()), ("", {"race"})])
def test_last_block_adds_up(fence, kinds, ptx):
    x = RNG.integers(0, 9, 8 * 16).astype(np.float32)
    parts, count, out = np.zeros(8, np.float32), np.zeros(1, np.uint32), np.zeros(1, np.float32)
    text = ptx.compile_cuda(LAST_BLOCK.replace("FENCE", fence))
    report = ptx.run(text, [x, parts, count, out], block=32, grid=8)
    assert ptx.kinds(report) == kinds
    assert out[0] == x.sum()


def test_switch(ptx):
    x = RNG.integers(0, 8, 64).astype(np.int32)
    out = np.zeros(64, np.int32)
    text = ptx.compile_cuda(SWITCH)
    assert not ptx.run(text, [x, out], block=64).findings
    for i, (v, r) in enumerate(zip(x.tolist(), out.tolist(), strict=True)):
        table = [v * 7 + 1, v - i, (v << i) & 0xFFFFFFFF if i < 32 else 0, (v + i).bit_count(),
                 v // (i + 1), v % (i + 1), round(i**0.5), -1]  # fmt: skip
        assert r & 0xFFFFFFFF == table[v] & 0xFFFFFFFF, (i, v)
