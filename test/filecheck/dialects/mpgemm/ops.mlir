// RUN: nybble-opt %s | nybble-opt | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | nybble-opt | filecheck %s

// CHECK-LABEL: func.func @intent
func.func @intent(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_1">) -> tensor<?x8xf32> {
  // CHECK: mpgemm.matmul %{{.*}}, %{{.*}} : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<?x8xf32>
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @intent_with_bias
func.func @intent_with_bias(%x: tensor<3x64xf32>, %w: !lowbit.tensor<8x64, "q8_0">, %b: tensor<8xf32>) -> tensor<3x8xf32> {
  // CHECK: mpgemm.matmul %{{.*}}, %{{.*}} bias %{{.*}} : tensor<8xf32> : tensor<3x64xf32>, !lowbit.tensor<8x64, "q8_0"> -> tensor<3x8xf32>
  %y = mpgemm.matmul %x, %w bias %b : tensor<8xf32> : tensor<3x64xf32>, !lowbit.tensor<8x64, "q8_0"> -> tensor<3x8xf32>
  func.return %y : tensor<3x8xf32>
}

// CHECK-LABEL: func.func @integers
func.func @integers(%x: !lowbit.tensor<?x64, "a8g32">, %w: !lowbit.tensor<8x64, "q4_0", "tile64">) -> tensor<?x8xf32> {
  // CHECK: mpgemm.int_matmul %{{.*}}, %{{.*}} : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0", "tile64"> -> tensor<?x8xf32>
  %y = mpgemm.int_matmul %x, %w : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0", "tile64"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @rounded
func.func @rounded(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<1x8xf32> {
  // CHECK: mpgemm.dequant_matmul %{{.*}}, %{{.*}} precision "bf16" : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %y = mpgemm.dequant_matmul %x, %w precision "bf16" : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// CHECK-LABEL: func.func @decoded
func.func @decoded(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "bf16">) -> tensor<1x8xf32> {
  // CHECK: mpgemm.dequant_matmul %{{.*}}, %{{.*}} : tensor<1x64xf32>, !lowbit.tensor<8x64, "bf16"> -> tensor<1x8xf32>
  %y = mpgemm.dequant_matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "bf16"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// CHECK-LABEL: func.func @looked_up
// CHECK-SAME: !mpgemm.table<1x64, "a8g32", "i8", "symmetric">
func.func @looked_up(%x: !lowbit.tensor<?x64, "a8g32">, %w: !lowbit.tensor<8x64, "q4_0", "lut1">, %b: tensor<8xf32>, %h: !mpgemm.table<1x64, "a8g32", "i8", "symmetric">) -> tensor<?x8xf32> {
  // CHECK: mpgemm.lut_precompute %{{.*}} : !lowbit.tensor<?x64, "a8g32"> -> !mpgemm.table<?x64, "a8g32", "i16">
  %t = mpgemm.lut_precompute %x : !lowbit.tensor<?x64, "a8g32"> -> !mpgemm.table<?x64, "a8g32", "i16">
  // CHECK: mpgemm.lut_matmul %{{.*}}, %{{.*}} bias %{{.*}} : tensor<8xf32> : !mpgemm.table<?x64, "a8g32", "i16">, !lowbit.tensor<8x64, "q4_0", "lut1"> -> tensor<?x8xf32>
  %y = mpgemm.lut_matmul %t, %w bias %b : tensor<8xf32> : !mpgemm.table<?x64, "a8g32", "i16">, !lowbit.tensor<8x64, "q4_0", "lut1"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}

// The tables' group may be a part of the weight's.
// CHECK-LABEL: func.func @looked_up_in_four
func.func @looked_up_in_four(%t: !mpgemm.table<1x256, "a8g64", "i8">, %w: !lowbit.tensor<8x256, "b1_58", "lut4">) -> tensor<1x8xf32> {
  // CHECK: mpgemm.lut_dot_matmul %{{.*}}, %{{.*}} : !mpgemm.table<1x256, "a8g64", "i8">, !lowbit.tensor<8x256, "b1_58", "lut4"> -> tensor<1x8xf32>
  %y = mpgemm.lut_dot_matmul %t, %w : !mpgemm.table<1x256, "a8g64", "i8">, !lowbit.tensor<8x256, "b1_58", "lut4"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// CHECK-LABEL: func.func @planes
func.func @planes(%x: !lowbit.tensor<?x64, "ab2g64">, %w: !lowbit.tensor<8x64, "w2g64", "planes64">) -> tensor<?x8xf32> {
  // CHECK: mpgemm.bitserial_matmul %{{.*}}, %{{.*}} : !lowbit.tensor<?x64, "ab2g64">, !lowbit.tensor<8x64, "w2g64", "planes64"> -> tensor<?x8xf32>
  %y = mpgemm.bitserial_matmul %x, %w : !lowbit.tensor<?x64, "ab2g64">, !lowbit.tensor<8x64, "w2g64", "planes64"> -> tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @planes_by_row
func.func @planes_by_row(%x: !lowbit.tensor<1x48, "ab1g48">, %w: !lowbit.tensor<8x48, "bip1:g=row:s=f32">) -> tensor<1x8xf32> {
  // CHECK: mpgemm.bitserial_matmul %{{.*}}, %{{.*}} : !lowbit.tensor<1x48, "ab1g48">, !lowbit.tensor<8x48, "ab1"> -> tensor<1x8xf32>
  %y = mpgemm.bitserial_matmul %x, %w : !lowbit.tensor<1x48, "ab1g48">, !lowbit.tensor<8x48, "bip1:g=row:s=f32"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// CHECK-LABEL: func.func @streamed
func.func @streamed(%x: tensor<4x64xf32>, %w: !lowbit.tensor<8x64, "w4g64", "stream">, %b: tensor<8xf32>) -> tensor<4x8xf32> {
  // CHECK: mpgemm.stream_matmul %{{.*}}, %{{.*}} bias %{{.*}} : tensor<8xf32> precision "f16" : tensor<4x64xf32>, !lowbit.tensor<8x64, "w4g64", "stream"> -> tensor<4x8xf32>
  %y = mpgemm.stream_matmul %x, %w bias %b : tensor<8xf32> precision "f16" : tensor<4x64xf32>, !lowbit.tensor<8x64, "w4g64", "stream"> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}

// CHECK-LABEL: func.func @streamed_to_warpgroups
func.func @streamed_to_warpgroups(%x: tensor<64x64xf32>, %w: !lowbit.tensor<8x64, "w4g64", "stream">) -> tensor<64x8xf32> {
  // CHECK: mpgemm.stream_warpgroup_matmul %{{.*}}, %{{.*}} precision "bf16" : tensor<64x64xf32>, !lowbit.tensor<8x64, "w4g64", "stream"> -> tensor<64x8xf32>
  %y = mpgemm.stream_warpgroup_matmul %x, %w precision "bf16" : tensor<64x64xf32>, !lowbit.tensor<8x64, "w4g64", "stream"> -> tensor<64x8xf32>
  func.return %y : tensor<64x8xf32>
}

// CHECK-LABEL: func.func @streamed_integers
func.func @streamed_integers(%x: !lowbit.tensor<4x64, "a8">, %w: !lowbit.tensor<8x64, "w4g32", "stream">) -> tensor<4x8xf32> {
  // CHECK: mpgemm.stream_int_matmul %{{.*}}, %{{.*}} : !lowbit.tensor<4x64, "a8">, !lowbit.tensor<8x64, "w4g32", "stream"> -> tensor<4x8xf32>
  %y = mpgemm.stream_int_matmul %x, %w : !lowbit.tensor<4x64, "a8">, !lowbit.tensor<8x64, "w4g32", "stream"> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}

// CHECK-LABEL: func.func @streamed_planes
func.func @streamed_planes(%x: !lowbit.tensor<4x128, "ab2g128">, %w: !lowbit.tensor<8x128, "w2g128", "stream_planes">) -> tensor<4x8xf32> {
  // CHECK: mpgemm.stream_bitserial_matmul %{{.*}}, %{{.*}} : !lowbit.tensor<4x128, "ab2g128">, !lowbit.tensor<8x128, "w2g128", "stream_planes"> -> tensor<4x8xf32>
  %y = mpgemm.stream_bitserial_matmul %x, %w : !lowbit.tensor<4x128, "ab2g128">, !lowbit.tensor<8x128, "w2g128", "stream_planes"> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}

// CHECK-LABEL: func.func @streamed_lookups
func.func @streamed_lookups(%x: tensor<4x64xf32>, %w: !lowbit.tensor<8x64, "w1g64", "stream_lookup">) -> tensor<4x8xf32> {
  // CHECK: mpgemm.lut_precompute %{{.*}} : tensor<4x64xf32> -> !mpgemm.table<4x64, "f32", "f16", "symmetric">
  %t = mpgemm.lut_precompute %x : tensor<4x64xf32> -> !mpgemm.table<4x64, "f32", "f16", "symmetric">
  // CHECK: mpgemm.stream_lookup_matmul %{{.*}}, %{{.*}} : !mpgemm.table<4x64, "f32", "f16", "symmetric">, !lowbit.tensor<8x64, "w1g64", "stream_lookup"> -> tensor<4x8xf32>
  %y = mpgemm.stream_lookup_matmul %t, %w : !mpgemm.table<4x64, "f32", "f16", "symmetric">, !lowbit.tensor<8x64, "w1g64", "stream_lookup"> -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
