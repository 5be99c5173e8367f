// RUN: nybble-opt %s -p "quantize-cache{kv=kivi4 rows=64}" | filecheck %s
// RUN: nybble-opt %s -p "quantize-cache{kv=bf16}" | filecheck %s --check-prefix=BF16
// RUN: nybble-opt %s -p "quantize-cache{kv=kivi2-h rows=64}" | filecheck %s --check-prefix=TURNED

// CHECK-LABEL: func.func @layer
// CHECK-SAME: %k: !sparse_attn.cache<keys 2x512x32, "kivi4", 256>, %v: !sparse_attn.cache<values 2x512x32, "kivi4", 256>
// CHECK-SAME: -> (tensor<?x64xf32>, !sparse_attn.cache<keys 2x512x32, "kivi4", 256>, !sparse_attn.cache<values 2x512x32, "kivi4", 256>)
// BF16-LABEL: func.func @layer
// BF16-SAME: %k: !sparse_attn.cache<keys 2x512x32, "bf16">, %v: !sparse_attn.cache<values 2x512x32, "bf16">
// TURNED-LABEL: func.func @layer
// TURNED-SAME: %k: !sparse_attn.cache<keys 2x512x32, "kivi2-h", 256>
// TURNED-DAG: %[[K:[0-9a-z]+]] = fused.hadamard %rows block 32 : tensor<?x64xf32>
// TURNED-DAG: %[[Q:[0-9a-z]+]] = fused.hadamard %q block 32 : tensor<?x64xf32>
// TURNED: sparse_attn.append_kv %[[K]] into %k
// TURNED: sparse_attn.append_kv %rows into %v
// TURNED: sparse_attn.attention %[[Q]],
func.func @layer(%q: tensor<?x64xf32>, %rows: tensor<?x64xf32>, %k: tensor<2x512x32xf16>, %v: tensor<2x512x32xf16>, %p: index) -> (tensor<?x64xf32>, tensor<2x512x32xf16>, tensor<2x512x32xf16>) {
  // CHECK: sparse_attn.append_kv %rows into %k at %p : tensor<?x64xf32> into !sparse_attn.cache<keys
  %keys = sparse_attn.append_kv %rows into %k at %p : tensor<?x64xf32> into tensor<2x512x32xf16> -> tensor<2x512x32xf16>
  // CHECK: sparse_attn.append_kv %rows into %v at %p : tensor<?x64xf32> into !sparse_attn.cache<values
  %values = sparse_attn.append_kv %rows into %v at %p : tensor<?x64xf32> into tensor<2x512x32xf16> -> tensor<2x512x32xf16>
  %a = sparse_attn.attention %q, %keys, %values at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x512x32xf16>, tensor<2x512x32xf16> -> tensor<?x64xf32>
  func.return %a, %keys, %values : tensor<?x64xf32>, tensor<2x512x32xf16>, tensor<2x512x32xf16>
}

// CHECK-LABEL: func.func @no_cache
// CHECK-SAME: (%x: tensor<2x512x32xf16>) -> tensor<2x512x32xf16>
func.func @no_cache(%x: tensor<2x512x32xf16>) -> tensor<2x512x32xf16> {
  func.return %x : tensor<2x512x32xf16>
}
