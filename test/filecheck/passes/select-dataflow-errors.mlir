// RUN: not nybble-opt %s -p 'select-dataflow{activations=i3}' 2>&1 | filecheck %s

// CHECK: unknown activation mode 'i3'
// CHECK-NEXT: accepted: i8, i16, bf16, f32
func.func private @f()
