// RUN: not nybble-opt %s 2>&1 | filecheck %s --match-full-lines --strict-whitespace

//      CHECK:{{.*}}diagnostics.mlir:9:15: error: operand is used with type i64, but has been previously used or defined with type i32
// CHECK-NEXT:    func.return %a : i64
// CHECK-NEXT:                ^
//  CHECK-NOT:{{.}}
func.func @f(%a: i32) -> i64 {
  // The caret is under the operand.
  func.return %a : i64
}
