// RUN: not nybble-opt %s -p 'select-dataflow{activations=i3}' 2>&1 | filecheck %s --check-prefix=MODE
// RUN: not nybble-opt %s -p 'select-dataflow{target=abacus}' 2>&1 | filecheck %s --check-prefix=TARGET
// RUN: not nybble-opt %s -p 'select-dataflow{isa=mmx}' 2>&1 | filecheck %s --check-prefix=LEVEL
// RUN: not nybble-opt %s -p 'select-dataflow{dataflow=guess}' 2>&1 | filecheck %s --check-prefix=UNKNOWN
// RUN: not nybble-opt %s -p 'select-dataflow{dataflow=int_dot}' 2>&1 | filecheck %s --check-prefix=FORCED
// RUN: not nybble-opt %s -p 'select-dataflow{dataflow=dequantize activations=f32}' 2>&1 | filecheck %s --check-prefix=NONE

// MODE: unknown activation mode 'i3'
// MODE-NEXT: accepted: i8, i8-lut, i16, b1, b2, b3, b4, b5, b6, b7, b8, bf16, f32
// TARGET: unknown target 'abacus'
// TARGET-NEXT: accepted: cpu, cuda
// LEVEL: unknown instruction-set level 'mmx'

// UNKNOWN: error: unknown dataflow 'guess'
// UNKNOWN: accepted: int_dot, dequantize
// FORCED: error: no dataflow of 'cpu' multiplies 'f16' [8, 64] times 1 token(s) with activations i8: int_dot: weights of 'f16' are no integer codes
// FORCED: accepted: 'q
func.func @float(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "f16">) -> tensor<1x8xf32> {
  %0 = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "f16"> -> tensor<1x8xf32>
  func.return %0 : tensor<1x8xf32>
}

// Integers of two digits are for activations.
// NONE: error: no dataflow of 'cpu' multiplies 'a16g32' [8, 64] times 1 token(s) with activations f32: dequantize:
// NONE: accepted: '
func.func @none(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "a16g32">) -> tensor<1x8xf32> {
  %0 = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "a16g32"> -> tensor<1x8xf32>
  func.return %0 : tensor<1x8xf32>
}
