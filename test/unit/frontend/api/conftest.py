"""Small modules, and a compiled one that several tests share."""

import pytest

torch = pytest.importorskip("torch", reason="needs nybble[torch]")
pytest.importorskip("torch_mlir", reason="needs nybble[torch]")

import nybble  # noqa: E402
from nybble.backends.llvm.workers import close_idle  # noqa: E402


class Attention(torch.nn.Module):
    """A pre-norm transformer block with causal attention."""

    def __init__(self, width=64, heads=4):
        super().__init__()
        self.heads = heads
        self.norm = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width, bias=False)
        self.mlp = torch.nn.Sequential(
            torch.nn.LayerNorm(width),
            torch.nn.Linear(width, 96),
            torch.nn.GELU(),
            torch.nn.Linear(96, width),
        )

    def forward(self, x):
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (part.view(split).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(x)


@pytest.fixture(scope="session")
def make_attention():
    """A function () -> the block with weights that are always the same."""

    def make():
        torch.manual_seed(0)
        return Attention().eval()

    return make


@pytest.fixture(scope="session")
def make_mlp():
    """A function (format or None) -> two Linear layers with SiLU between, quantized."""

    def make(fmt=None):
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(64, 96), torch.nn.SiLU(), torch.nn.Linear(96, 32, bias=False)
        ).eval()
        return nybble.quantize(module, fmt) if fmt else module

    return make


@pytest.fixture(scope="session")
def compiled_mlp(make_mlp):
    """The MLP in w4g32, compiled for f32 [5, 64] with f32 activations."""
    return nybble.compile(make_mlp("w4g32"), (torch.zeros(5, 64),), activations="f32", threads=2)


@pytest.fixture(scope="session", autouse=True)
def _end_workers():
    yield
    close_idle()
