#include <cuda_fp16.h>
// C [64, 64] = A [64, k] times B [64, k] transposed: a warp of producers brings tiles of 64 x 64
// by TMA in two stages, a warpgroup multiplies them by wgmma and stores the result by TMA.
struct alignas(64) Map { char bytes[128]; };
__device__ unsigned shared_of(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
__device__ void wait(unsigned bar, int parity) {
  asm volatile("{\n.reg .pred done;\nagain:\n"
    "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra over;\nbra again;\nover:\n}"
    :: "r"(bar), "r"(parity) : "memory");
}
__device__ unsigned long long describe(unsigned address) {
  return (unsigned long long)((address & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}
extern "C" __global__ void hopper(const __grid_constant__ Map ma, const __grid_constant__ Map mb,
                                  const __grid_constant__ Map mc, int steps) {
  extern __shared__ __align__(1024) char memory[];
  unsigned base = shared_of(memory), bars = base + 5 * 8192;
  auto full = [&](int s) { return bars + 8 * s; };
  auto empty = [&](int s) { return bars + 16 + 8 * s; };
  int t = threadIdx.x;
  if (t == 0) {
    for (int s = 0; s < 2; s++) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(full(s)));
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 128;" :: "r"(empty(s)));
    }
    asm volatile("fence.mbarrier_init.release.cluster;");
  }
  __syncthreads();
  if (t >= 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (t != 128) return;
    for (int i = 0; i < steps; i++) {
      int s = i % 2;
      wait(empty(s), (i / 2 + 1) & 1);
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 16384;" :: "r"(full(s)));
      for (int o = 0; o < 2; o++)
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
          "[%0], [%1, {%2, %3}], [%4];"
          :: "r"(base + (2 * s + o) * 8192), "l"(o ? &mb : &ma), "r"(i * 64), "r"(0), "r"(full(s))
          : "memory");
    }
    return;
  }
  asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
  float d[32];
  for (int i = 0; i < 32; i++) d[i] = 0;
  for (int i = 0; i < steps; i++) {
    int s = i % 2;
    wait(full(s), (i / 2) & 1);
    for (int j = 0; j < 32; j++) asm volatile("" : "+f"(d[j]) :: "memory");
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    for (int k = 0; k < 4; k++)
      asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,"
        "%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, 1, 1, 1, 0, 0;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
          "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]),
          "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
        : "l"(describe(base + 2 * s * 8192 + k * 32)),
          "l"(describe(base + (2 * s + 1) * 8192 + k * 32)));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    for (int j = 0; j < 32; j++) asm volatile("" : "+f"(d[j]) :: "memory");
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(empty(s)) : "memory");
  }
  half* out = (half*)(memory + 4 * 8192);
  for (int i = 0; i < 32; i += 2) {
    int row = t / 32 * 16 + t % 32 / 4 + 8 * (i / 2 % 2), column = 2 * (t % 4) + 8 * (i / 4);
    *(half2*)(out + row * 64 + column) = __floats2half2_rn(d[i], d[i + 1]);
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("bar.sync 1, 128;" ::: "memory");
  if (t == 0) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];"
      :: "l"(&mc), "r"(0), "r"(0), "r"(base + 4 * 8192) : "memory");
    asm volatile("cp.async.bulk.commit_group;");
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
  }
}
