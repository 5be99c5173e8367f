// RUN: nybble-opt %s | nybble-opt | filecheck %s

// CHECK: #schedule.kernel<"cpu", "int_dot", {rows = 64 : i64}, "because of codes">
func.func private @f() attributes {schedule = #schedule.kernel<"cpu", "int_dot", {rows = 64 : i64}, "because of codes">}
