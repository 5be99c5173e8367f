// RUN: nybble-opt %s -p convert-linear-to-mpgemm | filecheck %s

// CHECK-NOT: @nybble.linear
func.func private @nybble.linear.0(tensor<?x64xf32>, tensor<8x36xi8>) -> tensor<?x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func private @nybble.linear.1(tensor<2x3x64xf32>, tensor<8x36xi8>, tensor<8xf32>) -> tensor<2x3x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}

// Two calls read one weight.
// CHECK-LABEL: func.func @two_dimensions(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32>
func.func @two_dimensions(%x: tensor<?x64xf32>, %w: tensor<8x36xi8>) -> tensor<?x8xf32> {
  // CHECK-NEXT: %[[Y:.*]] = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %y = func.call @nybble.linear.0(%x, %w) : (tensor<?x64xf32>, tensor<8x36xi8>) -> tensor<?x8xf32>
  // CHECK-NEXT: %[[Z:.*]] = mpgemm.matmul %x, %w
  %z = func.call @nybble.linear.0(%x, %w) : (tensor<?x64xf32>, tensor<8x36xi8>) -> tensor<?x8xf32>
  // CHECK-NEXT: arith.addf %[[Y]], %[[Z]]
  %s = arith.addf %y, %z : tensor<?x8xf32>
  func.return %s : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @three_dimensions
func.func @three_dimensions(%x: tensor<2x3x64xf32>, %w: tensor<8x36xi8>, %b: tensor<8xf32>) -> tensor<2x3x8xf32> {
  // CHECK-NEXT: %[[X:.*]] = tensor.collapse_shape %x {{.*}} : tensor<2x3x64xf32> into tensor<6x64xf32>
  // CHECK-NEXT: %[[Y:.*]] = mpgemm.matmul %[[X]], %w bias %b : tensor<8xf32> : tensor<6x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<6x8xf32>
  // CHECK-NEXT: %[[Z:.*]] = tensor.expand_shape %[[Y]] {{.*}} output_shape [2, 3, 8] : tensor<6x8xf32> into tensor<2x3x8xf32>
  %y = func.call @nybble.linear.1(%x, %w, %b) : (tensor<2x3x64xf32>, tensor<8x36xi8>, tensor<8xf32>) -> tensor<2x3x8xf32>
  // CHECK-NEXT: func.return %[[Z]]
  func.return %y : tensor<2x3x8xf32>
}

// CHECK-LABEL: func.func @other_call
func.func @other_call(%x: tensor<?x64xf32>, %w: tensor<8x36xi8>) -> tensor<?x8xf32> {
  // CHECK-NEXT: %{{.*}} = func.call @other_call
  %y = func.call @other_call(%x, %w) : (tensor<?x64xf32>, tensor<8x36xi8>) -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
