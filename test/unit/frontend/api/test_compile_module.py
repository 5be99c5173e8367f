"""`nybble.compile` on PyTorch modules: machine code against PyTorch, and what it rejects."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

from torch import nn  # noqa: E402

import nybble  # noqa: E402
from nybble.dialects.interpreter import Interpreter  # noqa: E402
from nybble.dialects.lowbit import formats  # noqa: E402
from nybble.dialects.parsing import parse_module  # noqa: E402
from nybble.dialects.registry import make_context  # noqa: E402


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


@pytest.mark.parametrize("fmt", [None, "w4g32", "w4g32m", "w8g32"])
def test_mlp_is_what_pytorch_computes(fmt, make_mlp):
    module = make_mlp(fmt)
    x = torch.randn(5, 64)
    compiled = nybble.compile(module, (x,), activations="f32")
    torch.testing.assert_close(compiled(x), module(x).detach(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("tokens", "mode"), [(1, "i8-only"), (16, "i8-only"), (16, "i8")])
def test_integer_activations_are_what_the_interpreter_computes(tokens, mode):
    torch.manual_seed(0)
    module = nybble.quantize(nn.Linear(64, 48), "w4g32")
    x = torch.randn(tokens, 64)
    # At this level; tiles of AMX round both factors to bf16.
    compiled = nybble.compile(module, (x,), activations=mode, isa="x86-64-v3")
    assert "int_dot" in compiled.explain()
    fused = parse_module(make_context(), compiled.stages["fused"], "fused")
    weight = formats.get("w4g32").unpack(module.weight.numpy(), 64)
    (expected,) = Interpreter(fused).call("main", x.numpy(), weight, module.bias.numpy())
    np.testing.assert_allclose(compiled(x).numpy(), expected, atol=2e-6, rtol=1e-5)
    if mode == "i8-only":
        assert np.abs(module(x).detach().numpy() - expected).max() > 1e-4, "rounding must show"


def test_attention_block(make_attention):
    module = nybble.quantize(make_attention(), "w4g32")
    x = torch.randn(2, 5, 64)
    exact = nybble.compile(module, (x,), activations="f32", threads=2)
    expected = module(x).detach()
    torch.testing.assert_close(exact(x), expected, atol=5e-6, rtol=1e-5)
    text = exact.explain()
    assert text.count(".product: dequantize, 16 tokens") == 4
    assert [*exact.stages] == ["operators", "fused", "scheduled", "lowered"]


def test_elementary_functions():
    def many(x):
        return (
            torch.exp(x) + torch.tanh(x) + torch.erf(x),
            torch.log(x.abs()) * torch.sin(x * 30) + torch.cos(x),
            torch.nn.functional.gelu(x, approximate="tanh") + x.pow(3) + x.abs().sqrt(),
            torch.logsumexp(x, -1),
        )

    x = torch.randn(4, 16)
    for found, expected in zip(nybble.compile(Call(many), (x,))(x), many(x.double()), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=3e-6, rtol=1e-5)


def test_results_that_are_inputs_constants_views_or_the_same():
    def outputs(x, mask):
        total = x + 1
        table = torch.tensor([1.0, float("-inf"), 3.0, 4.0])
        return x, total, total, x.view(4, 3), x.masked_fill(mask, 0.0), mask, table, x.argmax(-1)

    given = (torch.randn(3, 4), torch.rand(3, 4) > 0.5)
    found = nybble.compile(Call(outputs), given)(*given)
    for one, expected in zip(found, outputs(*given), strict=True):
        assert one.dtype == expected.dtype
        assert torch.equal(one, expected)
    assert found[0].data_ptr() != given[0].data_ptr()


def test_numpy_in_numpy_out(compiled_mlp, make_mlp):
    x = np.random.default_rng(0).standard_normal((64, 5), np.float32).T  # strided
    found = compiled_mlp(x)
    assert isinstance(found, np.ndarray)
    expected = make_mlp("w4g32")(torch.from_numpy(np.ascontiguousarray(x))).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-5)
    kept = found.copy()
    compiled_mlp(np.zeros((5, 64), np.float32))
    assert np.array_equal(found, kept), "a later call leaves earlier results alone"


def test_the_module_is_left_as_it_was(make_mlp):
    module = make_mlp().train()
    layers = [module[0], module[2]]
    nybble.compile(module, (torch.zeros(1, 64),))
    assert module.training
    assert [module[0], module[2]] == layers


def test_saved_and_loaded(compiled_mlp, tmp_path):
    compiled_mlp.save(tmp_path / "mlp")
    loaded = nybble.Compiled.load(tmp_path / "mlp", threads=1)
    x = np.ones((5, 64), np.float32)
    assert np.array_equal(loaded(x), compiled_mlp(x))
    assert loaded.stages == compiled_mlp.stages
    assert loaded.explain() == compiled_mlp.explain()
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again/weights.bin").read_bytes() == (
        tmp_path / "mlp/weights.bin"
    ).read_bytes()
    (tmp_path / "mlp/kernels.a").write_bytes(b"")
    with pytest.raises(nybble.NybbleError, match=r"kernels\.a has 0 bytes"):
        nybble.Compiled.load(tmp_path / "mlp")


def test_closed_module_runs_no_more(make_mlp):
    compiled = nybble.compile(Call(lambda x: x + 1), (torch.zeros(2),))
    compiled.close()
    with pytest.raises(nybble.NybbleError, match="closed"):
        compiled(torch.zeros(2))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), r"0 inputs \(accepted: 1\)"),
        ((np.zeros((4, 64), np.float32),), r"input 0 is float32 \[4, 64\] \(accepted: float32 \["),
        ((np.zeros((5, 64)),), r"input 0 is float64 \[5, 64\]"),
        (([0.0],), r"input 0 is of type list \(accepted: torch.Tensor, numpy.ndarray\)"),
        ((torch.zeros(5, 64).half(),), "input 0 has dtype torch.float16"),
        ((torch.zeros(5, 64, requires_grad=True),), "input 0 requires a gradient"),
        ((torch.zeros(5, 64, device="meta"),), "input 0 is a torch.strided tensor on meta"),
    ],
)
def test_calls_with_other_inputs_are_rejected(inputs, message, compiled_mlp):
    with pytest.raises(nybble.NybbleError, match=message):
        compiled_mlp(*inputs)


LINEAR = nn.Linear(64, 8)
X = torch.zeros(2, 64)


@pytest.mark.parametrize(
    ("module", "inputs", "options", "message"),
    [
        (LINEAR, None, {}, "there are none"),
        (LINEAR, X, {}, "example_inputs is a tensor"),
        (LINEAR, (1,), {}, "example input 0 is of type int"),
        (LINEAR, (torch.zeros(2, 63),), {}, "columns of the weight must be 63"),
        (len, (X,), {}, "cannot compile a builtin_function_or_method"),
        (LINEAR, (X,), {"target": "tpu"}, r"unknown target 'tpu' \(accepted: cpu\)"),
        (LINEAR, (X,), {"activations": "i4"}, "unknown activation mode 'i4'"),
        (LINEAR, (X,), {"isa": "z80"}, "unknown instruction-set level 'z80'"),
        (LINEAR, (X,), {"threads": 0}, r"0 threads \(accepted: 1 to 64\)"),
        ("no/such.gguf", (X,), {}, "a checkpoint takes no example inputs"),
        ("no/such.gguf", None, {}, "no/such.gguf"),
        (nn.Linear(64, 8).half(), (X.half(),), {}, r"on f16 \(there is code for f32, f64"),
        (nn.Embedding(4, 8), (torch.zeros(2, dtype=torch.int64),), {}, "indexes by the values"),
        (Call(torch.atan), (X,), {}, "no code is generated for 'math.atan'; there is for math.abs"),
        (Call(lambda x: x**0.3), (X,), {}, "'math.powf' with an exponent that is no"),
        (Call(lambda x: x.cumsum(0)), (X,), {}, "operation 'tm_tensor.scan' may not exist"),
        (Call(lambda x: {"y": x}), (X,), {}, "the module returns"),
        (Call(lambda x: x + 1), (torch.zeros(0, 4),), {}, "input0 has no elements"),
        (Call(lambda x: x + 1), (X.to(torch.uint8),), {}, "tensor of type tensor<2x64xi8>"),
    ],
)
def test_what_cannot_be_compiled_is_rejected(module, inputs, options, message):
    with pytest.raises(nybble.NybbleError, match=message):
        nybble.compile(module, inputs, **options)


def test_format_without_a_kernel_names_the_weight():
    module = nybble.quantize(nn.Sequential(nn.Linear(64, 8)), "u4:g=2:s=f16")
    with pytest.raises(nybble.NybbleError, match=r"weight '0.weight': groups of 2 columns do not"):
        nybble.compile(module, (X,))
