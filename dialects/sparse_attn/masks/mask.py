"""What every mask answers: of one query and key, and of a tile of them.

A rule is written once, with operators alone, and evaluated on whatever has these: numpy arrays
(the reference), Python integers (block lists) and the values of a kernel that is being built. So
the reference and the code cannot disagree.

No key after its query is ever seen. Whoever asks takes care of that: `Pair.key <= Pair.query` is
no part of a rule, and the keys of a tile end where its queries end.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from nybble.dialects.sparse_attn.masks.errors import MaskError

Number: TypeAlias = Any
"""An int, an array of integers, or a kernel's value: anything with + - * // % < <= > >=."""
Bit: TypeAlias = Any
"""A bool (known beforehand), an array of bool, or a kernel's bit: anything with & and |."""


def either(left: Bit, right: Bit) -> Bit:
    """left | right, where a bool that is known decides or drops out."""
    if isinstance(left, bool):
        return True if left else right
    if isinstance(right, bool):
        return True if right else left
    return left | right


def both(left: Bit, right: Bit) -> Bit:
    """left & right, where a bool that is known decides or drops out."""
    if isinstance(left, bool):
        return right if left else False
    if isinstance(right, bool):
        return left if right else False
    return left & right


@dataclass(frozen=True)
class Pair:
    """A query at position `query` and the key at position `key`.

    head: of the keys. listed: for each selection whether its list has this key.
    """

    query: Number
    key: Number
    head: Number
    listed: Mapping["Mask", Bit]


@dataclass(frozen=True)
class Tile:
    """Queries first_query .. end_query - 1 and keys first_key .. end_key - 1 of one head.

    end_key must not be above end_query, nor any range empty. listed: for each selection whether
    its list has a key of the tile, for any of the queries; whole: whether it has all, for all.
    """

    first_query: Number
    end_query: Number
    first_key: Number
    end_key: Number
    head: Number
    listed: Mapping["Mask", Bit]
    whole: Mapping["Mask", Bit]


class Mask(abc.ABC):
    """A rule over absolute positions; its text, `str(mask)`, is read back by `parse`."""

    @abc.abstractmethod
    def sees(self, pair: Pair) -> Bit:
        """Whether the query sees the key."""

    @abc.abstractmethod
    def some(self, tile: Tile) -> Bit:
        """Whether any query sees any key: never false where one does."""

    @abc.abstractmethod
    def every(self, tile: Tile) -> Bit:
        """Whether every query sees every key: never true where one does not."""

    @property
    def span(self) -> int | None:
        """How many most recent keys a query can see at most; None for all of them."""
        return None

    @property
    def is_band(self) -> bool:
        """Whether a query sees the keys of its span, all of them and no others."""
        return False

    @property
    def inner(self) -> "tuple[Mask, ...]":
        """The masks that this one is made of."""
        return ()

    @property
    def selections(self) -> "tuple[Mask, ...]":
        """The parts that need a list as an operand, each once, in the order of the operands."""
        return tuple(dict.fromkeys(one for mask in self.inner for one in mask.selections))

    def check(self, context: int, heads: int) -> None:
        """Raise MaskError unless this fits `context` positions and `heads` heads of keys."""
        for mask in self.inner:
            mask.check(context, heads)


def at_least(mask: str, name: str, value: int, least: int) -> None:
    """Raise MaskError unless a number of a mask is `least` or more."""
    if value < least:
        raise MaskError(f"{mask} has {name} {value}", accepted=f"{least} or more")
