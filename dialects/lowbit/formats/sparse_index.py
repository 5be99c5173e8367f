"""Which weights a sparse format keeps, and how their places are stored.

Kept codes lie in the order of the index: by row and column, for blocks block after block, each by
row. An index is one or two arrays:

- N:M: the place of each kept weight in its run of M, ceil(log2 M) bits, low bits first; once for
  all rows that share it;
- bitmap: a bit per weight, low bits first, rows padded to whole bytes;
- csr and BCSR: u32 offsets [rows + 1] and the column (of blocks) of each kept weight or block,
  u16 up to 65536 columns and u32 beyond.
"""

import numpy as np
import numpy.typing as npt

from nybble.dialects.lowbit.formats.arrays import F32, largest
from nybble.dialects.lowbit.formats.errors import FormatError
from nybble.dialects.lowbit.formats.sections import Reader, Writer
from nybble.dialects.lowbit.formats.structure import Blocks, NOfM, Sparsity, Unstructured
from nybble.dialects.lowbit.formats.weight import Mask

I64 = npt.NDArray[np.int64]


def choose(pattern: Sparsity, values: F32) -> Mask:
    """bool [rows, cols]: what to keep of f32 [rows, cols], by magnitude.

    N:M keeps the largest of every run (of the sums of squares of the rows that share columns), the
    lower column at a tie; a permille keeps the largest of the whole matrix, blocks by their sum of
    squares; without one everything but zeros is kept.
    """
    rows, cols = values.shape
    energy = np.square(values.astype(np.float64))
    if isinstance(pattern, NOfM):
        runs = energy.reshape(rows // pattern.block, pattern.block, -1, pattern.of).sum(axis=1)
        order = np.argsort(-runs, axis=-1, kind="stable")[:, :, : pattern.keep]
        kept = np.zeros(runs.shape, bool)
        np.put_along_axis(kept, order, True, axis=-1)
        return np.repeat(kept.reshape(rows // pattern.block, cols), pattern.block, axis=0)
    if isinstance(pattern, Unstructured):
        return _largest(energy, pattern.permille)
    blocks = energy.reshape(rows // pattern.rows, pattern.rows, -1, pattern.cols).sum(axis=(1, 3))
    return _spread(pattern, _largest(blocks, pattern.permille))


def _largest(energy: npt.NDArray[np.float64], permille: int | None) -> Mask:
    return energy > 0 if permille is None else largest(energy, energy.size * permille // 1000)


def _spread(pattern: Blocks, blocks: Mask) -> Mask:
    return np.repeat(np.repeat(blocks, pattern.rows, axis=0), pattern.cols, axis=1)


def places(pattern: Sparsity, kept: Mask) -> tuple[I64, I64]:
    """Row and column of each kept weight, i64 [n] each, in the order of the index."""
    if not isinstance(pattern, Blocks):
        row, col = np.nonzero(kept)
        return row, col
    high, wide = np.nonzero(kept[:: pattern.rows, :: pattern.cols])
    row = high[:, None, None] * pattern.rows + np.arange(pattern.rows)[:, None]
    col = wide[:, None, None] * pattern.cols + np.arange(pattern.cols)
    shape = (len(high), pattern.rows, pattern.cols)
    return np.broadcast_to(row, shape).reshape(-1), np.broadcast_to(col, shape).reshape(-1)


def write_index(pattern: Sparsity, kept: Mask, target: Writer) -> None:
    """Write the index; raises FormatError for a mask that is not of this pattern."""
    if isinstance(pattern, NOfM):
        runs = kept.reshape(len(kept) // pattern.block, pattern.block, -1, pattern.of)
        first = runs[:, 0]
        if (runs != runs[:, :1]).any() or (first.sum(axis=-1) != pattern.keep).any():
            raise FormatError(f"kept weights that are not {pattern.spell}")
        target.small(np.nonzero(first)[-1].astype(np.uint16), (pattern.of - 1).bit_length())
        return
    if isinstance(pattern, Blocks):
        blocks = kept[:: pattern.rows, :: pattern.cols]
        if (_spread(pattern, blocks) != kept).any():
            raise FormatError(f"kept weights that are not {pattern.spell}")
        write_csr(blocks, target)
    elif pattern.index == "bitmap":
        target.put(np.packbits(kept, axis=1, bitorder="little"))
    else:
        write_csr(kept, target)


def write_csr(kept: Mask, target: Writer) -> None:
    """Offsets and columns of a mask."""
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    target.put(offsets.astype("<u4"))
    target.put(np.nonzero(kept)[1].astype(np.dtype(column_type(kept.shape[1])).newbyteorder("<")))


def column_type(cols: int) -> type[np.uint16 | np.uint32]:
    """What stores a column number."""
    return np.uint16 if cols <= 1 << 16 else np.uint32


def read_index(pattern: Sparsity, source: Reader, rows: int, cols: int) -> Mask:
    """The mask bool [rows, cols]; raises FormatError for an index that is none of this pattern."""
    if isinstance(pattern, NOfM):
        return _read_runs(pattern, source, rows, cols)
    if isinstance(pattern, Blocks):
        blocks = read_csr(source, rows // pattern.rows, cols // pattern.cols)
        return _spread(pattern, blocks)
    if pattern.index == "csr":
        return read_csr(source, rows, cols)
    width = -(-cols // 8)
    bits = source.take(np.uint8, rows * width).reshape(rows, width)
    return np.unpackbits(bits, axis=1, count=cols, bitorder="little").astype(bool)


def _read_runs(pattern: NOfM, source: Reader, rows: int, cols: int) -> Mask:
    high, runs = rows // pattern.block, cols // pattern.of
    width = (pattern.of - 1).bit_length()
    index = source.small(high * runs * pattern.keep, width).reshape(high, runs, pattern.keep)
    if (index >= pattern.of).any() or (np.diff(index.astype(np.int32), axis=-1) <= 0).any():
        raise FormatError(f"places in a run of {pattern.of} that do not rise")
    kept = np.zeros((high, runs, pattern.of), bool)
    np.put_along_axis(kept, index.astype(np.int64), True, axis=-1)
    return np.repeat(kept.reshape(high, cols), pattern.block, axis=0)


def read_csr(source: Reader, rows: int, cols: int) -> Mask:
    """The mask bool [rows, cols] of `write_csr`; FormatError unless columns rise in each row."""
    offsets = source.take(np.uint32, rows + 1).astype(np.int64)
    counts = np.diff(offsets)
    if offsets[0] or (counts < 0).any():
        raise FormatError("row offsets that do not rise from 0")
    columns = source.take(column_type(cols), int(offsets[-1])).astype(np.int64)
    row = np.repeat(np.arange(rows), counts)
    flat = row * cols + columns
    if (columns >= cols).any() or (np.diff(flat) <= 0).any():
        raise FormatError(f"columns that do not rise below {cols} in each row")
    kept = np.zeros(rows * cols, bool)
    kept[flat] = True
    return kept.reshape(rows, cols)
