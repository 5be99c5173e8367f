// RUN: not nybble-opt %s -p no-such-pass 2>&1 | filecheck %s --check-prefix=PASS
// RUN: not nybble-opt %s --no-such-option 2>&1 | filecheck %s --check-prefix=OPTION
// RUN: not nybble-opt %s --to-stage no-such-stage 2>&1 | filecheck %s --check-prefix=STAGE

// PASS:      <pass-pipeline>:1:1: error: unknown pass 'no-such-pass'
// PASS-NEXT:   no-such-pass
// PASS-NEXT:   ^
// PASS-NEXT: note: accepted:
// OPTION:    nybble-opt: error: No such option '--no-such-option'.
// STAGE:     nybble-opt: error: unknown stage 'no-such-stage'
func.func @f() {
  func.return
}
