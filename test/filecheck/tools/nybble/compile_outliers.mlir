// RUN: rm -rf %t && nybble compile %s --target cuda:sm_90a --activations bf16 -o %t && cat %t/k_lossless_0.ptx %t/k_spqr_0.ptx %t/manifest.json | filecheck %s
// RUN: not nybble compile %s --target cuda:sm_90a -o %t 2>&1 | filecheck %s --check-prefix=FLOATS
// RUN: not nybble compile %s --activations bf16 -o %t 2>&1 | filecheck %s --check-prefix=HOST

// A high byte is looked up and joined with the low ones; what is left over is added in f32.
// CHECK-LABEL: .entry k_lossless_0(
// CHECK:       prmt.b32
// CHECK:       mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
// CHECK:       ld.global.nc.v2.b32
// CHECK:       fma.rn.f32
// CHECK-LABEL: .entry k_spqr_0(
// CHECK:       mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
// CHECK:       ld.global.nc.v2.b32
// CHECK:       fma.rn.f32
// CHECK:       "file": "k_lossless_0.ptx"
// CHECK:       "dtype": "bf16"
// FLOATS: stream: bf16 weights with activations f16 (accepted: activations bf16)
// FLOATS: accepted: 'df11' [64, 256] times 4 token(s) with activations bf16
// HOST: --activations bf16 without a target cuda
func.func @lossless(%x: tensor<4x256xf32>, %w: !lowbit.tensor<64x256, "df11">) -> tensor<4x64xf32> {
  %y = mpgemm.matmul %x, %w : tensor<4x256xf32>, !lowbit.tensor<64x256, "df11"> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}

func.func @spqr(%x: tensor<4x256xf32>, %w: !lowbit.tensor<64x256, "spqr3">) -> tensor<4x64xf32> {
  %y = mpgemm.matmul %x, %w : tensor<4x256xf32>, !lowbit.tensor<64x256, "spqr3"> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}
