"""Operators of PyTorch that are replaced by simpler ones before the import of a module."""

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`aten.scaled_dot_product_attention` as products and a softmax, without dropout.

    query [.., H, S, D], key and value [.., G, C, D] -> [.., H, S, D]. A causal mask is aligned to
    the top left, as PyTorch's is.
    """
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (x.repeat_interleave(repeats, -3) for x in (key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        rows, columns = (torch.arange(size) for size in scores.shape[-2:])
        scores = scores.masked_fill(columns > rows[:, None], -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """`aten.gelu` with constants in full precision; torch-mlir's tanh form is 5e-5 off."""
    if approximate == "tanh":
        inner = sqrt(2 / pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + torch.tanh(inner))
    return 0.5 * x * (1 + torch.erf(x * sqrt(0.5)))


def logsumexp(x: Tensor, dim: list[int], keepdim: bool = False) -> Tensor:
    """`aten.logsumexp`, shifted by the largest finite element."""
    largest = x.amax(dim, keepdim=True)
    shift = torch.where(largest.abs() == torch.inf, torch.zeros_like(largest), largest)
    found = torch.log(torch.exp(x - shift).sum(dim, keepdim=True)) + shift
    if not keepdim:
        for index in sorted((one % x.dim() for one in dim), reverse=True):
            found = found.squeeze(index)
    return found


TABLE: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.gelu.default: gelu,
    torch.ops.aten.logsumexp.default: logsumexp,
    torch.ops.aten.scaled_dot_product_attention.default: attention,
}
