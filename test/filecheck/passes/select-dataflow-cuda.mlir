// RUN: nybble-opt %s -p 'select-dataflow{target=cuda isa=sm_90a activations=bf16 reasons=false},assign-layout' | filecheck %s

// CHECK-LABEL: func.func @f
// CHECK-SAME: %w: !lowbit.tensor<64x256, "w4g128", "stream">
func.func @f(%x: tensor<4x256xf32>, %w: !lowbit.tensor<64x256, "w4g128">) -> tensor<4x64xf32> {
  // CHECK: mpgemm.stream_matmul %x, %w precision "bf16" : tensor<4x256xf32>
  %y = mpgemm.matmul %x, %w : tensor<4x256xf32>, !lowbit.tensor<64x256, "w4g128"> -> tensor<4x64xf32>
  func.return %y : tensor<4x64xf32>
}
