"""Random attentions that keep a number of tokens, from the middle of a text that never was."""

from dataclasses import dataclass

import numpy as np

from nybble.dialects.sparse_attn.masks import Selected, parse
from nybble.dialects.sparse_attn.retain import LAST, LEARNED
from nybble.frontend.retaining import Variant, pass_of
from nybble.passes.retain_tokens import RetainTokens
from nybble.tools.random_values import Value
from nybble.tools.verify.attention_kernel import CONTEXT, AttentionKernel

MASKS = (
    "heavy(16,32)", "alisa(17,15)", "windowkv(4,6,24)", "locret(31,1)", "windowkv(8,2,16,2)",
)  # fmt: skip
"""The last is of a layer that looks at what another chose."""
KV = ("f32", "f16")
TEXT = """
func.func @f(%q: tensor<{rows}x{width}xf32>, %kn: tensor<{rows}x{kv_width}xf32>,
             %vn: tensor<{rows}x{kv_width}xf32>, %k: {keys}, %v: {values}, %w: {moves}{state},
             %p: index) -> (tensor<{rows}x{width}xf32>, {keys}, {values}{new}) {{
  %r, %ko, %vo{names} = sparse_attn.retain %q, %kn, %vn into %k, %v, %w at %p {by} budget {budget}
    size {size} scale 2.5e-01 : tensor<{rows}x{width}xf32>, tensor<{rows}x{kv_width}xf32> into
    {keys}, {values}, {moves} {types}
  func.return %r, %ko, %vo{names} : tensor<{rows}x{width}xf32>, {keys}, {values}{new}
}}
"""


@dataclass(frozen=True)
class Retained(AttentionKernel):
    """The tokens of a mask stay, of a cache of f32 or f16."""

    @property
    def choice(self) -> RetainTokens:
        """The pass that would make the attention of it."""
        mask = parse(self.mask)
        assert isinstance(mask, Selected)
        return pass_of("f", Variant(mask, mask.layers > 1), self.d)

    @property
    def slots(self) -> int:
        """Tokens that are kept."""
        return self.choice.budget + self.choice.recent

    @property
    def mass_shape(self) -> tuple[int, int, int]:
        """Of what tokens are chosen by."""
        queries = self.choice.recent if self.choice.by == LAST else 0
        return self.kv_heads, 1 + queries, self.slots

    def text(self) -> str:
        """A function around it."""
        heads, by, rows = self.kv_heads, self.choice.by, self.rows if self.rows == 1 else "?"
        mass = f"tensor<{'x'.join(map(str, self.mass_shape))}xf32>"
        moves, scores = f"tensor<{heads}x1x{CONTEXT}xi32>", f"tensor<{rows}x{heads}xf32>"
        learned = by == LEARNED
        return TEXT.format(
            rows=rows,
            width=self.heads * self.d,
            kv_width=heads * self.d,
            keys=f"tensor<{heads}x{self.d}x{self.slots}x{self.kv}>",
            values=f"tensor<{heads}x{self.slots}x{self.d}x{self.kv}>",
            moves=moves,
            state=(f", %m: {mass}" if by else "") + (f", %s: {scores}" if learned else ""),
            by=(f'by "{by}" %m' if by else "") + (" of %s" if learned else ""),
            budget=self.choice.budget,
            size=self.choice.size,
            names=", %mo, %wo" if by else "",
            new=f", {mass}, {moves}" if by else "",
            types=(f"by {mass} " if by else "")
            + (f"of {scores} " if learned else "")
            + (f"-> {mass}, {moves}" if by else ""),
        )

    def values(self, seed: int, number: int) -> list[Value]:
        """Rows, a state, and position of a case: masses apart, lest choices hang on rounding."""
        random = np.random.default_rng([seed, number, 1])
        position = self.position(random)
        heads, d, slots = self.kv_heads, self.d, self.slots
        kind = np.float32 if self.kv == "f32" else np.float16
        q, kn, vn = (
            random.standard_normal((self.rows, columns * d), np.float32)
            for columns in (self.heads, heads, heads)
        )
        keys = random.standard_normal((heads, d, slots)).astype(kind)
        values = random.standard_normal((heads, slots, d)).astype(kind)
        moves = random.integers(0, self.choice.budget, (heads, 1, CONTEXT)).astype(np.int32)
        state: list[Value] = []
        if self.choice.by:
            mass = random.random(self.mass_shape, np.float32)
            mass[:, 0] = mass[:, 1:].sum(axis=1) if self.choice.by == LAST else mass[:, 0]
            state = [mass]
        if self.choice.by == LEARNED:
            state.append(random.standard_normal((self.rows, heads), np.float32))
        return [q, kn, vn, keys, values, moves, *state, position]


def drawn(random: np.random.Generator, turn: int) -> Retained:
    """The kernels of masks and types of caches come in turn."""
    kv_heads = int(random.choice([1, 2, 3]))
    return Retained(
        mask=MASKS[turn % len(MASKS)],
        kv=KV[turn % len(KV)],
        softmax="online",
        heads=kv_heads * int(random.choice([1, 2, 3])),
        kv_heads=kv_heads,
        d=int(random.choice([16, 32, 80])),
        rows=int(random.choice([1, 7, 40])),
    )
