// RUN: nybble-opt %s -p "retain-tokens{function=f budget=8 recent=24}" --split-input-file --verify-diagnostics

func.func @f(%q: tensor<?x16xf32>, %k: tensor<1x128x16xf32>, %p: index) -> tensor<?x16xf32> {
  // expected-error @+1 {{an attention cannot evict: its keys are no argument that tokens are appended to}}
  %a = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x16xf32>
  func.return %a : tensor<?x16xf32>
}

// -----

func.func @f(%q: tensor<?x16xf32>, %k: !sparse_attn.cache<keys 1x512x16, "kv4", 128>, %v: !sparse_attn.cache<values 1x512x16, "kv4", 128>, %p: index) -> tensor<?x16xf32> {
  %ka = sparse_attn.append_kv %q into %k at %p : tensor<?x16xf32> into !sparse_attn.cache<keys 1x512x16, "kv4", 128> -> !sparse_attn.cache<keys 1x512x16, "kv4", 128>
  // expected-error @+1 {{its keys are !sparse_attn.cache}}
  %a = sparse_attn.attention %q, %ka, %v at %p mask <"causal"> scale 0.25 : tensor<?x16xf32>, !sparse_attn.cache<keys 1x512x16, "kv4", 128>, !sparse_attn.cache<values 1x512x16, "kv4", 128> -> tensor<?x16xf32>
  func.return %a : tensor<?x16xf32>
}

// -----

func.func @f(%q: tensor<?x16xf32>, %k: tensor<1x128x16xf32>, %p: index) -> tensor<?x16xf32> {
  %ka = sparse_attn.append_kv %q into %k at %p : tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  // expected-error @+1 {{it has the mask "window(9)"; accepted: "causal"}}
  %a = sparse_attn.attention %q, %ka, %ka at %p mask <"window(9)"> scale 0.25 : tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x16xf32>
  func.return %a : tensor<?x16xf32>
}

// -----

func.func @f(%q: tensor<?x16xf32>, %k: tensor<1x128x16xf32>, %p: index) -> tensor<?x16xf32> {
  %ka = sparse_attn.append_kv %q into %k at %p : tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  // expected-error @+1 {{it has a soft cap or a kind of softmax; accepted: neither}}
  %a = sparse_attn.attention %q, %ka, %ka at %p mask <"causal"> scale 0.25 softcap 30.0 : tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x16xf32>
  func.return %a : tensor<?x16xf32>
}

// -----

func.func @f(%q: tensor<?x16xf32>, %k: tensor<1x128x16xf32>, %p: index) -> tensor<?x16xf32> {
  %ka = sparse_attn.append_kv %q into %k at %p : tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  %kb = sparse_attn.append_kv %q into %ka at %p : tensor<?x16xf32> into tensor<1x128x16xf32> -> tensor<1x128x16xf32>
  // expected-error @+1 {{something else reads its keys}}
  %a = sparse_attn.attention %q, %ka, %kb at %p mask <"causal"> scale 0.25 : tensor<?x16xf32>, tensor<1x128x16xf32>, tensor<1x128x16xf32> -> tensor<?x16xf32>
  func.return %a : tensor<?x16xf32>
}
