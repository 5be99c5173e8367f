"""Elements that keep the activations of a tile in registers, a second set of which is filled.

`products` says how the sum of a row is made: without a DSP, as what tables and other elements are
compared with (`narrow_products`; whichever needs fewer LUTs), or bit by bit (`bit_products`).
"""

from collections.abc import Callable, Mapping

from nybble.backends.fpga.rtl.bit_products import COUNTING, SERIAL, counting, serial
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
from nybble.backends.fpga.rtl.narrow_products import MULTIPLY, PLANES, multiply, planes
from nybble.backends.fpga.rtl.row_products import Products
from nybble.backends.fpga.rtl.spec import PeSpec

WAYS: Mapping[str, Callable[[PeSpec], Products]] = {
    MULTIPLY: multiply,
    PLANES: planes,
    SERIAL: serial,
    COUNTING: counting,
}
"""How sums of rows are made, by name."""


def multiplier_pe(spec: PeSpec, products: str) -> list[Module]:
    """The modules of a multiplying element; the last is the top."""
    if products not in WAYS:
        raise RtlError(f"products '{products}'", accepted=", ".join(WAYS))
    kind = WAYS[products](spec)
    top = Module(f"{products}_{spec.name}")
    width = spec.row_bits
    given = tile_ports(top, spec, width * spec.rows)
    row = _row_module(spec, kind)
    fire, activations, more = _control(top, spec, given, kind)
    enable = fire if kind.cycles > 1 else None
    weights = [
        top.register(top.extract(given.w, width * number, width), enable)
        for number in range(spec.rows)
    ]
    shared = [*activations, *more]
    sums, done = accumulated(
        top, spec, given, fire, MultiplierRows(top, row, shared, weights, kind)
    )
    top.output("y", top.concat(sums))
    top.output("y_valid", done)
    return [*kind.parts, row, top]


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
    given: Wire | None = None
    if kind.offset:
        given = module.input_range(Wire("%offset", *spec.offset_range))
    elif kind.cycles > 1:
        given = module.input("cycle", phase_bits(kind))
    weights = module.input("weights", spec.row_bits)
    so_far = module.input("so_far", spec.accumulator_bits)
    first = module.input("first", 1)
    tile = kind.tile(module, activations, weights, given)
    module.output("total", accumulator(module, spec, tile, so_far, first))
    return module


def phase_bits(kind: Products) -> int:
    """Bits of the number of a cycle that weights are worked on."""
    return (kind.cycles - 1).bit_length()


def _control(
    top: Module, spec: PeSpec, given: Ports, kind: Products
) -> tuple[Wire, list[Wire], list[Wire]]:
    """Whether weights are taken; the activations they meet a cycle later; what rows need more."""
    swap, filled, going = top.flag(), top.flag(), top.flag()
    waiting = top.register(filled, reset=given.reset)
    active = top.register(going, reset=given.reset)
    ready, phase = _phases(top, given, kind, active, swap)
    fire = top.both(ready, given.w_valid)
    _, at_limit = counter(top, given.limit, fire, given.reset)
    tile_end = top.both(fire, at_limit)
    top.define(swap, top.both(waiting, top.either(top.invert(active), tile_end)))
    take = top.both(given.a_valid, top.invert(waiting))
    final = top.constant(spec.lanes - 1, (spec.lanes - 1).bit_length())
    lane, last_lane = counter(top, final, take, given.reset)
    top.define(filled, top.choose(waiting, top.invert(swap), top.both(take, last_lane)))
    top.define(going, top.either(swap, top.both(active, top.invert(tile_end))))
    top.output("a_take", take)
    top.output("w_ready", ready)
    held: list[Wire] = []
    beat = _told(top, spec, given.a)
    for number in range(spec.lanes):
        mine = top.both(take, top.equal(lane, top.constant(number, lane.width)))
        whole = top.delay(top.register(top.register(beat, mine), swap), kind.cycles)
        held += _activations(top, spec, whole)
    if not kind.offset:
        return fire, held, phase
    offset = _offset(top, spec, given, (take, lane, swap))
    return fire, held, [top.delay(offset, kind.offset_latency)]


def _phases(
    top: Module, given: Ports, kind: Products, active: Wire, swap: Wire
) -> tuple[Wire, list[Wire]]:
    """Whether weights can be taken, and the number of the cycle that the last ones are in."""
    if kind.cycles == 1:
        return active, []
    last = top.constant(kind.cycles - 1, phase_bits(kind))
    ready, fire = top.flag(), top.flag()
    after = top.forward(0, last.high)
    waiting = top.register(after, reset=given.reset)
    idle = top.equal(waiting, top.zero(waiting))
    top.define(ready, top.both(active, idle))
    top.define(fire, top.both(ready, given.w_valid))
    less = top.extract(top.sub(waiting, top.constant(1, waiting.width)), 0, waiting.width)
    kept = top.choose(idle, top.zero(waiting), less)
    begun = top.either(fire, swap)  # new activations come as late as the next weights
    top.define(after, bits(top.choose(begun, last, kept).name, waiting.width))
    count = top.sub(last, waiting)
    return ready, [bits(top.extract(count, 0, waiting.width).name, waiting.width)]


def _told(top: Module, spec: PeSpec, beat: Wire) -> Wire:
    """What has to be kept of activations: of odd ones all but the lowest bits."""
    if not spec.odd:
        return beat
    width = spec.activation_bits
    return top.concat([top.extract(beat, width * at + 1, width - 1) for at in range(spec.group)])


def _activations(top: Module, spec: PeSpec, told: Wire) -> list[Wire]:
    width = spec.activation_bits - spec.odd
    parts = [top.extract(told, width * at, width) for at in range(spec.group)]
    if spec.odd:
        parts = [top.concat([top.constant(1, 1), part]) for part in parts]
    return [Wire(part.name, *spec.activation_range) for part in parts]


def _offset(top: Module, spec: PeSpec, given: Ports, when: tuple[Wire, Wire, Wire]) -> Wire:
    """(2**planes - 1) times the sum of the activations of a tile, as they are loaded."""
    take, lane, swap = when
    beat = _activations(top, spec, _told(top, spec, given.a))
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
