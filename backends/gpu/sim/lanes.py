"""Which threads execute an instruction, and how they lie in warps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeAlias

import numpy as np

from nybble.backends.gpu.sim.types import Array

WARP = 32

Flow: TypeAlias = "list[tuple[int, Lanes]]"
"""Where threads go on: an index of an instruction and the threads; those left out wait or end."""
Action: TypeAlias = Callable[["Lanes"], "Flow | None"]
"""What an instruction does to threads; None if all go on behind it."""
Reader: TypeAlias = Callable[["Lanes"], Array]
Writer: TypeAlias = Callable[["Lanes", Array], None]


class Lanes:
    """Some threads of a batch of blocks, by number, ascending.

    index: what selects them from an array with one value a thread; a slice if they are
    consecutive. size: how many they are.
    """

    def __init__(self, numbers: Array) -> None:
        self.size = len(numbers)
        self.numbers = numbers
        first = int(numbers[0]) if self.size else 0
        dense = self.size > 0 and int(numbers[-1]) - first + 1 == self.size
        self.index: slice | Array = slice(first, first + self.size) if dense else numbers

    def where(self, mask: Array) -> Lanes:
        """Those for which a mask, one bool each, is set."""
        return Lanes(self.numbers[mask])

    def split(self, mask: Array) -> tuple[Lanes, Lanes]:
        """Those for which a mask is set, and the others."""
        return Lanes(self.numbers[mask]), Lanes(self.numbers[~mask])

    def union(self, other: Lanes) -> Lanes:
        """The threads of both; none may be in both."""
        if not self.size or not other.size:
            return self if self.size else other
        return Lanes(np.sort(np.concatenate([self.numbers, other.numbers])))

    @staticmethod
    def repeated(number: int, count: int) -> Lanes:
        """One thread, as often as it does something in one instruction."""
        made = Lanes(np.full(count, number, np.int64))
        made.index = made.numbers
        return made

    @cached_property
    def warps(self) -> Warps:
        """The warps that they belong to."""
        return Warps(self.numbers)


class Warps:
    """The warps of some threads.

    ids: number of each warp in the batch. active: bool[warps, 32], which lanes are there.
    """

    def __init__(self, numbers: Array) -> None:
        self.whole = len(numbers) % WARP == 0 and _are_whole(numbers)
        if self.whole:
            self.ids = numbers[::WARP] // WARP
            self.active = np.ones((len(self.ids), WARP), np.bool_)
            return
        self.ids, self._rows = np.unique(numbers // WARP, return_inverse=True)
        self._columns = numbers % WARP
        self.active = np.zeros((len(self.ids), WARP), np.bool_)
        self.active[self._rows, self._columns] = True

    def __len__(self) -> int:
        return len(self.ids)

    def spread(self, values: Array) -> Array:
        """Values of the threads [n, ..] as [warps, 32, ..]; zeros for lanes that are not there."""
        if self.whole and values.ndim:
            return values.reshape(len(self.ids), WARP, *values.shape[1:])
        full = np.zeros((len(self.ids), WARP, *values.shape[1:]), values.dtype)
        if self.whole:
            full[:] = values
        else:
            full[self._rows, self._columns] = values
        return full

    def gather(self, values: Array) -> Array:
        """[warps, 32, ..] as values of the threads [n, ..]."""
        if self.whole:
            return values.reshape(-1, *values.shape[2:])
        return values[self._rows, self._columns]


def _are_whole(numbers: Array) -> bool:
    rows = numbers.reshape(-1, WARP)
    return not (rows[:, 0] % WARP).any() and bool((rows[:, -1] - rows[:, 0] == WARP - 1).all())
