"""A plain W4A16 product in Triton, to compare with where no tuned library can be imported."""

import torch
import triton
import triton.language as tl


@triton.jit
def _kernel(x, w, s, y, tokens, rows, cols, group,
            BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):  # fmt: skip
    """y[m, n] += x[m, k] * (w[k, n] - 8) * s[k // group, n]; w has eight codes along k a word."""
    first_m, first_n = tl.program_id(1) * BM, tl.program_id(0) * BN
    m, n, k = first_m + tl.arange(0, BM), first_n + tl.arange(0, BN), tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, cols, BK):
        a = tl.load(x + m[:, None] * cols + start + k[None, :], mask=m[:, None] < tokens, other=0.0)
        words = tl.load(w + ((start + k[:, None]) // 8) * rows + n[None, :])
        codes = (words >> ((k[:, None] % 8) * 4)) & 15
        scale = tl.load(s + (start // group) * rows + n[None, :])
        b = (codes.to(tl.float16) - 8.0) * scale
        total = tl.dot(a, b.to(tl.float16), total)
    tl.store(y + m[:, None] * rows + n[None, :], total.to(tl.float16), mask=m[:, None] < tokens)


def pack(codes: torch.Tensor) -> torch.Tensor:
    """i32 [cols / 8, rows] of codes u8 [rows, cols]."""
    wide = codes.T.contiguous().view(codes.shape[1] // 8, 8, codes.shape[0]).int()
    words = torch.zeros_like(wide[:, 0])
    for i in range(8):
        words |= wide[:, i] << (4 * i)
    return words.contiguous()


def multiply(
    x: torch.Tensor, w: torch.Tensor, s: torch.Tensor, y: torch.Tensor, group: int
) -> None:
    """y = x @ W.T, f16; rows a multiple of 64, cols of 128."""
    tokens, cols = x.shape
    rows = y.shape[1]
    bm = 16 if tokens <= 16 else 64
    grid = (rows // 64, triton.cdiv(tokens, bm))
    _kernel[grid](x, w, s, y, tokens, rows, cols, group, BM=bm, BN=64, BK=128, num_stages=4)
