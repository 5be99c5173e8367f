// RUN: nybble-opt %s -p fuse-linalg --split-input-file --verify-diagnostics

// A product stands between a scalar and its use.
func.func @scalar(%x: tensor<1x64xf32>, %w: !lowbit.tensor<64x64, "q4_0">) -> tensor<1x64xf32> {
  %i = arith.constant 0 : index
  // expected-error@below {{a value of type f32 goes from one kernel to another}}
  %s = tensor.extract %x[%i, %i] : tensor<1x64xf32>
  %y = mpgemm.dequant_matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<64x64, "q4_0"> -> tensor<1x64xf32>
  %f = linalg.fill ins(%s : f32) outs(%y : tensor<1x64xf32>) -> tensor<1x64xf32>
  func.return %f : tensor<1x64xf32>
}

// -----

func.func @argument(%x: tensor<1x64xf32>, %i: index) -> f32 {
  // expected-error@below {{a value of type index goes from one kernel to another}}
  %s = tensor.extract %x[%i, %i] : tensor<1x64xf32>
  func.return %s : f32
}
