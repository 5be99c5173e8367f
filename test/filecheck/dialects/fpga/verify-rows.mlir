// RUN: nybble-opt %s --split-input-file --verify-diagnostics

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{a fork has at least 2 results, got 1}}
  %a = fpga.fork %c : !fpga.stream<4x2xf32, 2> -> !fpga.stream<4x2xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0():
  // expected-error @+1 {{a map needs an input}}
  %a = fpga.map() : () -> !fpga.stream<4x2xf32, 2> {
  ^bb0:
    %0 = arith.constant 1.000000e+00 : f32
    fpga.yield %0 : f32
  }
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>, %y: !fpga.memory<3x32>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  %d = fpga.read %y repeat 1 : !fpga.memory<3x32> -> !fpga.stream<3x1xf32, 2>
  // expected-error @+1 {{input 1, !fpga.stream<3x1xf32, 2>, does not go with !fpga.stream<4x2xf32, 2>}}
  %a = fpga.map(%c, %d) : (!fpga.stream<4x2xf32, 2>, !fpga.stream<3x1xf32, 2>) -> !fpga.stream<4x2xf32, 2> {
  ^bb0(%0: f32, %1: f32):
    fpga.yield %0 : f32
  }
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{a map's region takes an f32 of each input}}
  %a = fpga.map(%c) : (!fpga.stream<4x2xf32, 2>) -> !fpga.stream<4x2xf32, 2> {
  ^bb0(%0: f32, %1: f32):
    fpga.yield %0 : f32
  }
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{'math.sin' is no operation of a map; accepted: arith.addf, arith.constant, arith.divf, arith.mulf, arith.negf, arith.subf, math.exp, math.sqrt}}
  %a = fpga.map(%c) : (!fpga.stream<4x2xf32, 2>) -> !fpga.stream<4x2xf32, 2> {
  ^bb0(%0: f32):
    %1 = math.sin %0 : f32
    fpga.yield %1 : f32
  }
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{a map's region must yield one f32}}
  %a = fpga.map(%c) : (!fpga.stream<4x2xf32, 2>) -> !fpga.stream<4x2xf32, 2> {
  ^bb0(%0: f32):
    fpga.yield %0, %0 : f32, f32
  }
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{unknown fold "min"; accepted: sum, max}}
  %a = fpga.fold "min" %c run 4 : !fpga.stream<4x2xf32, 2> -> !fpga.stream<1x1xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{4 words are no whole runs of 3}}
  %a = fpga.fold "sum" %c run 3 : !fpga.stream<4x2xf32, 2> -> !fpga.stream<1x1xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x128>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x128> -> !fpga.stream<4x3xf32, 2>
  // expected-error @+1 {{lanes of a fold are a power of two, got 3}}
  %a = fpga.fold "sum" %c run 4 : !fpga.stream<4x3xf32, 2> -> !fpga.stream<1x1xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{4 words are no whole even runs of 1}}
  %a = fpga.swap %c run 1 : !fpga.stream<4x2xf32, 2> -> !fpga.stream<4x2xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{operand stream 0 must be !fpga.stream<5x2xf32, 2>, got !fpga.stream<4x2xf32, 2>}}
  %a = fpga.regroup %c columns 9 : !fpga.stream<4x2xf32, 2> -> !fpga.stream<9x1xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<4x64>):
  %c = fpga.read %x repeat 1 : !fpga.memory<4x64> -> !fpga.stream<4x2xf32, 2>
  // expected-error @+1 {{words of 2 do not divide 9 columns}}
  %a, %s = fpga.quantize %c tiling <tokens = 1, rows = 8, cols = 9, group = 9, lanes = 4, width = 5, high = 8, wide = 1> : !fpga.stream<4x2xf32, 2> -> !fpga.stream<20x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
}

// -----

// expected-error @+1 {{group of an attention must be at least 1}}
func.func private @f() attributes {a = #fpga.heads<heads = 1, group = 0, context = 1, run = 1, lanes = 1, seen = 1, sink = 0>}

// -----

// expected-error @+1 {{lanes are a power of two, got 3}}
func.func private @f() attributes {a = #fpga.heads<heads = 1, group = 1, context = 1, run = 1, lanes = 3, seen = 1, sink = 0>}

// -----

// expected-error @+1 {{6 tokens are seen, the first 2 among them, in a context of 5}}
func.func private @f() attributes {a = #fpga.heads<heads = 1, group = 1, context = 5, run = 1, lanes = 1, seen = 6, sink = 2>}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<1x32>, %y: !fpga.memory<4x64>):
  %p = fpga.read %x repeat 1 : !fpga.memory<1x32> -> !fpga.stream<1x1xui32, 2>
  // expected-error @+1 {{3 rows of 2 words are not in !fpga.memory<4x64>}}
  %a = fpga.read_at %y at %p row 2 count 3 repeat 1 : !fpga.memory<4x64>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<6x2xf32, 2>
}

// -----

fpga.kernel "k" on "u280" {
^bb0(%x: !fpga.memory<1x32>, %y: !fpga.memory<4x64>):
  %p = fpga.read %x repeat 1 : !fpga.memory<1x32> -> !fpga.stream<1x1xui32, 2>
  // expected-error @+1 {{the cache must be !fpga.memory<10x32> or !fpga.memory<10x64>, got !fpga.memory<4x64>}}
  %a = fpga.read_cache %y at %p heads <heads = 1, group = 1, context = 5, run = 2, lanes = 2, seen = 5, sink = 0> : !fpga.memory<4x64>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<10x2xf32, 2>
}
