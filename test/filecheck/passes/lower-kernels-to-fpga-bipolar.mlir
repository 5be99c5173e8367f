// RUN: nybble-opt %s -p 'select-dataflow{target=fpga activations=b2-token reasons=false},assign-layout,fuse-kernels{target=fpga isa=kv260},schedule-kernels{target=fpga},lower-kernels-to-fpga{isa=kv260}' | filecheck %s

// Both sides are rounded to bipolar integers, of which bits are compared.
// CHECK-LABEL: fpga.kernel "bits_0" on "kv260"
// CHECK: fpga.quantize %x planes 2 {{.*}}xui2,
// CHECK: fpga.array {{.*}} element #fpga.xnor<planes = 1, taken = 2>
func.func @bits(%x: tensor<1x64xf32>, %w: !lowbit.tensor<8x64, "w1">) -> tensor<1x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<1x64xf32>, !lowbit.tensor<8x64, "w1"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}
