// RUN: nybble-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{unknown dataflow "magic"; accepted: dequantize, int_dot, }}
func.func private @f() attributes {schedule = #schedule.kernel<"cpu", "magic", {}, "">}

// -----

// expected-error @+1 {{option "rows" must be an integer, got "many"}}
func.func private @f() attributes {schedule = #schedule.kernel<"cpu", "vector", {rows = "many"}, "">}
