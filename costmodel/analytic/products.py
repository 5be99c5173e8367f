"""The work of matrix products with low-bit weights, by sizes alone.

The loops are those of `costmodel.targets.target.Tile`: results are computed tile by tile, columns
block by block. With `keeps`, rows of weights are the outer loop and a block's decoded weights serve
all tokens; without, every tile of tokens reads and decodes the weights anew, as the cores of a GPU
do.
"""

from dataclasses import dataclass

from nybble.costmodel.analytic.cost import tally
from nybble.costmodel.analytic.traffic import Stream
from nybble.costmodel.analytic.work import Work, stored_bytes
from nybble.costmodel.targets.target import Tile
from nybble.dialects.lowbit.formats import Format

WIDTH = 4
"""Columns that one look-up stands for."""
_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1, "i4": 1, "b1": 1, "lookup": 1}


@dataclass(frozen=True)
class ProductSize:
    """`tokens` rows of activations times a weight [rows, cols].

    kind: of operations that multiply (`costmodel.targets.target.KINDS`). digits: how often a weight
    is multiplied: with each 8-bit digit of an activation, each of its bit planes, each byte of a
    table's entries. activation_bytes, result_bytes: of all rows as stored.
    """

    description: Format
    rows: int
    cols: int
    tokens: int
    kind: str
    digits: int
    activation_bytes: int
    result_bytes: int

    @property
    def codes(self) -> int:
        """Weights."""
        return self.rows * self.cols

    @property
    def planes(self) -> int:
        """Bits of a code."""
        return self.description.element.bits

    @property
    def decoded_bytes(self) -> int:
        """Bytes of a tile's weight when it is multiplied."""
        return _BYTES[self.kind]


@dataclass(frozen=True)
class Operands:
    """The values of a product, as streams name them; None where there is no IR."""

    activation: object = None
    weight: object = None
    result: object = None


def product(size: ProductSize, tile: Tile, operands: Operands | None = None) -> Work:
    """The work of one product; `tile` says how it is cut."""
    named = operands or Operands()
    passes = -(-size.tokens // tile.tokens)
    return Work(
        tally(_operations(size, 1 if tile.keeps else passes)),
        streams=(
            _weight(size, tile, passes, named.weight),
            _activation(size, tile, named.activation),
            Stream("written", size.result_bytes, named.result, age=size.result_bytes),
        ),
    )


def _operations(size: ProductSize, decodings: int) -> dict[str, int]:
    if size.kind == "lookup":
        looked_up = size.rows * (size.cols // WIDTH) * size.planes
        return {"lookup": looked_up * size.tokens * size.digits}
    times = 2 * size.tokens * size.digits
    if size.kind == "b1":
        return {"b1": size.codes * size.planes * times}
    found = {size.kind: size.codes * times}
    if not size.description.is_plain:
        found["unpack" if size.kind in ("i8", "i4") else "decode"] = size.codes * decodings
    return found


def _weight(size: ProductSize, tile: Tile, passes: int, value: object) -> Stream:
    stored = stored_bytes(size.description, size.rows, size.cols)
    activations = size.activation_bytes // size.tokens * min(tile.tokens, size.tokens)
    if not tile.keeps:
        return Stream("read", stored, value, stored, passes, stored + activations)
    block = min(tile.rows, size.rows) * min(tile.cols, size.cols) * size.decoded_bytes
    share = activations * min(tile.cols, size.cols) // size.cols
    return Stream("read", stored, value, size.codes * size.decoded_bytes, passes, block + share)


def _activation(size: ProductSize, tile: Tile, value: object) -> Stream:
    whole = size.activation_bytes
    passes = -(-size.rows // tile.rows)
    block = min(tile.rows, size.rows) * min(tile.cols, size.cols) * size.decoded_bytes
    return Stream("read", whole, value, whole, passes, whole + block, age=whole)
