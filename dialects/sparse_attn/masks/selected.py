"""Masks whose keys are chosen while a model runs: they need a list as an operand.

A list is i32 [heads, rows, entries]: numbers of runs of `size` keys, -1 for none; a row for all
queries of a call, or one for each run of `size` positions that the call has queries in, or, where
their number is dynamic, one for each query.
"""

from dataclasses import dataclass

from nybble.dialects.sparse_attn.masks.errors import MaskError
from nybble.dialects.sparse_attn.masks.mask import Bit, Mask, Pair, Tile, at_least, either

POLICIES: dict[str, tuple[str, ...]] = {
    "blocks": ("size",),
    "pages": ("size", "count"),
    "kept": ("budget",),
    "heavy": ("budget", "recent"),
    "alisa": ("budget", "recent"),
    "windowkv": ("size", "count", "recent", "layers"),
    "locret": ("budget", "recent"),
}
"""Name -> what its numbers are; a last one called `layers` may be left out.

size: keys of an entry (1 if it is no parameter); count, budget: entries; recent: a window of last
keys that is seen besides; layers: in a row, that share a choice. blocks: lists per head and block
of queries (MInference, LServe's prefill). pages: those of the largest bounds of scores (Quest,
arXiv:2406.10774; LServe, arXiv:2502.14866). heavy: the keys that got most of all attention (H2O,
arXiv:2306.14048). alisa: those that got most of the last queries' (arXiv:2403.17312). windowkv:
runs that got most of it (arXiv:2503.17922). locret: those of the best learned scores
(arXiv:2410.01805). kept: a set that something else keeps.
"""


@dataclass(frozen=True)
class Selected(Mask):
    """`NAME(numbers)` of a row of POLICIES: the keys of a list, and the most recent ones."""

    name: str
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        for parameter, value in zip(POLICIES[self.name], self.numbers, strict=False):
            at_least(str(self), f"a {parameter} of", value, 1)

    def __str__(self) -> str:
        return f"{self.name}({','.join(str(number) for number in self.numbers)})"

    def _number(self, *names: str) -> int | None:
        given = dict(zip(POLICIES[self.name], self.numbers, strict=False))
        return next((given[name] for name in names if name in given), None)

    @property
    def size(self) -> int:
        """Keys of an entry."""
        return self._number("size") or 1

    @property
    def count(self) -> int | None:
        """Entries of a list; None where its type says how many."""
        return self._number("count", "budget")

    @property
    def recent(self) -> int:
        """Last keys, up to and including the query, that are seen in any case."""
        return self._number("recent") or 0

    @property
    def layers(self) -> int:
        """Layers in a row that look at what the first of them chooses."""
        return self._number("layers") or 1

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        last = pair.key + self.recent > pair.query if self.recent else False
        return either(pair.listed[self], last)

    def some(self, tile: Tile) -> Bit:
        """See `Mask`."""
        last = tile.end_key + self.recent > tile.first_query + 1 if self.recent else False
        return either(tile.listed[self], last)

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        last = tile.first_key + self.recent >= tile.end_query if self.recent else False
        return either(tile.whole[self], last)

    @property
    def selections(self) -> tuple[Mask, ...]:
        """See `Mask`."""
        return (self,)

    def check(self, context: int, heads: int) -> None:
        """See `Mask`."""
        if self.size > context or context % self.size:
            raise MaskError(
                f"{self} has runs of {self.size} keys in a context of {context}",
                accepted=f"a divisor of {context}",
            )
        budget = (self.count or 0) * self.size + self.recent
        if budget > context:
            raise MaskError(
                f"{self} keeps {budget} keys of a context of {context}",
                accepted=f"{context} keys at most",
            )
