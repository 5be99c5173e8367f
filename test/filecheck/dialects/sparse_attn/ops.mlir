// RUN: nybble-opt %s | nybble-opt | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | nybble-opt | filecheck %s

// CHECK-LABEL: func.func @causal
func.func @causal(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf16>, %p: index) -> tensor<?x64xf32> {
  // CHECK: sparse_attn.attention %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} mask #sparse_attn.causal scale 2.500000e-01 :
  %r = sparse_attn.attention %q, %k, %v at %p mask #sparse_attn.causal scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @window
func.func @window(%q: tensor<1x64xf32>, %k: tensor<2x128x16xf32>, %v: tensor<2x128x16xf32>, %p: index) -> tensor<1x64xf32> {
  // CHECK: mask #sparse_attn.window<32> scale 2.500000e-01 softcap 5.000000e+01 :
  %r = sparse_attn.attention %q, %k, %v at %p mask #sparse_attn.window<32> scale 0.25 softcap 50.0 : tensor<1x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<1x64xf32>
  func.return %r : tensor<1x64xf32>
}

// CHECK-LABEL: func.func @append
func.func @append(%rows: tensor<?x32xf32>, %c: tensor<2x128x16xf16>, %p: index) -> tensor<2x128x16xf16> {
  // CHECK: sparse_attn.append_kv %{{.*}} into %{{.*}} at %{{.*}} : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %r = sparse_attn.append_kv %rows into %c at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  func.return %r : tensor<2x128x16xf16>
}
