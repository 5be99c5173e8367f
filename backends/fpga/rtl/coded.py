"""Weights that are codes of small tables, of which groups choose: BitMoD and its special values.

A row says once for all weights of a tile which table it takes (BitMoD, Chen et al., arXiv
2411.11745). Tables differ in the value of one code, so that a bit of what a weight is decoded into
follows from its code and from that bit of the row's special value: one LUT6 for 16 codes and two
terms. A weight is decoded into a two's complement integer, or term by term.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nybble.backends.fpga.elements import serial_element
from nybble.backends.fpga.rtl.digits import Digits, digits_of
from nybble.backends.fpga.rtl.emit import Module, Wire
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.dialects.fpga.serial import SerialAttr
from nybble.dialects.lowbit import formats
from nybble.dialects.lowbit.formats.element import Uniform

I64 = NDArray[np.int64]
Decoder = Callable[[int, int], int]
"""What a code of a table is, as plain bits."""


@dataclass(frozen=True)
class CodedSpec(PeSpec):
    """An element whose weights are codes; `digits` are those of what they stand for."""

    @cached_property
    def serial(self) -> SerialAttr:
        """The tables, and the terms of their values."""
        return serial_element(formats.get(f"{self.element.spell}:g=row:s=f16"))

    @cached_property
    def digits(self) -> Digits:
        """See `PeSpec`: two's complement."""
        width = self.serial.value_bits
        return digits_of(Uniform(width, 1 << (width - 1)))

    @cached_property
    def tables(self) -> I64:
        """Integers [choices, codes]."""
        return np.array(self.serial.numbers("values"), np.int64).reshape(-1, self.serial.codes)

    @property
    def special(self) -> int:
        """The code whose value a row chooses; 0 where there is a single table."""
        different = np.flatnonzero((self.tables != self.tables[0]).any(axis=0))
        assert len(different) <= 1, "special values of BitMoD are those of one code"
        return int(different[0]) if len(different) else 0

    @property
    def terms(self) -> int:
        """Signed powers of two that every weight is a sum of."""
        return self.serial.terms

    @property
    def row_bits(self) -> int:
        """See `PeSpec`: codes, then the number of the row's table."""
        return self.k * self.serial.field_bits + self.serial.index_bits

    def row_fields(self, weights: I64) -> I64:
        """See `PeSpec`: codes that stand for the weights of each row.

        Raises RtlError for weights that no table has.
        """
        flat = weights.reshape(-1, self.k)
        known = np.array([np.isin(flat, table).all(axis=1) for table in self.tables])
        if not known.any(axis=0).all():
            raise RtlError(
                f"weights of a row that no table of '{self.element.spell}' has",
                accepted=f"integers of {self.tables.tolist()}",
            )
        choice = known.argmax(axis=0)
        codes = (self.tables[choice][:, None] == flat[..., None]).argmax(axis=-1)
        codes = codes[..., None] >> np.arange(self.serial.field_bits) & 1
        choice = choice[:, None] >> np.arange(self.serial.index_bits) & 1
        found = np.concatenate([codes.reshape(len(flat), -1), choice], axis=1)
        return found.reshape(*weights.shape[:-1], -1)

    def draw(self, shape: tuple[int, int], random: np.random.Generator) -> I64:
        """See `PeSpec`: each tile of a row chooses."""
        n, k = shape
        tiles = -(-k // self.k)
        choices = random.integers(0, len(self.tables), (n, tiles, 1))
        codes = random.integers(0, self.serial.codes, (n, tiles, self.k))
        return self.tables[choices, codes].reshape(n, -1)[:, :k]


def decoded(
    module: Module, spec: CodedSpec, weights: Wire, decoder: Decoder, width: int, phase: list[Wire]
) -> list[Wire]:
    """What each code of a row is, `width` plain bits each.

    phase: a wire more that `decoder` depends on, or none: a code is `phase * codes + code` then.
    """
    bits, codes = spec.serial.field_bits, spec.serial.codes
    phases = 1 << phase[0].width if phase else 1
    index = (
        [module.extract(weights, spec.k * bits, spec.serial.index_bits)] if _chooses(spec) else []
    )
    special = [
        decoder(table, at * codes + spec.special)
        for at in range(phases)
        for table in range(len(spec.tables))
    ]
    row = _looked_up(module, special, width, [*index, *phase])
    found: list[Wire] = []
    for at in range(spec.k):
        code = module.extract(weights, at * bits, bits)
        found.append(
            module.concat([
                _bit(module, spec, [decoder(0, i) >> bit & 1 for i in range(phases * codes)],
                     [code, *phase], row[bit])
                for bit in range(width)
            ])
        )  # fmt: skip
    return found


def _chooses(spec: CodedSpec) -> bool:
    return len(spec.tables) > 1


def _looked_up(module: Module, values: Sequence[int], width: int, index: list[Wire]) -> list[Wire]:
    """The bits of a value, each a wire."""
    if not index:
        return [module.constant(values[0] >> bit & 1, 1) for bit in range(width)]
    whole = module.rom(values, width, module.concat(index))
    return [module.extract(whole, bit, 1) for bit in range(width)]


def _bit(
    module: Module, spec: CodedSpec, plain: list[int], index: list[Wire], special: Wire
) -> Wire:
    """A bit of what a code is: that of the row's value for the special code."""
    if not _chooses(spec):
        return module.rom(plain, 1, module.concat(index))
    codes = spec.serial.codes
    chosen = [
        one if at % codes != spec.special else by for by in (0, 1) for at, one in enumerate(plain)
    ]
    return module.rom(chosen, 1, module.concat([*index, special]))


def integer_decoder(spec: CodedSpec) -> Decoder:
    """A code as the two's complement integer that it stands for."""
    mask = (1 << spec.digits.planes) - 1
    return lambda table, code: int(spec.tables[table, code]) & mask


@dataclass(frozen=True)
class TermBits:
    """How a term lies in bits: the exponent, whether it is there, whether it is negative."""

    spec: CodedSpec

    @property
    def exponent_bits(self) -> int:
        """Bits of an exponent."""
        return max(self.spec.serial.largest_exponent.bit_length(), 1)

    @property
    def width(self) -> int:
        """Bits of a term."""
        return self.exponent_bits + 2

    def decoder(self, table: int, code: int) -> int:
        """The term of `code % codes` that `code // codes` counts; none beyond the last."""
        number, code = divmod(code, self.spec.serial.codes)
        terms = self.spec.serial.decoded[table * self.spec.serial.codes + code]
        sign, exponent = terms[number] if number < len(terms) else (0, 0)
        used, negative = int(sign != 0), int(sign < 0)
        return exponent | used << self.exponent_bits | negative << (self.exponent_bits + 1)
