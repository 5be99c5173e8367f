"""Products with weights of few bits, without a DSP, summed over a tile.

- `multiply`: the weight as a narrow signed integer, `activation * weight`, left to synthesis;
- `planes`: activations are masked by a bit of each weight and summed, plane by plane, and planes
  are put together once. Odd weights `2 c - (2**planes - 1)` take the codes `c` and one offset for
  all outputs of a tile; digits -1, 0, 1 negate or mask, and a tree counts what negation leaves.
"""

from nybble.backends.fpga.rtl.coded import CodedSpec, decoded, integer_decoder
from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.row_products import Products
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.sums import combined, levels, tree

MULTIPLY, PLANES = "multiply", "planes"
PRODUCTS = (MULTIPLY, PLANES)
"""What elements are compared with."""


def multiply(spec: PeSpec) -> Products:
    """activation * weight."""
    return Multiply(spec, 1 + levels(spec.k))


def planes(spec: PeSpec) -> Products:
    """Masks, plane by plane."""
    depth = 1 + levels(spec.k)
    if spec.digits.radix == 3:
        return Signs(spec, depth + 1)
    shifted = spec.digits.step == 2
    return Planes(spec, depth + levels(spec.digits.planes) + shifted, offset=shifted)


def codes_of(module: Module, spec: PeSpec, weights: Wire) -> list[Wire]:
    """The digits of each weight of a row."""
    if isinstance(spec, CodedSpec):
        return decoded(module, spec, weights, integer_decoder(spec), spec.digits.bits, [])
    width = spec.digits.bits
    return [module.extract(weights, width * at, width) for at in range(spec.k)]


class Multiply(Products):
    """activation * weight."""

    def tile(
        self, module: Module, activations: list[Wire], weights: Wire, given: Wire | None
    ) -> Wire:
        codes = codes_of(module, self.spec, weights)
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
        self, module: Module, activations: list[Wire], weights: Wire, given: Wire | None
    ) -> Wire:
        digits, codes = self.spec.digits, codes_of(module, self.spec, weights)
        sums: list[Wire] = []
        for plane in range(digits.planes):
            flags = [module.extract(code, plane, 1) for code in codes]
            parts = [
                _masked(module, a, a, flag) for a, flag in zip(activations, flags, strict=True)
            ]
            sums.append(tree(module, parts))
        tile = combined(module, sums, digits.coefficients)
        if given is None:
            return tile
        doubled = module.concat([module.constant(0, 1), tile])
        whole = module.sub(Wire(doubled.name, 2 * tile.low, 2 * tile.high), given)
        return module.register(whole)


class Signs(Products):
    """Negation and masks."""

    def tile(
        self, module: Module, activations: list[Wire], weights: Wire, given: Wire | None
    ) -> Wire:
        codes = codes_of(module, self.spec, weights)
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
