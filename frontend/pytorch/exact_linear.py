"""Runs `nn.Linear` layers as nybble's products on f32 weights for the time of an export."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from nybble.frontend.pytorch.modules import QuantLinear

FORMAT = "f32"


class ExactLinear(QuantLinear):
    """A QuantLinear whose weight is the bytes of f32 numbers, which it shares with a Linear."""

    def __init__(self, layer: nn.Linear):
        weight = layer.weight.detach()
        bias: Tensor | None = dict(layer.named_parameters(recurse=False)).get("bias")
        super().__init__(
            weight.contiguous().view(torch.uint8),
            None if bias is None else bias.detach(),
            FORMAT,
            (layer.out_features, layer.in_features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """f32 [..., k] -> f32 [..., n]; a lone vector stays PyTorch's own business."""
        if x.dim() < 2:
            return functional.linear(x, self.weight.view(torch.float32), self.bias)
        return super().forward(x)


def takes(layer: nn.Module) -> bool:
    """Whether a module is a Linear, not of a derived class, with f32 weights in memory."""
    return (
        type(layer) is nn.Linear
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and layer.weight.numel() > 0
    )


@contextmanager
def exact_linears(module: nn.Module) -> Generator[nn.Module]:
    """Within it, every f32 Linear under `module` is an ExactLinear; gives the module to export."""
    found = {name: layer for name, layer in module.named_modules() if takes(layer)}
    root = found.pop("", None)
    try:
        for name, layer in found.items():
            assert isinstance(layer, nn.Linear)
            module.set_submodule(name, ExactLinear(layer))
        yield ExactLinear(root) if isinstance(root, nn.Linear) else module
    finally:
        for name, layer in found.items():
            module.set_submodule(name, layer)
