"""Tokens that a cache with codes keeps as they are: which ones a query sees, and where they lie.

What is a code follows from the last token (`KvFormat.boundary`). The others are f16, in rows of
their own, which are read 16 at a time: first those that are pinned, then those of the ring.

    token t < pinned: row ring + t        token t >= max(boundary, pinned): row t % ring

Their elements come in the order in which a lane has those of codes, so that they meet the same
query and the same sums.
"""

from collections.abc import Sequence

from xdsl.dialects.builtin import i64

from nybble.backends.building.values import Value
from nybble.backends.gpu.builder import GpuBuilder
from nybble.backends.gpu.kernels.attention.coded import TILE
from nybble.backends.gpu.kernels.attention.fragments import gather
from nybble.backends.gpu.kernels.attention.spec import DecodeSpec

Elements = Sequence[tuple[int, int]]


class ExactRows:
    """Rows of one head. length: its keys, with those of the new token."""

    def __init__(
        self, b: GpuBuilder, spec: DecodeSpec, at: dict[str, Value], head: Value, length: Value
    ) -> None:
        kv = spec.format
        self.b, self.spec = b, spec
        start = b.sext(head, i64) * (spec.coded.exact_rows * spec.head_dim * 2)
        self.bases = {name: b.offset(at[f"{name}_exact"], start) for name in "kv"}
        self.first = b.max(spec.coded.boundary(b, length - 1), kv.pinned)
        """The first token that is no code, but for pinned ones."""
        self.pinned = (b.min(length, kv.pinned) + (TILE - 1)) // TILE
        in_ring = (b.max(length - self.first, 0) + (TILE - 1)) // TILE
        self.tiles = self.pinned + in_ring
        """How many tiles of 16 tokens there are."""

    def place(self, tile: Value) -> tuple[Value, Value]:
        """The first row of a tile, and its first token."""
        b, ring = self.b, self.spec.coded.ring
        recent = self.first + (tile - self.pinned) * TILE
        if not self.spec.format.pinned:
            return recent % ring, recent
        pinned = tile < self.pinned
        return (
            b.select(pinned, tile * TILE + ring, recent % ring),
            b.select(pinned, tile * TILE, recent),
        )

    def rows(
        self, name: str, row: Value, element: Value, more: Sequence[int], elements: Elements
    ) -> list[list[Value]]:
        """Pairs of rows `row + more` of "k" or "v"; element: that which counts as 0."""
        size = self.spec.head_dim * 2
        start = self.b.offset(self.bases[name], row * size + element * 2)
        found: list[list[Value]] = []
        for i in more:

            def four(at: Value, offset: int, beyond: int = i * size) -> list[Value]:
                return self.b.load_words(at, offset + beyond, 4)

            found.append(gather(start, elements, four))
        return found
