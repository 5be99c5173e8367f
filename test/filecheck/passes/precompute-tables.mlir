// RUN: nybble-opt %s -p precompute-tables | filecheck %s

// Tables move right behind the quantization; what reads them stays where it is.
// CHECK-LABEL: func.func @hoisted
// CHECK-NEXT: %q = lowbit.quantize %x
// CHECK-NEXT: %t = mpgemm.lut_precompute %q
// CHECK-NEXT: %s = arith.addf
// CHECK-NEXT: mpgemm.lut_matmul %t, %a
// CHECK-NEXT: mpgemm.lut_matmul %t, %b
// CHECK-NEXT: func.return
func.func @hoisted(%x: tensor<1x64xf32>, %a: !lowbit.tensor<8x64, "q4_0">, %b: !lowbit.tensor<4x64, "q4_1">) -> (tensor<1x8xf32>, tensor<1x4xf32>) {
  %q = lowbit.quantize %x : tensor<1x64xf32> -> !lowbit.tensor<1x64, "a8g32">
  %s = arith.addf %x, %x : tensor<1x64xf32>
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  %0 = mpgemm.lut_matmul %t, %a : !mpgemm.table<1x64, "a8g32", "i16">, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %u = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  %1 = mpgemm.lut_matmul %u, %b : !mpgemm.table<1x64, "a8g32", "i16">, !lowbit.tensor<4x64, "q4_1"> -> tensor<1x4xf32>
  func.return %0, %1 : tensor<1x8xf32>, tensor<1x4xf32>
}

// Tables of another kind, or of another activation, are others.
// CHECK-LABEL: func.func @different
// CHECK-COUNT-3: mpgemm.lut_precompute
// CHECK-NOT: mpgemm.lut_precompute
func.func @different(%q: !lowbit.tensor<1x64, "a8g32">, %p: !lowbit.tensor<1x64, "a8g32">) -> (!mpgemm.table<1x64, "a8g32", "i16">, !mpgemm.table<1x64, "a8g32", "i8">, !mpgemm.table<1x64, "a8g32", "i16">) {
  %a = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  %b = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i8">
  %c = mpgemm.lut_precompute %p : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  func.return %a, %b, %c : !mpgemm.table<1x64, "a8g32", "i16">, !mpgemm.table<1x64, "a8g32", "i8">, !mpgemm.table<1x64, "a8g32", "i16">
}
