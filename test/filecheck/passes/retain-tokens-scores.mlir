// RUN: nybble-opt %s -p 'retain-tokens{function=last budget=8 recent=24 by="last" size=4},retain-tokens{function=follows budget=8 recent=24 by="" size=4},retain-tokens{function=learned budget=8 recent=24 by="learned" hidden=40}' | filecheck %s

// CHECK-LABEL: func.func @last
// CHECK-SAME: %[[M:[0-9]+]]: tensor<2x25x32xf32>, %[[W:[0-9]+]]: tensor<2x1x128xi32>) -> (
func.func @last(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf16>, %p: index) -> (tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>) {
  %ka = sparse_attn.append_kv %n into %k at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %va = sparse_attn.append_kv %n into %v at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  // CHECK: sparse_attn.retain %q, %n, %n into %k, %v, %[[W]] at %p by "last" %[[M]] budget 8 : i64 size 4 : i64
  %a = sparse_attn.attention %q, %ka, %va at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return %a, %ka, %va : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>
}

// CHECK-LABEL: func.func @follows
// CHECK-SAME: %p: index, %[[W:[0-9]+]]: tensor<2x1x128xi32>) -> (tensor<?x64xf32>, tensor<2x16x32xf16>, tensor<2x32x16xf16>)
func.func @follows(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf16>, %p: index) -> (tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>) {
  %ka = sparse_attn.append_kv %n into %k at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %va = sparse_attn.append_kv %n into %v at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  // CHECK: %[[A:.*]], %[[K:.*]], %[[V:.*]] = sparse_attn.retain %q, %n, %n into %k, %v, %[[W]] at %p budget 8 : i64 size 4 : i64
  %a = sparse_attn.attention %q, %ka, %va at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  // CHECK: func.return %[[A]], %[[K]], %[[V]] :
  func.return %a, %ka, %va : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>
}

// The scorer reads projections before they are rotated.
// CHECK-LABEL: func.func @learned
// CHECK-SAME: %[[Q:[0-9]+]]: !lowbit.tensor<40x64, "f32">, %[[K:[0-9]+]]: !lowbit.tensor<40x32, "f32">, %[[V:[0-9]+]]: !lowbit.tensor<40x32, "f32">, %[[O:[0-9]+]]: !lowbit.tensor<2x40, "f32">, %[[M:[0-9]+]]: tensor<2x1x32xf32>, %{{.*}}: tensor<2x1x128xi32>) ->
func.func @learned(%x: tensor<?x64xf32>, %wq: !lowbit.tensor<64x64, "f32">, %wk: !lowbit.tensor<32x64, "f32">, %c: tensor<128x8xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf16>, %p: index) -> (tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>) {
  // CHECK: %[[A:.*]] = mpgemm.matmul %x, %wq
  // CHECK: %[[B:.*]] = mpgemm.matmul %x, %wk
  // CHECK: %[[C:.*]] = mpgemm.matmul %x, %wk
  %a = mpgemm.matmul %x, %wq : tensor<?x64xf32>, !lowbit.tensor<64x64, "f32"> -> tensor<?x64xf32>
  %b = mpgemm.matmul %x, %wk : tensor<?x64xf32>, !lowbit.tensor<32x64, "f32"> -> tensor<?x32xf32>
  %n = mpgemm.matmul %x, %wk : tensor<?x64xf32>, !lowbit.tensor<32x64, "f32"> -> tensor<?x32xf32>
  // CHECK-NEXT: %[[D:.*]] = mpgemm.matmul %[[A]], %[[Q]]
  // CHECK-NEXT: %[[E:.*]] = mpgemm.matmul %[[B]], %[[K]]
  // CHECK-NEXT: %[[F:.*]] = arith.addf %[[D]], %[[E]]
  // CHECK-NEXT: %[[G:.*]] = mpgemm.matmul %[[C]], %[[V]]
  // CHECK-NEXT: %[[H:.*]] = arith.addf %[[F]], %[[G]]
  // CHECK-NEXT: %[[I:.*]] = fused.glu "sigmoid" %[[H]], %[[H]]
  // CHECK-NEXT: %[[S:.*]] = mpgemm.matmul %[[I]], %[[O]] {{.*}} -> tensor<?x2xf32>
  // CHECK-NEXT: fused.rope
  %q = fused.rope %a, %c, %c at %p : tensor<?x64xf32>, tensor<128x8xf32> -> tensor<?x64xf32>
  %r = fused.rope %b, %c, %c at %p : tensor<?x32xf32>, tensor<128x8xf32> -> tensor<?x32xf32>
  %ka = sparse_attn.append_kv %r into %k at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %va = sparse_attn.append_kv %n into %v at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  // CHECK: by "learned" %[[M]] of %[[S]] budget 8
  %y = sparse_attn.attention %q, %ka, %va at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return %y, %ka, %va : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16>
}
