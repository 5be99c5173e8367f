// RUN: nybble-opt %s -p convert-spgemm-to-program | filecheck %s
// RUN: nybble-opt %s -p 'convert-spgemm-to-program{accumulator=fragments transfer=dma bits=12}' | filecheck %s --check-prefix=V3

// CHECK-LABEL: func.func @product
// CHECK: spgemm.token %{{.*}} "token"
// CHECK: spgemm.hash_insert %{{.*}} "low" : f64
// CHECK: spgemm.writeback %{{.*}} "table"
// CHECK-NEXT: } bits 16
// V3-LABEL: func.func @product
// V3: spgemm.dma %b
// V3: spgemm.dense_insert %{{.*}} "fragments" : f64
// V3: spgemm.writeback %{{.*}} "fragments"
// V3: } bits 12
func.func @product(%a: !spgemm.tensor<?x?, f64, "csr", i32>, %b: !spgemm.tensor<?x?, f64, "csr", i32>) -> !spgemm.tensor<?x?, f64, "csr", i32> {
  %c = spgemm.matmul %a, %b : !spgemm.tensor<?x?, f64, "csr", i32>, !spgemm.tensor<?x?, f64, "csr", i32> -> !spgemm.tensor<?x?, f64, "csr", i32>
  func.return %c : !spgemm.tensor<?x?, f64, "csr", i32>
}
