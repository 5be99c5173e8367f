// RUN: nybble-opt %s -p 'select-dataflow{target=fpga activations=i8-token reasons=false},assign-layout,fuse-kernels{target=fpga isa=kv260},schedule-kernels{target=fpga},lower-kernels-to-fpga{isa=kv260}' | filecheck %s

// A format that can be looked up is; another is multiplied, or chosen where it is sparse.
// CHECK-LABEL: fpga.kernel "looked_up_0" on "kv260"
// CHECK: fpga.build_tables
// CHECK: fpga.array {{.*}} element #fpga.lookup<digits = [-1, 1], planes = 1, step = 1, first = 0>
func.func @looked_up(%x: tensor<1x4096xf32>, %w: !lowbit.tensor<4096x4096, "w1">) -> tensor<1x4096xf32> {
  %y = mpgemm.matmul %x, %w : tensor<1x4096xf32>, !lowbit.tensor<4096x4096, "w1"> -> tensor<1x4096xf32>
  func.return %y : tensor<1x4096xf32>
}

// CHECK-LABEL: fpga.kernel "multiplied_0" on "kv260"
// CHECK-NOT: fpga.build_tables
// CHECK: fpga.array {{.*}} element #fpga.multiply<values = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1
func.func @multiplied(%x: tensor<2x64xf32>, %w: !lowbit.tensor<5x64, "fp4">) -> tensor<2x5xf32> {
  %y = mpgemm.matmul %x, %w : tensor<2x64xf32>, !lowbit.tensor<5x64, "fp4"> -> tensor<2x5xf32>
  func.return %y : tensor<2x5xf32>
}

// CHECK-LABEL: fpga.kernel "chosen_0" on "kv260"
// CHECK: fpga.array {{.*}} indices {{.*}} element #fpga.sparse<values = [-8, {{.*}} 7], keep = 2, of = 4, block = 1>
func.func @chosen(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "i4:g=32:s=f32:sparse=2of4">) -> tensor<1x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "i4:g=32:s=f32:sparse=2of4"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// Groups that choose a table are multiplied term by term, and their integer scales bit by bit.
// CHECK-LABEL: fpga.kernel "serial_0" on "kv260"
// CHECK: fpga.array {{.*}} element #fpga.serial<values = [0, 1, 2, 3, 4, 6, 8, 12, 10, -1, {{.*}}], choices = 2>
// CHECK: fpga.scale_groups {{.*}} count 2 code ui8
// CHECK: fpga.rescale {{.*}} bits {{[0-9]+}}
func.func @serial(%x: tensor<1x512xf32>, %w: !lowbit.tensor<8x512, "bitmod4[5.0,8.0]:g=128x2:s=u8*f16">) -> tensor<1x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<1x512xf32>, !lowbit.tensor<8x512, "bitmod4[5.0,8.0]:g=128x2:s=u8*f16"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}

// CHECK-LABEL: fpga.kernel "zeros_0" on "kv260"
// CHECK: fpga.quantize {{.*}} totals
// CHECK: fpga.rescale {{.*}} totals %totals {{.*}} bias %bias
func.func @zeros(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "q4_1">, %b: tensor<8xf32>) -> tensor<1x8xf32> {
  %y = mpgemm.matmul %x, %w bias %b : tensor<8xf32> : tensor<1x64xf32>, !lowbit.tensor<8x64, "q4_1"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}
