"""What a processing element is to be: frozen numbers from which a circuit follows.

A table-stationary element keeps `lanes` tables, each of the sums of `group` activations with every
choice of weight digits, while weights of `rows` outputs a cycle stream by. Two banks of tables let
the next be filled meanwhile. The multiplying element of the same spec, with the activations
themselves in registers, is what it is compared with.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.rtl.digits import Digits, digits_of
from nybble.backends.fpga.rtl.emit import width_of
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.dialects.lowbit.formats.element import Element

READS = 7
"""Read ports of a 32-deep LUT RAM beside its write port: that many rows share a table for free."""
LEAST_STEPS = 4
"""Cycles of a tile below which a sum would be read before it is written."""
MAX_ENTRIES = 32
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class PeSpec:
    """One processing element.

    element: of the weights; group: activations of a table; lanes: tables; rows: outputs a cycle;
    depth: cycles of a tile that the accumulators have room for (a power of two). odd: whether
    activations are bipolar integers, odd ones around 0, whose lowest bit is known.
    """

    element: Element
    group: int = 4
    lanes: int = 16
    rows: int = READS
    depth: int = 1024
    activation_bits: int = 8
    accumulator_bits: int = 24
    odd: bool = False

    def __post_init__(self) -> None:
        digits = self.digits
        if self.group < 1 or digits.radix**self.group > MAX_ENTRIES:
            raise RtlError(
                f"a table of {digits.radix}**{self.group} entries",
                accepted=f"a group of at least 1 with at most {MAX_ENTRIES} entries",
            )
        for name, least, most in (
            ("lanes", 2, 64), ("rows", 1, 64), ("activation_bits", 2, 16),
            ("accumulator_bits", 8, 48),
        ):  # fmt: skip
            value = getattr(self, name)
            if not least <= value <= most:
                raise RtlError(f"{name} of {value}", accepted=f"{least} to {most}")
        if self.depth < LEAST_STEPS or self.depth & (self.depth - 1):
            raise RtlError(
                f"accumulators for {self.depth} cycles", accepted="a power of two from 4 on"
            )
        if self.max_tiles < 1:
            raise RtlError(
                f"accumulators of {self.accumulator_bits} bits for sums of {self.k} products",
                accepted=f"at least {width_of(*self.sum_range)} bits",
            )

    @cached_property
    def digits(self) -> Digits:
        """The digits of the weights."""
        return digits_of(self.element)

    @property
    def k(self) -> int:
        """Activations of a tile."""
        return self.lanes * self.group

    @property
    def macs_per_cycle(self) -> int:
        """Multiplications and additions that a cycle stands for."""
        return self.rows * self.k

    @property
    def entries(self) -> int:
        """Entries of a table."""
        return self.digits.radix**self.group

    @property
    def address_bits(self) -> int:
        """Bits that choose an entry of a table."""
        return (self.entries - 1).bit_length()

    @property
    def activation_range(self) -> tuple[int, int]:
        """The activations, signed."""
        return -(1 << (self.activation_bits - 1)), (1 << (self.activation_bits - 1)) - 1

    @property
    def idle(self) -> int:
        """The activation of a column that is missing: zero, or the least odd one."""
        return 1 + self.activation_range[0] if self.odd else 0

    @property
    def table_range(self) -> tuple[int, int]:
        """What an entry of a table may be."""
        return _products(self.group, self.digits.values[0], self.digits.values[-1], self)

    @property
    def sum_range(self) -> tuple[int, int]:
        """What the sum of one tile may be."""
        return _products(self.k, self.digits.low, self.digits.high, self)

    @property
    def offset_range(self) -> tuple[int, int]:
        """(2**planes - 1) times the sum of the activations of a tile."""
        low, high = self.activation_range
        factor = ((1 << self.digits.planes) - 1) * self.k
        return low * factor, high * factor

    @property
    def max_tiles(self) -> int:
        """Tiles whose sum certainly fits into an accumulator."""
        half = 1 << (self.accumulator_bits - 1)
        low, high = self.sum_range
        return min(half // -low if low < 0 else half, (half - 1) // high if high > 0 else half)

    @property
    def terms(self) -> int:
        """Cycles that a bit-serial element works on a weight."""
        return 1

    @property
    def row_bits(self) -> int:
        """Bits of the weights of a row in a cycle."""
        return self.digits.bits * self.k

    def row_fields(self, weights: I64) -> I64:
        """The bits of weights [..., k], [..., row_bits]; RtlError for what is no weight."""
        digits = self.digits.split(weights)
        width = (self.digits.radix - 1).bit_length()
        return (digits[..., None] >> np.arange(width) & 1).reshape(*weights.shape[:-1], -1)

    def draw(self, shape: tuple[int, int], random: np.random.Generator) -> I64:
        """Random weights i64 [n, k]."""
        planes = (*shape, self.digits.planes)
        return self.digits.join(random.integers(0, self.digits.radix, planes))

    @property
    def name(self) -> str:
        """A name of letters and digits that tells specs apart."""
        element = "".join(one for one in self.element.spell.replace("-", "m") if one.isalnum())
        return (
            f"{element}_g{self.group}_l{self.lanes}_r{self.rows}_d{self.depth}"
            f"_a{self.activation_bits}{'o' * self.odd}_s{self.accumulator_bits}"
        )


def _products(count: int, low: int, high: int, spec: PeSpec) -> tuple[int, int]:
    corners = [w * a for w in (low, high) for a in spec.activation_range]
    return count * min(corners), count * max(corners)
