"""Processing elements by kind: their circuits, how to synthesize them, and how to feed them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.rtl.bit_products import COUNTING, SERIAL
from nybble.backends.fpga.rtl.circt import system_verilog
from nybble.backends.fpga.rtl.emit import Module
from nybble.backends.fpga.rtl.encoding import (
    U32,
    Beats,
    Product,
    counting_beats,
    fields_of,
    multiplier_beats,
    serial_beats,
    table_beats,
)
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.multiplier_pe import multiplier_pe
from nybble.backends.fpga.rtl.narrow_products import MULTIPLY, PLANES
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec, sparse_pe
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.table_pe import table_pe

TABLE, SPARSE = "table", "sparse"
BEATS: Mapping[str, Callable[[PeSpec, Product], Beats]] = {
    TABLE: table_beats,
    MULTIPLY: multiplier_beats,
    PLANES: multiplier_beats,
    SERIAL: serial_beats,
    COUNTING: counting_beats,
}
"""Kind of element that keeps a tile of activations -> how it takes a product."""
KINDS = (*BEATS, SPARSE)


@dataclass(frozen=True)
class Design:
    """One element; kind: "table", "sparse", or a way of `multiplier_pe`."""

    kind: str
    spec: PeSpec | SparseSpec

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind == SPARSE) != isinstance(self.spec, SparseSpec):
            raise RtlError(
                f"a {self.kind} element of {type(self.spec).__name__}",
                accepted=f"{', '.join(KINDS)}; sparse with SparseSpec, others with PeSpec",
            )

    @cached_property
    def modules(self) -> list[Module]:
        """The circuit; its top is last."""
        if isinstance(self.spec, SparseSpec):
            return sparse_pe(self.spec)
        if self.kind == TABLE:
            return table_pe(self.spec)
        return multiplier_pe(self.spec, self.kind)

    @property
    def top(self) -> str:
        """The name of the top module."""
        return self.modules[-1].name

    @cached_property
    def verilog(self) -> str:
        """SystemVerilog of all modules."""
        return system_verilog(self.modules)

    @property
    def options(self) -> str:
        """Words for synthesis: only the sparse element may use DSPs."""
        return "" if self.kind == SPARSE else "-nodsp"

    @property
    def y_fields(self) -> int:
        """Sums that come out in a cycle."""
        return self.spec.rows * (self.spec.tokens if isinstance(self.spec, SparseSpec) else 1)

    @property
    def y_words(self) -> int:
        """Words of y."""
        return -(-self.y_fields * self.spec.accumulator_bits // 32)

    def sums(self, words: U32, rows: int, beats: Beats | None = None) -> NDArray[np.int64]:
        """The words of y [cycles, words] as sums [rows, sums of a row]; beats: of the product."""
        fields = fields_of(words, self.spec.accumulator_bits, self.y_fields)
        tokens = self.y_fields // self.spec.rows
        found = fields.reshape(-1, tokens)[:rows]
        return found if beats is None else beats.start + beats.factor * found


def beats_of(kind: str, spec: PeSpec, product: Product) -> Beats:
    """A product as an element that keeps a tile of activations takes it."""
    return BEATS[kind](spec, product)


def random_product(spec: PeSpec, shape: tuple[int, int], random: np.random.Generator) -> Product:
    """Weights [n, k] of a spec, and activations as it takes them."""
    low, high = spec.activation_range
    step = 1 + spec.odd
    activations = random.choice(np.arange(low + spec.odd, high + 1, step), shape[1])
    return Product(spec.draw(shape, random), activations)


def random_sparse(
    shape: tuple[int, int], block: int, kept: int, random: np.random.Generator
) -> NDArray[np.integer[Any]]:
    """Weights int8 with `kept` nonzeros in each block of a row (the last may be short)."""
    n, k = shape
    blocks = -(-k // block)
    order = np.argsort(random.random((n, blocks, block)), axis=-1)
    values = random.integers(1, 256, (n, blocks, block)) - 128
    values[values == 0] = -128
    return np.where(order < kept, values, 0).reshape(n, -1)[:, :k]
