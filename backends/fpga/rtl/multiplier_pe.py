"""What the tables are compared with: the same stream and sums, but a multiplier for each weight.

The activations of a tile lie in registers, a second set of which is filled meanwhile. `products`
says how a weight of few bits is multiplied without a DSP (see `narrow_products`); a comparison
takes whichever needs fewer LUTs.
"""

from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.flow import (
    Ports,
    RowSums,
    accumulated,
    accumulator,
    counter,
    tile_ports,
)
from nybble.backends.fpga.rtl.narrow_products import PRODUCTS, Products, products_of
from nybble.backends.fpga.rtl.spec import PeSpec


def multiplier_pe(spec: PeSpec, products: str) -> list[Module]:
    """The modules of a multiplying element; the last is the top."""
    if products not in PRODUCTS:
        raise RtlError(f"products '{products}'", accepted=", ".join(PRODUCTS))
    kind = products_of(spec, products)
    top = Module(f"{products}_{spec.name}")
    weight_bits = spec.digits.bits * spec.k
    given = tile_ports(top, spec, weight_bits * spec.rows)
    row = _row_module(spec, kind)
    fire, activations, offset = _control(top, spec, given, kind)
    weights = [
        top.register(top.extract(given.w, weight_bits * number, weight_bits))
        for number in range(spec.rows)
    ]
    shared = [*activations, *([top.delay(offset, kind.offset_latency)] if offset else [])]
    sums, done = accumulated(
        top, spec, given, fire, MultiplierRows(top, row, shared, weights, kind)
    )
    top.output("y", top.concat(sums))
    top.output("y_valid", done)
    return [row, top]


class MultiplierRows(RowSums):
    """Rows over the activations in registers; weights are [row][activation][digit]."""

    def __init__(
        self, top: Module, row: Module, shared: list[Wire], weights: list[Wire], kind: Products
    ) -> None:
        self._top, self._row = top, row
        self._shared, self._weights = shared, weights
        self.latency = 1 + kind.latency

    def rows(self, so_far: list[Wire], first: Wire) -> list[Wire]:
        sums = [bits(self._top.flag().name, wire.width) for wire in so_far]
        for row, total in enumerate(sums):
            inputs = [*self._shared, self._weights[row], so_far[row], first]
            self._top.instance(f"row{row}", self._row, inputs, [total])
        return sums


def _row_module(spec: PeSpec, kind: Products) -> Module:
    module = Module("row")
    low, high = spec.activation_range
    activations = [module.input_range(Wire(f"%a{at}", low, high)) for at in range(spec.k)]
    offset = module.input_range(Wire("%offset", *spec.offset_range)) if kind.offset else None
    weights = module.input("weights", spec.k * spec.digits.bits)
    so_far = module.input("so_far", spec.accumulator_bits)
    first = module.input("first", 1)
    width = spec.digits.bits
    codes = [module.extract(weights, width * at, width) for at in range(spec.k)]
    tile = kind.tile(module, activations, codes, offset)
    module.output("total", accumulator(module, spec, tile, so_far, first))
    return module


def _control(
    top: Module, spec: PeSpec, given: Ports, kind: Products
) -> tuple[Wire, list[Wire], Wire | None]:
    """Whether weights are taken; the activations they meet a cycle later; what to subtract."""
    swap, filled, going = top.flag(), top.flag(), top.flag()
    waiting = top.register(filled, reset=given.reset)
    active = top.register(going, reset=given.reset)
    fire = top.both(active, given.w_valid)
    _, at_limit = counter(top, given.limit, fire, given.reset)
    tile_end = top.both(fire, at_limit)
    top.define(swap, top.both(waiting, top.either(top.invert(active), tile_end)))
    take = top.both(given.a_valid, top.invert(waiting))
    final = top.constant(spec.lanes - 1, (spec.lanes - 1).bit_length())
    lane, last_lane = counter(top, final, take, given.reset)
    top.define(filled, top.choose(waiting, top.invert(swap), top.both(take, last_lane)))
    top.define(going, top.either(swap, top.both(active, top.invert(tile_end))))
    top.output("a_take", take)
    top.output("w_ready", active)
    held: list[Wire] = []
    for number in range(spec.lanes):
        mine = top.both(take, top.equal(lane, top.constant(number, lane.width)))
        whole = top.register(top.register(top.register(given.a, mine), swap))
        held += _activations(top, spec, whole)
    offset = _offset(top, spec, given, (take, lane, swap)) if kind.offset else None
    return fire, held, offset


def _activations(top: Module, spec: PeSpec, beat: Wire) -> list[Wire]:
    width = spec.activation_bits
    parts = [top.extract(beat, width * at, width) for at in range(spec.group)]
    return [Wire(part.name, *spec.activation_range) for part in parts]


def _offset(top: Module, spec: PeSpec, given: Ports, when: tuple[Wire, Wire, Wire]) -> Wire:
    """(2**planes - 1) times the sum of the activations of a tile, as they are loaded."""
    take, lane, swap = when
    beat = _activations(top, spec, given.a)
    while len(beat) > 1:
        beat = [top.add(beat[0], beat[1]), *beat[2:]]
    low, high = (spec.k * edge for edge in spec.activation_range)
    after = top.forward(low, high)
    total = top.register(after, take)
    begun = top.invert(top.equal(lane, top.zero(lane)))
    kept = Wire(top.both(total, top.repeat(begun, total.width)).name, low, high)
    whole = top.add(kept, beat[0])
    top.define(after, Wire(top.extract(whole, 0, total.width).name, low, high))
    planes = spec.digits.planes
    scaled = Wire(top.concat([top.constant(0, planes), total]).name, low << planes, high << planes)
    exact = top.extract(top.sub(scaled, total), 0, Wire("", *spec.offset_range).width)
    return top.register(Wire(exact.name, *spec.offset_range), swap)
