// RUN: nybble-opt %s | nybble-opt | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | nybble-opt | filecheck %s

// CHECK-LABEL: func.func @causal
func.func @causal(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf16>, %p: index) -> tensor<?x64xf32> {
  // CHECK: sparse_attn.attention %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} mask <"causal"> scale 2.500000e-01 :
  %r = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @window
func.func @window(%q: tensor<1x64xf32>, %k: tensor<2x128x16xf32>, %v: tensor<2x128x16xf32>, %p: index) -> tensor<1x64xf32> {
  // CHECK: mask <"window(32)"> scale 2.500000e-01 softcap 5.000000e+01 :
  %r = sparse_attn.attention %q, %k, %v at %p mask <"window(32)"> scale 0.25 softcap 50.0 : tensor<1x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<1x64xf32>
  func.return %r : tensor<1x64xf32>
}

// CHECK-LABEL: func.func @append
func.func @append(%rows: tensor<?x32xf32>, %c: tensor<2x128x16xf16>, %p: index) -> tensor<2x128x16xf16> {
  // CHECK: sparse_attn.append_kv %{{.*}} into %{{.*}} at %{{.*}} : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  %r = sparse_attn.append_kv %rows into %c at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  func.return %r : tensor<2x128x16xf16>
}

// CHECK-LABEL: func.func @text_of_a_mask
// CHECK: mask <"heads(0:streaming(4,64);else:sink(4)+window(16)&causal)"> scale
func.func @text_of_a_mask(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index) -> tensor<?x64xf32> {
  %r = sparse_attn.attention %q, %k, %k at %p mask <"heads(0: streaming(4, 64); else: sink(4) + window(16) & causal)"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @selected
func.func @selected(%q: tensor<1x64xf32>, %k: tensor<2x128x16xf32>, %l: tensor<2x1x3xi32>, %p: index) -> tensor<1x64xf32> {
  // CHECK: mask <"pages(16,3)+window(16)"> selected %{{.*}} : tensor<2x1x3xi32> scale 2.500000e-01 softmax "unified" :
  %r = sparse_attn.attention %q, %k, %k at %p mask <"pages(16,3)+window(16)"> selected %l : tensor<2x1x3xi32> scale 0.25 softmax "unified" : tensor<1x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<1x64xf32>
  func.return %r : tensor<1x64xf32>
}

// CHECK-LABEL: func.func @parts
func.func @parts(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %p: index, %at: index) -> tensor<?x64xf32> {
  // CHECK: %[[M:.*]], %[[S:.*]], %[[A:.*]] = sparse_attn.partial shared %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} mask <"causal"> scale 2.500000e-01 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x64xf32>
  %m, %s, %a = sparse_attn.partial shared %q, %k, %k at %at mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x64xf32>
  // CHECK: sparse_attn.partial %
  %m2, %s2, %a2 = sparse_attn.partial %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x64xf32>
  // CHECK: %{{.*}}, %[[T:.*]], %[[U:.*]] = sparse_attn.merge(%[[M]], %[[S]], %[[A]]), (%{{.*}}, %{{.*}}, %{{.*}}) : tensor<?x4xf32>, tensor<?x64xf32>
  %m3, %s3, %a3 = sparse_attn.merge (%m, %s, %a), (%m2, %s2, %a2) : tensor<?x4xf32>, tensor<?x64xf32>
  // CHECK: sparse_attn.finish %[[U]] by %[[T]] : tensor<?x64xf32> by tensor<?x4xf32>
  %r = sparse_attn.finish %a3 by %s3 : tensor<?x64xf32> by tensor<?x4xf32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @retain
func.func @retain(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %l: tensor<2x33x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) -> tensor<?x64xf32> {
  // CHECK: sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 2.500000e-01 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  %r, %k2, %v2, %m2, %w2 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  // CHECK: %{{.*}}, %[[W:[^ ]*]] = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "last" %l budget 16 : i64 size 4 : i64
  %r3, %k3, %v3, %m3, %w3 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "last" %l budget 16 : i64 size 4 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x33x48xf32> -> tensor<2x33x48xf32>, tensor<2x1x128xi32>
  // CHECK: sparse_attn.retain %q, %n, %n into %k, %v, %[[W]] at %p budget 16 : i64 size 4 : i64 scale 2.500000e-01 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32>{{$}}
  %r4, %k4, %v4 = sparse_attn.retain %q, %n, %n into %k, %v, %w3 at %p budget 16 : i64 size 4 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32>
  // CHECK: sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "learned" %m of %s budget 16 : i64 size 1 : i64 {{.*}} by tensor<2x1x48xf32> of tensor<?x2xf32> ->
  %r5, %k5, %v5, %m5, %w5 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "learned" %m of %s budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> of tensor<?x2xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @pages
func.func @pages(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %b: tensor<2x8x32xf32>, %p: index) -> tensor<2x?x3xi32> {
  // CHECK: %[[B:.*]] = sparse_attn.append_bounds %n into %b at %p size 16 : i64 : tensor<?x32xf32> into tensor<2x8x32xf32>
  %c = sparse_attn.append_bounds %n into %b at %p size 16 : i64 : tensor<?x32xf32> into tensor<2x8x32xf32>
  // CHECK: sparse_attn.select_pages %q, %[[B]] at %p size 64 : i64 parts 4 : i64 : tensor<?x64xf32>, tensor<2x8x32xf32> -> tensor<2x?x3xi32>
  %l = sparse_attn.select_pages %q, %c at %p size 64 : i64 parts 4 : i64 : tensor<?x64xf32>, tensor<2x8x32xf32> -> tensor<2x?x3xi32>
  func.return %l : tensor<2x?x3xi32>
}
