// RUN: nybble-opt %s -p fuse-linalg | filecheck %s
// RUN: nybble-opt %s -p 'fuse-linalg{buffers=2}' | filecheck %s --check-prefix=TWO

// What two products of one activation share is one launch; linalg before and after is one each.
// CHECK-LABEL: func.func @around
// CHECK-NEXT: %[[X:.*]] = fused.kernel "linalg"(%x) : (tensor<1x2x32xf32>) -> tensor<1x64xf32>
// CHECK: tensor.collapse_shape
// CHECK: %[[Y:.*]], %[[Z:.*]] = fused.kernel "product"(%[[X]], %w, %v)
// CHECK-COUNT-2: mpgemm.dequant_matmul
// CHECK: %[[R:.*]] = fused.kernel "linalg"(%[[Y]], %[[Z]])
// CHECK: func.return %[[R]]
func.func @around(%x: tensor<1x2x32xf32>, %w: !lowbit.tensor<8x64, "q4_0">, %v: !lowbit.tensor<8x64, "q4_0">) -> tensor<8xf32> {
  %f = tensor.collapse_shape %x [[0 : i64], [1 : i64, 2 : i64]] : tensor<1x2x32xf32> into tensor<1x64xf32>
  %y = mpgemm.dequant_matmul %f, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %a = tensor.collapse_shape %y [[0 : i64, 1 : i64]] : tensor<1x8xf32> into tensor<8xf32>
  %z = mpgemm.dequant_matmul %f, %v : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %b = tensor.collapse_shape %z [[0 : i64, 1 : i64]] : tensor<1x8xf32> into tensor<8xf32>
  %s = arith.addf %a, %b : tensor<8xf32>
  func.return %s : tensor<8xf32>
}

// A constant is repeated where it is read, and one that is returned is computed.
// CHECK-LABEL: func.func @constants
// CHECK: fused.kernel "linalg"(%x)
// CHECK: %[[E:.*]] = tensor.empty() : tensor<4xf32>
// CHECK: linalg.fill {{.*}} outs(%[[E]] : tensor<4xf32>)
// CHECK-NOT: fused.kernel
func.func @constants(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %s = arith.addf %x, %f : tensor<4xf32>
  func.return %s, %f : tensor<4xf32>, tensor<4xf32>
}

// A kernel with too many buffers is cut in two.
// CHECK-LABEL: func.func @wide
// CHECK: fused.kernel "linalg"(%x, %y)
// CHECK-NOT: fused.kernel
// TWO-LABEL: func.func @wide
// TWO: fused.kernel "linalg"(%x)
// TWO: fused.kernel "linalg"(%y)
func.func @wide(%x: tensor<4xf32>, %y: tensor<4xf32>) -> (tensor<2x2xf32>, tensor<2x2xf32>) {
  %a = tensor.expand_shape %x [[0 : i64, 1 : i64]] output_shape [2, 2] : tensor<4xf32> into tensor<2x2xf32>
  %b = tensor.expand_shape %y [[0 : i64, 1 : i64]] output_shape [2, 2] : tensor<4xf32> into tensor<2x2xf32>
  func.return %a, %b : tensor<2x2xf32>, tensor<2x2xf32>
}
