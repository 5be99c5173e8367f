// RUN: nybble-opt %s -p "restrict-attention{function=f mask=\"sink(4)+window(32)\"}" | filecheck %s

// CHECK-LABEL: func.func @f
func.func @f(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index) -> tensor<?x64xf32> {
  // CHECK: mask <"sink(4)+window(32)"> scale
  %a = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  // CHECK: mask <"window(9)&(sink(4)+window(32))"> scale
  %b = sparse_attn.attention %q, %k, %k at %p mask <"window(9)"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return %b : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @g
func.func @g(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index) -> tensor<?x64xf32> {
  // CHECK: mask <"causal"> scale
  %a = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
