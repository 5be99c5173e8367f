// RUN: nybble-opt %s -p symmetrize-tables | filecheck %s

// CHECK-LABEL: func.func @products
// CHECK: mpgemm.lut_precompute %q : !lowbit.tensor<?x64, "a8g32"> -> !mpgemm.table<?x64, "a8g32", "i8", "symmetric">
// CHECK: mpgemm.lut_matmul %{{.*}}, %a : !mpgemm.table<?x64, "a8g32", "i8", "symmetric">
// CHECK: mpgemm.lut_dot_matmul %{{.*}}, %a : !mpgemm.table<?x64, "a8g32", "i8", "symmetric">
func.func @products(%q: !lowbit.tensor<?x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<?x64, "a8g32"> -> !mpgemm.table<?x64, "a8g32", "i8">
  %0 = mpgemm.lut_matmul %t, %a : !mpgemm.table<?x64, "a8g32", "i8">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %1 = mpgemm.lut_dot_matmul %t, %a : !mpgemm.table<?x64, "a8g32", "i8">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %0, %1 : tensor<?x8xf32>, tensor<?x8xf32>
}

// Tables that leave the function keep their type.
// CHECK-LABEL: func.func @returned
// CHECK: mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
// CHECK-NEXT: func.return
func.func @returned(%q: !lowbit.tensor<1x64, "a8g32">) -> !mpgemm.table<1x64, "a8g32", "i16"> {
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  func.return %t : !mpgemm.table<1x64, "a8g32", "i16">
}
