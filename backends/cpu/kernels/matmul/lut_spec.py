"""What a matmul kernel by lookup tables computes, and the buffers it takes."""

from dataclasses import dataclass

from nybble.backends.cpu import isa as isa_levels
from nybble.backends.cpu.isa import FourWay, Isa
from nybble.backends.cpu.kernels.buffers import BufferSpec
from nybble.backends.cpu.kernels.matmul.codes import Codes
from nybble.backends.cpu.kernels.matmul.spec import MatmulError, ProductSpec
from nybble.backends.cpu.kernels.tables import TableRows
from nybble.backends.cpu.lut_packing import CHUNK, LutLayout, Order

MOST_COLUMNS = 256
"""Columns of a group whose sums of digits, weighted by planes, fit in 16 bits."""


@dataclass(frozen=True)
class LutSpec(ProductSpec):
    """A matmul whose activation is given as tables; see `TableRows` for t, s, z and u.

    weight: codes without a table. order: that of the indices, see `lut_packing`. exact, symmetric:
    the tables, of groups of `activation_group` columns.
    The other fields are those of ProductSpec.
    """

    weight: Codes
    rows: tuple[int, ...]
    cols: int
    tokens: int = 1
    activation_group: int = 32
    order: Order = "lut1"
    exact: bool = True
    symmetric: bool = False
    bias: bool = False
    residual: bool = False
    glu: str = ""
    threads: int = 8
    isa: Isa = isa_levels.BASELINE

    def __post_init__(self) -> None:
        self.check_outputs()
        assert self.weight.table is None, "codes on a line"
        size, group = self.activation_group, self.weight.group
        if size < 1 or group % size or size % CHUNK or size > MOST_COLUMNS:
            raise MatmulError(
                f"tables in groups of {size}, weights in groups of {group}",
                accepted=f"a divisor of {group} and multiple of {CHUNK}, at most {MOST_COLUMNS}",
            )
        permutes = self.isa.byte_permute.name and self.adder is not None
        if not (permutes if self.order == "lut4" else self.isa.byte_shuffle.name):
            raise MatmulError(
                f"instruction-set level '{self.isa.name}' has nothing that looks up "
                + ("64 bytes" if self.order == "lut4" else "16 bytes")
            )
        assert self.layouts, "a layout for each part"
        assert self.tables

    @property
    def adder(self) -> FourWay | None:
        """What adds the four entries of a lane, each weighted: u8 x s8 on whole registers."""
        dot = self.isa.int_dot
        whole = isinstance(dot, FourWay) and dot.bits == self.isa.vector_bits and not dot.signed
        return dot if isinstance(dot, FourWay) and whole else None

    @property
    def layouts(self) -> tuple[LutLayout, ...]:
        """The packed layout of each part; raises LayoutError where there is none."""
        weight = self.weight
        fields = (weight.bits, weight.group, weight.has_zero, weight.scale)
        return tuple(LutLayout(rows, self.cols, *fields, order=self.order) for rows in self.rows)

    @property
    def tables(self) -> TableRows:
        """The activation's tables."""
        group = self.activation_group
        return TableRows(self.cols, self.tokens, group, self.exact, self.symmetric)

    def activation_buffers(self) -> list[BufferSpec]:
        """t, s, z, and u with rounded entries."""
        return self.tables.buffers
