// RUN: nybble-opt %s -p 'select-dataflow{isa=avx512-vnni reasons=false}' | filecheck %s --check-prefix=INT
// RUN: nybble-opt %s -p 'select-dataflow{isa=avx512-vnni reasons=false activations=f32}' | filecheck %s --check-prefix=FLOAT
// RUN: nybble-opt %s -p 'select-dataflow{isa=avx512-vnni reasons=false prefill=bf16}' | filecheck %s --check-prefix=MIXED
// RUN: nybble-opt %s -p 'select-dataflow{isa=avx512-vnni reasons=false activations=i16 prefill=i8}' | filecheck %s --check-prefix=WIDE
// RUN: nybble-opt %s -p 'select-dataflow{isa=avx512-vnni dataflow=dequantize}' | filecheck %s --check-prefix=FORCED

// Products of one activation share its quantization; a float weight is decoded.
// INT-LABEL: func.func @shared
// INT-NEXT: %[[Q:.*]] = lowbit.quantize %x : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
// INT-NEXT: mpgemm.int_matmul %[[Q]], %a
// INT-NEXT: mpgemm.int_matmul %[[Q]], %b
// INT-NEXT: mpgemm.dequant_matmul %x, %c : tensor<?x64xf32>, !lowbit.tensor<8x64, "f16"> -> tensor<?x8xf32>
// FLOAT-LABEL: func.func @shared
// FLOAT-NOT: quantize
// FLOAT: mpgemm.dequant_matmul %x, %a
// FLOAT-NEXT: mpgemm.dequant_matmul %x, %b
// MIXED-LABEL: func.func @shared
// MIXED: mpgemm.dequant_matmul %x, %a precision "bf16"
// FORCED-LABEL: func.func @shared
// FORCED-NOT: quantize %x :
// FORCED: mpgemm.dequant_matmul %x, %a because "asked for dequantize; estimated cycles: int_dot {{.*}}, dequantize {{.*}}" :
// FORCED: mpgemm.dequant_matmul %x, %c because "asked for dequantize; estimated cycles: dequantize {{.*}}; no int_dot: weights of 'f16'
// WIDE-LABEL: func.func @shared
// WIDE: !lowbit.tensor<?x64, "a8g32">
func.func @shared(%x: tensor<?x64xf32>, %a: !lowbit.tensor<8x64, "q4_0">, %b: !lowbit.tensor<8x64, "q4_1">, %c: !lowbit.tensor<8x64, "f16">) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>) {
  %0 = mpgemm.matmul %x, %a : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %1 = mpgemm.matmul %x, %b : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<?x8xf32>
  %2 = mpgemm.matmul %x, %c : tensor<?x64xf32>, !lowbit.tensor<8x64, "f16"> -> tensor<?x8xf32>
  func.return %0, %1, %2 : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>
}

// Groups of different sizes need a quantization each.
// INT-LABEL: func.func @two_groups
// INT: lowbit.quantize %x : tensor<1x128xf32> -> !lowbit.tensor<1x128, "a8g32">
// INT: lowbit.quantize %x : tensor<1x128xf32> -> !lowbit.tensor<1x128, "a8g128">
// One token follows `activations`, not `prefill`.
// MIXED-LABEL: func.func @two_groups
// MIXED: lowbit.quantize
// WIDE-LABEL: func.func @two_groups
// WIDE: lowbit.quantize %x : tensor<1x128xf32> -> !lowbit.tensor<1x128, "a16g32">
// WIDE-NEXT: mpgemm.int_matmul %{{.*}}, %a : !lowbit.tensor<1x128, "a16g32">
// WIDE: lowbit.quantize %x : tensor<1x128xf32> -> !lowbit.tensor<1x128, "a16g128">
func.func @two_groups(%x: tensor<1x128xf32>, %a: !lowbit.tensor<8x128, "q4_0">, %b: !lowbit.tensor<8x128, "w4g128">) -> (tensor<1x8xf32>, tensor<1x8xf32>) {
  %0 = mpgemm.matmul %x, %a : tensor<1x128xf32>, !lowbit.tensor<8x128, "q4_0"> -> tensor<1x8xf32>
  %1 = mpgemm.matmul %x, %b : tensor<1x128xf32>, !lowbit.tensor<8x128, "w4g128"> -> tensor<1x8xf32>
  func.return %0, %1 : tensor<1x8xf32>, tensor<1x8xf32>
}

// A bias stays with its product.
// INT-LABEL: func.func @bias
// INT: mpgemm.int_matmul %{{.*}}, %w bias %b : tensor<8xf32> :
func.func @bias(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "q8_0">, %b: tensor<8xf32>) -> tensor<1x8xf32> {
  %0 = mpgemm.matmul %x, %w bias %b : tensor<8xf32> : tensor<1x64xf32>, !lowbit.tensor<8x64, "q8_0"> -> tensor<1x8xf32>
  func.return %0 : tensor<1x8xf32>
}
