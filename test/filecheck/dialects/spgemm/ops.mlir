// RUN: nybble-opt %s | nybble-opt | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | nybble-opt | filecheck %s

!a = !spgemm.tensor<8x16, f32, "csr", i32>
!b = !spgemm.tensor<16x?, f32, "bcsr(4x8)", i64>
!c = !spgemm.tensor<8x?, f32, "coo", i64>

// CHECK-LABEL: func.func @products
// CHECK: spgemm.matmul %{{.*}}, %{{.*}} : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x?, f32, "bcsr(4x8)", i64> -> !spgemm.tensor<8x?, f32, "coo", i64>
// CHECK: spgemm.matmul %{{.*}}, %{{.*}} mask %{{.*}} : !spgemm.tensor<8x?, f32, "coo", i64> complement semiring "min_plus" : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x?, f32, "bcsr(4x8)", i64> -> tensor<8x?xf32>
// CHECK: spgemm.spmm %{{.*}}, %{{.*}} : !spgemm.tensor<8x16, f32, "csr", i32>, tensor<16x4xf32> -> tensor<8x4xf32>
func.func @products(%a: !a, %b: !b, %x: tensor<16x4xf32>) -> tensor<8x4xf32> {
  %c = spgemm.matmul %a, %b : !a, !b -> !c
  %d = spgemm.matmul %a, %b mask %c : !c complement semiring "min_plus" : !a, !b -> tensor<8x?xf32>
  %y = spgemm.spmm %a, %x : !a, tensor<16x4xf32> -> tensor<8x4xf32>
  func.return %y : tensor<8x4xf32>
}

// CHECK-LABEL: func.func @attention
// CHECK: spgemm.sddmm %{{.*}}, %{{.*}} at %{{.*}} : tensor<8x4xf32>, tensor<?x4xf32> at !spgemm.tensor<8x?, f32, "coo", i64> -> !spgemm.tensor<8x?, f32, "coo", i64>
// CHECK: spgemm.softmax %{{.*}} scale 5.000000e-01 : !spgemm.tensor<8x?, f32, "coo", i64>
func.func @attention(%q: tensor<8x4xf32>, %k: tensor<?x4xf32>, %mask: !c, %v: tensor<?x4xf32>) -> tensor<8x4xf32> {
  %s = spgemm.sddmm %q, %k at %mask : tensor<8x4xf32>, tensor<?x4xf32> at !c -> !c
  %p = spgemm.softmax %s scale 0.5 : !c
  %y = spgemm.spmm %p, %v : !c, tensor<?x4xf32> -> tensor<8x4xf32>
  func.return %y : tensor<8x4xf32>
}

// The sums of f16 and of low-bit values are f32, those of i8 i32 unless they are logical.
// CHECK-LABEL: func.func @elements
// CHECK: semiring "or_and"
func.func @elements(%h: !spgemm.tensor<4x4, f16, "csr", i32>, %i: !spgemm.tensor<4x4, i8, "csc", i32>, %l: !spgemm.tensor<4x32, #lowbit.format<"q4_0">, "rows", i32>, %x: tensor<32x2xf32>) {
  %0 = spgemm.matmul %h, %h : !spgemm.tensor<4x4, f16, "csr", i32>, !spgemm.tensor<4x4, f16, "csr", i32> -> !spgemm.tensor<4x4, f32, "csr", i32>
  %1 = spgemm.matmul %i, %i : !spgemm.tensor<4x4, i8, "csc", i32>, !spgemm.tensor<4x4, i8, "csc", i32> -> !spgemm.tensor<4x4, i32, "csr", i32>
  %2 = spgemm.matmul %i, %i semiring "or_and" : !spgemm.tensor<4x4, i8, "csc", i32>, !spgemm.tensor<4x4, i8, "csc", i32> -> !spgemm.tensor<4x4, i8, "csr", i32>
  %3 = spgemm.spmm %l, %x : !spgemm.tensor<4x32, #lowbit.format<"q4_0">, "rows", i32>, tensor<32x2xf32> -> tensor<4x2xf32>
  func.return
}

// The spelling of a layout is one.
// CHECK-LABEL: func.func private @spelling
// CHECK-SAME: !spgemm.tensor<?x64, bf16, "nm(2:4)", i32>, !spgemm.tensor<?x?, i64, "bitmap", i64>
func.func private @spelling(!spgemm.tensor<?x64, bf16, "nm(2 : 4)", i32>, !spgemm.tensor<?x?, i64, "bitmap", i64>)

// CHECK-LABEL: func.func @convert
// CHECK: spgemm.convert %{{.*}} : tensor<?x16xf32> -> !spgemm.tensor<8x16, f32, "csr", i32>
func.func @convert(%x: tensor<?x16xf32>) -> !a {
  %y = spgemm.convert %x : tensor<?x16xf32> -> !a
  func.return %y : !a
}
