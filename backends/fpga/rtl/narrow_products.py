"""Products with weights of few bits, without a DSP, summed over a tile.

- `multiply`: the weight as a narrow signed integer, `activation * weight`, left to synthesis;
- `planes`: activations are masked by a bit of each weight and summed, plane by plane, and planes
  are put together once. Odd weights `2 c - (2**planes - 1)` take the codes `c` and one offset for
  all outputs of a tile; digits -1, 0, 1 negate or mask, and a tree counts what negation leaves.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.sums import combined, levels, tree

MULTIPLY = "multiply"
PRODUCTS = (MULTIPLY, "planes")


@dataclass(frozen=True)
class Products(ABC):
    """One way; latency: cycles from activations and codes to the sum of a tile.

    offset: whether a multiple of the sum of the activations is subtracted, which must come
    `offset_latency` cycles after the weights were taken.
    """

    spec: PeSpec
    latency: int
    offset: bool = False

    @property
    def offset_latency(self) -> int:
        """See above: one cycle for registers in front, and all but the last of ours."""
        return self.latency

    @abstractmethod
    def tile(
        self, module: Module, activations: list[Wire], codes: list[Wire], offset: Wire | None
    ) -> Wire:
        """The sum over activations of activation times weight, with `codes` its digits."""


def products_of(spec: PeSpec, name: str) -> Products:
    """The way of a name of `PRODUCTS` for the weights of a spec."""
    depth = 1 + levels(spec.k)
    if name == MULTIPLY:
        return Multiply(spec, depth)
    if spec.digits.radix == 3:
        return Signs(spec, depth + 1)
    shifted = spec.digits.step == 2
    return Planes(spec, depth + levels(spec.digits.planes) + shifted, offset=shifted)


class Multiply(Products):
    """activation * weight."""

    def tile(
        self, module: Module, activations: list[Wire], codes: list[Wire], offset: Wire | None
    ) -> Wire:
        found = [
            module.register(module.mul(a, self._integer(module, code)))
            for a, code in zip(activations, codes, strict=True)
        ]
        return tree(module, found)

    def _integer(self, module: Module, code: Wire) -> Wire:
        """The weight of its digits: at most one bit more."""
        digits = self.spec.digits
        if digits.radix == 3:  # digits 0, 1, 2: the low bit inverted, the sign where both are off
            high, low = module.extract(code, 1, 1), module.extract(code, 0, 1)
            negative = module.invert(module.either(high, low))
            return Wire(module.concat([module.invert(low), negative]).name, -1, 1)
        if digits.step == 2:  # 2 c + 1 - 2**bits
            sign = module.invert(module.extract(code, digits.planes - 1, 1))
            rest = [module.extract(code, at, 1) for at in range(digits.planes - 1)]
            odd = module.concat([module.constant(1, 1), *rest, sign])
            return Wire(odd.name, digits.low, digits.high)
        return Wire(code.name, digits.low, digits.high)


class Planes(Products):
    """Masks."""

    def tile(
        self, module: Module, activations: list[Wire], codes: list[Wire], offset: Wire | None
    ) -> Wire:
        digits = self.spec.digits
        sums: list[Wire] = []
        for plane in range(digits.planes):
            flags = [module.extract(code, plane, 1) for code in codes]
            parts = [
                _masked(module, a, a, flag) for a, flag in zip(activations, flags, strict=True)
            ]
            sums.append(tree(module, parts))
        tile = combined(module, sums, digits.coefficients)
        if offset is None:
            return tile
        doubled = module.concat([module.constant(0, 1), tile])
        whole = module.sub(Wire(doubled.name, 2 * tile.low, 2 * tile.high), offset)
        return module.register(whole)


class Signs(Products):
    """Negation and masks."""

    def tile(
        self, module: Module, activations: list[Wire], codes: list[Wire], offset: Wire | None
    ) -> Wire:
        parts: list[Wire] = []
        minus: list[Wire] = []
        for wire, code in zip(activations, codes, strict=True):
            used = module.invert(module.extract(code, 0, 1))
            sign = module.both(used, module.invert(module.extract(code, 1, 1)))
            flipped = module.differ(bits(wire.name, wire.width), module.repeat(sign, wire.width))
            parts.append(_masked(module, wire, flipped, used))
            minus.append(module.register(sign))
        return module.register(module.add(tree(module, parts), tree(module, minus)))


def _masked(module: Module, like: Wire, value: Wire, used: Wire) -> Wire:
    """A register of `value` or zero, in the range of an activation."""
    plain = bits(value.name, like.width)
    kept = module.both(plain, module.repeat(used, like.width))
    return module.register(Wire(kept.name, like.low, like.high))
