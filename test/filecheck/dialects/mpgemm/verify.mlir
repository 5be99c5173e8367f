// RUN: nybble-opt %s --split-input-file --verify-diagnostics

func.func @columns(%x: tensor<?x32xf32>, %w: !lowbit.tensor<8x64, "q4_1">) {
  // expected-error @+1 {{columns of the weight must be 32 (columns of the activation), got 64}}
  %y = mpgemm.matmul %x, %w : tensor<?x32xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<?x8xf32>
  func.return
}

// -----

func.func @result_columns(%x: tensor<?x64xf32>, %w: !lowbit.tensor<8x64, "q4_1">) {
  // expected-error @+1 {{columns of the result must be 8 (rows of the weight), got 9}}
  %y = mpgemm.matmul %x, %w : tensor<?x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<?x9xf32>
  func.return
}

// -----

func.func @result_rows(%x: tensor<2x64xf32>, %w: !lowbit.tensor<8x64, "q4_1">) {
  // expected-error @+1 {{rows of the result must be 2 (rows of the activation), got 3}}
  %y = mpgemm.dequant_matmul %x, %w : tensor<2x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<3x8xf32>
  func.return
}

// -----

func.func @rank(%x: tensor<64xf32>, %w: !lowbit.tensor<8x64, "q4_1">) {
  // expected-error @+1 {{activation must have 2 dimensions, got 1}}
  %y = mpgemm.matmul %x, %w : tensor<64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<1x8xf32>
  func.return
}

// -----

func.func @result_rank(%x: tensor<2x64xf32>, %w: !lowbit.tensor<8x64, "q4_1">) {
  // expected-error @+1 {{result must have 2 dimensions, got 1}}
  %y = mpgemm.matmul %x, %w : tensor<2x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<8xf32>
  func.return
}

// -----

func.func @bias(%x: tensor<2x64xf32>, %w: !lowbit.tensor<8x64, "q4_1">, %b: tensor<7xf32>) {
  // expected-error @+1 {{length of the bias must be 8 (rows of the weight), got 7}}
  %y = mpgemm.matmul %x, %w bias %b : tensor<7xf32> : tensor<2x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @bias_rank(%x: tensor<2x64xf32>, %w: !lowbit.tensor<8x64, "q4_1">, %b: tensor<1x8xf32>) {
  // expected-error @+1 {{bias must have 1 dimensions, got 2}}
  %y = mpgemm.matmul %x, %w bias %b : tensor<1x8xf32> : tensor<2x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @groups(%x: !lowbit.tensor<2x128, "a8g64">, %w: !lowbit.tensor<8x128, "q4_1">) {
  // expected-error @+1 {{the activation's group must divide the weight's (32), got 64}}
  %y = mpgemm.int_matmul %x, %w : !lowbit.tensor<2x128, "a8g64">, !lowbit.tensor<8x128, "q4_1"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @no_codes(%x: !lowbit.tensor<2x128, "a8g32">, %w: !lowbit.tensor<8x128, "bf16">) {
  // expected-error @+1 {{format "bf16" has no integer codes; use mpgemm.dequant_matmul}}
  %y = mpgemm.int_matmul %x, %w : !lowbit.tensor<2x128, "a8g32">, !lowbit.tensor<8x128, "bf16"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @precision(%x: tensor<2x128xf32>, %w: !lowbit.tensor<8x128, "bf16">) {
  // expected-error @+1 {{unknown precision "f8"; accepted: f32, bf16}}
  %y = mpgemm.dequant_matmul %x, %w precision "f8" : tensor<2x128xf32>, !lowbit.tensor<8x128, "bf16"> -> tensor<2x8xf32>
  func.return
}

// -----

// expected-error @+1 {{tables have two dimensions, got 1}}
func.func private @table_rank(!mpgemm.table<64, "a8g32", "i16">)

// -----

// expected-error @+1 {{the number of columns of tables must be static}}
func.func private @table_columns(!mpgemm.table<4x?, "a8g32", "i16">)

// -----

// expected-error @+1 {{unknown type of entries "i4"; accepted: i16, i8, f16}}
func.func private @entries(!mpgemm.table<4x64, "a8g32", "i4">)

// -----

// expected-error @+1 {{unknown form of tables "odd"; accepted: full, symmetric}}
func.func private @form(!mpgemm.table<4x64, "a8g32", "i16", "odd">)

// -----

// expected-error @+1 {{unknown format 'a9000'}}
func.func private @table_format(!mpgemm.table<4x64, "a9000", "i16">)

// -----

// expected-error @+1 {{80 columns in format 'a8g32'}}
func.func private @table_shape(!mpgemm.table<4x80, "a8g32", "i16">)

// -----

// expected-error @+1 {{tables are built from 8-bit activations, got "a16g32"; accepted: a8gN}}
func.func private @table_digits(!mpgemm.table<4x64, "a16g32", "i16">)

// -----

// expected-error @+1 {{an activation's groups must be a multiple of 4 columns, got 6}}
func.func private @table_group(!mpgemm.table<4x60, "a8g6", "i16">)

// -----

func.func @precompute_rows(%x: !lowbit.tensor<2x64, "a8g32">) {
  // expected-error @+1 {{rows of the tables must be 2 (rows of the activation), got 3}}
  %t = mpgemm.lut_precompute %x : !lowbit.tensor<2x64, "a8g32"> -> !mpgemm.table<3x64, "a8g32", "i16">
  func.return
}

// -----

func.func @precompute_columns(%x: !lowbit.tensor<2x64, "a8g32">) {
  // expected-error @+1 {{columns of the tables must be 64 (columns of the activation), got 32}}
  %t = mpgemm.lut_precompute %x : !lowbit.tensor<2x64, "a8g32"> -> !mpgemm.table<2x32, "a8g32", "i16">
  func.return
}

// -----

func.func @precompute_format(%x: !lowbit.tensor<2x64, "a8g32">) {
  // expected-error @+1 {{the tables must be of format "a8g32" (the activation), got "a8g64"}}
  %t = mpgemm.lut_precompute %x : !lowbit.tensor<2x64, "a8g32"> -> !mpgemm.table<2x64, "a8g64", "i16">
  func.return
}

// -----

func.func @not_a_line(%t: !mpgemm.table<2x64, "a8g64", "i16">, %w: !lowbit.tensor<8x64, "nf4">) {
  // expected-error @+1 {{format "nf4" cannot be looked up; accepted: integer codes of 1 to 4 bits whose values lie on a line, dense and grouped by columns}}
  %y = mpgemm.lut_matmul %t, %w : !mpgemm.table<2x64, "a8g64", "i16">, !lowbit.tensor<8x64, "nf4"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @too_wide(%t: !mpgemm.table<2x64, "a8g32", "i16">, %w: !lowbit.tensor<8x64, "q8_0">) {
  // expected-error @+1 {{format "q8_0" cannot be looked up}}
  %y = mpgemm.lut_matmul %t, %w : !mpgemm.table<2x64, "a8g32", "i16">, !lowbit.tensor<8x64, "q8_0"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @table_groups(%t: !mpgemm.table<2x128, "a8g64", "i16">, %w: !lowbit.tensor<8x128, "q4_0">) {
  // expected-error @+1 {{the tables' group must divide the weight's (32), got 64}}
  %y = mpgemm.lut_dot_matmul %t, %w : !mpgemm.table<2x128, "a8g64", "i16">, !lowbit.tensor<8x128, "q4_0"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @sparse(%t: !mpgemm.table<2x64, "a8g32", "i16">, %w: !lowbit.tensor<8x64, "u4-8:g=32:s=f16:sparse=2of4">) {
  // expected-error @+1 {{cannot be looked up}}
  %y = mpgemm.lut_matmul %t, %w : !mpgemm.table<2x64, "a8g32", "i16">, !lowbit.tensor<8x64, "u4-8:g=32:s=f16:sparse=2of4"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @no_planes(%x: !lowbit.tensor<2x128, "ab1g64">, %w: !lowbit.tensor<8x128, "nf4">) {
  // expected-error @+1 {{codes of format "nf4" are no integers on a line; use mpgemm.dequant_matmul}}
  %y = mpgemm.bitserial_matmul %x, %w : !lowbit.tensor<2x128, "ab1g64">, !lowbit.tensor<8x128, "nf4"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @not_bipolar(%x: !lowbit.tensor<2x128, "a8g64">, %w: !lowbit.tensor<8x128, "w2g64">) {
  // expected-error @+1 {{the activation must be bipolar, got "a8g64"; accepted: abNgG}}
  %y = mpgemm.bitserial_matmul %x, %w : !lowbit.tensor<2x128, "a8g64">, !lowbit.tensor<8x128, "w2g64"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @planes_of_other_groups(%x: !lowbit.tensor<2x128, "ab1g64">, %w: !lowbit.tensor<8x128, "w2g128">) {
  // expected-error @+1 {{the activation's group must equal the weight's (128)}}
  %y = mpgemm.bitserial_matmul %x, %w : !lowbit.tensor<2x128, "ab1g64">, !lowbit.tensor<8x128, "w2g128"> -> tensor<2x8xf32>
  func.return
}

// -----

func.func @streamed_in_f32(%x: tensor<4x64xf32>, %w: !lowbit.tensor<8x64, "w4g64">) {
  // expected-error @+1 {{unknown precision "f32"; accepted: f16, bf16}}
  %y = mpgemm.stream_matmul %x, %w precision "f32" : tensor<4x64xf32>, !lowbit.tensor<8x64, "w4g64"> -> tensor<4x8xf32>
  func.return
}

// -----

func.func @streamed_to_warpgroups_in_f32(%x: tensor<64x64xf32>, %w: !lowbit.tensor<8x64, "w4g64">) {
  // expected-error @+1 {{unknown precision "f32"; accepted: f16, bf16}}
  %y = mpgemm.stream_warpgroup_matmul %x, %w precision "f32" : tensor<64x64xf32>, !lowbit.tensor<8x64, "w4g64"> -> tensor<64x8xf32>
  func.return
}

// -----

func.func @many_planes(%x: tensor<4x64xf32>, %w: !lowbit.tensor<8x64, "w1", "array">) {
  // expected-error @+1 {{planes must be 1 to 4, got 5}}
  %y = mpgemm.xnor_array_matmul %x, %w planes 5 : tensor<4x64xf32>, !lowbit.tensor<8x64, "w1", "array"> -> tensor<4x8xf32>
  func.return
}

// -----

func.func @streamed_groups(%x: !lowbit.tensor<4x64, "a8g32">, %w: !lowbit.tensor<8x64, "w4g32">) {
  // expected-error @+1 {{the activation must have one scale for each token, got groups of 32}}
  %y = mpgemm.stream_int_matmul %x, %w : !lowbit.tensor<4x64, "a8g32">, !lowbit.tensor<8x64, "w4g32"> -> tensor<4x8xf32>
  func.return
}

// -----

func.func @streamed_nibbles(%x: !lowbit.tensor<4x64, "a4">, %w: !lowbit.tensor<8x64, "w4g32">) {
  // expected-error @+1 {{the activation must be 8-bit integers, got "a4"; accepted: a8}}
  %y = mpgemm.stream_int_matmul %x, %w : !lowbit.tensor<4x64, "a4">, !lowbit.tensor<8x64, "w4g32"> -> tensor<4x8xf32>
  func.return
}

// -----

// expected-error @+1 {{tables of "a8g32" have no entries of "f16"; accepted: "f16" of "f32", "i16" or "i8" of "a8gN"}}
func.func private @half_entries_of_integers(!mpgemm.table<4x64, "a8g32", "f16">)

// -----

func.func @tables_of_other_numbers(%x: tensor<2x64xf32>) {
  // expected-error @+1 {{the tables must be of format "f32" (the activation), got "a8g32"}}
  %t = mpgemm.lut_precompute %x : tensor<2x64xf32> -> !mpgemm.table<2x64, "a8g32", "i16">
  func.return
}

// -----

func.func @half_entries_by_bytes(%x: !mpgemm.table<4x64, "f32", "f16", "symmetric">, %w: !lowbit.tensor<8x64, "w4g64">) {
  // expected-error @+1 {{mpgemm.lut_matmul looks up no entries of "f16"; accepted: i16, i8}}
  %y = mpgemm.lut_matmul %x, %w : !mpgemm.table<4x64, "f32", "f16", "symmetric">, !lowbit.tensor<8x64, "w4g64"> -> tensor<4x8xf32>
  func.return
}

// -----

func.func @streamed_lookups_of_integers(%x: !mpgemm.table<4x64, "a8g32", "i16", "symmetric">, %w: !lowbit.tensor<8x64, "w4g64">) {
  // expected-error @+1 {{mpgemm.stream_lookup_matmul looks up no entries of "i16"; accepted: f16}}
  %y = mpgemm.stream_lookup_matmul %x, %w : !mpgemm.table<4x64, "a8g32", "i16", "symmetric">, !lowbit.tensor<8x64, "w4g64"> -> tensor<4x8xf32>
  func.return
}

// -----

func.func @streamed_lookups_in_whole_tables(%x: !mpgemm.table<4x64, "f32", "f16">, %w: !lowbit.tensor<8x64, "w4g64">) {
  // expected-error @+1 {{the tables must be symmetric}}
  %y = mpgemm.stream_lookup_matmul %x, %w : !mpgemm.table<4x64, "f32", "f16">, !lowbit.tensor<8x64, "w4g64"> -> tensor<4x8xf32>
  func.return
}
