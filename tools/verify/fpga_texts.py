"""Functions of operators on rows, in the text of their dialects, with random shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Random = np.random.Generator
SMALLEST = 1e-37
"""What may be lost of any result: denormal numbers."""


@dataclass(frozen=True)
class Family:
    """text: a random function. bound: of errors, over the largest magnitude of a result.

    That of a chain is large, since a rounding can make another code of 8 bits of a value. logits:
    added to it, times the square of the data's scale: what attention and gates raise e to grows so,
    f32 keeps 24 bits of it, and the power is as far off as its exponent.
    """

    text: Callable[[Random], str]
    bound: float
    logits: float = 0.0

    def allowed(self, scale: float, largest: float) -> float:
        """What errors may be, for data of a scale and a largest magnitude of the result."""
        return (self.bound + self.logits * scale**2) * largest + SMALLEST


def _norm(random: Random) -> str:
    rows, heads = int(random.integers(1, 4)), int(random.integers(1, 4))
    length = int(random.choice([1, 6, 32, 80, 272]))
    x, unit = f"tensor<{rows}x{heads * length}xf32>", random.choice(["", "unit_offset"])
    return (
        f"func.func @f(%x: {x}, %g: tensor<{length}xf32>) -> {x} {{\n"
        f"  %r = fused.rms_norm %x, %g eps 1.0e-05 {unit} : {x}, tensor<{length}xf32> -> {x}\n"
        f"  func.return %r : {x}\n}}\n"
    )


def _gate(random: Random) -> str:
    x = f"tensor<{int(random.integers(1, 4))}x{int(random.choice([1, 12, 64, 96]))}xf32>"
    kind = random.choice(["silu", "gelu_tanh"])
    return (
        f"func.func @f(%g: {x}, %u: {x}) -> {x} {{\n"
        f'  %r = fused.glu "{kind}" %g, %u : {x}\n'
        f"  func.return %r : {x}\n}}\n"
    )


def _sum(random: Random) -> str:
    x = f"tensor<{int(random.integers(1, 4))}x{int(random.choice([1, 12, 64, 96]))}xf32>"
    return (
        f"func.func @f(%a: {x}, %b: {x}) -> {x} {{\n"
        f"  %r = arith.addf %a, %b : {x}\n  func.return %r : {x}\n}}\n"
    )


def _softmax(random: Random) -> str:
    x = f"tensor<{int(random.integers(1, 4))}x{int(random.choice([1, 12, 64, 272]))}xf32>"
    return (
        f"func.func @f(%x: {x}) -> {x} {{\n"
        f"  %r = fused.softmax %x : {x}\n  func.return %r : {x}\n}}\n"
    )


def _rope(random: Random) -> str:
    half, heads = int(random.choice([1, 4, 16, 24])), int(random.integers(1, 4))
    x, table = f"tensor<{random.integers(1, 3)}x{2 * half * heads}xf32>", f"tensor<8x{half}xf32>"
    return (
        f"func.func @f(%x: {x}, %c: {table}, %s: {table}, %p: index) -> {x} {{\n"
        f"  %r = fused.rope %x, %c, %s at %p : {x}, {table} -> {x}\n"
        f"  func.return %r : {x}\n}}\n"
    )


def _attention(random: Random) -> str:
    heads, group = int(random.integers(1, 4)), int(random.choice([1, 2, 3]))
    dim, context = int(random.choice([2, 8, 32, 48])), int(random.choice([1, 7, 40]))
    cache = f"tensor<{heads}x{context}x{dim}x{random.choice(['f16', 'f32'])}>"
    q = f"tensor<1x{heads * group * dim}xf32>"
    mask = random.choice(["causal", "window(1)", "window(6)", "sink(1)+window(3)"])
    return (
        f"func.func @f(%q: {q}, %k: {cache}, %v: {cache}, %p: index) -> {q} {{\n"
        f'  %r = sparse_attn.attention %q, %k, %v at %p mask <"{mask}"> scale 0.25\n'
        f"    : {q}, {cache}, {cache} -> {q}\n  func.return %r : {q}\n}}\n"
    )


def _block(random: Random) -> str:
    heads, group = int(random.integers(1, 3)), int(random.integers(1, 3))
    return layer(8 * heads * group, 48, heads, group, 8, 12, str(random.choice(["w1", "w2", "w4"])))


def layer(
    hidden: int, inner: int, heads: int, group: int, dim: int, context: int, spec: str
) -> str:
    """The decode step of a decoder's layer: `heads` of keys, each for `group` of queries."""
    k, half = heads * dim, dim // 2
    return BLOCK.format(
        h=hidden, q=k * group, k=k, m=inner, w=spec, kv=heads, dim=dim, half=half, c=context,
        scale=f"{dim**-0.5:.6f}",
    )  # fmt: skip


BLOCK = """func.func @f(
    %x: tensor<1x{h}xf32>, %n1: tensor<{h}xf32>, %n2: tensor<{h}xf32>,
    %wq: !lowbit.tensor<{q}x{h}, "{w}">, %wk: !lowbit.tensor<{k}x{h}, "{w}">,
    %wv: !lowbit.tensor<{k}x{h}, "{w}">, %wo: !lowbit.tensor<{h}x{q}, "{w}">,
    %wg: !lowbit.tensor<{m}x{h}, "{w}">, %wu: !lowbit.tensor<{m}x{h}, "{w}">,
    %wd: !lowbit.tensor<{h}x{m}, "{w}">, %cos: tensor<{c}x{half}xf32>, %sin: tensor<{c}x{half}xf32>,
    %k: tensor<{kv}x{c}x{dim}xf16>, %v: tensor<{kv}x{c}x{dim}xf16>, %p: index)
    -> (tensor<1x{h}xf32>, tensor<{kv}x{c}x{dim}xf16>, tensor<{kv}x{c}x{dim}xf16>) {{
  %a0 = fused.rms_norm %x, %n1 eps 1.0e-05
    : tensor<1x{h}xf32>, tensor<{h}xf32> -> tensor<1x{h}xf32>
  %q0 = mpgemm.matmul %a0, %wq
    : tensor<1x{h}xf32>, !lowbit.tensor<{q}x{h}, "{w}"> -> tensor<1x{q}xf32>
  %k0 = mpgemm.matmul %a0, %wk
    : tensor<1x{h}xf32>, !lowbit.tensor<{k}x{h}, "{w}"> -> tensor<1x{k}xf32>
  %v0 = mpgemm.matmul %a0, %wv
    : tensor<1x{h}xf32>, !lowbit.tensor<{k}x{h}, "{w}"> -> tensor<1x{k}xf32>
  %q = fused.rope %q0, %cos, %sin at %p
    : tensor<1x{q}xf32>, tensor<{c}x{half}xf32> -> tensor<1x{q}xf32>
  %k1 = fused.rope %k0, %cos, %sin at %p
    : tensor<1x{k}xf32>, tensor<{c}x{half}xf32> -> tensor<1x{k}xf32>
  %keys = sparse_attn.append_kv %k1 into %k at %p
    : tensor<1x{k}xf32> into tensor<{kv}x{c}x{dim}xf16> -> tensor<{kv}x{c}x{dim}xf16>
  %values = sparse_attn.append_kv %v0 into %v at %p
    : tensor<1x{k}xf32> into tensor<{kv}x{c}x{dim}xf16> -> tensor<{kv}x{c}x{dim}xf16>
  %a = sparse_attn.attention %q, %keys, %values at %p mask <"causal"> scale {scale}
    : tensor<1x{q}xf32>, tensor<{kv}x{c}x{dim}xf16>, tensor<{kv}x{c}x{dim}xf16> -> tensor<1x{q}xf32>
  %o = mpgemm.matmul %a, %wo
    : tensor<1x{q}xf32>, !lowbit.tensor<{h}x{q}, "{w}"> -> tensor<1x{h}xf32>
  %r = arith.addf %x, %o : tensor<1x{h}xf32>
  %b = fused.rms_norm %r, %n2 eps 1.0e-05
    : tensor<1x{h}xf32>, tensor<{h}xf32> -> tensor<1x{h}xf32>
  %g = mpgemm.matmul %b, %wg
    : tensor<1x{h}xf32>, !lowbit.tensor<{m}x{h}, "{w}"> -> tensor<1x{m}xf32>
  %u = mpgemm.matmul %b, %wu
    : tensor<1x{h}xf32>, !lowbit.tensor<{m}x{h}, "{w}"> -> tensor<1x{m}xf32>
  %s = fused.glu "silu" %g, %u : tensor<1x{m}xf32>
  %d = mpgemm.matmul %s, %wd
    : tensor<1x{m}xf32>, !lowbit.tensor<{h}x{m}, "{w}"> -> tensor<1x{h}xf32>
  %y = arith.addf %r, %d : tensor<1x{h}xf32>
  func.return %y, %keys, %values
    : tensor<1x{h}xf32>, tensor<{kv}x{c}x{dim}xf16>, tensor<{kv}x{c}x{dim}xf16>
}}
"""
"""The decode step of a decoder's layer."""

FAMILIES: Mapping[str, Family] = {
    "fused.rms_norm": Family(_norm, 1e-6),
    "fused.glu": Family(_gate, 1e-6, logits=3e-8),
    "fused.softmax": Family(_softmax, 1e-6),
    "arith.addf": Family(_sum, 1e-7),
    "fused.rope": Family(_rope, 4e-7),
    "sparse_attn.attention": Family(_attention, 5e-6, logits=3e-7),
    "layer": Family(_block, 0.1),
}
"""Operator -> functions of it; a layer has all of them, and products."""
