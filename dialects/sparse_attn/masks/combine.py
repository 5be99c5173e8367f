"""Masks made of masks: union, intersection, and a choice by head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from nybble.dialects.sparse_attn.masks.errors import MaskError
from nybble.dialects.sparse_attn.masks.mask import Bit, Mask, Number, Pair, Tile, both, either


@dataclass(frozen=True)
class Union(Mask):
    """`a+b`: what any of the parts sees."""

    parts: tuple[Mask, ...]

    def __str__(self) -> str:
        return "+".join(str(part) for part in self.parts)

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        return reduce(either, (part.sees(pair) for part in self.parts))

    def some(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return reduce(either, (part.some(tile) for part in self.parts))

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return reduce(either, (part.every(tile) for part in self.parts))

    @property
    def span(self) -> int | None:
        """See `Mask`."""
        return widest(self.parts)

    @property
    def inner(self) -> tuple[Mask, ...]:
        """See `Mask`."""
        return self.parts


@dataclass(frozen=True)
class Intersection(Mask):
    """`a&b`: what all of the parts see."""

    parts: tuple[Mask, ...]

    def __str__(self) -> str:
        return "&".join(
            f"({part})" if isinstance(part, Union) else str(part) for part in self.parts
        )

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        return reduce(both, (part.sees(pair) for part in self.parts))

    def some(self, tile: Tile) -> Bit:
        """See `Mask`: a tile of which the parts see different keys counts, too."""
        return reduce(both, (part.some(tile) for part in self.parts))

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return reduce(both, (part.every(tile) for part in self.parts))

    @property
    def span(self) -> int | None:
        """See `Mask`."""
        spans = [part.span for part in self.parts if part.span is not None]
        return min(spans, default=None)

    @property
    def inner(self) -> tuple[Mask, ...]:
        """See `Mask`."""
        return self.parts


@dataclass(frozen=True)
class HeadSet:
    """Heads of keys as ranges (first, last), in order and apart; last None: all that follow."""

    ranges: tuple[tuple[int, int | None], ...]

    @staticmethod
    def of(heads: Sequence[int]) -> "HeadSet":
        """The set of these heads."""
        ranges: list[tuple[int, int]] = []
        for head in sorted(set(heads)):
            first, last = ranges[-1] if ranges else (head, head - 2)
            ranges[-1:] = [(first, head)] if head == last + 1 else [*ranges[-1:], (head, head)]
        return HeadSet(tuple(ranges))

    def __str__(self) -> str:
        return ",".join(
            f"{first}" if first == last else f"{first}-{last}" for first, last in self.ranges
        )

    def has(self, head: Number) -> Bit:
        """Whether a head is in the set."""
        return reduce(either, (_within(head, first, last) for first, last in self.ranges), False)

    def complement(self) -> "HeadSet":
        """All other heads."""
        gaps: list[tuple[int, int | None]] = []
        start = 0
        for first, last in self.ranges:
            if first > start:
                gaps.append((start, first - 1))
            assert last is not None
            start = last + 1
        return HeadSet((*gaps, (start, None)))


def _within(head: Number, first: int, last: int | None) -> Bit:
    from_first = True if first == 0 else head >= first
    return from_first if last is None else both(from_first, head <= last)


@dataclass(frozen=True)
class ByHead(Mask):
    """`heads(0-3,5:a;6:b;else:c)`: the mask of the first case that has the head of the keys."""

    cases: tuple[tuple[HeadSet, Mask], ...]
    otherwise: Mask

    def __str__(self) -> str:
        cases = "".join(f"{heads}:{mask};" for heads, mask in self.cases)
        return f"heads({cases}else:{self.otherwise})"

    @property
    def branches(self) -> tuple[tuple[HeadSet, Mask], ...]:
        """All cases with the heads that remain for each: disjoint, and together all heads."""
        taken = [head for heads, _ in self.cases for head in _members(heads)]
        rest = HeadSet.of(taken).complement()
        return (*self.cases, (rest, self.otherwise))

    def _choose(self, head: Number, answer: Callable[[Mask], Bit]) -> Bit:
        bits = (both(heads.has(head), answer(mask)) for heads, mask in self.branches)
        return reduce(either, bits)

    def sees(self, pair: Pair) -> Bit:
        """See `Mask`."""
        return self._choose(pair.head, lambda mask: mask.sees(pair))

    def some(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return self._choose(tile.head, lambda mask: mask.some(tile))

    def every(self, tile: Tile) -> Bit:
        """See `Mask`."""
        return self._choose(tile.head, lambda mask: mask.every(tile))

    @property
    def span(self) -> int | None:
        """See `Mask`."""
        return widest(self.inner)

    @property
    def inner(self) -> tuple[Mask, ...]:
        """See `Mask`."""
        return tuple(mask for _, mask in self.branches)

    def check(self, context: int, heads: int) -> None:
        """See `Mask`."""
        super().check(context, heads)
        for chosen, _ in self.cases:
            last = chosen.ranges[-1][1]
            if last is not None and last >= heads:
                raise MaskError(f"{self} names head {last}", accepted=f"0 to {heads - 1}")


def widest(masks: Sequence[Mask]) -> int | None:
    """The span of what any of several masks sees."""
    spans = [mask.span for mask in masks]
    known = [span for span in spans if span is not None]
    return max(known) if len(known) == len(spans) else None


def _members(heads: HeadSet) -> list[int]:
    return [
        head for first, last in heads.ranges if last is not None for head in range(first, last + 1)
    ]
