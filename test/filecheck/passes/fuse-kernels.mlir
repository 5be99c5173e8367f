// RUN: nybble-opt %s -p fuse-kernels | filecheck %s

// CHECK-LABEL: func.func @norm_read_twice
// The norm is yielded beside its quantization where another operator reads it.
// CHECK: %[[N:.*]], %[[Q:.*]] = fused.kernel "norm_quantize"(%x, %g)
// CHECK: fused.yield
// CHECK: fused.kernel "add"(%[[N]], %x)
func.func @norm_read_twice(%x: tensor<?x64xf32>, %g: tensor<64xf32>) -> (!lowbit.tensor<?x64, "a8g32">, tensor<?x64xf32>) {
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %q = lowbit.quantize %n : tensor<?x64xf32> -> !lowbit.tensor<?x64, "a8g32">
  %s = arith.addf %n, %x : tensor<?x64xf32>
  func.return %q, %s : !lowbit.tensor<?x64, "a8g32">, tensor<?x64xf32>
}

// CHECK-LABEL: func.func @products
// CHECK: fused.kernel "product"(%q, %a, %b)
// CHECK: mpgemm.int_matmul
// CHECK-NEXT: mpgemm.int_matmul
// CHECK-NEXT: fused.yield
func.func @products(%q: !lowbit.tensor<?x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">, %b: !lowbit.tensor<4x64, "q4_0">) -> (tensor<?x8xf32>, tensor<?x4xf32>) {
  %0 = mpgemm.int_matmul %q, %a : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %1 = mpgemm.int_matmul %q, %b : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<4x64, "q4_0"> -> tensor<?x4xf32>
  func.return %0, %1 : tensor<?x8xf32>, tensor<?x4xf32>
}

// CHECK-LABEL: func.func @gate_up
// CHECK: fused.kernel "product_glu"(%q, %a, %b)
// CHECK: fused.glu "silu"
// CHECK-NEXT: fused.yield %{{[^,]*}} : tensor<?x8xf32>
func.func @gate_up(%q: !lowbit.tensor<?x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">, %b: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %0 = mpgemm.int_matmul %q, %a : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %1 = mpgemm.int_matmul %q, %b : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %2 = fused.glu "silu" %0, %1 : tensor<?x8xf32>
  func.return %2 : tensor<?x8xf32>
}

// A gate that is read elsewhere keeps the unit apart.
// CHECK-LABEL: func.func @gate_read_twice
// CHECK: fused.kernel "product"(%q, %a, %b)
// CHECK: fused.kernel "glu"
func.func @gate_read_twice(%q: !lowbit.tensor<?x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">, %b: !lowbit.tensor<8x64, "q4_0">) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %0 = mpgemm.int_matmul %q, %a : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %1 = mpgemm.int_matmul %q, %b : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %2 = fused.glu "silu" %0, %1 : tensor<?x8xf32>
  func.return %2, %0 : tensor<?x8xf32>, tensor<?x8xf32>
}

// CHECK-LABEL: func.func @residual
// CHECK: fused.kernel "product_add"(%q, %a, %h)
// CHECK-SAME: because "analytic: product_add {{[0-9.]+}} us (vector); next product | add {{[0-9.]+}} us"
// CHECK: arith.addf
func.func @residual(%q: !lowbit.tensor<?x64, "a8g32">, %a: !lowbit.tensor<8x64, "q4_0">, %h: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %0 = mpgemm.int_matmul %q, %a : !lowbit.tensor<?x64, "a8g32">, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %1 = arith.addf %h, %0 : tensor<?x8xf32>
  func.return %1 : tensor<?x8xf32>
}

// Head norms, rotations and appends are one launch, wherever the products between them stand.
// CHECK-LABEL: func.func @rope
// CHECK: fused.kernel "rope_append"
// CHECK: fused.rms_norm
// CHECK: fused.rope
// CHECK: fused.rope
// CHECK: sparse_attn.append_kv
// CHECK: sparse_attn.append_kv
// CHECK: fused.kernel "attention"
func.func @rope(%q: tensor<?x64xf32>, %k: tensor<?x32xf32>, %v: tensor<?x32xf32>, %g: tensor<16xf32>, %t: tensor<128x8xf32>, %kc: tensor<2x128x16xf16>, %vc: tensor<2x128x16xf16>, %p: index) -> tensor<?x64xf32> {
  %qn = fused.rms_norm %q, %g eps 1.0e-05 : tensor<?x64xf32>, tensor<16xf32> -> tensor<?x64xf32>
  %qr = fused.rope %qn, %t, %t at %p : tensor<?x64xf32>, tensor<128x8xf32> -> tensor<?x64xf32>
  %kr = fused.rope %k, %t, %t at %p : tensor<?x32xf32>, tensor<128x8xf32> -> tensor<?x32xf32>
  %kc2 = sparse_attn.append_kv %kr into %kc at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %vc2 = sparse_attn.append_kv %v into %vc at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %a = sparse_attn.attention %qr, %kc2, %vc2 at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}

// Lookup tables are written with the quantization that nothing else reads.
// CHECK-LABEL: func.func @tables
// CHECK: %[[T:.*]] = fused.kernel "norm_quantize_tables"(%x, %g)
// CHECK: fused.rms_norm
// CHECK-NEXT: lowbit.quantize
// CHECK-NEXT: mpgemm.lut_precompute
// CHECK-NEXT: fused.yield %{{.*}} : !mpgemm.table
// CHECK: fused.kernel "product"(%[[T]], %a)
// CHECK: fused.kernel "quantize_tables"(%x)
func.func @tables(%x: tensor<1x64xf32>, %g: tensor<64xf32>, %a: !lowbit.tensor<8x64, "q4_0">) -> (tensor<1x8xf32>, tensor<1x8xf32>) {
  %n = fused.rms_norm %x, %g eps 1.0e-05 : tensor<1x64xf32>, tensor<64xf32> -> tensor<1x64xf32>
  %q = lowbit.quantize %n : tensor<1x64xf32> -> !lowbit.tensor<1x64, "a8g32">
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  %0 = mpgemm.lut_matmul %t, %a : !mpgemm.table<1x64, "a8g32", "i16">, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %p = lowbit.quantize %x : tensor<1x64xf32> -> !lowbit.tensor<1x64, "a8g32">
  %u = mpgemm.lut_precompute %p : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  %1 = mpgemm.lut_matmul %u, %a : !mpgemm.table<1x64, "a8g32", "i16">, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  func.return %0, %1 : tensor<1x8xf32>, tensor<1x8xf32>
}

// Where a product of integers reads the quantization too, tables are a launch of their own.
// CHECK-LABEL: func.func @tables_beside
// CHECK: fused.kernel "quantize"(%x)
// CHECK: fused.kernel "tables"
// CHECK: fused.kernel "product"
// CHECK: fused.kernel "product"
func.func @tables_beside(%x: tensor<1x64xf32>, %a: !lowbit.tensor<8x64, "q4_0">, %b: !lowbit.tensor<8x64, "q8_0">) -> (tensor<1x8xf32>, tensor<1x8xf32>) {
  %q = lowbit.quantize %x : tensor<1x64xf32> -> !lowbit.tensor<1x64, "a8g32">
  %t = mpgemm.lut_precompute %q : !lowbit.tensor<1x64, "a8g32"> -> !mpgemm.table<1x64, "a8g32", "i16">
  %0 = mpgemm.lut_matmul %t, %a : !mpgemm.table<1x64, "a8g32", "i16">, !lowbit.tensor<8x64, "q4_0"> -> tensor<1x8xf32>
  %1 = mpgemm.int_matmul %q, %b : !lowbit.tensor<1x64, "a8g32">, !lowbit.tensor<8x64, "q8_0"> -> tensor<1x8xf32>
  func.return %0, %1 : tensor<1x8xf32>, tensor<1x8xf32>
}

// A gate and an up of different formats are no pair for one kernel.
// CHECK-LABEL: func.func @mixed_gate
// CHECK: fused.kernel "product"
// CHECK: fused.kernel "glu"
func.func @mixed_gate(%x: tensor<?x64xf32>, %wg: !lowbit.tensor<32x64, "w4g32">, %wu: !lowbit.tensor<32x64, "w4g16">) -> tensor<?x32xf32> {
  %g = mpgemm.dequant_matmul %x, %wg : tensor<?x64xf32>, !lowbit.tensor<32x64, "w4g32"> -> tensor<?x32xf32>
  %u = mpgemm.dequant_matmul %x, %wu : tensor<?x64xf32>, !lowbit.tensor<32x64, "w4g16"> -> tensor<?x32xf32>
  %m = fused.glu "silu" %g, %u : tensor<?x32xf32>
  func.return %m : tensor<?x32xf32>
}
