// RUN: nybble-opt %s --split-input-file --verify-diagnostics -p lower-kernels-to-fpga

func.func @tokens(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "w2g32", "array">) {
  %r = fused.kernel "product"(%x, %w) : (tensor<?x64xf32>, !lowbit.tensor<8x64, "w2g32", "array">) -> tensor<?x8xf32> {
  ^bb0(%0: tensor<?x64xf32>, %1: !lowbit.tensor<8x64, "w2g32", "array">):
    // expected-error @+1 {{a product of a number of tokens that is not known}}
    %3 = mpgemm.lut_array_matmul %0, %1 : tensor<?x64xf32>, !lowbit.tensor<8x64, "w2g32", "array"> -> tensor<?x8xf32>
    fused.yield %3 : tensor<?x8xf32>
  }
  func.return
}

// -----

func.func @transform(%x: tensor<1x64xf32>) {
  %r = fused.kernel "hadamard"(%x) : (tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>):
    // expected-error @+1 {{'fused.hadamard' has no kernel on an FPGA}}
    %1 = fused.hadamard %0 block 64 : tensor<1x64xf32>
    fused.yield %1 : tensor<1x64xf32>
  }
  func.return
}

// -----

func.func @unread(%x: tensor<1x64xf32>) {
  %r = fused.kernel "add"(%x) : (tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%0: tensor<1x64xf32>):
    // expected-error @+1 {{nothing reads what 'arith.addf' computes}}
    %1 = arith.addf %0, %0 : tensor<1x64xf32>
    %2 = arith.addf %0, %0 : tensor<1x64xf32>
    fused.yield %2 : tensor<1x64xf32>
  }
  func.return
}

// -----

func.func @vectors(%g: tensor<64xf32>) {
  %r = fused.kernel "add"(%g) : (tensor<64xf32>) -> tensor<64xf32> {
  ^bb0(%0: tensor<64xf32>):
    // expected-error @+1 {{tensor<64xf32> beside rows}}
    %1 = arith.addf %0, %0 : tensor<64xf32>
    fused.yield %1 : tensor<64xf32>
  }
  func.return
}

// -----

func.func @computed(%x: tensor<1x8xf32>, %c: tensor<6x4xf32>, %p: index) {
  %r = fused.kernel "chain"(%x, %c, %p) : (tensor<1x8xf32>, tensor<6x4xf32>, index) -> tensor<1x8xf32> {
  ^bb0(%0: tensor<1x8xf32>, %1: tensor<6x4xf32>, %2: index):
    %3 = arith.addf %1, %1 : tensor<6x4xf32>
    // expected-error @+1 {{weights, tables and caches that 'arith.addf' computes}}
    %4 = fused.rope %0, %3, %1 at %2 : tensor<1x8xf32>, tensor<6x4xf32> -> tensor<1x8xf32>
    fused.yield %4 : tensor<1x8xf32>
  }
  func.return
}

// -----

func.func @tokens_beside(%x: tensor<2x64xf32>, %w: !lowbit.tensor<64x64, "w2g32", "array">) {
  %r = fused.kernel "chain"(%x, %w) : (tensor<2x64xf32>, !lowbit.tensor<64x64, "w2g32", "array">) -> tensor<2x64xf32> {
  ^bb0(%0: tensor<2x64xf32>, %1: !lowbit.tensor<64x64, "w2g32", "array">):
    %2 = arith.addf %0, %0 : tensor<2x64xf32>
    // expected-error @+1 {{a product of 2 tokens beside other operators}}
    %3 = mpgemm.lut_array_matmul %2, %1 : tensor<2x64xf32>, !lowbit.tensor<64x64, "w2g32", "array"> -> tensor<2x64xf32>
    fused.yield %3 : tensor<2x64xf32>
  }
  func.return
}

// -----

func.func @elsewhere(%q: tensor<1x4xf32>, %k: tensor<1x5x4xf16>, %v: tensor<1x5x4xf16>, %p: index, %o: index) {
  %r = fused.kernel "chain"(%q, %k, %v, %p, %o) : (tensor<1x4xf32>, tensor<1x5x4xf16>, tensor<1x5x4xf16>, index, index) -> tensor<1x4xf32> {
  ^bb0(%0: tensor<1x4xf32>, %1: tensor<1x5x4xf16>, %2: tensor<1x5x4xf16>, %3: index, %4: index):
    %5 = sparse_attn.append_kv %0 into %1 at %3 : tensor<1x4xf32> into tensor<1x5x4xf16> -> tensor<1x5x4xf16>
    // expected-error @+1 {{a row that is appended elsewhere than the query stands}}
    %6 = sparse_attn.attention %0, %5, %2 at %4 mask <"causal"> scale 0.25 : tensor<1x4xf32>, tensor<1x5x4xf16>, tensor<1x5x4xf16> -> tensor<1x4xf32>
    fused.yield %6 : tensor<1x4xf32>
  }
  func.return
}
