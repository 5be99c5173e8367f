// RUN: nybble-opt %s -p 'fuse-kernels,schedule-kernels{chunk=128}' | filecheck %s

// CHECK-LABEL: func.func @dynamic
// CHECK: fused.kernel "add"{{.*}} schedule #schedule.kernel<"cpu", "vector", {tokens = 128 : i64}, "no matrix product">
func.func @dynamic(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %y = arith.addf %x, %x : tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @one
// CHECK: fused.kernel "product"{{.*}} schedule #schedule.kernel<"cpu", "int_dot", {tokens = 1 : i64}, "cheaper">
func.func @one(%q: !lowbit.tensor<1x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">) -> tensor<1x8xf32> {
  %y = mpgemm.int_matmul %q, %a because "cheaper" : !lowbit.tensor<1x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// CHECK-LABEL: func.func @three
// CHECK: fused.kernel "product"{{.*}} schedule #schedule.kernel<"cpu", "dequantize", {tokens = 3 : i64}, "">
func.func @three(%x: tensor<3x64xf32>, %a: !lowbit.tensor<8x64, "q4_0">) -> tensor<3x8xf32> {
  %y = mpgemm.dequant_matmul %x, %a : tensor<3x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<3x8xf32>
  func.return %y : tensor<3x8xf32>
}
