// RUN: nybble-opt %s -p 'select-dataflow{isa=avx512-vnni reasons=false dataflow=int_dot},fuse-kernels' | filecheck %s
// RUN: nybble-opt %s -p 'insert-hadamard,select-dataflow{isa=avx512-vnni reasons=false dataflow=int_dot},fuse-kernels' | filecheck %s --check-prefix=ROTATED
// RUN: nybble-opt %s -p 'select-dataflow{isa=avx512-vbmi reasons=false dataflow=lut},precompute-tables,fuse-kernels' | filecheck %s --check-prefix=TABLES

// What is made of an activation is made once, in the kernel of the norm, for all products that read
// it in groups of one size, whatever the formats of their weights.
// CHECK-LABEL: func.func @layer
// CHECK: %[[Q:.*]] = fused.kernel "norm_quantize"
// CHECK: lowbit.quantize
// CHECK-SAME: "a8g32"
// CHECK-NOT: lowbit.quantize
// CHECK: fused.kernel "product"(%[[Q]],
// CHECK: fused.kernel "product"(%[[Q]],
// CHECK-NOT: lowbit.quantize
// CHECK: fused.kernel "glu"
// CHECK: fused.kernel "quantize"
// CHECK: lowbit.quantize
// CHECK-NOT: lowbit.quantize

// A transform goes between the gate and its quantization, which is still the only one.
// ROTATED-LABEL: func.func @layer
// ROTATED: fused.kernel "norm_quantize"
// ROTATED: fused.kernel "glu"
// ROTATED: %[[R:.*]] = fused.kernel "hadamard"
// ROTATED: fused.kernel "quantize"(%[[R]])
// ROTATED: lowbit.quantize
// ROTATED-NOT: lowbit.quantize
func.func @layer(%h: tensor<?x64xf32>, %g: tensor<64xf32> {nybble.weight = "norm.weight"}, %wg: !lowbit.tensor<32x64, "q4_1"> {nybble.weight = "gate.weight"}, %wu: !lowbit.tensor<32x64, "w4g32"> {nybble.weight = "up.weight"}, %wd: !lowbit.tensor<64x32, "w2g32"> {nybble.weight = "down.weight"}) -> tensor<?x64xf32> {
  %n = fused.rms_norm %h, %g eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %a = mpgemm.matmul %n, %wg : tensor<?x64xf32>, !lowbit.tensor<32x64, "q4_1"> -> tensor<?x32xf32>
  %u = mpgemm.matmul %n, %wu : tensor<?x64xf32>, !lowbit.tensor<32x64, "w4g32"> -> tensor<?x32xf32>
  %m = fused.glu "silu" %a, %u : tensor<?x32xf32>
  %d = mpgemm.matmul %m, %wd : tensor<?x32xf32>, !lowbit.tensor<64x32, "w2g32"> -> tensor<?x64xf32>
  %s = arith.addf %h, %d : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}

// The experts of a mixture read one activation: it is quantized once, and looked up in one table
// that is built where the norm is computed.
// CHECK-LABEL: func.func @experts
// ROTATED-LABEL: func.func @experts
// TABLES-LABEL: func.func @experts
// TABLES: fused.kernel
// TABLES: fused.rms_norm
// TABLES: lowbit.quantize
// TABLES: mpgemm.lut_precompute
// TABLES-NOT: lowbit.quantize
// TABLES-NOT: mpgemm.lut_precompute
// TABLES: func.return
func.func @experts(%h: tensor<1x128xf32>, %g: tensor<128xf32> {nybble.weight = "norm.weight"}, %g0: !lowbit.tensor<64x128, "w2g32"> {nybble.weight = "gate.0"}, %u0: !lowbit.tensor<64x128, "w2g32"> {nybble.weight = "up.0"}, %g1: !lowbit.tensor<64x128, "w1g32"> {nybble.weight = "gate.1"}, %u1: !lowbit.tensor<64x128, "w4g32"> {nybble.weight = "up.1"}) -> (tensor<1x64xf32>, tensor<1x64xf32>) {
  %n = fused.rms_norm %h, %g eps 1.0e-05 : tensor<1x128xf32>, tensor<128xf32> -> tensor<1x128xf32>
  %0 = mpgemm.matmul %n, %g0 : tensor<1x128xf32>, !lowbit.tensor<64x128, "w2g32"> -> tensor<1x64xf32>
  %1 = mpgemm.matmul %n, %u0 : tensor<1x128xf32>, !lowbit.tensor<64x128, "w2g32"> -> tensor<1x64xf32>
  %2 = fused.glu "silu" %0, %1 : tensor<1x64xf32>
  %3 = mpgemm.matmul %n, %g1 : tensor<1x128xf32>, !lowbit.tensor<64x128, "w1g32"> -> tensor<1x64xf32>
  %4 = mpgemm.matmul %n, %u1 : tensor<1x128xf32>, !lowbit.tensor<64x128, "w4g32"> -> tensor<1x64xf32>
  %5 = fused.glu "silu" %3, %4 : tensor<1x64xf32>
  func.return %2, %5 : tensor<1x64xf32>, tensor<1x64xf32>
}
