"""Operators of PyTorch that are replaced by simpler ones before the import of a module."""

from collections.abc import Callable

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


TABLE: dict[torch._ops.OpOverload, Callable[..., Tensor]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention,
}
