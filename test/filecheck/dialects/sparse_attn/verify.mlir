// RUN: nybble-opt %s --split-input-file --verify-diagnostics

func.func @append_columns(%rows: tensor<?x31xf32>, %c: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{columns of the rows must be 32 (heads * head_dim of the cache), got 31}}
  %r = sparse_attn.append_kv %rows into %c at %p : tensor<?x31xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  func.return
}

// -----

func.func @append_cache_rank(%rows: tensor<?x32xf32>, %c: tensor<128x32xf16>, %p: index) {
  // expected-error @+1 {{cache must have 3 dimensions, got 2}}
  %r = sparse_attn.append_kv %rows into %c at %p : tensor<?x32xf32> into tensor<128x32xf16> -> tensor<128x32xf16>
  func.return
}

// -----

func.func @append_rows_rank(%rows: tensor<32xf32>, %c: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{rows must have 2 dimensions, got 1}}
  %r = sparse_attn.append_kv %rows into %c at %p : tensor<32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf16>
  func.return
}

// -----

func.func @append_result(%rows: tensor<?x32xf32>, %c: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{the result must have the type of the cache}}
  %r = sparse_attn.append_kv %rows into %c at %p : tensor<?x32xf32> into tensor<2x128x16xf16> -> tensor<2x128x16xf32>
  func.return
}

// -----

func.func @query_columns(%q: tensor<?x63xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{columns of the query must be a multiple of kv_heads * head_dim = 32, got 63}}
  %r = sparse_attn.attention %q, %k, %k at %p mask #sparse_attn.causal scale 0.25 : tensor<?x63xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x63xf32>
  func.return
}

// -----

func.func @caches(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf32>, %p: index) {
  // expected-error @+1 {{keys and values must have the same type}}
  %r = sparse_attn.attention %q, %k, %v at %p mask #sparse_attn.causal scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @result(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{the result must have the type of the query}}
  %r = sparse_attn.attention %q, %k, %k at %p mask #sparse_attn.causal scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x32xf32>
  func.return
}

// -----

func.func @query_rank(%q: tensor<64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{query must have 2 dimensions, got 1}}
  %r = sparse_attn.attention %q, %k, %k at %p mask #sparse_attn.causal scale 0.25 : tensor<64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<64xf32>
  func.return
}

// -----

// expected-error @+1 {{a window holds at least 1 key, got 0}}
func.func private @window() attributes {mask = #sparse_attn.window<0>}
