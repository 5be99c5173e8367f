// RUN: nybble-opt %s -p insert-hadamard | filecheck %s
// RUN: nybble-opt %s -p 'insert-hadamard{stream=false}' | filecheck %s --check-prefix=INPUTS

// The table of an embedding starts the stream, and is rotated as it writes rows of it.
// CHECK-LABEL: func.func @embed
// CHECK-SAME: %t: !lowbit.tensor<100x48, "{{.*}}"> {nybble.weight = "embed.weight", nybble.prepare = [#lowbit.hadamard<columns, 16>]}
func.func @embed(%ids: tensor<?xi32>, %t: !lowbit.tensor<100x48, "u8:g=16:s=f16"> {nybble.weight = "embed.weight"}) -> tensor<?x48xf32> {
  %e = fused.embed %ids, %t scale 1.0 : tensor<?xi32>, !lowbit.tensor<100x48, "u8:g=16:s=f16"> -> tensor<?x48xf32>
  func.return %e : tensor<?x48xf32>
}

// Values are rotated head by head, in the rows that make them and the columns that read them, a bias
// of the former too; what o_proj adds to the stream is rotated in its rows.
// CHECK-LABEL: func.func @values
// CHECK-SAME: %wv: !lowbit.tensor<32x64, "w4g32"> {nybble.weight = "v.weight", nybble.prepare = [#lowbit.hadamard<rows, 16>]}
// CHECK-SAME: %b: tensor<32xf32> {nybble.weight = "v.bias", nybble.prepare = [#lowbit.hadamard<columns, 16>]}
// CHECK-SAME: %wo: !lowbit.tensor<64x64, "w4g32"> {nybble.weight = "o.weight", nybble.prepare = [#lowbit.hadamard<columns, 16>, #lowbit.hadamard<rows, 64>]}
// CHECK-NOT: fused.hadamard
func.func @values(%h: tensor<?x64xf32>, %x: tensor<?x64xf32>, %q: tensor<?x64xf32>, %k: tensor<2x128x16xf32>, %v: tensor<2x128x16xf32>, %p: index, %wv: !lowbit.tensor<32x64, "w4g32"> {nybble.weight = "v.weight"}, %b: tensor<32xf32> {nybble.weight = "v.bias"}, %wo: !lowbit.tensor<64x64, "w4g32"> {nybble.weight = "o.weight"}) -> (tensor<?x64xf32>, tensor<2x128x16xf32>) {
  %r = mpgemm.matmul %x, %wv bias %b : tensor<32xf32> : tensor<?x64xf32>, !lowbit.tensor<32x64, "w4g32"> -> tensor<?x32xf32>
  %c = sparse_attn.append_kv %r into %v at %p : tensor<?x32xf32> into tensor<2x128x16xf32> -> tensor<2x128x16xf32>
  %a = sparse_attn.attention %q, %k, %c at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf32>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  %o = mpgemm.matmul %a, %wo : tensor<?x64xf32>, !lowbit.tensor<64x64, "w4g32"> -> tensor<?x64xf32>
  %s = arith.addf %h, %o : tensor<?x64xf32>
  func.return %s, %c : tensor<?x64xf32>, tensor<2x128x16xf32>
}

// The head reads the stream, and its results are no part of it.
// CHECK-LABEL: func.func @head
// CHECK-SAME: %g: tensor<48xf32> {nybble.weight = "norm.weight", nybble.prepare = [#lowbit.ones]}
// Without a rotation of the stream, what its norm gives is transformed, and the norm stays.
// INPUTS-LABEL: func.func @head
// INPUTS-SAME: %g: tensor<48xf32> {nybble.weight = "norm.weight"}
// INPUTS-SAME: nybble.prepare = [#lowbit.hadamard<columns, 16>]
// INPUTS: fused.rms_norm
// INPUTS-NEXT: fused.hadamard %{{.*}} block 16
// CHECK-SAME: nybble.prepare = [#lowbit.scale<columns, "norm.weight">, #lowbit.hadamard<columns, 16>]
func.func @head(%h: tensor<?x48xf32>, %g: tensor<48xf32> {nybble.weight = "norm.weight"}, %w: !lowbit.tensor<100x48, "w4g16"> {nybble.weight = "head.weight"}) -> tensor<?x100xf32> {
  %n = fused.rms_norm %h, %g eps 1.0e-05 : tensor<?x48xf32>, tensor<48xf32> -> tensor<?x48xf32>
  %l = mpgemm.matmul %n, %w : tensor<?x48xf32>, !lowbit.tensor<100x48, "w4g16"> -> tensor<?x100xf32>
  func.return %l : tensor<?x100xf32>
}

// A gated product of an odd number of columns, and one that is not for products alone, stay.
// CHECK-LABEL: func.func @gates
// CHECK-NOT: hadamard
func.func @gates(%a: tensor<?x33xf32>, %b: tensor<?x64xf32>, %w: !lowbit.tensor<8x33, "f32"> {nybble.weight = "w.weight"}, %v: !lowbit.tensor<8x64, "f32"> {nybble.weight = "v.weight"}) -> (tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x64xf32>) {
  %0 = fused.glu "silu" %a, %a : tensor<?x33xf32>
  %1 = mpgemm.matmul %0, %w : tensor<?x33xf32>, !lowbit.tensor<8x33, "f32"> -> tensor<?x8xf32>
  %2 = fused.glu "silu" %b, %b : tensor<?x64xf32>
  %3 = mpgemm.matmul %2, %v : tensor<?x64xf32>, !lowbit.tensor<8x64, "f32"> -> tensor<?x8xf32>
  func.return %1, %3, %2 : tensor<?x8xf32>, tensor<?x8xf32>, tensor<?x64xf32>
}
