// RUN: nybble-opt %s | nybble-opt - | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | nybble-opt | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | filecheck %s --check-prefix=GENERIC
// RUN: nybble-opt %s --mlir-print-debuginfo | filecheck %s --check-prefix=LOCATION

// CHECK-LABEL: func.func @add(
// CHECK-NEXT:    %{{.*}} = arith.addi %{{.*}}, %{{.*}} : i32
// CHECK-NEXT:    func.return %{{.*}} : i32
// GENERIC:       "arith.addi"(%{{.*}}, %{{.*}}) <{overflowFlags = #arith.overflow<none>}>
// LOCATION:      arith.addi %{{.*}}, %{{.*}} : i32 loc("{{.*}}roundtrip.mlir":12:3)
func.func @add(%a: i32, %b: i32) -> i32 {
  %c = arith.addi %a, %b : i32
  func.return %c : i32
}
