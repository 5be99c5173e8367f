// RUN: nybble-opt %s -p "retain-tokens{function=f budget=8 recent=24}" | filecheck %s

// CHECK-LABEL: func.func @f
// CHECK-SAME: %k: tensor<2x16x32xf16>, %v: tensor<2x32x16xf16>, %p: index, %[[M:.*]]: tensor<2x1x32xf32>, %[[W:.*]]: tensor<2x1x128xi32>) -> (tensor<?x64xf32>, tensor<2x16x32xf16>, tensor<2x32x16xf16>, tensor<2x1x32xf32>, tensor<2x1x128xi32>)
func.func @f(%q: tensor<?x64xf32>, %kn: tensor<?x32xf32>, %vn: tensor<?x32xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf16>, %p: index) -> (tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>) {
  // CHECK-NOT: append_kv
  %ka = sparse_attn.append_kv %kn into %k at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %va = sparse_attn.append_kv %vn into %v at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  // CHECK: %[[A:.*]], %[[K:.*]], %[[V:.*]], %[[N:.*]], %[[X:.*]] = sparse_attn.retain %q, %kn, %vn into %k, %v, %[[W]] at %p by "accumulated" %[[M]] budget 8 : i64 size 1 : i64 scale 2.500000e-01
  %a = sparse_attn.attention %q, %ka, %va at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  // CHECK: func.return %[[A]], %[[K]], %[[V]], %[[N]], %[[X]] :
  func.return %a, %ka, %va : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>
}

// CHECK-LABEL: func.func @g
func.func @g(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index) -> tensor<?x64xf32> {
  // CHECK: sparse_attn.attention
  %a = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
