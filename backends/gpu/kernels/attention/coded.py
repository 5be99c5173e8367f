"""Where a cache with codes lies in the memory of a GPU: codes, scales, minima, tokens as they are.

    k, v                        codes [heads, context, head_dim] in bytes, lowest bits first
    k_scales, k_minima          f16 [heads, context / key group, head_dim]
    v_scales, v_minima          f16 [heads, value groups, context]
    k_exact, v_exact            f16 [heads, ring + pinned, head_dim]

Token t of the pinned ones is row `ring + t` of the tokens as they are, any other row `t % ring`
until `ring` more have come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from xdsl.dialects.builtin import i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.image import Access, Parameter
from nybble.dialects.sparse_attn.kv import KEYS, SIDES, KvFormat, parse

TILE = 16
"""Keys of a tile: the depth of the products with the values."""

PARTS = ("scales", "minima", "exact")
"""What it has beside codes."""


@dataclass(frozen=True)
class CodedCache:
    """Keys and values of some heads, of all sequences.

    name: of a format of `sparse_attn.kv`. room: tokens of the ring, at least, see `KvFormat.room`;
    0 where all tokens are codes.
    """

    heads: int
    head_dim: int
    context: int
    name: str
    room: int

    @property
    def format(self) -> KvFormat:
        """What it holds."""
        return parse(self.name)

    @property
    def each(self) -> int:
        """Codes in a byte."""
        return 8 // self.format.bits

    @property
    def row(self) -> int:
        """Bytes of a token's codes."""
        return self.head_dim // self.each

    @property
    def value_groups(self) -> int:
        """Scales of a token's values."""
        return self.head_dim // self.format.value_group(self.head_dim)

    @property
    def ring(self) -> int:
        """Rows of the ring of tokens as they are: whole tiles, so that none has its end within."""
        return ceil(self.room / TILE) * TILE

    @property
    def exact_rows(self) -> int:
        """Rows of f16 of a head: the ring, and behind it the pinned tokens."""
        return self.ring + self.format.pinned if self.room else 0

    def scale_shape(self, side: str) -> tuple[int, int]:
        """Of the scales of a head, and of its minima."""
        if side == KEYS:
            return self.context // self.format.key_group, self.head_dim
        return self.value_groups, self.context

    def parameters(self, access: Access, sides: Sequence[str] = SIDES) -> list[Parameter]:
        """k, v; k_scales, k_minima, v_scales, v_minima; k_exact, v_exact: of these sides.

        access: to all but the tokens as they are, which are read.
        """
        names = [side[0] for side in sides]
        codes = self.heads * self.context * self.row
        found = [Parameter(name, "u8", access, codes) for name in names]
        for side, name in zip(sides, names, strict=True):
            lines, length = self.scale_shape(side)
            size = self.heads * lines * length * 2
            found += [
                Parameter(f"{name}_{one}", "f16", access, size) for one in ("scales", "minima")
            ]
        if self.room:
            exact = self.heads * self.exact_rows * self.head_dim * 2
            found += [Parameter(f"{name}_exact", "f16", Access.READ, exact) for name in names]
        return found

    def of_head(self, b: GpuBuilder, at: dict[str, Value], head: Value) -> dict[str, Value]:
        """Pointers to what a head, i32, has of each parameter; at: pointers to all of them."""
        wide = b.sext(head, i64)
        return {
            one.name: b.offset(at[one.name], wide * (one.bytes // self.heads))
            for one in self.parameters(Access.READ)
            if one.name in at
        }

    def boundary(self, b: GpuBuilder, query: Value) -> Value:
        """The first token that a query, i32, sees as it is, but for pinned ones."""
        page = self.format.page
        return b.max(query - self.format.recent, 0) // page * page

    def slot(self, b: GpuBuilder, token: Value) -> Value:
        """The row of a token that is kept as it is."""
        return exact_slot(b, token, self.ring, self.format.pinned)


def exact_slot(b: GpuBuilder, token: Value, ring: int, pinned: int) -> Value:
    """The row of a token, i32, in a ring with pinned tokens behind it."""
    place = token % ring
    return b.select(token < pinned, token + ring, place) if pinned else place
