// RUN: rm -rf %t && nybble compile %s --target cuda:sm_80 -o %t && cat %t/k_f_0.ptx %t/manifest.json | filecheck %s
// RUN: sed "s/1x256xf32/8x256xf32/g" %s > %t.mlir && not nybble compile %t.mlir --target cuda:sm_80 -o %t 2>&1 | filecheck %s --check-prefix=PROMPT

// The codes of a step become numbers by the scale and the minimum of their features; the tokens
// that are kept as they are come in a loop of their own, 16 bytes at a time, with the same products.
// CHECK: .visible .entry k_f_0(
// CHECK: cp.async.cg.shared.global
// CHECK: mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
// CHECK: fma.rn.f16x2
// CHECK: mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
// CHECK: ld.global.nc.v4.b32
// CHECK-NOT: fma.rn.f16x2
// CHECK: mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
// CHECK: "name": "v_minima"
// CHECK: "name": "k_exact"
// CHECK: "name": "v_exact"
// CHECK: "room": 97
// PROMPT: error: room for 97 tokens as they are in 'kivi4(32,32)'
// PROMPT: note: accepted: 104 or more for 8 new tokens
func.func @f(%q: tensor<1x256xf32>, %k: !sparse_attn.cache<keys 1x128x128, "kivi4(32,32)", 97>, %v: !sparse_attn.cache<values 1x128x128, "kivi4(32,32)", 97>, %p: index) -> tensor<1x256xf32> {
  %r = sparse_attn.attention %q, %k, %v at %p mask <"causal"> scale 0.125 : tensor<1x256xf32>, !sparse_attn.cache<keys 1x128x128, "kivi4(32,32)", 97>, !sparse_attn.cache<values 1x128x128, "kivi4(32,32)", 97> -> tensor<1x256xf32>
  func.return %r : tensor<1x256xf32>
}
