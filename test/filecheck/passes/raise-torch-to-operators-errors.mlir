// RUN: nybble-opt %s --allow-unregistered-dialect -p raise-torch-to-operators --split-input-file --verify-diagnostics

func.func @unknown_op(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  // expected-error @+1 {{'torch.aten.relu' has no counterpart among nybble's operators (accepted: aten.add.Tensor, aten.clone,}}
  %y = "torch.aten.relu"(%x) : (!torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

// expected-error @+1 {{function 'batch' has an argument of type !torch.vtensor<[2,?,8],f32>}}
func.func @batch(%x: !torch.vtensor<[2,?,8],f32>) -> !torch.vtensor<[2,?,8],f32> {
  func.return %x : !torch.vtensor<[2,?,8],f32>
}

// -----

// expected-error @+1 {{function 'unread_bytes' has an argument of type !torch.vtensor<[2,36],ui8>}}
func.func @unread_bytes(%x: !torch.vtensor<[2,36],ui8>) {
  func.return
}

// -----

func.func @activation_alone(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  // expected-error @+1 {{'torch.aten.silu' is known only as a factor of a product}}
  %y = "torch.aten.silu"(%x) : (!torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @product_without_gate(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  // expected-error @+1 {{'torch.aten.mul.Tensor' is known only as a gated product}}
  %y = "torch.aten.mul.Tensor"(%x, %x) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @product_of_unequal_shapes(%x: !torch.vtensor<[1,?,8],f32>, %u: !torch.vtensor<[1,?,1],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %g = "torch.aten.silu"(%x) : (!torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  // expected-error @+1 {{'torch.aten.mul.Tensor' multiplies !torch.vtensor<[1,?,8],f32> and !torch.vtensor<[1,?,1],f32> (accepted: equal shapes)}}
  %y = "torch.aten.mul.Tensor"(%g, %u) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[1,?,1],f32>) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @exact_gelu(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %none = "torch.constant.str"() <{value = "none"}> : () -> !torch.str
  // expected-error @+1 {{'torch.aten.gelu' has the approximation 'none' (accepted: 'tanh')}}
  %y = "torch.aten.gelu"(%x, %none) : (!torch.vtensor<[1,?,8],f32>, !torch.str) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @scaled_sum(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %two = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  // expected-error @+1 {{'torch.aten.add.Tensor' has the factor 2.0 (accepted: alpha = 1)}}
  %y = "torch.aten.add.Tensor"(%x, %x, %two) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[1,?,8],f32>, !torch.int) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @broadcast_sum(%x: !torch.vtensor<[1,?,8],f32>, %v: !torch.vtensor<[8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %one = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  // expected-error @+1 {{'torch.aten.add.Tensor' adds !torch.vtensor<[1,?,8],f32> and !torch.vtensor<[8],f32> (accepted: equal shapes)}}
  %y = "torch.aten.add.Tensor"(%x, %v, %one) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[8],f32>, !torch.int) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @scalar_operand(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %one = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  // expected-error @+1 {{'torch.aten.add.Tensor' needs a tensor as operand 1}}
  %y = "torch.aten.add.Tensor"(%x, %one, %one) : (!torch.vtensor<[1,?,8],f32>, !torch.int, !torch.int) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @view_across_tokens(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[?,8],f32> {
  %l = "torch.prim.ListConstruct"() : () -> !torch.list<int>
  // expected-error @+1 {{'torch.aten.view' gives !torch.vtensor<[?,8],f32> (accepted: a view that splits or joins heads)}}
  %y = "torch.aten.view"(%x, %l) : (!torch.vtensor<[1,?,8],f32>, !torch.list<int>) -> !torch.vtensor<[?,8],f32>
  func.return %y : !torch.vtensor<[?,8],f32>
}

// -----

func.func @view_of_five_dimensions(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,2,2,2],f32> {
  %l = "torch.prim.ListConstruct"() : () -> !torch.list<int>
  // expected-error @+1 {{'torch.aten.view' gives !torch.vtensor<[1,?,2,2,2],f32> (accepted: a view that splits or joins heads)}}
  %y = "torch.aten.view"(%x, %l) : (!torch.vtensor<[1,?,8],f32>, !torch.list<int>) -> !torch.vtensor<[1,?,2,2,2],f32>
  func.return %y : !torch.vtensor<[1,?,2,2,2],f32>
}

// -----

func.func @transpose_of_rows(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,8,?],f32> {
  %i1 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %i2 = "torch.constant.int"() <{value = 2 : i64}> : () -> !torch.int
  // expected-error @+1 {{'torch.aten.transpose.int' is known only between tokens and heads}}
  %y = "torch.aten.transpose.int"(%x, %i1, %i2) : (!torch.vtensor<[1,?,8],f32>, !torch.int, !torch.int) -> !torch.vtensor<[1,8,?],f32>
  func.return %y : !torch.vtensor<[1,8,?],f32>
}

// -----

func.func @conversion(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f16> {
  // expected-error @+1 {{'torch.aten.to.dtype' changes !torch.vtensor<[1,?,8],f32> to !torch.vtensor<[1,?,8],f16>}}
  %y = "torch.aten.to.dtype"(%x) : (!torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f16>
  func.return %y : !torch.vtensor<[1,?,8],f16>
}

// -----

func.func @logical_shape(%x: !torch.vtensor<[1,?,8],f32>, %t: !torch.vtensor<[4,2],f32>, %pos: !torch.vtensor<[],si64>) -> !torch.vtensor<[1,?,8],f32> {
  // expected-error @+1 {{'torch.nybble.rope' has operand 0 of logical shape [1, S, features] (accepted: [1, H, S, D])}}
  %y = "torch.operator"(%x, %t, %t, %pos) <{name = "torch.nybble.rope"}> : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[4,2],f32>, !torch.vtensor<[4,2],f32>, !torch.vtensor<[],si64>) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @two_formats(%x: !torch.vtensor<[1,?,32],f32>, %w: !torch.vtensor<[32,36],ui8>) -> !torch.vtensor<[1,?,32],f32> {
  %none = "torch.constant.none"() : () -> !torch.none
  %a = "torch.constant.str"() <{value = "q4_0"}> : () -> !torch.str
  %b = "torch.constant.str"() <{value = "q8_0"}> : () -> !torch.str
  %n = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  %y = "torch.operator"(%x, %w, %none, %a, %n, %n) <{name = "torch.nybble.linear"}> : (!torch.vtensor<[1,?,32],f32>, !torch.vtensor<[32,36],ui8>, !torch.none, !torch.str, !torch.int, !torch.int) -> !torch.vtensor<[1,?,32],f32>
  // expected-error @+1 {{'torch.nybble.linear' reads bytes as !lowbit.tensor<32x32, "q8_0"> that another op reads in another format}}
  %z = "torch.operator"(%y, %w, %none, %b, %n, %n) <{name = "torch.nybble.linear"}> : (!torch.vtensor<[1,?,32],f32>, !torch.vtensor<[32,36],ui8>, !torch.none, !torch.str, !torch.int, !torch.int) -> !torch.vtensor<[1,?,32],f32>
  func.return %z : !torch.vtensor<[1,?,32],f32>
}

// -----

func.func @computed_constant(%x: !torch.vtensor<[1,?,8],f32>, %w: !torch.vtensor<[8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %eps = "torch.prim.unknown"() : () -> !torch.float
  // expected-error @-1 {{'torch.prim.unknown' has no counterpart}}
  func.return %x : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @size_as_number(%x: !torch.vtensor<[1,?,8],f32>, %w: !torch.vtensor<[8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %one = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %size = "torch.aten.size.int"(%x, %one) : (!torch.vtensor<[1,?,8],f32>, !torch.int) -> !torch.int
  // expected-error @+1 {{'torch.nybble.rms_norm' needs a constant as operand 2}}
  %y = "torch.operator"(%x, %w, %size, %one) <{name = "torch.nybble.rms_norm"}> : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[8],f32>, !torch.int, !torch.int) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @string_as_number(%x: !torch.vtensor<[1,?,8],f32>, %w: !torch.vtensor<[8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %s = "torch.constant.str"() <{value = "big"}> : () -> !torch.str
  // expected-error @+1 {{'torch.nybble.rms_norm' needs a number as operand 2}}
  %y = "torch.operator"(%x, %w, %s, %s) <{name = "torch.nybble.rms_norm"}> : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[8],f32>, !torch.str, !torch.str) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @number_as_format(%x: !torch.vtensor<[1,?,32],f32>, %w: !torch.vtensor<[32,36],ui8>) -> !torch.vtensor<[1,?,32],f32> {
  %none = "torch.constant.none"() : () -> !torch.none
  %n = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  // expected-error @+1 {{'torch.nybble.linear' needs a string as operand 3}}
  %y = "torch.operator"(%x, %w, %none, %n, %n, %n) <{name = "torch.nybble.linear"}> : (!torch.vtensor<[1,?,32],f32>, !torch.vtensor<[32,36],ui8>, !torch.none, !torch.int, !torch.int, !torch.int) -> !torch.vtensor<[1,?,32],f32>
  func.return %y : !torch.vtensor<[1,?,32],f32>
}

// -----

func.func @string_as_size(%x: !torch.vtensor<[1,?,32],f32>, %w: !torch.vtensor<[32,36],ui8>) -> !torch.vtensor<[1,?,32],f32> {
  %none = "torch.constant.none"() : () -> !torch.none
  %s = "torch.constant.str"() <{value = "q4_0"}> : () -> !torch.str
  // expected-error @+1 {{'torch.nybble.linear' needs an integer as operand 4}}
  %y = "torch.operator"(%x, %w, %none, %s, %s, %s) <{name = "torch.nybble.linear"}> : (!torch.vtensor<[1,?,32],f32>, !torch.vtensor<[32,36],ui8>, !torch.none, !torch.str, !torch.str, !torch.str) -> !torch.vtensor<[1,?,32],f32>
  func.return %y : !torch.vtensor<[1,?,32],f32>
}

// -----

func.func @too_few_operands(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  // expected-error @+1 {{'torch.aten.add.Tensor' has 1 operands (accepted: at least 3, and one result)}}
  %y = "torch.aten.add.Tensor"(%x) : (!torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @rule_of_the_operator(%x: !torch.vtensor<[1,?,8],f32>, %w: !torch.vtensor<[3],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %eps = "torch.constant.float"() <{value = 0.5 : f64}> : () -> !torch.float
  // expected-error @+1 {{'torch.nybble.rms_norm' breaks a rule of its counterpart: columns of the input must be a multiple of the weight's length 3, got 8}}
  %y = "torch.operator"(%x, %w, %eps, %eps) <{name = "torch.nybble.rms_norm"}> : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[3],f32>, !torch.float, !torch.float) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @unknown_format(%x: !torch.vtensor<[1,?,32],f32>, %w: !torch.vtensor<[32,36],ui8>) -> !torch.vtensor<[1,?,32],f32> {
  %none = "torch.constant.none"() : () -> !torch.none
  %fmt = "torch.constant.str"() <{value = "q4_x"}> : () -> !torch.str
  %n = "torch.constant.int"() <{value = 32 : i64}> : () -> !torch.int
  // expected-error @+1 {{'torch.nybble.linear' breaks a rule of its counterpart: }}
  %y = "torch.operator"(%x, %w, %none, %fmt, %n, %n) <{name = "torch.nybble.linear"}> : (!torch.vtensor<[1,?,32],f32>, !torch.vtensor<[32,36],ui8>, !torch.none, !torch.str, !torch.int, !torch.int) -> !torch.vtensor<[1,?,32],f32>
  func.return %y : !torch.vtensor<[1,?,32],f32>
}

// -----

// expected-error @+1 {{function 'two_blocks' has 2 blocks (accepted: one)}}
func.func @two_blocks(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  "cf.br"() [^next] : () -> ()
^next:
  func.return %x : !torch.vtensor<[1,?,8],f32>
}

// -----

func.func @constant_without_value(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %one = "torch.constant.int"() : () -> !torch.int
  // expected-error @+1 {{'torch.aten.add.Tensor' needs a constant as operand 2}}
  %y = "torch.aten.add.Tensor"(%x, %x, %one) : (!torch.vtensor<[1,?,8],f32>, !torch.vtensor<[1,?,8],f32>, !torch.int) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}
