// RUN: nybble-opt %s | nybble-opt | filecheck %s

// CHECK-LABEL: fpga.kernel "looked_up" on "u280"
fpga.kernel "looked_up" on "u280" {
^bb0(%x: !fpga.memory<4x512>, %w: !fpga.memory<4x512>, %s: !fpga.memory<2x256>, %y: !fpga.memory<1x256>):
  // CHECK: fpga.quantize %x tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1>
  %columns, %scales = fpga.quantize %x tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> : !fpga.memory<4x512> -> !fpga.stream<80x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
  // CHECK-NEXT: fpga.read %w repeat 1 : !fpga.memory<4x512> -> !fpga.stream<4x64xui5, 32>
  %weights = fpga.read %w repeat 1 : !fpga.memory<4x512> -> !fpga.stream<4x64xui5, 32>
  %factors = fpga.read %s repeat 1 : !fpga.memory<2x256> -> !fpga.stream<2x8xf32, 2>
  // CHECK: fpga.build_tables %columns ways 4
  // CHECK-SAME: element <digits = [0, 1], planes = 2, step = 1, first = -2>
  // CHECK-SAME: sums !fpga.stream<4x1xsi13, 2>
  %tables, %sums = fpga.build_tables %columns ways 4 tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> element <digits = [0, 1], planes = 2, step = 1, first = -2> : !fpga.stream<80x1xsi8, 2> -> !fpga.stream<128x4xsi11, 2> sums !fpga.stream<4x1xsi13, 2>
  // CHECK: fpga.array %tables, %weights sums %sums
  %dots = fpga.array %tables, %weights sums %sums : !fpga.stream<4x1xsi13, 2> tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> element #fpga.lookup<digits = [0, 1], planes = 2, step = 1, first = -2> : !fpga.stream<128x4xsi11, 2>, !fpga.stream<4x64xui5, 32> -> !fpga.stream<2x8xsi14, 2>
  // CHECK: fpga.rescale %dots, %factors, %scales
  %results = fpga.rescale %dots, %factors, %scales tiling <tokens = 1, rows = 8, cols = 64, group = 32, lanes = 4, width = 5, high = 8, wide = 1> bits 14 : !fpga.stream<2x8xsi14, 2>, !fpga.stream<2x8xf32, 2>, !fpga.stream<1x1xf32, 2> -> !fpga.stream<1x8xf32, 2>
  // CHECK: fpga.write %results, %y : !fpga.stream<1x8xf32, 2>, !fpga.memory<1x256>
  fpga.write %results, %y : !fpga.stream<1x8xf32, 2>, !fpga.memory<1x256>
}

// CHECK-LABEL: fpga.kernel "serial" on "u280"
fpga.kernel "serial" on "u280" {
^bb0(%x: !fpga.memory<4x512>, %w: !fpga.memory<16x32>, %i: !fpga.memory<16x8>, %c: !fpga.memory<2x8>, %s: !fpga.memory<1x32>, %b: !fpga.memory<1x32>, %y: !fpga.memory<1x32>):
  // CHECK: fpga.quantize {{.*}} -> !fpga.stream<64x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
  %columns, %scales = fpga.quantize %x tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> : !fpga.memory<4x512> -> !fpga.stream<64x1xsi8, 2>, !fpga.stream<1x1xf32, 2>
  %weights = fpga.read %w repeat 1 : !fpga.memory<16x32> -> !fpga.stream<16x4xui1, 32>
  %indices = fpga.read %i repeat 1 : !fpga.memory<16x8> -> !fpga.stream<16x1xui1, 32>
  %codes = fpga.read %c repeat 1 : !fpga.memory<2x8> -> !fpga.stream<2x1xui4, 2>
  %factors = fpga.read %s repeat 1 : !fpga.memory<1x32> -> !fpga.stream<1x1xf32, 2>
  %bias = fpga.read %b repeat 1 : !fpga.memory<1x32> -> !fpga.stream<1x1xf32, 2>
  // CHECK: fpga.array %columns, %weights indices %indices : {{.*}} element #fpga.serial<values = [1, 2, 1, -3], choices = 2>
  %dots = fpga.array %columns, %weights indices %indices : !fpga.stream<16x1xui1, 32> tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> element #fpga.serial<values = [1, 2, 1, -3], choices = 2> : !fpga.stream<64x1xsi8, 2>, !fpga.stream<16x4xui1, 32> -> !fpga.stream<2x1xsi15, 2>
  // CHECK: fpga.scale_groups %dots, %codes count 2 code ui4 tiling
  %sums = fpga.scale_groups %dots, %codes count 2 code ui4 tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> element #fpga.serial<values = [1, 2, 1, -3], choices = 2> : !fpga.stream<2x1xsi15, 2>, !fpga.stream<2x1xui4, 2> -> !fpga.stream<1x1xsi20, 2>
  // CHECK: fpga.rescale %sums, %factors, %scales bias %bias : !fpga.stream<1x1xf32, 2> tiling {{.*}} bits 20
  %results = fpga.rescale %sums, %factors, %scales bias %bias : !fpga.stream<1x1xf32, 2> tiling <tokens = 1, rows = 1, cols = 64, group = 64, lanes = 4, width = 1, high = 1, wide = 1> bits 20 : !fpga.stream<1x1xsi20, 2>, !fpga.stream<1x1xf32, 2>, !fpga.stream<1x1xf32, 2> -> !fpga.stream<1x1xf32, 2>
  fpga.write %results, %y : !fpga.stream<1x1xf32, 2>, !fpga.memory<1x32>
}

// CHECK-LABEL: fpga.kernel "zeros" on "u280"
fpga.kernel "zeros" on "u280" {
^bb0(%x: !fpga.memory<4x512>, %w: !fpga.memory<16x8>, %s: !fpga.memory<2x64>, %y: !fpga.memory<1x32>):
  // CHECK: fpga.quantize {{.*}} totals !fpga.stream<2x1xsi13, 16>
  %columns, %scales, %totals = fpga.quantize %x tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> : !fpga.memory<4x512> -> !fpga.stream<64x1xsi8, 2>, !fpga.stream<1x1xf32, 2> totals !fpga.stream<2x1xsi13, 16>
  %weights = fpga.read %w repeat 1 : !fpga.memory<16x8> -> !fpga.stream<16x4xui1, 32>
  %dots = fpga.array %columns, %weights tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> element #fpga.multiply<values = [-1, 1]> : !fpga.stream<64x1xsi8, 2>, !fpga.stream<16x4xui1, 32> -> !fpga.stream<2x1xsi13, 2>
  %factors = fpga.read %s repeat 1 : !fpga.memory<2x64> -> !fpga.stream<2x2xf32, 2>
  // CHECK: fpga.rescale %dots, %factors, %scales totals %totals : !fpga.stream<2x1xsi13, 16> tiling
  %results = fpga.rescale %dots, %factors, %scales totals %totals : !fpga.stream<2x1xsi13, 16> tiling <tokens = 1, rows = 1, cols = 64, group = 32, lanes = 4, width = 1, high = 1, wide = 1> bits 13 : !fpga.stream<2x1xsi13, 2>, !fpga.stream<2x2xf32, 2>, !fpga.stream<1x1xf32, 2> -> !fpga.stream<1x1xf32, 2>
  fpga.write %results, %y : !fpga.stream<1x1xf32, 2>, !fpga.memory<1x32>
}

// CHECK: #fpga.multiply<values = [-2, -1, 0, 1]>
// CHECK: #fpga.sparse<values = [-1, 0, 1, 2], keep = 2, of = 4, block = 1>
"test.op"() {
  a = #fpga.multiply<values = [-2, -1, 0, 1]>,
  b = #fpga.sparse<values = [-1, 0, 1, 2], keep = 2, of = 4, block = 1>
} : () -> ()

// CHECK-LABEL: fpga.kernel "rows" on "u280"
fpga.kernel "rows" on "u280" {
^bb0(%x: !fpga.memory<8x64>, %y: !fpga.memory<16x32>):
  %0 = fpga.read %x repeat 1 : !fpga.memory<8x64> -> !fpga.stream<8x2xf32, 2>
  // CHECK: fpga.fork %{{.*}} : !fpga.stream<8x2xf32, 2> -> !fpga.stream<8x2xf32, 6>, !fpga.stream<8x2xf32, 2>
  %1, %2 = fpga.fork %0 : !fpga.stream<8x2xf32, 2> -> !fpga.stream<8x2xf32, 6>, !fpga.stream<8x2xf32, 2>
  // CHECK-NEXT: fpga.fold "max" %{{.*}} run 4 : !fpga.stream<8x2xf32, 2> -> !fpga.stream<2x1xf32, 2>
  %3 = fpga.fold "max" %2 run 4 : !fpga.stream<8x2xf32, 2> -> !fpga.stream<2x1xf32, 2>
  // CHECK-NEXT: fpga.map(%{{.*}}, %{{.*}}) : (!fpga.stream<8x2xf32, 6>, !fpga.stream<2x1xf32, 2>) -> !fpga.stream<8x2xf32, 2> {
  %4 = fpga.map(%1, %3) : (!fpga.stream<8x2xf32, 6>, !fpga.stream<2x1xf32, 2>) -> !fpga.stream<8x2xf32, 2> {
  ^bb0(%a: f32, %m: f32):
    %5 = arith.subf %a, %m : f32
    // CHECK: math.exp
    %6 = math.exp %5 : f32
    // CHECK-NEXT: fpga.yield
    fpga.yield %6 : f32
  }
  // CHECK: fpga.swap %{{.*}} run 4 : !fpga.stream<8x2xf32, 2> -> !fpga.stream<8x2xf32, 2>
  %7 = fpga.swap %4 run 4 : !fpga.stream<8x2xf32, 2> -> !fpga.stream<8x2xf32, 2>
  // CHECK-NEXT: fpga.regroup %{{.*}} columns 16 : !fpga.stream<8x2xf32, 2> -> !fpga.stream<16x1xf32, 2>
  %8 = fpga.regroup %7 columns 16 : !fpga.stream<8x2xf32, 2> -> !fpga.stream<16x1xf32, 2>
  fpga.write %8, %y : !fpga.stream<16x1xf32, 2>, !fpga.memory<16x32>
}

// CHECK-LABEL: fpga.kernel "attends" on "u280"
fpga.kernel "attends" on "u280" {
^bb0(%p: !fpga.memory<1x32>, %x: !fpga.memory<4x64>, %row: !fpga.memory<2x64>, %more: !fpga.memory<2x64>, %k: !fpga.memory<10x32>, %v: !fpga.memory<10x64>, %c: !fpga.memory<10x32>, %y: !fpga.memory<4x64>):
  %0 = fpga.read %p repeat 1 : !fpga.memory<1x32> -> !fpga.stream<1x1xui32, 2>
  %1, %2, %3, %4, %5, %6, %7 = fpga.fork %0 : !fpga.stream<1x1xui32, 2> -> !fpga.stream<1x1xui32, 2>, !fpga.stream<1x1xui32, 2>, !fpga.stream<1x1xui32, 2>, !fpga.stream<1x1xui32, 2>, !fpga.stream<1x1xui32, 2>, !fpga.stream<1x1xui32, 2>, !fpga.stream<1x1xui32, 2>
  // CHECK: fpga.read_at %{{.*}} at %{{.*}} row 2 count 1 repeat 2 : !fpga.memory<4x64>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<4x2xf32, 2>
  %q = fpga.read_at %x at %7 row 2 count 1 repeat 2 : !fpga.memory<4x64>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<4x2xf32, 2>
  %r = fpga.read %row repeat 1 : !fpga.memory<2x64> -> !fpga.stream<2x2xf32, 2>
  %s = fpga.read %more repeat 1 : !fpga.memory<2x64> -> !fpga.stream<2x2xf32, 2>
  // CHECK: fpga.read_cache %{{.*}} at %{{.*}} appends %{{.*}} : !fpga.stream<2x2xf32, 2> heads <heads = 1, group = 2, context = 5, run = 2, lanes = 2, seen = 5, sink = 0>
  %keys = fpga.read_cache %k at %1 appends %r : !fpga.stream<2x2xf32, 2> heads <heads = 1, group = 2, context = 5, run = 2, lanes = 2, seen = 5, sink = 0> : !fpga.memory<10x32>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<10x2xf32, 2>
  %values = fpga.read_cache %v at %2 heads <heads = 1, group = 2, context = 5, run = 2, lanes = 2, seen = 5, sink = 0> : !fpga.memory<10x64>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<10x2xf32, 2>
  // CHECK: fpga.append_cache
  fpga.append_cache %s, %c at %6 heads <heads = 1, group = 2, context = 5, run = 2, lanes = 2, seen = 5, sink = 0> : !fpga.stream<2x2xf32, 2>, !fpga.memory<10x32>, !fpga.stream<1x1xui32, 2>
  // CHECK-NEXT: fpga.scores
  %d = fpga.scores %q, %keys at %3 scale 2.500000e-01 heads <heads = 1, group = 2, context = 5, run = 2, lanes = 2, seen = 5, sink = 0> : !fpga.stream<4x2xf32, 2>, !fpga.stream<10x2xf32, 2>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<5x2xf32, 2>
  // CHECK-NEXT: fpga.weigh
  %w, %f = fpga.weigh %d at %4 heads <heads = 1, group = 2, context = 5, run = 2, lanes = 2, seen = 5, sink = 0> : !fpga.stream<5x2xf32, 2>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<5x4xf32, 2>, !fpga.stream<8x2xf32, 2>
  // CHECK-NEXT: fpga.accumulate
  %o = fpga.accumulate %values by %w, %f at %5 heads <heads = 1, group = 2, context = 5, run = 2, lanes = 2, seen = 5, sink = 0> : !fpga.stream<10x2xf32, 2>, !fpga.stream<5x4xf32, 2>, !fpga.stream<8x2xf32, 2>, !fpga.stream<1x1xui32, 2> -> !fpga.stream<4x2xf32, 2>
  fpga.write %o, %y : !fpga.stream<4x2xf32, 2>, !fpga.memory<4x64>
}
