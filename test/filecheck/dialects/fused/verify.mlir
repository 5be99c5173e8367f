// RUN: nybble-opt %s --split-input-file --verify-diagnostics

func.func @norm_length(%x: tensor<?x64xf32>, %w: tensor<63xf32>) {
  // expected-error @+1 {{columns of the input must be a multiple of the weight's length 63, got 64}}
  %r = fused.rms_norm %x, %w eps 1.0e-05 : tensor<?x64xf32>, tensor<63xf32> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @norm_result(%x: tensor<?x64xf32>, %w: tensor<64xf32>) {
  // expected-error @+1 {{the result must have the type of the input}}
  %r = fused.rms_norm %x, %w eps 1.0e-05 : tensor<?x64xf32>, tensor<64xf32> -> tensor<?x32xf32>
  func.return
}

// -----

func.func @norm_weight_rank(%x: tensor<?x64xf32>, %w: tensor<1x64xf32>) {
  // expected-error @+1 {{weight must have 1 dimensions, got 2}}
  %r = fused.rms_norm %x, %w eps 1.0e-05 : tensor<?x64xf32>, tensor<1x64xf32> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @norm_input_rank(%x: tensor<64xf32>, %w: tensor<64xf32>) {
  // expected-error @+1 {{input must have 2 dimensions, got 1}}
  %r = fused.rms_norm %x, %w eps 1.0e-05 : tensor<64xf32>, tensor<64xf32> -> tensor<64xf32>
  func.return
}

// -----

func.func @rope_columns(%x: tensor<?x60xf32>, %t: tensor<128x8xf32>, %p: index) {
  // expected-error @+1 {{columns of the input must be a multiple of head_dim = 16, got 60}}
  %r = fused.rope %x, %t, %t at %p : tensor<?x60xf32>, tensor<128x8xf32> -> tensor<?x60xf32>
  func.return
}

// -----

func.func @rope_result(%x: tensor<?x64xf32>, %t: tensor<128x8xf32>, %p: index) {
  // expected-error @+1 {{the result must have the type of the input}}
  %r = fused.rope %x, %t, %t at %p : tensor<?x64xf32>, tensor<128x8xf32> -> tensor<?x32xf32>
  func.return
}

// -----

func.func @rope_tables(%x: tensor<?x64xf32>, %c: tensor<128x8xf32>, %s: tensor<64x8xf32>, %p: index) {
  // expected-error @+1 {{operand 'sin' at position 2 does not verify}}
  %r = "fused.rope"(%x, %c, %s, %p) : (tensor<?x64xf32>, tensor<128x8xf32>, tensor<64x8xf32>, index) -> tensor<?x64xf32>
  func.return
}

// -----

func.func @glu_activation(%g: tensor<?x64xf32>) {
  // expected-error @+1 {{unknown activation "relu"; accepted: silu, gelu_tanh, sigmoid}}
  %r = fused.glu "relu" %g, %g : tensor<?x64xf32>
  func.return
}

// -----

func.func @glu_types(%g: tensor<?x64xf32>, %u: tensor<?x32xf32>) {
  // expected-error @+1 {{operand 'up' at position 1 does not verify}}
  %r = "fused.glu"(%g, %u) <{activation = "silu"}> : (tensor<?x64xf32>, tensor<?x32xf32>) -> tensor<?x64xf32>
  func.return
}

// -----

func.func @softmax_without_columns(%x: tensor<3x0xf32>) {
  // expected-error @+1 {{a softmax needs columns}}
  %r = fused.softmax %x : tensor<3x0xf32>
  func.return
}

// -----

func.func @embed_rows(%ids: tensor<3xi32>, %t: !lowbit.tensor<100x64, "q8_0">) {
  // expected-error @+1 {{rows of the result must be 3 (number of ids), got 2}}
  %r = fused.embed %ids, %t scale 1.0 : tensor<3xi32>, !lowbit.tensor<100x64, "q8_0"> -> tensor<2x64xf32>
  func.return
}

// -----

func.func @embed_columns(%ids: tensor<3xi32>, %t: !lowbit.tensor<100x64, "q8_0">) {
  // expected-error @+1 {{columns of the result must be 64 (columns of the table), got 32}}
  %r = fused.embed %ids, %t scale 1.0 : tensor<3xi32>, !lowbit.tensor<100x64, "q8_0"> -> tensor<3x32xf32>
  func.return
}

// -----

func.func @embed_ids_rank(%ids: tensor<3x1xi32>, %t: !lowbit.tensor<100x64, "q8_0">) {
  // expected-error @+1 {{ids must have 1 dimensions, got 2}}
  %r = fused.embed %ids, %t scale 1.0 : tensor<3x1xi32>, !lowbit.tensor<100x64, "q8_0"> -> tensor<3x64xf32>
  func.return
}

// -----

func.func @sample_empty(%l: tensor<0xf32>, %t: f32, %k: i32, %s: i64) {
  // expected-error @+1 {{logits must hold at least one token}}
  %r = fused.sample %l temperature %t top_k %k top_p %t seed %s at %s : tensor<0xf32> -> i32
  func.return
}

// -----

func.func @sample_rank(%l: tensor<1x4xf32>, %t: f32, %k: i32, %s: i64) {
  // expected-error @+1 {{logits must have 1 dimensions, got 2}}
  %r = fused.sample %l temperature %t top_k %k top_p %t seed %s at %s : tensor<1x4xf32> -> i32
  func.return
}

// -----

func.func @last_row_rows(%h: tensor<?x64xf32>) {
  // expected-error @+1 {{rows of the result must be 1 (the last one alone), got 2}}
  %r = fused.last_row %h : tensor<?x64xf32> -> tensor<2x64xf32>
  func.return
}

// -----

func.func @last_row_columns(%h: tensor<?x64xf32>) {
  // expected-error @+1 {{columns of the result must be 64 (columns of the input), got 32}}
  %r = fused.last_row %h : tensor<?x64xf32> -> tensor<1x32xf32>
  func.return
}

// -----

func.func @kernel_arguments(%x: tensor<1x64xf32>) {
  // expected-error @+1 {{the region's arguments must have the types of the inputs}}
  %r = fused.kernel "k"(%x) : (tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%a: tensor<1x32xf32>):
    fused.yield %a : tensor<1x32xf32>
  }
  func.return
}

// -----

func.func @kernel_results(%x: tensor<1x64xf32>) {
  // expected-error @+1 {{the yielded values must have the types of the results}}
  %r = fused.kernel "k"(%x) : (tensor<1x64xf32>) -> tensor<1x32xf32> {
  ^bb0(%a: tensor<1x64xf32>):
    fused.yield %a : tensor<1x64xf32>
  }
  func.return
}

// -----

func.func @nll_targets(%l: tensor<3x10xf32>, %t: tensor<2xi32>) {
  // expected-error @+1 {{number of targets must be 3 (rows of the logits), got 2}}
  %r = fused.nll %l, %t : tensor<3x10xf32>, tensor<2xi32> -> tensor<3xf32>
  func.return
}

// -----

func.func @nll_result(%l: tensor<3x10xf32>, %t: tensor<3xi32>) {
  // expected-error @+1 {{length of the result must be 3 (rows of the logits), got 2}}
  %r = fused.nll %l, %t : tensor<3x10xf32>, tensor<3xi32> -> tensor<2xf32>
  func.return
}

// -----

func.func @hadamard_block(%x: tensor<?x96xf32>) {
  // expected-error @+1 {{the block must be a power of two from 2 on, got 12}}
  %r = fused.hadamard %x block 12 : tensor<?x96xf32>
  func.return
}

// -----

func.func @hadamard_columns(%x: tensor<?x96xf32>) {
  // expected-error @+1 {{columns of the input must be a multiple of the block 64, got 96}}
  %r = fused.hadamard %x block 64 : tensor<?x96xf32>
  func.return
}
