// RUN: nybble-opt %s -p "quantize-cache{kv=kivi4}" --split-input-file --verify-diagnostics

func.func @both(%q: tensor<?x64xf32>, %k: tensor<2x512x32xf16>, %p: index) -> tensor<?x64xf32> {
  // expected-error @+1 {{one cache is both keys and values}}
  %a = sparse_attn.attention %q, %k, %k at %p mask <"causal"> scale 0.25 : tensor<?x64xf32>, tensor<2x512x32xf16>, tensor<2x512x32xf16> -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
