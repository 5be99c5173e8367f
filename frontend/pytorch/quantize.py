"""Gives the Linear layers of any PyTorch module weights in a number format."""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn

from nybble.dialects.errors import NybbleError
from nybble.dialects.lowbit import formats
from nybble.frontend.pytorch.modules import QuantLinear
from nybble.frontend.requantize import check_target


def quantize(module: nn.Module, fmt: str, skip: Collection[str] = ()) -> nn.Module:
    """Replace every `nn.Linear` under `module`, in place, by one of low-bit weights.

    fmt: a number format ("w4g32", "q4_1", ..); weights are rounded to nearest, group by group.
    skip: qualified names of layers to leave as they are.
    Returns the module, or what replaces it if it is a Linear itself.
    Raises NybbleError for an unknown format, a name in `skip` that is no Linear layer, a format
    that nothing can be quantized to, and a layer whose shape the format cannot hold.
    """
    layers = {name: found for name, found in module.named_modules() if type(found) is nn.Linear}
    for name in skip:
        if name not in layers:
            raise NybbleError(f"'{name}' is not a Linear layer", accepted=", ".join(layers))
    description = formats.get(fmt)
    for name, layer in layers.items():
        if name in skip:
            continue
        replacement = _quantized(name, layer, description)
        if not name:
            return replacement
        module.set_submodule(name, replacement)
    return module


def _quantized(name: str, layer: nn.Linear, description: formats.Format) -> QuantLinear:
    shape = (layer.out_features, layer.in_features)
    check_target(f"layer '{name}'", description, shape)
    weight = layer.weight.detach().to(torch.float32).numpy()
    raw = description.pack(description.quantize(np.ascontiguousarray(weight)))
    bias: Tensor | None = dict(layer.named_parameters()).get("bias")
    kept = None if bias is None else bias.detach().to(torch.float32)
    return QuantLinear(torch.from_numpy(raw), kept, description.spec, shape)
