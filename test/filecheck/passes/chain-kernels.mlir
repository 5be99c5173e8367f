// RUN: nybble-opt %s -p chain-kernels | filecheck %s

// What launches pass on is inside of one; what the function returns stays in its order.
// CHECK-LABEL: func.func @two
// CHECK-NEXT: fused.kernel "chain"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> (tensor<1x64xf32>, tensor<1x64xf32>) {
// CHECK: fused.rms_norm
// CHECK-NEXT: arith.addf
// CHECK-NEXT: fused.yield
// CHECK-NOT: fused.kernel
// CHECK: func.return
func.func @two(%x: tensor<1x64xf32>, %g: tensor<64xf32>) -> (tensor<1x64xf32>, tensor<1x64xf32>) {
  %n = fused.kernel "norm"(%x, %g) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<64xf32>):
    %2 = fused.rms_norm %0, %1 eps 1.0e-05 : tensor<1x64xf32>, tensor<64xf32> -> tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  %s = fused.kernel "add"(%n, %x) : (tensor<1x64xf32>, tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>, %1: tensor<1x64xf32>):
    %2 = arith.addf %0, %1 : tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  func.return %s, %n : tensor<1x64xf32>, tensor<1x64xf32>
}

// One launch stays as it is.
// CHECK-LABEL: func.func @one
// CHECK-NEXT: fused.kernel "add"
func.func @one(%x: tensor<1x64xf32>) -> tensor<1x64xf32> {
  %s = fused.kernel "add"(%x) : (tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>):
    %1 = arith.addf %0, %0 : tensor<1x64xf32>
    fused.yield %1 : tensor<1x64xf32>
  }
  func.return %s : tensor<1x64xf32>
}
