// RUN: nybble-opt %s -p 'pad-tokens{block=0}' --verify-diagnostics

// expected-error@unknown {{a block of 0 rows}}
func.func @f() {
  func.return
}
