// RUN: nybble-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{words of a stream must be at least 1}}
func.func private @f(!fpga.stream<0x1xsi8, 2>)

// -----

// expected-error @+1 {{elements of a stream are siN, uiN or f32, got i8}}
func.func private @f(!fpga.stream<1x1xi8, 2>)

// -----

// expected-error @+1 {{a stream has two dimensions: words and lanes}}
func.func private @f(!fpga.stream<4xsi8, 2>)

// -----

// expected-error @+1 {{a memory has two dimensions: words and bits of a word}}
func.func private @f(!fpga.memory<4>)

// -----

// expected-error @+1 {{a memory must hold at least 1 word}}
func.func private @f(!fpga.memory<0x8>)

// -----

// expected-error @+1 {{words of memory have 8 to 1024 bits, a power of two, got 24}}
func.func private @f(!fpga.memory<4x24>)

// -----

// expected-error @+1 {{wide of a tiling must be at least 1}}
func.func private @f() attributes {a = #fpga.tiling<tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 0>}

// -----

// expected-error @+1 {{a group of 24 columns does not divide 64}}
func.func private @f() attributes {a = #fpga.tiling<tokens = 1, rows = 8, cols = 64, group = 24, lanes = 4, width = 5, high = 8, wide = 1>}

// -----

// expected-error @+1 {{a digit has 2 to 32 kinds, got 1}}
func.func private @f() attributes {a = #fpga.lookup<digits = [1], planes = 1, step = 1, first = 0>}

// -----

// expected-error @+1 {{2 planes of digits of 3 kinds; accepted: planes of bits, or one plane of other digits}}
func.func private @f() attributes {a = #fpga.lookup<digits = [-1, 0, 1], planes = 2, step = 1, first = 0>}

// -----

// expected-error @+1 {{codes have 2 to 256 values, got 1}}
func.func private @f() attributes {a = #fpga.multiply<values = [1]>}

// -----

// expected-error @+1 {{values are up to 128, got 129}}
func.func private @f() attributes {a = #fpga.multiply<values = [1, 129]>}

// -----

// expected-error @+1 {{5 of 4 columns; accepted: some of 2 to 64}}
func.func private @f() attributes {a = #fpga.sparse<values = [0, 1], keep = 5, of = 4, block = 1>}

// -----

// expected-error @+1 {{a block has at least 1 row, got 0}}
func.func private @f() attributes {a = #fpga.sparse<values = [0, 1], keep = 2, of = 4, block = 0>}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<3x512>):
  // expected-error @+1 {{the memory of activations must be !fpga.memory<4x512>, got !fpga.memory<3x512>}}
  %c, %s = fpga.quantize %x tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> : !fpga.memory<3x512> -> !fpga.stream<80x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x512>):
  // expected-error @+1 {{result stream 0 must be !fpga.stream<80x1xsi8, 2>, got !fpga.stream<80x2xsi8, 4>}}
  %c, %s = fpga.quantize %x tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> : !fpga.memory<4x512> -> !fpga.stream<80x2xsi8, 4>, !fpga.stream<1x1xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x512>):
  // expected-error @+1 {{a process that reads needs a memory}}
  %c = fpga.read repeat 1 : -> !fpga.stream<4x8xsi8, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>, %w: !fpga.memory<4x32>):
  // expected-error @+1 {{memories of one stream must be !fpga.memory<4x64>, got !fpga.memory<4x32>}}
  %c = fpga.read %x, %w repeat 1 : !fpga.memory<4x64>, !fpga.memory<4x32> -> !fpga.stream<4x8xsi8, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  // expected-error @+1 {{128 bits of a stream's word do not fit !fpga.memory<4x64>}}
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x16xsi8, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>, %y: !fpga.memory<4x32>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{64 bits of a word do not fit !fpga.memory<4x32>}}
  fpga.write %c, %y : !fpga.stream<4x2xf32, 2>, !fpga.memory<4x32>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>, %y: !fpga.memory<3x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{operand stream 0 must be !fpga.stream<3x2xf32, 2>, got !fpga.stream<4x2xf32, 2>}}
  fpga.write %c, %y : !fpga.stream<4x2xf32, 2>, !fpga.memory<3x64>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x512>):
  %c, %s = fpga.quantize %x tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> : !fpga.memory<4x512> -> !fpga.stream<80x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
  // expected-error @+1 {{3 tables at once; accepted: a divisor of 4 lanes up to 6}}
  %t = fpga.build_tables %c ways 3 tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> element <digits = [-1, 1], planes = 1, step = 1, first = 0> : !fpga.stream<80x1xsi8, 2> -> !fpga.stream<512x1xsi11, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x512>, %w: !fpga.memory<8x64>):
  %c, %s = fpga.quantize %x tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 2, high = 8, wide = 1> : !fpga.memory<4x512> -> !fpga.stream<64x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
  %v = fpga.read %w repeat 1 : !fpga.memory<8x64> -> !fpga.stream<8x32xui1, 2>
  // expected-error @+1 {{elements of 1 columns in a tiling of 2}}
  %d = fpga.array %c, %v tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 2, high = 8, wide = 1> element #fpga.multiply<values = [-1, 1]> : !fpga.stream<64x1xsi8, 2>, !fpga.stream<8x32xui1, 2> -> !fpga.stream<2x8xsi13, 2>
}

// -----

// expected-error @+1 {{3 values in 2 tables; accepted: 1, 2 or 4 tables of as many values each}}
func.func private @f() attributes {a = #fpga.serial<values = [1, 2, 3], choices = 2>}

// -----

fpga.kernel "k" on "u280" {
^bb0(%d: !fpga.memory<2x16>, %c: !fpga.memory<2x8>):
  %dots = fpga.read %d repeat 1 : !fpga.memory<2x16> -> !fpga.stream<2x1xsi13, 2>
  %codes = fpga.read %c repeat 1 : !fpga.memory<2x8> -> !fpga.stream<2x1xui4, 2>
  // expected-error @+1 {{3 of 2 groups share a float}}
  %sums = fpga.scale_groups %dots, %codes count 3 code ui4 tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> element #fpga.serial<values = [-1, 1], choices = 1> : !fpga.stream<2x1xsi13, 2>, !fpga.stream<2x1xui4, 2> -> !fpga.stream<1x1xsi19, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%d: !fpga.memory<2x16>, %c: !fpga.memory<2x32>):
  %dots = fpga.read %d repeat 1 : !fpga.memory<2x16> -> !fpga.stream<2x1xsi13, 2>
  %codes = fpga.read %c repeat 1 : !fpga.memory<2x32> -> !fpga.stream<2x1xui20, 2>
  // expected-error @+1 {{sums of 34 bits; accepted: up to 32}}
  %sums = fpga.scale_groups %dots, %codes count 2 code ui20 tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> element #fpga.serial<values = [-1, 1], choices = 1> : !fpga.stream<2x1xsi13, 2>, !fpga.stream<2x1xui20, 2> -> !fpga.stream<1x1xsi34, 2>
}

// -----

// expected-error @+1 {{taken of 5; accepted: 1 to 4}}
func.func private @f() attributes {a = #fpga.xnor<planes = 1, taken = 5>}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x512>):
  // expected-error @+1 {{totals of bipolar integers}}
  %c, %s, %t = fpga.quantize %x planes 1 tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> : !fpga.memory<4x512> -> !fpga.stream<64x1xui1, 2>, !fpga.stream<1x1xf32, 2> totals !fpga.stream<2x1xsi13, 16>
}

// -----

// expected-error @+1 {{argument 0 must be a memory, got f32}}
fpga.kernel "k" on "u280" {
^bb0(%x: f32):
  "test.op"(%x) : (f32) -> ()
}

// -----

// expected-error @+1 {{memory 0 must be used by one process, got 0}}
fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):

}

// -----

// expected-error @+1 {{stream 0 of 'fpga.read' must be used by one process, got 0}}
fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
}

// -----

// expected-error @+1 {{'test.op' is no process}}
fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  "test.op"(%x) : (!fpga.memory<4x64>) -> ()
}
