"""Modules that hold stored bytes and call nybble's operators, put in place of PyTorch's own."""

from torch import Tensor, nn

from nybble.frontend.pytorch import operators


class QuantLinear(nn.Module):
    """`x @ W.T + bias` with an [n, k] weight kept as bytes of a number format.

    weight: uint8 [n, bytes per row]; bias: f32 [n] or None. Both may be on the meta device.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, fmt: str, shape: tuple[int, int]):
        super().__init__()
        self.fmt = fmt
        self.n, self.k = shape
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """f32 [..., k] -> f32 [..., n]."""
        return operators.linear(x, self.weight, self.bias, self.fmt, self.n, self.k)


class RmsNorm(nn.Module):
    """RMS normalization over the last dimension by a weight f32 [k], or by `1 + weight`."""

    weight: Tensor

    def __init__(self, weight: Tensor, eps: float, *, unit_offset: bool):
        super().__init__()
        self.eps = eps
        self.unit_offset = unit_offset
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """f32 [..., k] -> f32 [..., k]."""
        return operators.rms_norm(x, self.weight, self.eps, self.unit_offset)


class QuantEmbedding(nn.Module):
    """Rows of an [n, k] table kept as bytes of a number format, times a scale."""

    weight: Tensor

    def __init__(self, weight: Tensor, fmt: str, shape: tuple[int, int], scale: float):
        super().__init__()
        self.fmt = fmt
        self.n, self.k = shape
        self.scale = scale
        self.register_buffer("weight", weight)

    def forward(self, ids: Tensor) -> Tensor:
        """int32 [1, S] -> f32 [1, S, k]."""
        return operators.embed(ids, self.weight, self.fmt, self.n, self.k, self.scale)
