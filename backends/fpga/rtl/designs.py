"""Processing elements by kind: their circuits, how to synthesize them, and how to feed them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.rtl.circt import system_verilog
from nybble.backends.fpga.rtl.emit import Module
from nybble.backends.fpga.rtl.encoding import (
    U32,
    Beats,
    Product,
    fields_of,
    multiplier_beats,
    table_beats,
)
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.multiplier_pe import multiplier_pe
from nybble.backends.fpga.rtl.narrow_products import PRODUCTS
from nybble.backends.fpga.rtl.sparse_pe import SparseSpec, sparse_pe
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.table_pe import table_pe

TABLE = "table"
SPARSE = "sparse"
KINDS = (TABLE, *PRODUCTS, SPARSE)


@dataclass(frozen=True)
class Design:
    """One element; kind: "table", "sparse", or which of `narrow_products` multiplies."""

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

    def sums(self, words: U32, rows: int) -> NDArray[np.int64]:
        """The words of y [cycles, words] as integers [rows, sums of a row]."""
        fields = fields_of(words, self.spec.accumulator_bits, self.y_fields)
        tokens = self.y_fields // self.spec.rows
        return fields.reshape(-1, tokens)[:rows]


def beats_of(kind: str, spec: PeSpec, product: Product) -> Beats:
    """A product as an element that keeps a tile of activations takes it."""
    return (table_beats if kind == TABLE else multiplier_beats)(spec, product)


def random_weights(
    spec: PeSpec, shape: tuple[int, int], random: np.random.Generator
) -> NDArray[np.int64]:
    """Integers of the element of a spec."""
    planes = (*shape, spec.digits.planes)
    return spec.digits.join(random.integers(0, spec.digits.radix, planes))


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
