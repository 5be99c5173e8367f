// RUN: not nybble-opt %s -p 'select-dataflow{target=cuda activations=f16}' 2>&1 | filecheck %s
// RUN: not nybble-opt %s -p 'select-dataflow{target=cuda isa=sm_70 activations=f16}' 2>&1 | filecheck %s --check-prefix=LEVEL

// CHECK: error: no dataflow of 'cuda' multiplies 'iq2_xxs' [8, 256] times 1 token(s) with activations f16: stream: 'iq2_xxs' on a GPU: it has no code per weight
// LEVEL: error: unknown GPU architecture 'sm_70'
func.func @vector_codes(%x: tensor<1x256xf32>, %w: !lowbit.tensor<8x256, "iq2_xxs">) -> tensor<1x8xf32> {
  %y = mpgemm.matmul %x, %w : tensor<1x256xf32>, !lowbit.tensor<8x256, "iq2_xxs"> -> tensor<1x8xf32>
  func.return %y : tensor<1x8xf32>
}
