// RUN: nybble-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{a sparse tensor has two dimensions, got 1}}
func.func private @rank(!spgemm.tensor<8, f32, "csr", i32>)

// -----

// expected-error @+1 {{indices must be i32 or i64, got i16}}
func.func private @index(!spgemm.tensor<8x8, f32, "csr", i16>)

// -----

// expected-error @+1 {{unknown element i4; accepted: f64, f32}}
func.func private @element(!spgemm.tensor<8x8, i4, "csr", i32>)

// -----

// expected-error @+1 {{unknown layout 'ell'}}
func.func private @layout(!spgemm.tensor<8x8, f32, "ell", i32>)

// -----

// expected-error @+1 {{9 rows in bcsr(4x8)}}
func.func private @blocks(!spgemm.tensor<9x8, f32, "bcsr(4x8)", i32>)

// -----

// expected-error @+1 {{6 columns in nm(2:4)}}
func.func private @groups(!spgemm.tensor<9x6, f32, "nm(2:4)", i32>)

// -----

// expected-error @+1 {{layout 'nm(4:2)'}}
func.func private @parameters(!spgemm.tensor<8x8, f32, "nm(4:2)", i32>)

// -----

// expected-error @+1 {{layout 'bcsr'}}
func.func private @no_parameters(!spgemm.tensor<8x8, f32, "bcsr", i32>)

// -----

func.func @depth(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<8x4, f32, "csr", i32>) {
  // expected-error @+1 {{rows of the right operand must be 16 (columns of the left), got 8}}
  %r = spgemm.matmul %a, %b : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<8x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @result_rows(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f32, "csr", i32>) {
  // expected-error @+1 {{rows of the result must be 8 (rows of the left operand), got 16}}
  %r = spgemm.matmul %a, %b : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f32, "csr", i32> -> !spgemm.tensor<16x4, f32, "csr", i32>
  func.return
}

// -----

func.func @result_columns(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f32, "csr", i32>) {
  // expected-error @+1 {{columns of the result must be 4 (columns of the right operand), got 16}}
  %r = spgemm.matmul %a, %b : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f32, "csr", i32> -> !spgemm.tensor<8x16, f32, "csr", i32>
  func.return
}

// -----

func.func @complement(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f32, "csr", i32>) {
  // expected-error @+1 {{complement needs a mask}}
  %r = spgemm.matmul %a, %b complement : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @mask(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f32, "csr", i32>) {
  // expected-error @+1 {{rows of the mask must be 8 (those of the result), got 16}}
  %r = spgemm.matmul %a, %b mask %b : !spgemm.tensor<16x4, f32, "csr", i32> : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @semiring(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f32, "csr", i32>) {
  // expected-error @+1 {{unknown semiring "max_times"; accepted: plus_times, or_and, min_plus}}
  %r = spgemm.matmul %a, %b semiring "max_times" : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @semiring_type(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f32, "csr", i32>) {
  // expected-error @+1 {{or_and of f32; accepted: i8}}
  %r = spgemm.matmul %a, %b semiring "or_and" : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @mixed(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f64, "csr", i32>) {
  // expected-error @+1 {{operands must have one element type, got f32 and f64}}
  %r = spgemm.matmul %a, %b : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f64, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @sums(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %b: !spgemm.tensor<16x4, f32, "csr", i32>) {
  // expected-error @+1 {{elements of the result must be f32, got f16}}
  %r = spgemm.matmul %a, %b : !spgemm.tensor<8x16, f32, "csr", i32>, !spgemm.tensor<16x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f16, "csr", i32>
  func.return
}

// -----

func.func @dense_rank(%a: !spgemm.tensor<8x16, f32, "csr", i32>, %x: tensor<16xf32>) {
  // expected-error @+1 {{a dense operand must have 2 dimensions, got 1}}
  %r = spgemm.spmm %a, %x : !spgemm.tensor<8x16, f32, "csr", i32>, tensor<16xf32> -> tensor<8x1xf32>
  func.return
}

// -----

func.func @sddmm_depth(%x: tensor<8x3xf32>, %y: tensor<4x2xf32>, %m: !spgemm.tensor<8x4, f32, "csr", i32>) {
  // expected-error @+1 {{columns of the right operand must be 3 (columns of the left), got 2}}
  %r = spgemm.sddmm %x, %y at %m : tensor<8x3xf32>, tensor<4x2xf32> at !spgemm.tensor<8x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @sddmm_mask(%x: tensor<8x3xf32>, %y: tensor<5x3xf32>, %m: !spgemm.tensor<8x4, f32, "csr", i32>) {
  // expected-error @+1 {{columns of the mask must be 5 (rows of the right operand), got 4}}
  %r = spgemm.sddmm %x, %y at %m : tensor<8x3xf32>, tensor<5x3xf32> at !spgemm.tensor<8x4, f32, "csr", i32> -> !spgemm.tensor<8x4, f32, "csr", i32>
  func.return
}

// -----

func.func @softmax(%s: !spgemm.tensor<8x4, f16, "csr", i32>) {
  // expected-error @+1 {{softmax of f16; accepted: f32, f64}}
  %r = spgemm.softmax %s scale 1.0 : !spgemm.tensor<8x4, f16, "csr", i32>
  func.return
}

// -----

func.func @convert_shape(%s: !spgemm.tensor<8x16, f32, "csr", i32>) {
  // expected-error @+1 {{rows of the result must be 8 (those of the source), got 16}}
  %r = spgemm.convert %s : !spgemm.tensor<8x16, f32, "csr", i32> -> !spgemm.tensor<16x4, f32, "csr", i32>
  func.return
}

// -----

func.func @convert_type(%s: !spgemm.tensor<8x16, f32, "csr", i32>) {
  // expected-error @+1 {{elements of the result must be f32, got f64}}
  %r = spgemm.convert %s : !spgemm.tensor<8x16, f32, "csr", i32> -> tensor<8x16xf64>
  func.return
}

// -----

!m = !spgemm.tensor<?x?, f64, "csr", i32>
func.func @admitted_for_nothing(%a: !m, %b: !m) {
  %c = spgemm.window %a, %b : !m, !m -> !m {
  ^bb0(%w: !spgemm.part):
    spgemm.token %w "token" {
    ^bb1(%row: i64):
      %xs = spgemm.row %a, %row : !m -> !spgemm.entries<!m>
      // expected-error @+1 {{what is admitted must be written back}}
      spgemm.admit %w, %row, %xs : !spgemm.entries<!m> {
        %ys = spgemm.row %a, %row : !m -> !spgemm.entries<!m>
      }
      spgemm.writeback %w "fragments"
    }
  } bits 6
  func.return
}

// -----

!m = !spgemm.tensor<?x?, f64, "csr", i32>
func.func @written_too_soon(%a: !m, %b: !m) {
  %c = spgemm.window %a, %b : !m, !m -> !m {
  ^bb0(%w: !spgemm.part):
    spgemm.token %w "token" {
    ^bb1(%row: i64):
      // expected-error @+1 {{"table" is written at the end of spgemm.window, not of spgemm.token}}
      spgemm.writeback %w "table"
    }
  } bits 6
  func.return
}
