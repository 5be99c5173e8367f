"""Memory of a sparse result, which is written once and at its place.

It is reserved for every product that could have a column of its own; pages that nothing is written
to are never taken from the system, and the reservation is cut down to the entries at the end. So no
symbolic phase goes over the products a second time. Products that would reserve more than
`RESERVED` are computed in stretches of rows.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu.spgemm.chunks import Chunks, Ints, Setting
from nybble.backends.cpu.spgemm.frame import PAD
from nybble.backends.cpu.spgemm.spec import Spec
from nybble.backends.cpu.spgemm.turns import SLOTS, Table
from nybble.dialects.spgemm.elements import ELEMENTS, Values
from nybble.dialects.spgemm.matrix import check_fits

RESERVED = 1 << 30
"""Entries of a result that memory is reserved for at a time."""
Arrays: TypeAlias = tuple[NDArray[Any], ...]
Kernel: TypeAlias = Callable[[Arrays, int], None]
"""Gets the arrays that `Turns` lists, and a number of threads."""


def written(
    chunks: Chunks, shape: tuple[int, int], spec: Spec, setting: Setting, kernel: Kernel
) -> tuple[Ints, Ints, Values]:
    """indptr, indices and values of a result whose chunks a kernel makes.

    Raises SparseError where the result does not fit the indices.
    """
    dtypes = np.dtype(f"i{spec.index_bits // 8}"), ELEMENTS[spec.sum_name].dtype
    start = np.zeros(shape[0] + 1, dtypes[0])
    parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
    total = 0
    for stretch in chunks.stretches(RESERVED):
        index, value = _stretch(stretch, start, dtypes, setting, kernel)
        check_fits(total + len(index), shape, spec.index_bits)
        if total:
            start[stretch.firsts[0] + 1 : stretch.firsts[-1] + 1] += total
        total += len(index)
        parts.append((index, value))
    if len(parts) == 1:
        return start, *parts[0]
    empty = tuple(np.zeros(0, dtype) for dtype in dtypes)
    index, value = (np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True))
    return start, index, value


def _stretch(
    chunks: Chunks, start: Ints, dtypes: tuple[Any, Any], setting: Setting, kernel: Kernel
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Indices and values of some chunks; start gets where their rows end among these."""
    count = len(chunks.bounds)
    threads = setting.threads if count >= SLOTS * setting.threads else 1
    made = [np.empty(int(chunks.bounds.sum()) + PAD, dtype) for dtype in dtypes]
    room = int(chunks.bounds.max()) + PAD
    slots = [np.empty(threads * SLOTS * room, dtype) for dtype in dtypes]
    table = Table.of(count, room, made, threads)
    kernel((table.cells, chunks.firsts, start, *made, *(slots if threads > 1 else made)), threads)
    for array in made:
        array.resize(table.entries, refcheck=False)
    return made[0], made[1]
