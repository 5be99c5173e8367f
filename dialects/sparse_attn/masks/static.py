"""Masks that are functions of positions alone."""

from dataclasses import dataclass

from nybble.dialects.sparse_attn.masks.errors import MaskError
from nybble.dialects.sparse_attn.masks.mask import Bit, Mask, Pair, Tile, at_least, both, either


@dataclass(frozen=True)
class Causal(Mask):
    """`causal`: every key up to the query itself."""

    def __str__(self) -> str:
        return "causal"

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        return True

    def some(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return True

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return True

    @property
    def is_band(self) -> bool:
        """See `Mask`."""
        return True


@dataclass(frozen=True)
class Window(Mask):
    """`window(size)`: the last `size` keys up to and including the query."""

    size: int

    def __post_init__(self) -> None:
        at_least(str(self), "a size of", self.size, 1)

    def __str__(self) -> str:
        return f"window({self.size})"

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        return pair.key + self.size > pair.query

    def some(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return tile.end_key + self.size > tile.first_query + 1

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return tile.first_key + self.size >= tile.end_query

    @property
    def span(self) -> int | None:
        """See `Mask`."""
        return self.size

    @property
    def is_band(self) -> bool:
        """See `Mask`."""
        return True


@dataclass(frozen=True)
class Sink(Mask):
    """`sink(count)`: the first `count` keys of the text (StreamingLLM, arXiv:2309.17453)."""

    count: int

    def __post_init__(self) -> None:
        at_least(str(self), "a count of", self.count, 1)

    def __str__(self) -> str:
        return f"sink({self.count})"

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        return pair.key < self.count

    def some(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return tile.first_key < self.count

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return tile.end_key <= self.count

    def check(self, context: int, heads: int) -> None:
        """See `Mask`."""
        if self.count > context:
            raise MaskError(f"{self} in a context of {context}", accepted=f"sink(1 to {context})")


@dataclass(frozen=True)
class Streaming(Mask):
    """`streaming(sink, window)`: `sink(..)+window(..)`, a streaming head of LServe (2502.14866)."""

    sink: int
    window: int

    def __post_init__(self) -> None:
        at_least(str(self), "a sink of", self.sink, 1)
        at_least(str(self), "a window of", self.window, 1)

    def __str__(self) -> str:
        return f"streaming({self.sink},{self.window})"

    @property
    def inner(self) -> tuple[Sink, Window]:
        """The same as two masks, of which this is the union."""
        return Sink(self.sink), Window(self.window)

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        sink, window = self.inner
        return either(sink.sees(pair), window.sees(pair))

    def some(self, tile: Tile) -> Bit:
        """See `Mask`."""
        sink, window = self.inner
        return either(sink.some(tile), window.some(tile))

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        sink, window = self.inner
        return either(sink.every(tile), window.every(tile))


@dataclass(frozen=True)
class Stride(Mask):
    """`stride(size, step, first)`: of blocks of `size` keys, those numbered first, first + step, ..

    Blocks keep their number as the text grows, so that what is never seen need not be kept
    (LongGen, arXiv:2410.01485). Heads with different `first` see different blocks.
    """

    size: int
    step: int
    first: int = 0

    def __post_init__(self) -> None:
        at_least(str(self), "blocks of", self.size, 1)
        at_least(str(self), "a step of", self.step, 1)
        if not 0 <= self.first < self.step:
            raise MaskError(
                f"{self} begins at block {self.first}", accepted=f"0 to {self.step - 1}"
            )

    def __str__(self) -> str:
        first = f",{self.first}" if self.first else ""
        return f"stride({self.size},{self.step}{first})"

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        return (pair.key // self.size + (self.step - self.first)) % self.step < 1

    def some(self, tile: Tile) -> Bit:
        """See `Mask`: the first block from first_key on that is seen begins before end_key."""
        block = tile.first_key // self.size
        ahead = (self.step - 1) - (block + (self.step - 1 - self.first)) % self.step
        return either(ahead < 1, (block + ahead) * self.size < tile.end_key)

    def every(self, tile: Tile) -> Bit:
        """See `Mask`: the keys lie in one block that is seen, or all blocks are."""
        if self.step == 1:
            return True
        block = tile.first_key // self.size
        seen = (block + (self.step - self.first)) % self.step < 1
        return both(seen, (block + 1) * self.size >= tile.end_key)
