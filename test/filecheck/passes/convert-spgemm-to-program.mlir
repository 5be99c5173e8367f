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

// The work on a row stands within the places of its mask.
// CHECK-LABEL: func.func @masked
// CHECK: spgemm.token %{{.*}} "token"
// CHECK: %[[PLACES:.*]] = spgemm.row %m
// CHECK: spgemm.admit %{{.*}}, %[[ROW:.*]], %[[PLACES]]
// CHECK: spgemm.row %a, %[[ROW]]
// CHECK: spgemm.dense_insert %{{.*}} "masked" : f64
// CHECK: spgemm.writeback %{{.*}} "masked"
// V3-LABEL: func.func @masked
// V3: spgemm.dma %b
// V3: spgemm.dense_insert %{{.*}} "masked" : f64
func.func @masked(%a: !spgemm.tensor<?x?, f64, "csr", i32>, %b: !spgemm.tensor<?x?, f64, "csr", i32>, %m: !spgemm.tensor<?x?, f64, "csr", i32>) -> !spgemm.tensor<?x?, f64, "csr", i32> {
  %c = spgemm.matmul %a, %b mask %m : !spgemm.tensor<?x?, f64, "csr", i32> : !spgemm.tensor<?x?, f64, "csr", i32>, !spgemm.tensor<?x?, f64, "csr", i32> -> !spgemm.tensor<?x?, f64, "csr", i32>
  func.return %c : !spgemm.tensor<?x?, f64, "csr", i32>
}
