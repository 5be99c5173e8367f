// RUN: nybble-opt %s | nybble-opt | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | nybble-opt | filecheck %s

// CHECK-LABEL: func.func @conversions
func.func @conversions(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  // CHECK: lowbit.quantize %{{.*}} : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
  %q = lowbit.quantize %x : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
  // CHECK: lowbit.dequantize %{{.*}} : !lowbit.tensor<?x64, "a8g32"> -> tensor<?x64xf32>
  %y = lowbit.dequantize %q : !lowbit.tensor<?x64, "a8g32"> -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @pack
func.func @pack(%w: !lowbit.tensor<8x64, "q4_1">) -> !lowbit.tensor<8x64, "q4_1", "tile64"> {
  // CHECK: lowbit.pack %{{.*}} : !lowbit.tensor<8x64, "q4_1"> -> !lowbit.tensor<8x64, "q4_1", "tile64">
  %p = lowbit.pack %w : !lowbit.tensor<8x64, "q4_1"> -> !lowbit.tensor<8x64, "q4_1", "tile64">
  func.return %p : !lowbit.tensor<8x64, "q4_1", "tile64">
}

// CHECK-LABEL: func.func @attributes
// CHECK-SAME: #lowbit.format<"q4_0">
func.func @attributes() attributes {format = #lowbit.format<"q4_0">} {
  func.return
}

// CHECK-LABEL: func.func @steps
// CHECK-SAME: nybble.prepare = [#lowbit.ones, #lowbit.plus_one, #lowbit.hadamard<rows, 64>, #lowbit.scale<columns, "norm.weight">, #lowbit.unscale<rows, "smooth.v">]
func.func @steps(%w: tensor<64xf32> {nybble.prepare = [#lowbit.ones, #lowbit.plus_one, #lowbit.hadamard<rows, 64>, #lowbit.scale<columns, "norm.weight">, #lowbit.unscale<rows, "smooth.v">]}) {
  func.return
}
