// RUN: nybble-opt %s -p 'select-dataflow{reasons=false activations=b1},assign-layout' | filecheck %s

// Bipolar activations by the weight's groups, shared; weights without planes are decoded.
// CHECK-LABEL: func.func @shared
// CHECK-SAME: %a: !lowbit.tensor<8x64, "w1g32", "planes64">, %b: !lowbit.tensor<8x64, "w2g32", "planes64">, %c: !lowbit.tensor<8x64, "f16", "tile64">
// CHECK-NEXT: %[[Q:.*]] = lowbit.quantize %x : tensor<1x64xf32> -> !lowbit.tensor<1x64, "ab1g32">
// CHECK-NEXT: mpgemm.bitserial_matmul %[[Q]], %a
// CHECK-NEXT: mpgemm.bitserial_matmul %[[Q]], %b
// CHECK-NEXT: mpgemm.dequant_matmul %x, %c
func.func @shared(%x: tensor<1x64xf32>, %a: !lowbit.tensor<8x64, "w1g32">, %b: !lowbit.tensor<8x64, "w2g32">, %c: !lowbit.tensor<8x64, "f16">) -> (tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>) {
  %0 = mpgemm.matmul %x, %a : tensor<1x64xf32>, !lowbit.tensor<8x64, "w1g32"> -> tensor<1x8xf32>
  %1 = mpgemm.matmul %x, %b : tensor<1x64xf32>, !lowbit.tensor<8x64, "w2g32"> -> tensor<1x8xf32>
  %2 = mpgemm.matmul %x, %c : tensor<1x64xf32>, !lowbit.tensor<8x64, "f16"> -> tensor<1x8xf32>
  func.return %0, %1, %2 : tensor<1x8xf32>, tensor<1x8xf32>, tensor<1x8xf32>
}

// A row is one group, with a bias.
// CHECK-LABEL: func.func @by_row
// CHECK-NEXT: %[[Q:.*]] = lowbit.quantize %x : tensor<1x96xf32> -> !lowbit.tensor<1x96, "ab1g96">
// CHECK-NEXT: mpgemm.bitserial_matmul %[[Q]], %w bias %b
func.func @by_row(%x: tensor<1x96xf32>, %w: !lowbit.tensor<8x96, "b1_58">, %b: tensor<8xf32>) -> tensor<1x8xf32> {
  %0 = mpgemm.matmul %x, %w bias %b : tensor<8xf32> : tensor<1x96xf32>, !lowbit.tensor<8x96, "b1_58"> -> tensor<1x8xf32>
  func.return %0 : tensor<1x8xf32>
}
