// RUN: nybble-opt %s --split-input-file --verify-diagnostics -p lower-kernels-to-fpga

func.func @tokens(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "w2g32", "array">) {
  %r = fused.kernel "product"(%x, %w) : (tensor<?x64xf32>, !lowbit.tensor<8x64, "w2g32", "array">) -> tensor<?x8xf32> {
  ^bb0(%0: tensor<?x64xf32>, %1: !lowbit.tensor<8x64, "w2g32", "array">):
    // expected-error @+1 {{a product of a number of tokens that is not known}}
    %3 = mpgemm.lut_array_matmul %0, %1 : tensor<?x64xf32>, !lowbit.tensor<8x64, "w2g32", "array"> -> tensor<?x8xf32>
    fused.yield %3 : tensor<?x8xf32>
  }
  func.return
}

// -----

func.func @sum(%x: tensor<1x64xf32>) {
  %r = fused.kernel "add"(%x) : (tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>):
    // expected-error @+1 {{'arith.addf' has no kernel on an FPGA}}
    %1 = arith.addf %0, %0 : tensor<1x64xf32>
    fused.yield %1 : tensor<1x64xf32>
  }
  func.return
}
