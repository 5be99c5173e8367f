"""Products bit by bit: of bits that are compared, and of weights that are a few powers of two.

- `xnor`: bipolar weights and activations (bipolar-INT, arXiv 2409.17870). Three columns of a pair
  of planes are compared and counted in two LUTs of six inputs, and counts of pairs that weigh the
  same are summed before planes are put together. What comes out is how much differs.
- `serial`: a term of every weight in a cycle (BitMoD, arXiv 2411.11745). An activation is shifted,
  inverted or left out; a tree counts what inversion leaves, and a register adds terms up.
"""

from collections.abc import Mapping
from functools import cached_property

from nybble.backends.fpga.rtl.coded import CodedSpec, TermBits, decoded
from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.row_products import Products
from nybble.backends.fpga.rtl.spec import PeSpec
from nybble.backends.fpga.rtl.sums import combined, levels, tree
from nybble.dialects.lowbit.formats.element import Bipolar

SERIAL, COUNTING = "serial", "xnor"
ONE_PLANE = 2
"""Bits of activations of one plane: its own and the lowest, which is always 1."""
COMPARED = 3
"""Columns that are compared and counted at once, in LUTs of six inputs."""


def counting(spec: PeSpec) -> Products:
    """Bits that differ, of bipolar integers; raises RtlError for others."""
    if not spec.odd or not isinstance(spec.element, Bipolar):
        raise RtlError(
            f"bits of '{spec.element.spell}' and activations that are compared",
            accepted="bipolar weights and odd activations",
        )
    pairs = spec.digits.planes + spec.activation_bits - 2
    most = min(spec.digits.planes, spec.activation_bits - 1)
    return Counting(spec, 1 + levels(most * -(-spec.k // COMPARED)) + levels(pairs))


def serial(spec: PeSpec) -> Products:
    """Terms of codes of small tables; raises RtlError for other weights."""
    if not isinstance(spec, CodedSpec):
        raise RtlError(f"terms of '{spec.element.spell}'", accepted="codes of small tables")
    return Serial(spec, 2 + levels(spec.k) + spec.terms, cycles=spec.terms)


class Counting(Products):
    """Bits that differ."""

    def tile(
        self, module: Module, activations: list[Wire], weights: Wire, given: Wire | None
    ) -> Wire:
        spec, depth = self.spec, self.latency
        planes, taken = spec.digits.planes, spec.activation_bits - 1
        codes = [module.extract(weights, planes * at, planes) for at in range(spec.k)]
        parts: dict[int, list[Wire]] = {}
        for plane in range(planes):
            for other in range(taken):
                ours = [module.extract(code, plane, 1) for code in codes]
                theirs = [module.extract(one, 1 + other, 1) for one in activations]
                flipped = other == taken - 1  # the sign of two's complement
                found = self._counts(module, ours, theirs, flipped)
                parts.setdefault(plane + other, []).extend(found)
        depth -= 1 + levels(len(parts))
        sums = [module.delay(tree(module, some), depth - levels(len(some)))
                for _, some in sorted(parts.items())]  # fmt: skip
        return combined(module, sums, [1 << place for place in range(len(sums))])

    def _counts(
        self, module: Module, ours: list[Wire], theirs: list[Wire], flipped: bool
    ) -> list[Wire]:
        """How many bits differ, or agree if `flipped`, of some columns each, a cycle later."""
        found: list[Wire] = []
        for at in range(0, len(ours), COMPARED):
            some = [*ours[at : at + COMPARED], *theirs[at : at + COMPARED]]
            half = len(some) // 2
            count = bits(module.flag().name, half.bit_length())
            label = f"count_{count.name.removeprefix('%')}"
            module.instance(label, self.counters[half, flipped], [module.concat(some)], [count])
            found.append(module.register(Wire(count.name, 0, half)))
        return found

    @cached_property
    def counters(self) -> Mapping[tuple[int, bool], Module]:
        """Columns and whether they are flipped -> what counts them."""
        sizes = {min(COMPARED, self.spec.k - at) for at in range(0, self.spec.k, COMPARED)}
        kinds = {False, True} if self.spec.activation_bits > ONE_PLANE else {True}
        return {(half, one): _counter(half, one) for half in sizes for one in kinds}

    @property
    def parts(self) -> list[Module]:
        """See Products: each count is mapped alone, into a LUT for each of its bits.

        Among others Yosys shares their comparisons, and takes 15% more LUTs in all.
        """
        return list(self.counters.values())


def _counter(half: int, flipped: bool) -> Module:
    """How many of some bits differ from as many others, or agree if `flipped`."""
    module = Module(f"count{half}{'_flipped' if flipped else ''}")
    given = module.input("pairs", 2 * half)
    low = (1 << half) - 1
    same = low * flipped
    counts = [((i & low) ^ (i >> half) ^ same).bit_count() for i in range(1 << 2 * half)]
    module.output("count", module.rom(counts, half.bit_length(), given))
    return module


class Serial(Products):
    """A term in a cycle."""

    def tile(
        self, module: Module, activations: list[Wire], weights: Wire, given: Wire | None
    ) -> Wire:
        spec = self.spec
        assert isinstance(spec, CodedSpec)
        made = TermBits(spec)
        phase = [] if given is None else [given]
        terms = decoded(module, spec, weights, made.decoder, made.width, phase)
        parts: list[Wire] = []
        minus: list[Wire] = []
        for value, term in zip(activations, terms, strict=True):
            exponent = module.extract(term, 0, made.exponent_bits)
            used = module.extract(term, made.exponent_bits, 1)
            negative = module.extract(term, made.exponent_bits + 1, 1)
            parts.append(self._part(module, value, exponent, used, negative))
            minus.append(module.register(negative))
        total = module.register(module.add(tree(module, parts), tree(module, minus)))
        return self._summed(module, total, given)

    def _part(
        self, module: Module, value: Wire, exponent: Wire, used: Wire, negative: Wire
    ) -> Wire:
        """A shifted activation, inverted or left out."""
        assert isinstance(self.spec, CodedSpec)
        most = self.spec.serial.largest_exponent
        low, high = value.low << most, ~(value.low << most)
        width = Wire("", low, high).width
        places = [
            module.shifted(value, min(place, most), width) for place in range(min(most + 1, 4))
        ]
        low_exponent = module.extract(exponent, 0, min(exponent.width, 2))
        near = module.pick(places, low_exponent, _inputs(value.width, len(places), width))
        if most >= len(places):
            far = module.extract(module.concat([module.constant(0, 4), near]), 0, width)
            near = module.choose(module.extract(exponent, 2, 1), far, near, 2 * width - 4)
        flipped = module.differ(bits(near.name, width), module.repeat(negative, width))
        kept = module.both(flipped, module.repeat(used, width))
        return module.register(Wire(kept.name, low, high))

    def _summed(self, module: Module, total: Wire, phase: Wire | None) -> Wire:
        """The sum over the terms of a weight, in the cycle after its last one's."""
        spec = self.spec
        if phase is None:
            return module.register(total)
        first = module.equal(module.delay(phase, self.latency - spec.terms), module.zero(phase))
        low, high = spec.terms * total.low, spec.terms * total.high
        after = module.forward(low, high)
        before = module.register(after)
        kept = module.both(before, module.repeat(module.invert(first), before.width))
        whole = module.add(Wire(kept.name, low, high), total)
        module.define(after, Wire(module.extract(whole, 0, after.width).name, low, high))
        return before


def _inputs(value: int, places: int, width: int) -> int:
    """Bits of a value, of so many, that the bits of a choice of its shifts read, in all.

    Below a shifted value is nothing, and above it its sign, whatever the shift.
    """
    return sum(
        len({min(bit - place, value - 1) for place in range(places) if place <= bit})
        for bit in range(width)
    )
