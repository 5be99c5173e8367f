"""In which order the entries of a table are built, by one addition a cycle.

Neighbours of a reflected Gray code differ in one digit by one, so that the entry of each is that
of the one before plus or minus an activation (twice, where digits are -1 and 1). The walk starts
from zero: a first step clears, then the least digits are subtracted or added up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nybble.backends.fpga.rtl.digits import Digits


@dataclass(frozen=True)
class Step:
    """One cycle: add or subtract the activation `which`, then maybe write entry `address`.

    clear: the sum becomes zero instead.
    """

    which: int = 0
    minus: bool = False
    clear: bool = False
    write: bool = False
    address: int = 0


def walk(digits: Digits, group: int) -> list[Step]:
    """The steps that write every entry of a table once."""
    steps = [Step(clear=True)]
    least = digits.values[0]
    steps += [Step(which, minus=least < 0) for which in range(group) for _ in range(abs(least))]
    last = steps[-1]
    steps[-1] = Step(last.which, last.minus, last.clear, write=True)
    state = [0] * group
    for which, up in _gray(digits.radix, group):
        state[which] += 1 if up else -1
        moves = [Step(which, minus=not up) for _ in range(digits.step)]
        address = sum(digit * digits.radix**at for at, digit in enumerate(state))
        moves[-1] = Step(which, not up, write=True, address=address)
        steps += moves
    return steps


def _gray(radix: int, group: int) -> Iterator[tuple[int, bool]]:
    """The changes of a reflected Gray code: which digit, and whether it goes up."""
    state = [0] * group
    up = [True] * group
    while True:
        for which in range(group):
            after = state[which] + (1 if up[which] else -1)
            if 0 <= after < radix:
                state[which] = after
                yield which, up[which]
                break
            up[which] = not up[which]
        else:
            return
