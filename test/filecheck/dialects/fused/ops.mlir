// RUN: nybble-opt %s | nybble-opt | filecheck %s
// RUN: nybble-opt %s --mlir-print-op-generic | nybble-opt | filecheck %s

// CHECK-LABEL: func.func @norms
func.func @norms(%x: tensor<?x64xf32>, %w: tensor<64xf32>, %h: tensor<16xf32>) -> tensor<?x64xf32> {
  // CHECK: fused.rms_norm %{{.*}}, %{{.*}} eps 1.000000e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %a = fused.rms_norm %x, %w eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  // CHECK: fused.rms_norm %{{.*}}, %{{.*}} eps 1.000000e-05 unit_offset : tensor<?x64xf32>, tensor<16xf32> -> tensor<?x64xf32>
  %b = fused.rms_norm %a, %h eps 1.0e-05 unit_offset : tensor<?x64xf32>, tensor<16xf32> -> tensor<?x64xf32>
  func.return %b : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @rope
func.func @rope(%x: tensor<?x64xf32>, %t: tensor<128x8xf32>, %p: index) -> tensor<?x64xf32> {
  // CHECK: fused.rope %{{.*}}, %{{.*}}, %{{.*}} at %{{.*}} : tensor<?x64xf32>, tensor<128x8xf32> -> tensor<?x64xf32>
  %r = fused.rope %x, %t, %t at %p : tensor<?x64xf32>, tensor<128x8xf32> -> tensor<?x64xf32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @glu
func.func @glu(%g: tensor<?x64xf32>, %u: tensor<?x64xf32>) -> tensor<?x64xf32> {
  // CHECK: fused.glu "gelu_tanh" %{{.*}}, %{{.*}} : tensor<?x64xf32>
  %r = fused.glu "gelu_tanh" %g, %u : tensor<?x64xf32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @softmax
func.func @softmax(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  // CHECK: fused.softmax %{{.*}} : tensor<?x64xf32>
  %r = fused.softmax %x : tensor<?x64xf32>
  func.return %r : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @ends
func.func @ends(%ids: tensor<?xi32>, %t: !lowbit.tensor<100x64, "q8_0">, %h: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<1x64xf32>) {
  // CHECK: fused.embed %{{.*}}, %{{.*}} scale 1.000000e+00 : tensor<?xi32>, !lowbit.tensor<100x64, "q8_0"> -> tensor<?x64xf32>
  %e = fused.embed %ids, %t scale 1.0 : tensor<?xi32>, !lowbit.tensor<100x64, "q8_0"> -> tensor<?x64xf32>
  // CHECK: fused.last_row %{{.*}} : tensor<?x64xf32> -> tensor<1x64xf32>
  %l = fused.last_row %h : tensor<?x64xf32> -> tensor<1x64xf32>
  func.return %e, %l : tensor<?x64xf32>, tensor<1x64xf32>
}

// CHECK-LABEL: func.func @nll
func.func @nll(%l: tensor<?x10xf32>, %t: tensor<?xi32>) -> tensor<?xf32> {
  // CHECK: fused.nll %{{.*}}, %{{.*}} : tensor<?x10xf32>, tensor<?xi32> -> tensor<?xf32>
  %r = fused.nll %l, %t : tensor<?x10xf32>, tensor<?xi32> -> tensor<?xf32>
  func.return %r : tensor<?xf32>
}

// CHECK-LABEL: func.func @sample
func.func @sample(%l: tensor<100xf32>, %t: f32, %k: i32, %p: f32, %s: i64, %n: i64) -> i32 {
  // CHECK: fused.sample %{{.*}} temperature %{{.*}} top_k %{{.*}} top_p %{{.*}} seed %{{.*}} at %{{.*}} : tensor<100xf32> -> i32
  %r = fused.sample %l temperature %t top_k %k top_p %p seed %s at %n : tensor<100xf32> -> i32
  func.return %r : i32
}

// CHECK-LABEL: func.func @kernel
func.func @kernel(%x: tensor<1x64xf32>, %w: tensor<64xf32>) -> tensor<1x64xf32> {
  // CHECK: fused.kernel "norm"(%{{.*}}, %{{.*}}) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32> because "fast" schedule #schedule.kernel<"cpu", "vector", {tokens = 1 : i64}, "why"> {
  %r = fused.kernel "norm"(%x, %w) : (tensor<1x64xf32>, tensor<64xf32>) -> tensor<1x64xf32> because "fast" schedule #schedule.kernel<"cpu", "vector", {tokens = 1 : i64}, "why"> {
  ^bb0(%a: tensor<1x64xf32>, %b: tensor<64xf32>):
    %n = fused.rms_norm %a, %b eps 1.0e-05 : tensor<1x64xf32>, tensor<64xf32> -> tensor<1x64xf32>
    // CHECK: fused.yield %{{.*}} : tensor<1x64xf32>
    fused.yield %n : tensor<1x64xf32>
  }
  func.return %r : tensor<1x64xf32>
}

// CHECK-LABEL: func.func @hadamard
func.func @hadamard(%x: tensor<?x96xf32>) -> tensor<?x96xf32> {
  // CHECK: fused.hadamard %{{.*}} block 32 : tensor<?x96xf32>
  %r = fused.hadamard %x block 32 : tensor<?x96xf32>
  func.return %r : tensor<?x96xf32>
}
