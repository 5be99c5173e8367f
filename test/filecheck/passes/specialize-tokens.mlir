// RUN: nybble-opt %s -p specialize-tokens | filecheck %s
// RUN: nybble-opt %s -p 'specialize-tokens{tokens=16}' | filecheck %s --check-prefix=FIXED

// FIXED: func.func @layer.prefill(%x: tensor<16x64xf32>, %q: !lowbit.tensor<16x64, "a8g32">, %c: tensor<2x8x4xf32>) -> tensor<16x64xf32>
// FIXED: fused.rms_norm {{.*}} -> tensor<16x64xf32>
// FIXED: func.func @layer.decode(%x: tensor<1x64xf32>

// CHECK: func.func @layer.prefill(%x: tensor<?x64xf32>, %q: !lowbit.tensor<?x64, "a8g32">, %c: tensor<2x8x4xf32>)
// CHECK: fused.rms_norm {{.*}} -> tensor<?x64xf32>
// CHECK: func.func @layer.decode(%x: tensor<1x64xf32>, %q: !lowbit.tensor<1x64, "a8g32">, %c: tensor<2x8x4xf32>) -> tensor<1x64xf32>
// CHECK: fused.rms_norm {{.*}} -> tensor<1x64xf32>
// CHECK: func.return %{{.*}} : tensor<1x64xf32>
func.func @layer(%x: tensor<?x64xf32>, %q: !lowbit.tensor<?x64, "a8g32">, %c: tensor<2x8x4xf32>) -> tensor<?x64xf32> {
  %w = lowbit.dequantize %q : !lowbit.tensor<?x64, "a8g32"> -> tensor<?x64xf32>
  %g = arith.constant dense<1.0> : tensor<64xf32>
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %y = arith.addf %n, %w : tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// Nothing dynamic, nothing to copy; nor is a declaration.
// CHECK: func.func @static(
// CHECK-NOT: @static.decode
func.func @static(%x: tensor<3x64xf32>) -> tensor<3x64xf32> {
  func.return %x : tensor<3x64xf32>
}
// CHECK: func.func private @declared(tensor<?x64xf32>)
func.func private @declared(tensor<?x64xf32>)
