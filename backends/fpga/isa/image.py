"""The memory of each region before the first token: weights in tiles, norms and rotations.

Whatever a slice has beyond the model's own rows and columns is zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nybble.backends.fpga.isa.instructions import BLOCK, LINE
from nybble.backends.fpga.isa.matrix import Matrix, Tile
from nybble.backends.fpga.isa.plan import Plan
from nybble.dialects.lowbit.formats import Weight

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
CODES = 127
"""Codes of activations, keys and values lie in -127 to 127."""


@dataclass(frozen=True)
class Layer:
    """Parameters of a layer, or of the head, by the names of arguments, and the largest magnitudes
    of keys and of values that its caches can hold."""

    weights: Mapping[str, Weight]
    norms: Mapping[str, F32]
    keys: float = 1.0
    values: float = 1.0


def build(plan: Plan, layers: Sequence[Layer], head: Layer, cos: F32, sin: F32) -> list[U8]:
    """The memory of each region. cos, sin: f32 [context, head / 2]."""
    memories = [np.zeros(plan.bytes, np.uint8) for _ in range(plan.machine.regions)]
    tables = np.concatenate([cos, sin], axis=1)[: plan.context].astype(np.float32)
    for region, memory in enumerate(memories):
        _put(memory, plan.tables_at, tables)
        _fill(plan, memory, region, head, plan.last_params_at, 0, False)
        for index, layer in enumerate(layers):
            at = plan.layers_at + index * plan.layer_bytes
            _fill(plan, memory, region, layer, at, at, True)
    return memories


def _fill(
    plan: Plan, memory: U8, region: int, one: Layer, params: int, base: int, layer: bool
) -> None:
    """Parameters and matrices of a layer, or of the head. base: of the addresses of matrices."""
    scales = (one.keys / CODES, one.keys / CODES * plan.sizes.scale, one.values / CODES)
    _put(memory, params, np.array([*scales, plan.sizes.eps], np.float32))
    for argument, at in plan.norms.items():
        if plan.in_layer(argument) == layer:
            _put(memory, params + at, one.norms[argument.name_hint or ""].astype(np.float32))
    for argument, (matrix, at) in plan.matrices.items():
        if plan.in_layer(argument) == layer:
            data = tiles_of(matrix, one.weights[argument.name_hint or ""], region)
            _put(memory, base + at, data)


def _put(memory: U8, at: int, data: npt.NDArray[np.generic]) -> None:
    raw = np.frombuffer(data.tobytes(), np.uint8)
    memory[at : at + len(raw)] = raw


def tiles_of(matrix: Matrix, weight: Weight, region: int) -> U8:
    """u8: the slice of a region, tile by tile."""
    assert weight.codes is not None, "formats without codes were refused"
    rows, columns = weight.codes.shape
    first = region * matrix.slice
    shape = (matrix.slice, matrix.columns)
    numbers, kept = np.zeros(shape, np.int64), np.zeros(shape, bool)
    mine = slice(first, min(first + matrix.slice, rows))
    count = max(0, mine.stop - first)
    numbers[:count, :columns] = weight.codes[mine].astype(np.int64) - weight.zero_point
    if weight.kept is not None:
        kept[:count, :columns] = weight.kept[mine]
        numbers *= kept
    scales = np.zeros((matrix.slice, matrix.groups), np.float16)
    scales[:count, : weight.scale.shape[1]] = weight.scale[mine]
    return np.concatenate([_tile(matrix, one, numbers, kept, scales) for one in matrix.tiles])


def _tile(
    matrix: Matrix,
    tile: Tile,
    numbers: npt.NDArray[np.int64],
    kept: npt.NDArray[np.bool_],
    scales: npt.NDArray[np.float16],
) -> U8:
    rows = slice(tile.row, tile.row + tile.rows)
    columns = slice(tile.column, tile.column + tile.columns)
    codes, places = numbers[rows, columns], b""
    if matrix.keep < BLOCK:
        index = _places(kept[rows, columns], matrix.keep)
        codes = take(codes, index)
        places = pack(index.reshape(-1), 4)
    groups = slice(tile.column // matrix.group, None) if matrix.group else slice(None)
    count = -(-tile.columns // matrix.group) if matrix.group else 1
    parts = (
        pack(codes.reshape(-1), matrix.bits),
        places,
        scales[rows, groups][:, :count].tobytes(),
    )
    sizes = (tile.codes, tile.places, tile.scales)
    whole = b"".join(part.ljust(size, b"\0") for part, size in zip(parts, sizes, strict=True))
    return np.frombuffer(whole, np.uint8)


def _places(kept: npt.NDArray[np.bool_], keep: int) -> npt.NDArray[np.int64]:
    """i64 [rows / 16, columns / 16, keep]: columns that are kept; any where there is padding."""
    first = kept[::BLOCK].reshape(len(kept) // BLOCK, -1, BLOCK)
    order = np.argsort(~first, axis=-1, kind="stable")[..., :keep]
    return np.sort(order, axis=-1)


def take(codes: npt.NDArray[np.int64], index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of [rows, columns] the columns that an index [rows / 16, columns / 16, keep] names."""
    blocks = codes.reshape(len(index), BLOCK, index.shape[1], BLOCK)
    found = np.take_along_axis(blocks, index[:, None], axis=-1)
    return found.reshape(codes.shape[0], -1)


def pack(numbers: npt.NDArray[np.int64], bits: int) -> bytes:
    """Integers as fields of so many bits, low bits first."""
    each = (numbers[:, None] >> np.arange(bits)) & 1
    return np.packbits(each.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack(raw: U8, bits: int, count: int) -> npt.NDArray[np.int64]:
    """Unsigned integers of so many bits, low bits first."""
    each = np.unpackbits(raw, bitorder="little")[: count * bits].reshape(count, bits)
    return (each.astype(np.int64) << np.arange(bits)).sum(axis=1)


def lines(count: int) -> int:
    """Bytes up to the next line."""
    return -(-count // LINE) * LINE
