// RUN: nybble-opt %s -p pad-tokens | filecheck %s
// RUN: nybble-opt %s -p 'pad-tokens{block=4}' | filecheck %s --check-prefix=FOUR

// Two products share one padded activation.
// CHECK-LABEL: func.func @shared
// CHECK-NEXT: %[[ZERO:.*]] = arith.constant 0.000000e+00 : f32
// CHECK-NEXT: %[[EMPTY:.*]] = tensor.empty() : tensor<16x64xf32>
// CHECK-NEXT: %[[FILL:.*]] = linalg.fill ins(%[[ZERO]] : f32) outs(%[[EMPTY]] : tensor<16x64xf32>)
// CHECK-NEXT: %[[X:.*]] = tensor.insert_slice %x into %[[FILL]][0, 0] [5, 64] [1, 1]
// CHECK-NEXT: %[[Y:.*]] = mpgemm.matmul %[[X]], %w bias %b : tensor<8xf32> : tensor<16x64xf32>
// CHECK-NEXT: tensor.extract_slice %[[Y]][0, 0] [5, 8] [1, 1] : tensor<16x8xf32> to tensor<5x8xf32>
// CHECK-NEXT: mpgemm.matmul %[[X]], %w : tensor<16x64xf32>
// FOUR: mpgemm.matmul {{.*}} -> tensor<8x8xf32>
func.func @shared(%x: tensor<5x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">, %b: tensor<8xf32>) -> (tensor<5x8xf32>, tensor<5x8xf32>) {
  %y = mpgemm.matmul %x, %w bias %b : tensor<8xf32> : tensor<5x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<5x8xf32>
  %z = mpgemm.matmul %x, %w : tensor<5x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<5x8xf32>
  func.return %y, %z : tensor<5x8xf32>, tensor<5x8xf32>
}

// CHECK-LABEL: func.func @one_token
// CHECK-NEXT: mpgemm.matmul %x, %w
func.func @one_token(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<1x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// CHECK-LABEL: func.func @whole_blocks
// CHECK-NEXT: mpgemm.matmul %x, %w
func.func @whole_blocks(%x: tensor<32x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<32x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<32x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<32x8xf32>
  func.return %y : tensor<32x8xf32>
}

// CHECK-LABEL: func.func @dynamic
// CHECK-NEXT: mpgemm.matmul %x, %w
func.func @dynamic(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
