// RUN: nybble-opt %s -p insert-hadamard --split-input-file --verify-diagnostics

// As in Gemma: a norm between a product and the stream does not commute with a rotation.
func.func @second_norm(%h: tensor<?x64xf32>, %x: tensor<?x64xf32>, %w: !lowbit.tensor<64x64, "q4_0"> {nybble.weight = "w.weight"}, %g: tensor<64xf32> {nybble.weight = "norm.weight"}) -> tensor<?x64xf32> {
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<64x64, "q4_0"> -> tensor<?x64xf32>
  // expected-error@below {{'fused.rms_norm' writes the residual stream, which cannot be rotated then}}
  %n = fused.rms_norm %y, %g eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %s = arith.addf %h, %n : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}

// -----

func.func @offset(%h: tensor<?x64xf32>, %g: tensor<64xf32> {nybble.weight = "norm.weight"}, %w: !lowbit.tensor<8x64, "q4_0"> {nybble.weight = "w.weight"}) -> tensor<?x8xf32> {
  // expected-error@below {{'fused.rms_norm' reads the residual stream, which cannot be rotated then}}
  %n = fused.rms_norm %h, %g eps 1.0e-05 unit_offset : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %l = mpgemm.matmul %n, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %l : tensor<?x8xf32>
}

// -----

func.func @other_reader(%h: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %s = arith.addf %h, %h : tensor<?x64xf32>
  // expected-error@below {{'fused.glu' reads the residual stream, which cannot be rotated then}}
  %g = fused.glu "silu" %s, %s : tensor<?x64xf32>
  func.return %s, %g : tensor<?x64xf32>, tensor<?x64xf32>
}

// -----

func.func @odd(%h: tensor<?x33xf32>, %g: tensor<33xf32> {nybble.weight = "norm.weight"}, %w: !lowbit.tensor<8x33, "f32"> {nybble.weight = "w.weight"}) -> tensor<?x8xf32> {
  // expected-error@unknown {{a residual stream of 33 columns cannot be rotated}}
  %n = fused.rms_norm %h, %g eps 1.0e-05 : tensor<?x33xf32>, tensor<33xf32> -> tensor<?x33xf32>
  %l = mpgemm.matmul %n, %w : tensor<?x33xf32>, !lowbit.tensor<8x33, "f32"> -> tensor<?x8xf32>
  func.return %l : tensor<?x8xf32>
}

// -----

// expected-error@below {{argument 1 of 'nameless' has no attribute 'nybble.weight'}}
func.func @nameless(%h: tensor<?x64xf32>, %g: tensor<64xf32>, %w: !lowbit.tensor<8x64, "q4_0">) -> tensor<?x8xf32> {
  %n = fused.rms_norm %h, %g eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x64xf32>
  %l = mpgemm.matmul %n, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_0"> -> tensor<?x8xf32>
  func.return %l : tensor<?x8xf32>
}

// -----

// expected-error@below {{argument 1 of 'shared' is read more than once, and cannot be prepared for one reader alone}}
func.func @shared(%x: tensor<?x64xf32>, %w: !lowbit.tensor<64x64, "q4_0">) -> tensor<?x64xf32> {
  %g = fused.glu "silu" %x, %x : tensor<?x64xf32>
  %a = mpgemm.matmul %g, %w : tensor<?x64xf32>, !lowbit.tensor<64x64, "q4_0"> -> tensor<?x64xf32>
  %b = mpgemm.matmul %a, %w : tensor<?x64xf32>, !lowbit.tensor<64x64, "q4_0"> -> tensor<?x64xf32>
  func.return %b : tensor<?x64xf32>
}

// -----

func.func @computed(%x: tensor<?x64xf32>, %w: tensor<64x64xf32>) -> tensor<?x64xf32> {
  %g = fused.glu "silu" %x, %x : tensor<?x64xf32>
  // expected-error@below {{a parameter of type !lowbit.tensor<64x64, "q4_0"> is not an argument of its function}}
  %q = lowbit.quantize %w : tensor<64x64xf32> -> !lowbit.tensor<64x64, "q4_0">
  %a = mpgemm.matmul %g, %q : tensor<?x64xf32>, !lowbit.tensor<64x64, "q4_0"> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
