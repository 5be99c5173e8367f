// RUN: nybble-opt %s -p 'select-dataflow{target=cuda isa=sm_90a activations=bf16 reasons=false},assign-layout' | filecheck %s
// RUN: nybble-opt %s -p 'select-dataflow{target=cuda isa=sm_80 activations=i8 reasons=false},assign-layout' | filecheck %s --check-prefix=BYTES
// RUN: nybble-opt %s -p 'select-dataflow{target=cuda isa=sm_80 activations=b2 reasons=false},assign-layout' | filecheck %s --check-prefix=PLANES
// RUN: nybble-opt %s -p 'select-dataflow{target=cuda isa=sm_80 activations=f16 reasons=false},assign-layout' | filecheck %s --check-prefix=AMPERE
// RUN: nybble-opt %s -p 'select-dataflow{target=cuda isa="sm_90a+lmma" activations=f16 reasons=false},precompute-tables,assign-layout' | filecheck %s --check-prefix=TABLES
// RUN: nybble-opt %s -p 'select-dataflow{target=cuda isa=sm_90a activations=f16 reasons=false},assign-layout' | filecheck %s --check-prefix=HOPPER

// CHECK-LABEL: func.func @f
// CHECK-SAME: %w: !lowbit.tensor<64x256, "w4g128", "stream">
func.func @f(%x: tensor<4x256xf32>, %w: !lowbit.tensor<64x256, "w4g128">) -> tensor<4x64xf32> {
  // CHECK: mpgemm.stream_matmul %x, %w precision "bf16" : tensor<4x256xf32>
  // BYTES: %[[q:.*]] = lowbit.quantize %x : tensor<4x256xf32> -> !lowbit.tensor<4x256, "a8">
  // BYTES-NEXT: mpgemm.stream_int_matmul %[[q]], %w : !lowbit.tensor<4x256, "a8">, !lowbit.tensor<64x256, "w4g128", "stream">
  // PLANES: %[[q:.*]] = lowbit.quantize %x : tensor<4x256xf32> -> !lowbit.tensor<4x256, "ab2g128">
  // PLANES-NEXT: mpgemm.stream_bitserial_matmul %[[q]], %w : !lowbit.tensor<4x256, "ab2g128">, !lowbit.tensor<64x256, "w4g128", "stream_planes">
  %y = mpgemm.matmul %x, %w : tensor<4x256xf32>, !lowbit.tensor<64x256, "w4g128"> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}

// CHECK-LABEL: func.func @many_tokens
// CHECK-SAME: %w: !lowbit.tensor<4096x4096, "w4g128", "stream">
func.func @many_tokens(%x: tensor<256x4096xf32>, %z: tensor<8x4096xf32>, %w: !lowbit.tensor<4096x4096, "w4g128">) -> (tensor<256x4096xf32>, tensor<8x4096xf32>) {
  // CHECK: mpgemm.stream_warpgroup_matmul %x, %w precision "bf16" : tensor<256x4096xf32>
  // CHECK-NEXT: mpgemm.stream_matmul %z, %w precision "bf16" : tensor<8x4096xf32>
  // AMPERE: mpgemm.stream_matmul %x, %w precision "f16" : tensor<256x4096xf32>
  %y = mpgemm.matmul %x, %w : tensor<256x4096xf32>, !lowbit.tensor<4096x4096, "w4g128"> -> tensor<256x4096xf32>
  %v = mpgemm.matmul %z, %w : tensor<8x4096xf32>, !lowbit.tensor<4096x4096, "w4g128"> -> tensor<8x4096xf32>
  func.return %y, %v : tensor<256x4096xf32>, tensor<8x4096xf32>
}

// One-bit weights and many tokens are where looking up takes the fewest cycles; tables are made once.
// TABLES-LABEL: func.func @one_bit
// TABLES-SAME: %w: !lowbit.tensor<8192x8192, "w1g128", "stream_lookup">
// HOPPER-LABEL: func.func @one_bit
func.func @one_bit(%x: tensor<1024x8192xf32>, %w: !lowbit.tensor<8192x8192, "w1g128">, %u: !lowbit.tensor<8192x8192, "w1g128">) -> (tensor<1024x8192xf32>, tensor<1024x8192xf32>) {
  // TABLES-COUNT-1: mpgemm.lut_precompute %x : tensor<1024x8192xf32> -> !mpgemm.table<1024x8192, "f32", "f16", "symmetric">
  // TABLES-COUNT-2: mpgemm.stream_lookup_matmul
  // HOPPER-COUNT-2: mpgemm.stream_warpgroup_matmul
  %y = mpgemm.matmul %x, %w : tensor<1024x8192xf32>, !lowbit.tensor<8192x8192, "w1g128"> -> tensor<1024x8192xf32>
  %z = mpgemm.matmul %x, %u : tensor<1024x8192xf32>, !lowbit.tensor<8192x8192, "w1g128"> -> tensor<1024x8192xf32>
  func.return %y, %z : tensor<1024x8192xf32>, tensor<1024x8192xf32>
}
