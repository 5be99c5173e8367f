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
  // expected-error @+1 {{the activation's group must equal the weight's (32), got 64}}
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
  // expected-error @+1 {{the activation's group must equal the weight's (128), got 64}}
  %y = mpgemm.bitserial_matmul %x, %w : !lowbit.tensor<2x128, "ab1g64">, !lowbit.tensor<8x128, "w2g128"> -> tensor<2x8xf32>
  func.return
}
