"""Any PyTorch module: quantized Linear layers become products, the rest linalg."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

from torch import nn  # noqa: E402

from nybble.dialects.errors import NybbleError  # noqa: E402
from nybble.dialects.interpreter import Interpreter  # noqa: E402
from nybble.dialects.lowbit import formats  # noqa: E402
from nybble.dialects.lowbit.types import LowBitTensorType  # noqa: E402
from nybble.frontend.api import lower, quantize  # noqa: E402
from nybble.frontend.graph import Role  # noqa: E402
from nybble.frontend.pytorch.modules import QuantLinear, RmsNorm  # noqa: E402


def mlp(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32, bias=bias), nn.SiLU(), nn.Linear(32, 16))


def test_quantize_rounds_the_weights_to_the_format():
    module = mlp()
    original = module[0].weight.detach().numpy().copy()
    assert quantize(module, "w4g32", skip=["2"]) is module
    assert isinstance(module[0], QuantLinear)
    assert isinstance(module[2], nn.Linear)
    form = formats.get("w4g32")
    rounded = torch.from_numpy(form.quantize(original).dequantize())
    x = torch.randn(3, 64)
    expected = nn.functional.linear(x, rounded, module[0].bias)
    torch.testing.assert_close(module[0](x), expected)


def test_quantize_gives_a_replacement_for_a_lone_layer():
    assert isinstance(quantize(nn.Linear(64, 8), "q8_0"), QuantLinear)


@pytest.mark.parametrize(
    ("fmt", "skip", "message"),
    [
        ("w99g32", (), "w99g32"),
        ("w4g32", ["1"], r"'1' is not a Linear layer \(accepted: 0, 2\)"),
        ("w4g64", (), "layer '2' cannot be rounded to 'w4g64': 32 columns .*w4g32"),
    ],
)
def test_quantize_rejects(fmt, skip, message):
    with pytest.raises(NybbleError, match=message):
        quantize(mlp(), fmt, skip)


def bound(lowered, *inputs):
    """The values of the arguments of `main`, as the interpreter wants them."""
    types = next(iter(lowered.module.ops)).function_type.inputs
    given = iter(inputs)
    for argument, type_ in zip(lowered.source.arguments, types, strict=True):
        if argument.role is Role.INPUT:
            yield next(given)
        elif isinstance(type_, LowBitTensorType):
            values = lowered.source.weights[argument.source]
            yield type_.number_format.unpack(values, type_.cols)
        else:
            yield lowered.source.weights[argument.source]


def test_linear_layers_mean_what_they_did():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 16, bias=False))
    quantize(module, "q4_1")
    x = torch.randn(5, 64)
    lowered = lower(module, (x,))
    (found,) = Interpreter(lowered.module).call("main", *bound(lowered, x.numpy()))
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-5)


def test_other_layers_become_linalg():
    module = nn.Sequential(mlp(), nn.LayerNorm(16)).train()
    quantize(module, "w4g32", skip=["0.2"])
    lowered = lower(module, (torch.randn(2, 3, 64),))
    assert module.training, "the module's mode is left as it was"
    names = [op.name for op in lowered.module.walk()]
    assert names.count("mpgemm.matmul") == 1
    assert "linalg.generic" in names
    assert "func.call" not in names
    assert not [name for name in names if name.startswith("torch.")]
    assert sorted(lowered.source.weights) == [
        "0.0.bias", "0.0.weight", "0.2.bias", "0.2.weight", "1.bias", "1.weight",
    ]  # fmt: skip
    assert lowered.source.weights["0.0.weight"].dtype == np.uint8


def test_in_place_operations_become_functional():
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(inplace=True))
    names = [op.name for op in lower(quantize(module, "q4_0"), (torch.randn(2, 64),)).module.walk()]
    assert "mpgemm.matmul" in names
    assert "linalg.generic" in names


def test_equal_layers_share_one_declaration():
    torch.manual_seed(0)
    module = quantize(nn.Sequential(*[nn.Linear(32, 32) for _ in range(3)]), "q8_0")
    text = lower(module, (torch.randn(4, 32),)).source.text
    assert text.count('sym_name = "nybble.linear.') == 1


class Counting(nn.Module):
    """Changes a buffer at every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Branching(nn.Module):
    """Looks at the values of its input."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


class Sorting(nn.Module):
    """Calls an operator that torch-mlir cannot lower."""

    def forward(self, x):
        return torch.linalg.svd(x)[1]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Counting(), "the module changes calls when it runs"),
        (Branching(), "torch cannot export the module"),
        (Sorting(), "torch-mlir cannot lower the module"),
        (RmsNorm(torch.ones(8), 1e-5, unit_offset=False), "'torch.nybble.rms_norm' is not known"),
    ],
)
def test_modules_that_cannot_be_lowered_are_rejected(module, message):
    with pytest.raises(NybbleError, match=message):
        lower(module, (torch.randn(4, 8),))


def test_inputs_must_be_tensors():
    with pytest.raises(NybbleError, match=r"example input 1 is of type int"):
        lower(mlp(), (torch.randn(1, 64), 3))
