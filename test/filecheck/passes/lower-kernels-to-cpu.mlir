// RUN: nybble-opt %s -p 'assign-layout,fuse-kernels,schedule-kernels{chunk=20},lower-kernels-to-cpu{chunk=20}' | filecheck %s
// RUN: nybble-opt %s -p 'assign-layout,fuse-kernels,schedule-kernels{chunk=20},lower-kernels-to-cpu{chunk=20 isa=avx512-vnni}' | filecheck %s --check-prefix=VNNI

// Buffers of 20 tokens have room for 32; the sum takes over the memory of its first operand.
// CHECK: func.func @add.0.add(%{{.*}}: memref<2048xf32>, %{{.*}}: memref<2048xf32>, %{{.*}}: memref<2048xf32>, %{{.*}}: index, %{{.*}}: index, %{{.*}}: index, %{{.*}}: index)
// CHECK: func.func @add(%x: memref<2048xf32>, %y: memref<2048xf32>, %{{.*}}: index, %{{.*}}: index, %{{.*}}: index, %{{.*}}: index) {
// CHECK-NEXT: func.call @add.0.add(%x, %y, %x, {{.*}}) {access = "uru"}
// CHECK-NEXT: func.return
func.func @add(%x: tensor<?x64xf32>, %y: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %s = arith.addf %x, %y : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}

// A quantized matrix between kernels is three buffers; a result without a home is an argument.
// CHECK: func.func @product(%x: memref<64xf32>, %w: memref<2304xi8> {layout = "tile64"}, %{{.*}}: memref<8xf32>,
// CHECK: memref.alloc() : memref<64xi8>
// CHECK: memref.alloc() : memref<2xf32>
// CHECK: memref.alloc() : memref<2xi32>
// CHECK: func.call @product.0.quantize({{.*}}) {access = "rwww"}
// CHECK: func.call @product.1.product({{.*}}) {access = "rrrrw"}
// VNNI: llvm.x86.avx512.vpdpbusd.512
func.func @product(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<1x8xf32> {
  %q = lowbit.quantize %x : tensor<1x64xf32> -> !lowbit.tensor<1x64, "a8g32">
  %y = mpgemm.int_matmul %q, %w : !lowbit.tensor<1x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}
