"""What a matmul kernel by lookup tables computes, and the buffers it takes."""

from dataclasses import dataclass
from typing import Literal

from nybble.backends.cpu.kernels.buffers import BufferSpec
from nybble.backends.cpu.kernels.matmul.spec import Codes, MatmulError, MatmulSpec
from nybble.backends.cpu.kernels.tables import TableRows
from nybble.backends.cpu.lut_packing import CHUNK, LutLayout, Order


@dataclass(frozen=True)
class LutCodes(Codes):
    """Weights as indices of tables: the fields of LutLayout, and T(c) = step * c - zero_point."""

    step: int = 1
    order: Order = "lut1"

    def layout(self, rows: int, cols: int) -> LutLayout:
        """The layout of a part."""
        return LutLayout(rows, cols, self.bits, self.group, self.has_zero, self.scale, self.order)


@dataclass(frozen=True)
class LutSpec(MatmulSpec):
    """A matmul whose activation is given as tables; see `TableRows` for t, s, z and u.

    weight: a LutCodes whose order the instruction set can look up. exact, symmetric: the tables.
    """

    activations: Literal["a8", "f32", "bf16", "tables"] = "tables"
    exact: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.weight, LutCodes):
            raise MatmulError("tables with weights that are no indices", accepted="LutCodes")
        if self.weight.group % self.activation_group or self.activation_group % CHUNK:
            raise MatmulError(
                f"tables in groups of {self.activation_group}, weights in groups of "
                f"{self.weight.group}",
                accepted=f"a divisor of {self.weight.group}, a multiple of {CHUNK}",
            )
        permutes = self.weight.order == "lut4"
        if not (self.isa.byte_permute and self.isa.int8_dot if permutes else self.isa.byte_shuffle):
            raise MatmulError(f'order "{self.weight.order}" on {self.isa.name}')

    @property
    def tables(self) -> TableRows:
        """The activation's tables."""
        group = self.activation_group
        return TableRows(self.cols, self.tokens, group, self.exact, self.symmetric)

    def _activation_buffers(self) -> list[BufferSpec]:
        return self.tables.buffers
