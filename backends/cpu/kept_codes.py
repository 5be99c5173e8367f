"""Codes of weights of which N of every four columns are kept, and where in the four they are.

The places are a number below 8: the index of the columns in `PATTERNS[N]`. Formats keep as many in
every run, so codes and patterns are matrices. Pruned columns mean zero, as everywhere.
"""

from itertools import combinations

import numpy as np

from nybble.backends.cpu.float_bytes import Bytes
from nybble.backends.cpu.tile_layout import RUN, LayoutError
from nybble.dialects.lowbit.formats.weight import Mask

PATTERNS = {keep: tuple(combinations(range(RUN), keep)) for keep in (1, 2)}
"""N -> the columns of a run that a pattern keeps."""
NUMBERS = 8
"""Patterns that a number has room for."""


def controls(keep: int) -> tuple[int, ...]:
    """For each pattern an i32 whose byte j says where column j is: which of those kept, N if none.

    The patterns repeat to 8 of them.
    """
    words: list[int] = []
    for number in range(NUMBERS):
        columns = PATTERNS[keep][number % len(PATTERNS[keep])]
        places = [columns.index(j) if j in columns else keep for j in range(RUN)]
        words.append(sum(place << 8 * j for j, place in enumerate(places)))
    return tuple(words)


def split_kept(codes: Bytes, kept: Mask, keep: int) -> tuple[Bytes, Bytes]:
    """Kept codes u8 [rows, cols * N / 4] and patterns u8 [rows, cols / 4] of codes [rows, cols].

    Raises LayoutError where another number than N of a run is kept.
    """
    runs = kept.reshape(len(kept), -1, RUN)
    wrong = runs.sum(axis=-1) != keep
    if wrong.any():
        row, run = np.argwhere(wrong)[0].tolist()
        raise LayoutError(
            f"{int(runs[row, run].sum())} of columns {RUN * run} to {RUN * run + 3} of row {row} "
            "are kept",
            accepted=f"{keep} of every {RUN}",
        )
    number = np.zeros(1 << RUN, np.uint8)
    for index, columns in enumerate(PATTERNS[keep]):
        number[sum(1 << column for column in columns)] = index
    bits = (runs << np.arange(RUN, dtype=np.uint8)).sum(axis=-1)
    return codes[kept].reshape(len(codes), -1), number[bits]
