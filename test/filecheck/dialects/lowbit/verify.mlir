// RUN: nybble-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{a low-bit tensor has two dimensions, got 1}}
func.func private @rank(!lowbit.tensor<64, "q4_1">)

// -----

// expected-error @+1 {{the contracted dimension of a low-bit tensor must be static}}
func.func private @dynamic(!lowbit.tensor<4x?, "q4_1">)

// -----

// expected-error @+1 {{unknown layout "diagonal"; accepted: storage, tile64}}
func.func private @layout(!lowbit.tensor<4x64, "q4_1", "diagonal">)

// -----

// expected-error @+1 {{q4_9}}
func.func private @format(!lowbit.tensor<4x64, "q4_9">)

// -----

// expected-error @+1 {{33}}
func.func private @group(!lowbit.tensor<4x33, "q4_1">)

// -----

// expected-error @+1 {{q4_9}}
func.func private @attribute() attributes {format = #lowbit.format<"q4_9">}

// -----

func.func @quantize_rank(%x: tensor<64xf32>) {
  // expected-error @+1 {{input must have 2 dimensions, got 1}}
  %q = lowbit.quantize %x : tensor<64xf32> -> !lowbit.tensor<1x64, "a8g32">
  func.return
}

// -----

func.func @quantize_rows(%x: tensor<2x64xf32>) {
  // expected-error @+1 {{rows of the result must be 2 (rows of the input), got 3}}
  %q = lowbit.quantize %x : tensor<2x64xf32> -> !lowbit.tensor<3x64, "a8g32">
  func.return
}

// -----

func.func @quantize_columns(%x: tensor<2x64xf32>) {
  // expected-error @+1 {{columns of the result must be 64 (columns of the input), got 32}}
  %q = lowbit.quantize %x : tensor<2x64xf32> -> !lowbit.tensor<2x32, "a8g32">
  func.return
}

// -----

func.func @dequantize_rank(%q: !lowbit.tensor<2x64, "a8g32">) {
  // expected-error @+1 {{result must have 2 dimensions, got 1}}
  %x = lowbit.dequantize %q : !lowbit.tensor<2x64, "a8g32"> -> tensor<64xf32>
  func.return
}

// -----

func.func @dequantize_rows(%q: !lowbit.tensor<2x64, "a8g32">) {
  // expected-error @+1 {{rows of the result must be 2 (rows of the input), got 3}}
  %x = lowbit.dequantize %q : !lowbit.tensor<2x64, "a8g32"> -> tensor<3x64xf32>
  func.return
}

// -----

func.func @dequantize_columns(%q: !lowbit.tensor<2x64, "a8g32">) {
  // expected-error @+1 {{columns of the result must be 64 (columns of the input), got 32}}
  %x = lowbit.dequantize %q : !lowbit.tensor<2x64, "a8g32"> -> tensor<2x32xf32>
  func.return
}

// -----

func.func @pack(%w: !lowbit.tensor<8x64, "q4_1">) {
  // expected-error @+1 {{packing changes only the layout: expected q4_1 of the same shape, got q4_0}}
  %p = lowbit.pack %w : !lowbit.tensor<8x64, "q4_1"> -> !lowbit.tensor<8x64, "q4_0", "tile64">
  func.return
}

// -----

// expected-error @+1 {{unknown axis "diagonal"; accepted: rows, columns}}
func.func @step_axis() attributes {step = #lowbit.hadamard<diagonal, 64>} {
  func.return
}

// -----

// expected-error @+1 {{unknown axis "cols"; accepted: rows, columns}}
func.func @scale_axis() attributes {step = #lowbit.scale<cols, "norm.weight">} {
  func.return
}

// -----

// expected-error @+1 {{a Hadamard block is a power of two from 2 on, got 48}}
func.func @step_block() attributes {step = #lowbit.hadamard<rows, 48>} {
  func.return
}
