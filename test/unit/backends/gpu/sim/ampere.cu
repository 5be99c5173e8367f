#include <cuda_fp16.h>
// C [16, 64] = A [16, k] times dequantized W [64, k] of 4 bits: 4 warps, 16 columns each; steps of
// 32 through 3 stages of cp.async. W holds, for each column, words of 8 codes: nibble i of a word
// is code (i % 4) * 2 + i / 4, so that two nibbles 16 bits apart are neighbours.
__device__ unsigned shared_of(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
__device__ void copy(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(shared_of(to)), "l"(from));
}
__device__ half2 magic(unsigned q) {
  unsigned r;
  asm("lop3.b32 %0, %1, 0x000f000f, 0x64006400, 0xea;" : "=r"(r) : "r"(q));
  return __hsub2(*(half2*)&r, __half2half2(__ushort_as_half(0x6408)));
}
extern "C" __global__ void ampere(const half* a, const unsigned* w, float* c, int k) {
  __shared__ __align__(128) half sa[3][16][32];
  __shared__ __align__(128) unsigned sw[3][64][4];
  int t = threadIdx.x, lane = t & 31, warp = t >> 5, g = lane / 4, q = lane % 4;
  float d[2][4] = {};
  int steps = k / 32;
  auto issue = [&](int s, int stage) {
    if (t < 64) copy(&sa[stage][t / 4][((t % 4) ^ (t / 8 % 4)) * 8], a + (t / 4) * k + s * 32 + t % 4 * 8);
    else copy(&sw[stage][t - 64][0], w + (t - 64) * (k / 8) + s * 4);
  };
  for (int s = 0; s < 2; s++) { issue(s, s); asm volatile("cp.async.commit_group;"); }
  for (int s = 0; s < steps; s++) {
    asm volatile("cp.async.wait_group 1;");
    __syncthreads();
    if (s + 2 < steps) issue(s + 2, (s + 2) % 3);
    asm volatile("cp.async.commit_group;");
    int stage = s % 3;
    for (int kk = 0; kk < 2; kk++) {
      unsigned f[4];
      int row = lane % 16, chunk = kk * 2 + lane / 16;
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
        : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
        : "r"(shared_of(&sa[stage][row][(chunk ^ (row / 2 % 4)) * 8])));
      for (int j = 0; j < 2; j++) {
        unsigned words[2] = {sw[stage][warp * 16 + j * 8 + g][kk * 2],
                             sw[stage][warp * 16 + j * 8 + g][kk * 2 + 1]};
        unsigned b[2];
        for (int h = 0; h < 2; h++) {
          half2 v = magic(words[h] >> (4 * q));
          b[h] = *(unsigned*)&v;
        }
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
          : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
          : "r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(b[0]), "r"(b[1]));
      }
    }
  }
  for (int j = 0; j < 2; j++)
    for (int h = 0; h < 2; h++) {
      float2 pair = make_float2(d[j][2 * h], d[j][2 * h + 1]);
      *(float2*)(c + (g + 8 * h) * 64 + warp * 16 + j * 8 + 2 * q) = pair;
    }
}
