// RUN: nybble-opt %s -p assign-layout | filecheck %s

// CHECK-LABEL: func.func @tied(%ids: tensor<?xi32>, %h: tensor<?x64xf32>, %w: !lowbit.tensor<100x64, "q8_0", "tile64">)
func.func @tied(%ids: tensor<?xi32>, %h: tensor<?x64xf32>, %w: !lowbit.tensor<100x64, "q8_0">) -> (tensor<?x64xf32>, tensor<?x100xf32>) {
  // CHECK: fused.embed %ids, %w scale 1.000000e+00 : tensor<?xi32>, !lowbit.tensor<100x64, "q8_0", "tile64">
  %e = fused.embed %ids, %w scale 1.0 : tensor<?xi32>, !lowbit.tensor<100x64, "q8_0"> -> tensor<?x64xf32>
  // CHECK: mpgemm.dequant_matmul %h, %w : tensor<?x64xf32>, !lowbit.tensor<100x64, "q8_0", "tile64">
  %l = mpgemm.dequant_matmul %h, %w : tensor<?x64xf32>, !lowbit.tensor<100x64, "q8_0"> -> tensor<?x100xf32>
  func.return %e, %l : tensor<?x64xf32>, tensor<?x100xf32>
}

// A low-bit argument that is no weight keeps its storage order.
// CHECK-LABEL: func.func @activation(%q: !lowbit.tensor<?x64, "a8g32">)
func.func @activation(%q: !lowbit.tensor<?x64, "a8g32">) -> tensor<?x64xf32> {
  %x = lowbit.dequantize %q : !lowbit.tensor<?x64, "a8g32"> -> tensor<?x64xf32>
  func.return %x : tensor<?x64xf32>
}
