// RUN: nybble-opt %s -p convert-linear-to-mpgemm --split-input-file --verify-diagnostics

// expected-error @+1 {{function 'nybble.linear.0' has not all of the attributes nybble.format, nybble.rows, nybble.cols}}
func.func private @nybble.linear.0(tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32>

// -----

// expected-error @+1 {{function 'nybble.linear.0' declares no legal weight: }}
func.func private @nybble.linear.0(tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 63 : i64}

// -----

func.func private @nybble.linear.0(tensor<2x64xf32>) -> tensor<2x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @operands(%x: tensor<2x64xf32>) -> tensor<2x8xf32> {
  // expected-error @+1 {{call of 'nybble.linear.0' must have an activation, a weight, maybe a bias, and one result}}
  %y = func.call @nybble.linear.0(%x) : (tensor<2x64xf32>) -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// -----

func.func private @nybble.linear.0(f32, tensor<8x36xi8>) -> tensor<2x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @scalar(%x: f32, %w: tensor<8x36xi8>) -> tensor<2x8xf32> {
  // expected-error @+1 {{call of 'nybble.linear.0' has an activation of type f32}}
  %y = func.call @nybble.linear.0(%x, %w) : (f32, tensor<8x36xi8>) -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// -----

func.func private @nybble.linear.0(tensor<64xf32>, tensor<8x36xi8>) -> tensor<8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @vector(%x: tensor<64xf32>, %w: tensor<8x36xi8>) -> tensor<8xf32> {
  // expected-error @+1 {{call of 'nybble.linear.0' has an activation of type tensor<64xf32>}}
  %y = func.call @nybble.linear.0(%x, %w) : (tensor<64xf32>, tensor<8x36xi8>) -> tensor<8xf32>
  func.return %y : tensor<8xf32>
}

// -----

func.func private @nybble.linear.0(tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @computed_weight(%x: tensor<2x64xf32>) -> tensor<2x8xf32> {
  %w = tensor.empty() : tensor<8x36xi8>
  // expected-error @+1 {{call of 'nybble.linear.0' must read its weight from an argument of the function}}
  %y = func.call @nybble.linear.0(%x, %w) : (tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// -----

func.func private @nybble.linear.0(tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func private @nybble.linear.1(tensor<2x32xf32>, tensor<8x36xi8>) -> tensor<2x8xf32> attributes {nybble.format = "q8_0", nybble.rows = 8 : i64, nybble.cols = 32 : i64}
func.func @two_formats(%x: tensor<2x64xf32>, %v: tensor<2x32xf32>, %w: tensor<8x36xi8>) -> tensor<2x8xf32> {
  %y = func.call @nybble.linear.0(%x, %w) : (tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32>
  // expected-error @+1 {{call of 'nybble.linear.1' reads as !lowbit.tensor<8x32, "q8_0"> what another call reads as !lowbit.tensor<8x64, "q4_0">}}
  %z = func.call @nybble.linear.1(%v, %w) : (tensor<2x32xf32>, tensor<8x36xi8>) -> tensor<2x8xf32>
  func.return %z : tensor<2x8xf32>
}

// -----

func.func private @nybble.linear.0(tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @weight_read_elsewhere(%x: tensor<2x64xf32>, %w: tensor<8x36xi8>) -> (tensor<2x8xf32>, tensor<8x36xi8>) {
  %y = func.call @nybble.linear.0(%x, %w) : (tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<2x8xf32>
  // expected-error @+1 {{'func.return' reads a weight in a number format}}
  func.return %y, %w : tensor<2x8xf32>, tensor<8x36xi8>
}

// -----

func.func private @nybble.linear.0(tensor<2x32xf32>, tensor<8x36xi8>) -> tensor<2x8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @rule_of_the_product(%x: tensor<2x32xf32>, %w: tensor<8x36xi8>) -> tensor<2x8xf32> {
  // expected-error @+1 {{call of 'nybble.linear.0' breaks a rule of mpgemm.matmul: columns of the weight must be 32}}
  %y = func.call @nybble.linear.0(%x, %w) : (tensor<2x32xf32>, tensor<8x36xi8>) -> tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}

// -----

func.func private @nybble.linear.0(tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<8xf32> attributes {nybble.format = "q4_0", nybble.rows = 8 : i64, nybble.cols = 64 : i64}
func.func @result(%x: tensor<2x64xf32>, %w: tensor<8x36xi8>) -> tensor<8xf32> {
  // expected-error @+1 {{call of 'nybble.linear.0' has a result of type tensor<8xf32>, which should be tensor<2x8xf32>}}
  %y = func.call @nybble.linear.0(%x, %w) : (tensor<2x64xf32>, tensor<8x36xi8>) -> tensor<8xf32>
  func.return %y : tensor<8xf32>
}
