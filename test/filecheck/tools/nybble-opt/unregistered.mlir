// RUN: nybble-opt %s --allow-unregistered-dialect | filecheck %s
// RUN: not nybble-opt %s 2>&1 | filecheck %s --check-prefix=STRICT

// CHECK:  %{{.*}} = "other.op"() {key = #other.attr<1>} : () -> !other.type
// STRICT: unregistered.mlir:6:7: error: Operation other.op is not registered
%0 = "other.op"() {key = #other.attr<1>} : () -> !other.type
