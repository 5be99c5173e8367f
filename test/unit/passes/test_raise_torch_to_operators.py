"""The pass on types and places; test/filecheck holds its cases of IR."""

import pytest
from xdsl.dialects.builtin import DYNAMIC_INDEX, IndexType, TensorType, f16, f32, i32

from nybble.dialects.locations import location_of
from nybble.dialects.parsing import parse_module
from nybble.dialects.registry import make_context
from nybble.passes.raise_torch_to_operators import RaiseTorchToOperators
from nybble.passes.raise_values import Layout, TorchTensor, argument_type, torch_tensor


def parsed(text):
    return parse_module(make_context(allow_unregistered=True), text, "test.mlir")


def type_of(spelling):
    module = parsed(f"func.func private @f({spelling})")
    return next(iter(module.ops)).function_type.inputs.data[0]


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("!torch.vtensor<[1,?,64],f32>", TorchTensor((1, DYNAMIC_INDEX, 64), "f32")),
        ("!torch.vtensor<[],si64>", TorchTensor((), "si64")),
        ("!torch.vtensor<*,f32>", None),
        ("!torch.vtensor<[2],f32,#torch.sparse>", None),
        ("!torch.int", None),
        ("tensor<2xf32>", None),
    ],
)
def test_parts_of_a_torch_type(spelling, expected):
    assert torch_tensor(type_of(spelling)) == expected


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("[],si64", (IndexType(), Layout.PLAIN)),
        ("[1,?],si32", (TensorType(i32, [DYNAMIC_INDEX]), Layout.ROWS)),
        ("[1,?,8],f32", (TensorType(f32, [DYNAMIC_INDEX, 8]), Layout.ROWS)),
        ("[8],f32", (TensorType(f32, [8]), Layout.PLAIN)),
        ("[4,8],f32", (TensorType(f32, [4, 8]), Layout.PLAIN)),
        ("[1,4,8],f16", (TensorType(f16, [1, 4, 8]), Layout.PLAIN)),
        ("[?,8],f32", None),
        ("[1,2,3,4],f32", None),
        ("[4,8],si8", None),
        ("[],f32", None),
    ],
)
def test_type_of_an_argument(spelling, expected):
    assert argument_type(type_of(f"!torch.vtensor<{spelling}>")) == expected


def test_a_raised_operation_keeps_its_place():
    module = parsed("""
func.func @f(%x: !torch.vtensor<[1,?,8],f32>) -> !torch.vtensor<[1,?,8],f32> {
  %one = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int
  %y = "torch.aten.add.Tensor"(%x, %x, %one) : (!torch.vtensor<[1,?,8],f32>,
      !torch.vtensor<[1,?,8],f32>, !torch.int) -> !torch.vtensor<[1,?,8],f32>
  func.return %y : !torch.vtensor<[1,?,8],f32>
}
""")
    RaiseTorchToOperators().apply(make_context(), module)
    places = {op.name: str(location_of(op)) for op in module.walk()}
    assert places["arith.addf"] == "test.mlir:4:3"
