// RUN: nybble-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{Operation no.such is not registered}}
"no.such"() : () -> ()

// -----

func.func @undefined() -> i32 {
  func.return %a : i32 // expected-error {{value %a is used but never defined}}
}

// -----

// A part without an expectation has to be valid.
func.func @valid() {
  func.return
}

// -----

%0 = arith.constant 1 : i32
// expected-error-re @below {{attribute i32 expected .* but got i64}}
%1 = "arith.addi"(%0, %0) <{overflowFlags = #arith.overflow<none>}> : (i32, i32) -> i64
