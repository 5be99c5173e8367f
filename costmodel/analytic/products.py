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
ELEMENT_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1, "i4": 1, "b1": 1, "lookup": 1}
"""Kind of operations -> bytes of a decoded weight."""


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
        return ELEMENT_BYTES[self.kind]


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
            *_operands(size, tile, named),
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


def _operands(size: ProductSize, tile: Tile, named: Operands) -> tuple[Stream, Stream]:
    """The weight and the activation on their way.

    With `keeps`, a block's decoded weights are read again for each tile of tokens, the whole
    activation for each tile of rows. Without, tiles are ordered so that one operand goes round
    while the other's strips stay: the smaller where it fits, else the one with less to read again.
    """
    stored = stored_bytes(size.description, size.rows, size.cols)
    acts = size.activation_bytes
    rows, tokens = min(tile.rows, size.rows), min(tile.tokens, size.tokens)
    passes = -(-size.tokens // tile.tokens), -(-size.rows // tile.rows)
    if tile.keeps:
        cols = min(tile.cols, size.cols)
        block = rows * cols * size.decoded_bytes
        again = size.codes * size.decoded_bytes
        between = block + acts // size.tokens * tokens * cols // size.cols, acts + block
    else:
        again = stored
        strips = stored * rows // size.rows + acts * tokens // size.tokens
        round_ = min(stored, acts) + strips
        cheaper = stored * (passes[0] - 1) <= acts * (passes[1] - 1)
        between = (round_, strips) if cheaper else (strips, round_)
    return (
        Stream("read", stored, named.weight, again, passes[0], between[0]),
        Stream("read", acts, named.activation, acts, passes[1], between[1], age=acts),
    )
