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
  %r = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x63xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x63xf32>
  func.return
}

// -----

func.func @caches(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %v: tensor<2x128x16xf32>, %p: index) {
  // expected-error @+1 {{keys and values must have the same type}}
  %r = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf32> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @result(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{the result must have the type of the query}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x32xf32>
  func.return
}

// -----

func.func @query_rank(%q: tensor<64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{query must have 2 dimensions, got 1}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<64xf32>
  func.return
}

// -----

// expected-error @+1 {{window(0) has a size of 0 (accepted: 1 or more)}}
func.func private @window() attributes {mask = #sparse_attn.mask<"window(0)">}

// -----

func.func @budget(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %l: tensor<2x1x9xi32>, %p: index) {
  // expected-error @+1 {{pages(16,9) keeps 144 keys of a context of 128 (accepted: 128 keys at most)}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"pages(16,9)"> selected %l : tensor<2x1x9xi32> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @no_list(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{number of lists must be 1 (selections of the mask), got 0}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"pages(16,2)"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @list_rank(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %l: tensor<2x2xi32>, %p: index) {
  // expected-error @+1 {{a list must have 3 dimensions, got 2}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"pages(16,2)"> selected %l : tensor<2x2xi32> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @list_heads(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %l: tensor<4x1x2xi32>, %p: index) {
  // expected-error @+1 {{heads of the list of pages(16,2) must be 2 (heads of the cache), got 4}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"pages(16,2)"> selected %l : tensor<4x1x2xi32> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @list_count(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %l: tensor<2x1x3xi32>, %p: index) {
  // expected-error @+1 {{entries of the list of pages(16,2) must be 2 (its count), got 3}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"pages(16,2)"> selected %l : tensor<2x1x3xi32> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @softmax(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{unknown softmax "fast"; accepted: online, two_pass, unified}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 softmax "fast" : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @part_sum(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{sum must have the type of max}}
  %m, %s, %a = sparse_attn.partial %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x4xf32>, tensor<?x3xf32>, tensor<?x64xf32>
  func.return
}

// -----

func.func @part_acc(%q: tensor<?x64xf32>, %k: tensor<2x128x16xf16>, %p: index) {
  // expected-error @+1 {{acc must have the type of the query}}
  %m, %s, %a = sparse_attn.partial %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x128x16xf16>, tensor<2x128x16xf16> -> tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x32xf32>
  func.return
}

// -----

func.func @part_heads(%s: tensor<1x3xf32>, %a: tensor<1x64xf32>) {
  // expected-error @+1 {{acc has 64 columns for 3 heads}}
  %r = sparse_attn.finish %a by %s : tensor<1x64xf32> by tensor<1x3xf32>
  func.return
}

// -----

func.func @part_rows(%s: tensor<2x4xf32>, %a: tensor<1x64xf32>) {
  // expected-error @+1 {{rows of acc must be 2 (rows of max), got 1}}
  %r = sparse_attn.finish %a by %s : tensor<1x64xf32> by tensor<2x4xf32>
  func.return
}

// -----

// expected-error @+1 {{unknown format of a cache 'kv3'}}
func.func private @unknown_format(!sparse_attn.cache<keys 2x128x16, "kv3", 65>)

// -----

// expected-error @+1 {{a cache of scores; accepted: keys, values}}
func.func private @unknown_side(!sparse_attn.cache<scores 2x128x16, "kv4", 65>)

// -----

// expected-error @+1 {{a cache must have 3 dimensions, all known}}
func.func private @cache_dimensions(!sparse_attn.cache<keys 128x16, "kv4", 65>)

// -----

// expected-error @+1 {{room for 64 tokens as they are in "kv4"; accepted: 65 or more}}
func.func private @cache_room(!sparse_attn.cache<keys 2x128x16, "kv4", 64>)

// -----

// expected-error @+1 {{room for 64 tokens as they are in "bf16"; accepted: 0}}
func.func private @plain_room(!sparse_attn.cache<keys 2x128x16, "bf16", 64>)

// -----

func.func @sides(%q: tensor<?x64xf32>, %k: !sparse_attn.cache<keys 2x128x16, "kv4", 65>, %p: index) {
  // expected-error @+1 {{go with values !sparse_attn.cache<values 2x128x16, "kv4", 65>, got !sparse_attn.cache<keys 2x128x16, "kv4", 65>}}
  %r = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, !sparse_attn.cache<keys 2x128x16, "kv4", 65>, !sparse_attn.cache<keys 2x128x16, "kv4", 65> -> tensor<?x64xf32>
  func.return
}

// -----

func.func @retain_values(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x16x48xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{values must be [2, 48, 16], got [2, 16, 48]}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x16x48xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_mass(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x47xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{mass must be [2, 1 + queries, 48], got [2, 1, 47]}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x47xf32> -> tensor<2x1x47xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_rows(%q: tensor<?x64xf32>, %n: tensor<?x31xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{columns of the rows must be 32 (heads * head_dim of the cache), got 31}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x31xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_query(%q: tensor<?x48xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{columns of the query must be a multiple of 32, got 48}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x48xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_budget(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{a budget of 48 of 48 slots; accepted: 1 to 47}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 48 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_size(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{runs of 3 tokens of a budget of 16 and 32 recent ones; accepted: a divisor of the budget, at most the recent ones}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 3 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_ring(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{runs of 20 tokens of a budget of 40 and 8 recent ones}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 40 : i64 size 20 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_moves(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x3xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{moves must be [2, 1, positions], 4 of these or more, got [2, 1, 3]}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 4 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x3xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x3xi32>
  func.return
}

// -----

func.func @retain_new_state(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{the new state must have the types of mass and moves, or be none}}
  %r, %k2, %v2, %o0 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>
  func.return
}

// -----

func.func @retain_by(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{unknown score "loudest"; accepted: accumulated, last, learned}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "loudest" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_last(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{a mass of 0 queries by "last"; accepted: one or more by "last", otherwise none}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "last" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_queries(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x3x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{a mass of 2 queries by "accumulated"; accepted: one or more by "last", otherwise none}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "accumulated" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x3x48xf32> -> tensor<2x3x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_learned(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x2xf32>, %p: index) {
  // expected-error @+1 {{scores go with "learned", and it with scores}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "learned" %m budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @retain_scores(%q: tensor<?x64xf32>, %n: tensor<?x32xf32>, %k: tensor<2x16x48xf16>, %v: tensor<2x48x16xf16>, %m: tensor<2x1x48xf32>, %w: tensor<2x1x128xi32>, %s: tensor<?x3xf32>, %p: index) {
  // expected-error @+1 {{scores must have 2 columns and the rows of the query, got 3 columns}}
  %r, %k2, %v2, %o0, %o1 = sparse_attn.retain %q, %n, %n into %k, %v, %w at %p by "learned" %m of %s budget 16 : i64 size 1 : i64 scale 0.25 : tensor<?x64xf32>, tensor<?x32xf32> into tensor<2x16x48xf16>, tensor<2x48x16xf16>, tensor<2x1x128xi32> by tensor<2x1x48xf32> of tensor<?x3xf32> -> tensor<2x1x48xf32>, tensor<2x1x128xi32>
  func.return
}

// -----

func.func @bounds_columns(%n: tensor<?x32xf32>, %b: tensor<2x8x31xf32>, %p: index) {
  // expected-error @+1 {{bounds have 31 columns; accepted: 2 * head_dim}}
  %c = sparse_attn.append_bounds %n into %b at %p size 16 : i64 : tensor<?x32xf32> into tensor<2x8x31xf32>
  func.return
}

// -----

func.func @bounds_rows(%n: tensor<?x30xf32>, %b: tensor<2x8x32xf32>, %p: index) {
  // expected-error @+1 {{columns of the rows must be 32 (heads * head_dim of the bounds), got 30}}
  %c = sparse_attn.append_bounds %n into %b at %p size 16 : i64 : tensor<?x30xf32> into tensor<2x8x32xf32>
  func.return
}

// -----

func.func @bounds_size(%n: tensor<?x32xf32>, %b: tensor<2x8x32xf32>, %p: index) {
  // expected-error @+1 {{pages of 0 keys; accepted: 1 or more}}
  %c = sparse_attn.append_bounds %n into %b at %p size 0 : i64 : tensor<?x32xf32> into tensor<2x8x32xf32>
  func.return
}

// -----

func.func @select_query(%q: tensor<?x48xf32>, %b: tensor<2x8x32xf32>, %p: index) {
  // expected-error @+1 {{columns of the query must be a multiple of 32, got 48}}
  %l = sparse_attn.select_pages %q, %b at %p size 64 : i64 parts 4 : i64 : tensor<?x48xf32>, tensor<2x8x32xf32> -> tensor<2x?x3xi32>
  func.return
}

// -----

func.func @select_heads(%q: tensor<?x64xf32>, %b: tensor<2x8x32xf32>, %p: index) {
  // expected-error @+1 {{heads of the list must be 2 (heads of the bounds), got 1}}
  %l = sparse_attn.select_pages %q, %b at %p size 64 : i64 parts 4 : i64 : tensor<?x64xf32>, tensor<2x8x32xf32> -> tensor<1x?x3xi32>
  func.return
}

// -----

func.func @select_rows(%q: tensor<?x64xf32>, %b: tensor<2x8x32xf32>, %p: index) {
  // expected-error @+1 {{the list must have the rows of the query, and a page or more}}
  %l = sparse_attn.select_pages %q, %b at %p size 64 : i64 parts 4 : i64 : tensor<?x64xf32>, tensor<2x8x32xf32> -> tensor<2x1x3xi32>
  func.return
}

// -----

func.func @select_parts(%q: tensor<?x64xf32>, %b: tensor<2x8x32xf32>, %p: index) {
  // expected-error @+1 {{pages of 64 keys cannot have 5 parts}}
  %l = sparse_attn.select_pages %q, %b at %p size 64 : i64 parts 5 : i64 : tensor<?x64xf32>, tensor<2x8x32xf32> -> tensor<2x?x3xi32>
  func.return
}
