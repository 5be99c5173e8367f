// RUN: nybble-opt %s --split-input-file --verify-diagnostics -p lower-kernels-to-cpu

func.func @loose(%x: tensor<1x64xf32>) -> tensor<1x64xf32> {
  // expected-error @+1 {{'arith.addf' is in no kernel}}
  %y = arith.addf %x, %x : tensor<1x64xf32>
  func.return %y : tensor<1x64xf32>
}

// -----

func.func @unknown(%x: tensor<1x64xf32>) -> tensor<1x64xf32> {
  // expected-error @+1 {{kernel "mystery" is none of norm, norm_quantize}}
  %y = fused.kernel "mystery"(%x) : (tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%a: tensor<1x64xf32>):
    fused.yield %a : tensor<1x64xf32>
  }
  func.return %y : tensor<1x64xf32>
}

// -----

func.func @unscheduled(%x: tensor<1x64xf32>) -> tensor<1x64xf32> {
  // expected-error @+1 {{kernel "add" has no schedule with a number of tokens}}
  %y = fused.kernel "add"(%x) : (tensor<1x64xf32>) -> tensor<1x64xf32> {
  ^bb0(%a: tensor<1x64xf32>):
    %b = arith.addf %a, %a : tensor<1x64xf32>
    fused.yield %b : tensor<1x64xf32>
  }
  func.return %y : tensor<1x64xf32>
}

// -----

// expected-error @+1 {{groups of 6 columns do not fill vectors of 4-bit codes}}
func.func @groups(%w: !lowbit.tensor<8x66, "u4:g=6:s=f16", "tile64">) {
  func.return
}

// -----

// expected-error @+1 {{the CPU backend does not take activations of format 'q4_0'}}
func.func @storage(%w: !lowbit.tensor<8x64, "q4_0">) {
  func.return
}

// -----

func.func @overwritten(%x: tensor<1x64xf32>, %y: tensor<1x64xf32>) -> (tensor<1x64xf32>, tensor<1x64xf32>) {
  // expected-error @+1 {{kernel "add" overwrites a value that is read later}}
  %s = fused.kernel "add"(%x, %y) : (tensor<1x64xf32>, tensor<1x64xf32>) -> tensor<1x64xf32> schedule #schedule.kernel<"cpu", "vector", {tokens = 1 : i64}, ""> {
  ^bb0(%a: tensor<1x64xf32>, %b: tensor<1x64xf32>):
    %c = arith.addf %a, %b : tensor<1x64xf32>
    fused.yield %c : tensor<1x64xf32>
  }
  func.return %s, %x : tensor<1x64xf32>, tensor<1x64xf32>
}
