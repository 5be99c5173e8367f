// RUN: nybble-opt %s --allow-unregistered-dialect -p raise-torch-to-operators | filecheck %s

// CHECK-LABEL: func.func @linear_with_bias
// CHECK-SAME: (%[[X:.*]]: tensor<?x64xf32>, %[[W:.*]]: !lowbit.tensor<32x64, "q4_1">, %[[B:.*]]: tensor<32xf32>) -> tensor<?x32xf32>
func.func @linear_with_bias(%x: !torch.vtensor<[1,?,64],f32>, %w: !torch.vtensor<[32,40],ui8>, %b: !torch.vtensor<[32],f32>) -> !torch.vtensor<[1,?,32],f32> {
  %fmt = "torch.constant.str"() <{value = "q4_1"}> : () -> !torch.str
  %n = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %k = "torch.constant.int"() <{value = 64 : i64}> : () -> !torch.int
  // CHECK-NEXT: %[[Y:.*]] = mpgemm.matmul %[[X]], %[[W]] bias %[[B]] : tensor<32xf32> : tensor<?x64xf32>, !lowbit.tensor<32x64, "q4_1"> -> tensor<?x32xf32>
  %y = "torch.operator"(%x, %w, %b, %fmt, %n, %k) <{name = "torch.nybble.linear"}> : (!torch.vtensor<[1,?,64],f32>, !torch.vtensor<[32,40],ui8>, !torch.vtensor<[32],f32>, !torch.str, !torch.int, !torch.int) -> !torch.vtensor<[1,?,32],f32>
  // CHECK-NEXT: func.return %[[Y]] : tensor<?x32xf32>
  func.return %y : !torch.vtensor<[1,?,32],f32>
}

// Names of arguments come from the importer; their attributes stay.
// CHECK-LABEL: func.func @names(%hidden: tensor<?x64xf32> {nybble.name = "hidden"}, %up: !lowbit.tensor<32x64, "q4_1"> {nybble.name = "up", nybble.weight = "mlp.up.weight"})
func.func @names(%0: !torch.vtensor<[1,?,64],f32> {nybble.name = "hidden"}, %1: !torch.vtensor<[32,40],ui8> {nybble.name = "up", nybble.weight = "mlp.up.weight"}) -> !torch.vtensor<[1,?,32],f32> {
  %none = "torch.constant.none"() : () -> !torch.none
  %fmt = "torch.constant.str"() <{value = "q4_1"}> : () -> !torch.str
  %n = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %k = "torch.constant.int"() <{value = 64 : i64}> : () -> !torch.int
  // CHECK: mpgemm.matmul %hidden, %up
  %y = "torch.operator"(%0, %1, %none, %fmt, %n, %k) <{name = "torch.nybble.linear"}> : (!torch.vtensor<[1,?,64],f32>, !torch.vtensor<[32,40],ui8>, !torch.none, !torch.str, !torch.int, !torch.int) -> !torch.vtensor<[1,?,32],f32>
  func.return %y : !torch.vtensor<[1,?,32],f32>
}

// Splitting, transposing and joining heads vanishes; a norm shorter than a row is one per head.
// CHECK-LABEL: func.func @attention
// CHECK-SAME: (%[[X:.*]]: tensor<?x32xf32>, %[[POS:.*]]: index, %[[COS:.*]]: tensor<16x4xf32>, %[[SIN:.*]]: tensor<16x4xf32>, %[[KEYS:.*]]: tensor<4x16x8xf16>, %[[NORM:.*]]: tensor<8xf32>)
func.func @attention(%x: !torch.vtensor<[1,?,32],f32>, %pos: !torch.vtensor<[],si64>, %cos: !torch.vtensor<[16,4],f32>, %sin: !torch.vtensor<[16,4],f32>, %keys: !torch.vtensor<[4,16,8],f16>, %w: !torch.vtensor<[8],f32>) -> (!torch.vtensor<[1,?,32],f32>, !torch.vtensor<[4,16,8],f16>) {
  %none = "torch.constant.none"() : () -> !torch.none
  %false = "torch.constant.bool"() <{value = false}> : () -> !torch.bool
  %eps = "torch.constant.float"() <{value = 0.5 : f64}> : () -> !torch.float
  %i1 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %i2 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %im1 = "torch.constant.int"() <{value = -1 : i64}> : () -> !torch.int
  %i8 = "torch.constant.int"() <{value = 8 : i64}> : () -> !torch.int
  %s = "torch.aten.size.int"(%x, %i1) : (!torch.vtensor<[1,?,32],f32>, !torch.int) -> !torch.int
  %split = "torch.prim.ListConstruct"(%i1, %s, %im1, %i8) : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %heads = "torch.aten.view"(%x, %split) : (!torch.vtensor<[1,?,32],f32>, !torch.list<int>) -> !torch.vtensor<[1,?,4,8],f32>
  // CHECK-NEXT: %[[N:.*]] = fused.rms_norm %[[X]], %[[NORM]] eps 5.000000e-01 : tensor<?x32xf32>, tensor<8xf32> -> tensor<?x32xf32>
  %normed = "torch.operator"(%heads, %w, %eps, %false) <{name = "torch.nybble.rms_norm"}> : (!torch.vtensor<[1,?,4,8],f32>, !torch.vtensor<[8],f32>, !torch.float, !torch.bool) -> !torch.vtensor<[1,?,4,8],f32>
  %q = "torch.aten.transpose.int"(%normed, %i1, %i2) : (!torch.vtensor<[1,?,4,8],f32>, !torch.int, !torch.int) -> !torch.vtensor<[1,4,?,8],f32>
  // CHECK-NEXT: %[[R:.*]] = fused.rope %[[N]], %[[COS]], %[[SIN]] at %[[POS]] : tensor<?x32xf32>, tensor<16x4xf32> -> tensor<?x32xf32>
  %r = "torch.operator"(%q, %cos, %sin, %pos) <{name = "torch.nybble.rope"}> : (!torch.vtensor<[1,4,?,8],f32>, !torch.vtensor<[16,4],f32>, !torch.vtensor<[16,4],f32>, !torch.vtensor<[],si64>) -> !torch.vtensor<[1,4,?,8],f32>
  // CHECK-NEXT: %[[K:.*]] = sparse_attn.append_kv %[[R]] into %[[KEYS]] at %[[POS]] : tensor<?x32xf32> into tensor<4x16x8xf16> -> tensor<4x16x8xf16>
  %k = "torch.operator"(%keys, %r, %pos) <{name = "torch.nybble.append_kv"}> : (!torch.vtensor<[4,16,8],f16>, !torch.vtensor<[1,4,?,8],f32>, !torch.vtensor<[],si64>) -> !torch.vtensor<[4,16,8],f16>
  // CHECK-NEXT: %[[A:.*]] = sparse_attn.attention %[[R]], %[[K]], %[[K]] at %[[POS]] mask <"causal"> scale 5.000000e-01 : tensor<?x32xf32>, tensor<4x16x8xf16>, tensor<4x16x8xf16> -> tensor<?x32xf32>
  %a = "torch.operator"(%r, %k, %k, %pos, %eps, %none, %none) <{name = "torch.nybble.attention"}> : (!torch.vtensor<[1,4,?,8],f32>, !torch.vtensor<[4,16,8],f16>, !torch.vtensor<[4,16,8],f16>, !torch.vtensor<[],si64>, !torch.float, !torch.none, !torch.none) -> !torch.vtensor<[1,?,4,8],f32>
  %join = "torch.prim.ListConstruct"(%i1, %s, %im1) : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %rows = "torch.aten.reshape"(%a, %join) : (!torch.vtensor<[1,?,4,8],f32>, !torch.list<int>) -> !torch.vtensor<[1,?,32],f32>
  // CHECK-NEXT: func.return %[[A]], %[[K]] : tensor<?x32xf32>, tensor<4x16x8xf16>
  func.return %rows, %k : !torch.vtensor<[1,?,32],f32>, !torch.vtensor<[4,16,8],f16>
}

// CHECK-LABEL: func.func @window_and_softcap
func.func @window_and_softcap(%x: !torch.vtensor<[1,?,32],f32>, %pos: !torch.vtensor<[],si64>, %keys: !torch.vtensor<[2,16,8],f32>) -> !torch.vtensor<[1,?,4,8],f32> {
  %scale = "torch.constant.float"() <{value = 0.5 : f64}> : () -> !torch.float
  %window = "torch.constant.int"() <{value = 4 : i64}> : () -> !torch.int
  %cap = "torch.constant.int"() <{value = 50 : i64}> : () -> !torch.int
  %i1 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %i2 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  %split = "torch.prim.ListConstruct"(%i1, %i2) : (!torch.int, !torch.int) -> !torch.list<int>
  %heads = "torch.aten.view"(%x, %split) : (!torch.vtensor<[1,?,32],f32>, !torch.list<int>) -> !torch.vtensor<[1,?,4,8],f32>
  %q = "torch.aten.transpose.int"(%heads, %i1, %i2) : (!torch.vtensor<[1,?,4,8],f32>, !torch.int, !torch.int) -> !torch.vtensor<[1,4,?,8],f32>
  // CHECK: sparse_attn.attention {{.*}} mask <"window(4)"> scale 5.000000e-01 softcap 5.000000e+01 :
  %a = "torch.operator"(%q, %keys, %keys, %pos, %scale, %window, %cap) <{name = "torch.nybble.attention"}> : (!torch.vtensor<[1,4,?,8],f32>, !torch.vtensor<[2,16,8],f32>, !torch.vtensor<[2,16,8],f32>, !torch.vtensor<[],si64>, !torch.float, !torch.int, !torch.int) -> !torch.vtensor<[1,?,4,8],f32>
  func.return %a : !torch.vtensor<[1,?,4,8],f32>
}

// CHECK-LABEL: func.func @gates
// CHECK-SAME: (%[[G:.*]]: tensor<?x8xf32>, %[[U:.*]]: tensor<?x8xf32>)
func.func @gates(%g: !torch.vtensor<[1,?,8],f32>, %u: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %tanh = "torch.constant.str"() <{value = "tanh"}> : () -> !torch.str
  %one = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %silu = "torch.aten.silu"(%g) : (!torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  // CHECK-NEXT: %[[A:.*]] = fused.glu "silu" %[[G]], %[[U]] : tensor<?x8xf32>
  %a = "torch.aten.mul.Tensor"(%silu, %u) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  %gelu = "torch.aten.gelu"(%g, %tanh) : (!torch.vtensor<[1,?,8],f32>, !torch.str) -> !torch.vtensor<[1,?,8],f32>
  // The factors may come in either order.
  // CHECK-NEXT: %[[B:.*]] = fused.glu "gelu_tanh" %[[G]], %[[U]] : tensor<?x8xf32>
  %b = "torch.aten.mul.Tensor"(%u, %gelu) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  // CHECK-NEXT: arith.addf %[[A]], %[[B]] : tensor<?x8xf32>
  %c = "torch.aten.add.Tensor"(%a, %b, %one) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[1,?,8],f32>, !torch.int) -> !torch.vtensor<[1,?,8],f32>
  func.return %c : !torch.vtensor<[1,?,8],f32>
}

// CHECK-LABEL: func.func @embed_and_norm
// CHECK-SAME: (%[[IDS:.*]]: tensor<?xi32>, %[[TABLE:.*]]: !lowbit.tensor<100x32, "q8_0">, %[[W:.*]]: tensor<32xf32>)
func.func @embed_and_norm(%ids: !torch.vtensor<[1,?],si32>, %table: !torch.vtensor<[100,34],ui8>, %w: !torch.vtensor<[32],f32>) -> !torch.vtensor<[1,?,32],f32> {
  %fmt = "torch.constant.str"() <{value = "q8_0"}> : () -> !torch.str
  %n = "torch.constant.int"() <{value = 100 : i64}> : () -> !torch.int
  %k = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %true = "torch.constant.bool"() <{value = true}> : () -> !torch.bool
  %two = "torch.constant.float"() <{value = 2.0 : f64}> : () -> !torch.float
  // CHECK-NEXT: %[[H:.*]] = fused.embed %[[IDS]], %[[TABLE]] scale 2.000000e+00 : tensor<?xi32>, !lowbit.tensor<100x32, "q8_0"> -> tensor<?x32xf32>
  %h = "torch.operator"(%ids, %table, %fmt, %n, %k, %two) <{name = "torch.nybble.embed"}> : (!torch.vtensor<[1,?],si32>, !torch.vtensor<[100,34],ui8>, !torch.str, !torch.int, !torch.int, !torch.float) -> !torch.vtensor<[1,?,32],f32>
  // CHECK-NEXT: fused.rms_norm %[[H]], %[[W]] eps 2.000000e+00 unit_offset : tensor<?x32xf32>, tensor<32xf32> -> tensor<?x32xf32>
  %y = "torch.operator"(%h, %w, %two, %true) <{name = "torch.nybble.rms_norm"}> : (!torch.vtensor<[1,?,32],f32>, !torch.vtensor<[32],f32>, !torch.float, !torch.bool) -> !torch.vtensor<[1,?,32],f32>
  func.return %y : !torch.vtensor<[1,?,32],f32>
}

// A function without torch tensors is left as it is.
// CHECK-LABEL: func.func @other
func.func @other(%x: tensor<?x8xf32>) -> tensor<?x8xf32> {
  // CHECK-NEXT: arith.mulf
  %y = arith.mulf %x, %x : tensor<?x8xf32>
  func.return %y : tensor<?x8xf32>
}
