// RUN: nybble-opt %s -p 'fuse-kernels,schedule-kernels,tile-kernels' | filecheck %s

// What is far from everything measured keeps the sizes of its lowering, and says so.
// CHECK-LABEL: func.func @strange
// CHECK: fused.kernel "norm"{{.*}} schedule #schedule.kernel<"cpu", "vector", {chains = 4 : i64, lanes = 8 : i64, tokens = 1 : i64}, "no matrix product; kept: {{.*}}">
func.func @strange(%x: tensor<1x8xf32>, %g: tensor<8xf32>) -> tensor<1x8xf32> {
  %r = fused.rms_norm %x, %g eps 1.0e-05 : tensor<1x8xf32>, tensor<8xf32> -> tensor<1x8xf32>
  func.return %r : tensor<1x8xf32>
}

// CHECK-LABEL: func.func @known
// CHECK: fused.kernel "product"{{.*}} schedule #schedule.kernel<"cpu", "int_dot", {prefetch = {{.*}}, runs = {{.*}}, steps = {{.*}}, subtiles = {{.*}}, tokens = 1 : i64}, "{{.*}}us predicted{{.*}}">
func.func @known(%q: !lowbit.tensor<1x576, "a8g32">, %w: !lowbit.tensor<576x576, "q8_0">) -> tensor<1x576xf32> {
  %y = mpgemm.int_matmul %q, %w : !lowbit.tensor<1x576, "a8g32">, !lowbit.tensor<576x576, "q8_0"> -> tensor<1x576xf32>
  func.return %y : tensor<1x576xf32>
}
