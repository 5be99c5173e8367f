// RUN: nybble-opt %s -p fold-smoothing | filecheck %s
// RUN: nybble-opt %s -p 'fold-smoothing{only=norm}' | filecheck %s --check-prefix=ONLY

// All products that read a norm share its vector; a norm that adds 1 to its weight has it added.
// CHECK-LABEL: func.func @norm
// CHECK-SAME: %g: tensor<64xf32> {nybble.weight = "norm.weight", nybble.prepare = [#lowbit.plus_one, #lowbit.unscale<columns, "smooth.norm">]}
// CHECK-SAME: {nybble.weight = "a.weight", nybble.prepare = [#lowbit.scale<columns, "smooth.norm">]
// CHECK-SAME: {nybble.weight = "b.weight", nybble.prepare = [#lowbit.scale<columns, "smooth.norm">]
// CHECK: fused.rms_norm %{{.*}}, %{{.*}} eps 1.000000e-05 : tensor
// ONLY-LABEL: func.func @norm
// ONLY-SAME: nybble.prepare
// ONLY-LABEL: func.func @gate
// ONLY-NOT: nybble.prepare
func.func @norm(%x: tensor<?x64xf32>, %g: tensor<64xf32> {nybble.weight = "norm.weight"}, %a: !lowbit.tensor<8x64, "q4_0"> {nybble.weight = "a.weight"}, %b: !lowbit.tensor<8x64, "q4_0"> {nybble.weight = "b.weight"}) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %n = fused.rms_norm %x, %g eps 1.0e-05 unit_offset : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %0 = mpgemm.matmul %n, %a : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %1 = mpgemm.matmul %n, %b : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %0, %1 : tensor<?x8xf32>, tensor<?x8xf32>
}

// The rows that make `up` are divided, never those that make the gate.
// CHECK-LABEL: func.func @gate
// CHECK-SAME: %wg: !lowbit.tensor<32x64, "q4_0"> {nybble.weight = "gate.weight"}
// CHECK-SAME: nybble.prepare = [#lowbit.unscale<rows, "smooth.down">]
// CHECK-SAME: nybble.prepare = [#lowbit.unscale<columns, "smooth.down">]
// CHECK-SAME: nybble.prepare = [#lowbit.scale<columns, "smooth.down">]
func.func @gate(%x: tensor<?x64xf32>, %wg: !lowbit.tensor<32x64, "q4_0"> {nybble.weight = "gate.weight"}, %wu: !lowbit.tensor<32x64, "q4_0"> {nybble.weight = "up.weight"}, %b: tensor<32xf32> {nybble.weight = "up.bias"}, %wd: !lowbit.tensor<64x32, "q4_0"> {nybble.weight = "down.weight"}) -> tensor<?x64xf32> {
  %g = mpgemm.matmul %x, %wg : tensor<?x64xf32>, !lowbit.tensor<32x64, "q4_0"> -> tensor<?x32xf32>
  %u = mpgemm.matmul %x, %wu bias %b : tensor<32xf32> : tensor<?x64xf32>, !lowbit.tensor<32x64, "q4_0"> -> tensor<?x32xf32>
  %m = fused.glu "silu" %g, %u : tensor<?x32xf32>
  %d = mpgemm.matmul %m, %wd : tensor<?x32xf32>, !lowbit.tensor<64x32, "q4_0"> -> tensor<?x64xf32>
  func.return %d : tensor<?x64xf32>
}

// Values have a vector of their own length; the heads of queries that share them repeat it.
// CHECK-LABEL: func.func @values
// CHECK-SAME: nybble.prepare = [#lowbit.unscale<rows, "smooth.v">]
// CHECK-SAME: nybble.prepare = [#lowbit.scale<columns, "smooth.o">]
func.func @values(%x: tensor<?x64xf32>, %q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %v: tensor<2x128x16xf32>, %p: index, %wv: !lowbit.tensor<32x64, "w4g32"> {nybble.weight = "v.weight"}, %wo: !lowbit.tensor<64x64, "w4g32"> {nybble.weight = "o.weight"}) -> tensor<?x64xf32> {
  %r = mpgemm.matmul %x, %wv : tensor<?x64xf32>, !lowbit.tensor<32x64, "w4g32"> -> tensor<?x32xf32>
  %c = sparse_attn.append_kv %r into %v at %p : tensor<?x32xf32> into tensor<2x128x16xf32> -> tensor<2x128x16xf32>
  %a = sparse_attn.attention %q, %k, %c at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  %o = mpgemm.matmul %a, %wo : tensor<?x64xf32>, !lowbit.tensor<64x64, "w4g32"> -> tensor<?x64xf32>
  func.return %o : tensor<?x64xf32>
}

// A norm of heads, and one that something else reads too, stay as they are.
// CHECK-LABEL: func.func @stay
// CHECK-NOT: nybble.prepare
func.func @stay(%x: tensor<?x64xf32>, %h: tensor<16xf32> {nybble.weight = "h.weight"}, %g: tensor<64xf32> {nybble.weight = "g.weight"}, %a: !lowbit.tensor<8x64, "q4_0"> {nybble.weight = "a.weight"}, %b: !lowbit.tensor<8x64, "q4_0"> {nybble.weight = "b.weight"}) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x64xf32>) {
  %n = fused.rms_norm %x, %h eps 1.0e-05 : tensor<?x64xf32>, tensor<16xf32> -> tensor<?x64xf32>
  %0 = mpgemm.matmul %n, %a : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  %m = fused.rms_norm %x, %g eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %1 = mpgemm.matmul %m, %b : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %0, %1, %m : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x64xf32>
}

// Channels do not stay apart in a transform.
// CHECK-LABEL: func.func @transformed
// CHECK-NOT: nybble.prepare
func.func @transformed(%g: tensor<?x32xf32>, %x: tensor<?x64xf32>, %wu: !lowbit.tensor<32x64, "q4_0"> {nybble.weight = "up.weight"}, %wd: !lowbit.tensor<64x32, "q4_0"> {nybble.weight = "down.weight"}) -> tensor<?x64xf32> {
  %u = mpgemm.matmul %x, %wu : tensor<?x64xf32>, !lowbit.tensor<32x64, "q4_0"> -> tensor<?x32xf32>
  %m = fused.glu "silu" %g, %u : tensor<?x32xf32>
  %r = fused.hadamard %m block 32 : tensor<?x32xf32>
  %d = mpgemm.matmul %r, %wd : tensor<?x32xf32>, !lowbit.tensor<64x32, "q4_0"> -> tensor<?x64xf32>
  func.return %d : tensor<?x64xf32>
}
