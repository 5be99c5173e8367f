// RUN: nybble-opt %s -p "select-pages{function=f mask=\"pages(32,2)+sink(4)\"}" | filecheck %s

// CHECK-LABEL: func.func @f
// CHECK-SAME: %p: index, %[[B:.*]]: tensor<1x8x32xf32>) -> (tensor<?x32xf32>, tensor<1x8x32xf32>)
func.func @f(%q: tensor<?x32xf32>, %kn: tensor<?x16xf32>, %k: tensor<1x128x16xf32>, %p: index) -> tensor<?x32xf32> {
  %ka = sparse_attn.append_kv %kn into %k at %p : tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  // CHECK: %[[N:.*]] = sparse_attn.append_bounds %kn into %[[B]] at %p size 16 : i64 : tensor<?x16xf32> into tensor<1x8x32xf32>
  // CHECK: %[[L:.*]] = sparse_attn.select_pages %q, %[[N]] at %p size 32 : i64 parts 2 : i64 : tensor<?x32xf32>, tensor<1x8x32xf32> -> tensor<1x?x2xi32>
  // CHECK: mask <"window(64)&(pages(32,2)+sink(4))"> selected %[[L]] : tensor<1x?x2xi32> scale 2.500000e-01 softmax "two_pass"
  %a = sparse_attn.attention %q, %ka, %ka at %p mask <"window(64)"> scale 0.25 softmax "two_pass" : tensor<?x32xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x32xf32>
  // CHECK: func.return %{{.*}}, %[[N]] :
  func.return %a : tensor<?x32xf32>
}

// CHECK-LABEL: func.func @g
func.func @g(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index) -> tensor<?x64xf32> {
  // CHECK: mask <"causal"> scale
  %a = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
