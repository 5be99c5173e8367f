"""nybble's operators as torch custom ops: what `torch.export` keeps whole, with eager meanings.

Each op exists twice: an eager implementation on CPU tensors, exact in f32, which lets a swapped
module run inside PyTorch and be compared with the original; and a fake one that only computes
shapes, for export on the meta device.

Conventions: S tokens, batch 1; H query heads, G key-value heads, D head dimension, C context.
`pos` is a 0-d int64 tensor, the absolute position of token 0 of the call. Weights are the bytes of
a checkpoint, uint8 [rows, bytes per row] in number format `fmt`, or a stream of bytes [n].
"""

import torch
from torch import Tensor

from nybble.dialects.lowbit import formats


def decode(raw: Tensor, fmt: str, columns: int) -> Tensor:
    """The values of stored rows: uint8 [r, bytes per row], or a stream, -> f32 [r, columns]."""
    weight = formats.get(fmt).unpack(raw.contiguous().numpy(), columns)
    return torch.from_numpy(weight.dequantize())


@torch.library.custom_op("nybble::linear", mutates_args=())
def linear(x: Tensor, w: Tensor, bias: Tensor | None, fmt: str, n: int, k: int) -> Tensor:
    """f32 [..., k] times the transpose of an [n, k] weight, plus bias [n]: f32 [..., n]."""
    return torch.nn.functional.linear(x, decode(w, fmt, k), bias)


@linear.register_fake
def _(x: Tensor, w: Tensor, bias: Tensor | None, fmt: str, n: int, k: int) -> Tensor:
    return x.new_empty([*x.shape[:-1], n])


@torch.library.custom_op("nybble::rms_norm", mutates_args=())
def rms_norm(x: Tensor, w: Tensor, eps: float, unit_offset: bool) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * w` over the last dimension of f32 x, or `* (1 + w)`."""
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return x * scale * (w + 1 if unit_offset else w)


@rms_norm.register_fake
def _(x: Tensor, w: Tensor, eps: float, unit_offset: bool) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("nybble::rope", mutates_args=())
def rope(x: Tensor, cos: Tensor, sin: Tensor, pos: Tensor) -> Tensor:
    """Rotate the halves of each head: x f32 [1, H, S, D]; tables cos, sin f32 [C, D/2]."""
    rows = torch.arange(x.shape[2]) + pos
    c, s = cos[rows], sin[rows]
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * c - high * s, high * c + low * s), dim=-1)


@rope.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, pos: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("nybble::append_kv", mutates_args=())
def append_kv(cache: Tensor, x: Tensor, pos: Tensor) -> Tensor:
    """The cache [G, C, D] with x f32 [1, G, S, D] written at tokens pos .. pos + S."""
    result = cache.clone()
    first = int(pos)
    result[:, first : first + x.shape[2]] = x[0].to(cache.dtype)
    return result


@append_kv.register_fake
def _(cache: Tensor, x: Tensor, pos: Tensor) -> Tensor:
    return torch.empty_like(cache)


@torch.library.custom_op("nybble::attention", mutates_args=())
def attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Causal softmax attention over a cache, grouped over its heads (GQA).

    q: f32 [1, H, S, D]; keys, values: [G, C, D], f32 or f16. window: how many most recent keys a
    query sees, itself included. softcap: scores become `softcap * tanh(s / softcap)`.
    Returns f32 [1, S, H, D].
    """
    repeats = q.shape[1] // keys.shape[0]
    k = keys.float().repeat_interleave(repeats, dim=0)
    v = values.float().repeat_interleave(repeats, dim=0)
    scores = q[0] @ k.transpose(1, 2) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    distance = (torch.arange(q.shape[2]) + pos)[:, None] - torch.arange(keys.shape[1])
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ v).transpose(0, 1)[None].contiguous()


@attention.register_fake
def _(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    pos: Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    return q.new_empty([1, q.shape[2], q.shape[1], q.shape[3]])


@torch.library.custom_op("nybble::embed", mutates_args=())
def embed(ids: Tensor, table: Tensor, fmt: str, n: int, k: int, scale: float) -> Tensor:
    """Rows of an [n, k] table times `scale`: ids int32 [1, S] -> f32 [1, S, k]."""
    picked = ids.reshape(-1)
    streamed = formats.get(fmt).is_streamed
    rows = decode(table, fmt, k)[picked] if streamed else decode(table[picked], fmt, k)
    return rows.reshape([*ids.shape, k]) * scale


@embed.register_fake
def _(ids: Tensor, table: Tensor, fmt: str, n: int, k: int, scale: float) -> Tensor:
    return torch.empty([*ids.shape, k], dtype=torch.float32, device=table.device)
