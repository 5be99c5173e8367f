"""The table-stationary processing element: look-ups in LUT RAM instead of multiplications.

Each lane has a table of the sums of its activations for every choice of weight digits, written by
one adder that serves all lanes in turn, while the other bank of the same RAM is read. The digits
of a weight group are the address, so that weights are stored as addresses: `address_bits` for
each plane, lane and row. Sums over lanes come first, plane by plane; planes are put together once.
After LUT Tensor Core (Mo et al., 2024), but with RAM instead of a multiplexer per look-up.
"""

from nybble.backends.fpga.rtl.emit import Module, Wire, bits
from nybble.backends.fpga.rtl.flow import (
    Ports,
    RowSums,
    accumulated,
    accumulator,
    counter,
    tile_ports,
)
from nybble.backends.fpga.rtl.spec import READS, PeSpec
from nybble.backends.fpga.rtl.sums import combined, levels, tree
from nybble.backends.fpga.rtl.table_walk import walk


def table_pe(spec: PeSpec) -> list[Module]:
    """The modules of a table-stationary element; the last is the top."""
    top = Module(f"table_{spec.name}")
    look_ups = spec.rows * spec.digits.planes
    given = tile_ports(top, spec, look_ups * spec.lanes * spec.address_bits)
    builder = builder_module(spec)
    row = row_module(spec)
    fire, written, bank = _control(top, spec, given, builder)
    groups = [min(READS, look_ups - at) for at in range(0, look_ups, READS)]
    tables = {count: table_module(spec, count) for count in set(groups)}
    found: list[list[Wire]] = []
    at = 0
    for lane in range(spec.lanes):
        wires: list[Wire] = []
        for number, count in enumerate(groups):
            addresses = [
                top.concat([top.extract(given.w, (at + i) * spec.address_bits, spec.address_bits),
                            bank])
                for i in range(count)
            ]  # fmt: skip
            at += count
            values = [top.forward(*spec.table_range) for _ in range(count)]
            inputs = [written[0][lane], *written[1:], *addresses]
            top.instance(f"lane{lane}_{number}", tables[count], inputs, values)
            wires += values
        found.append(wires)
    sums, done = accumulated(top, spec, given, fire, TableRows(top, spec, row, found))
    top.output("y", top.concat(sums))
    top.output("y_valid", done)
    return [builder, row, *tables.values(), top]


def weight_order(spec: PeSpec) -> str:
    """How the addresses of one cycle lie in `w`, lowest first."""
    return f"[lane {spec.lanes}][row {spec.rows}][plane {spec.digits.planes}]"


class TableRows(RowSums):
    """Rows over the values that the tables give; look-ups of a lane are [row][plane]."""

    def __init__(self, top: Module, spec: PeSpec, row: Module, found: list[list[Wire]]) -> None:
        self._top, self._spec, self._row, self._found = top, spec, row, found
        self.latency = 1 + levels(spec.lanes) + levels(spec.digits.planes)

    def rows(self, so_far: list[Wire], first: Wire) -> list[Wire]:
        planes = self._spec.digits.planes
        sums = [bits(self._top.flag().name, wire.width) for wire in so_far]
        for row, total in enumerate(sums):
            mine = [lane[row * planes + plane] for plane in range(planes) for lane in self._found]
            inputs = [*mine, so_far[row], first]
            self._top.instance(f"row{row}", self._row, inputs, [total])
        return sums


def _control(
    top: Module, spec: PeSpec, given: Ports, builder: Module
) -> tuple[Wire, tuple[list[Wire], Wire, Wire], Wire]:
    """Whether weights are taken; enables of each lane, address and data to write; bank to read."""
    built = top.flag()  # a bank was filled
    full_after = top.forward(0, 3)
    full = top.register(full_after, reset=given.reset)
    none = top.equal(full, top.constant(0, 2))
    two = top.extract(full, 1, 1)
    ready = top.invert(none)
    fire = top.both(ready, given.w_valid)
    _, at_limit = counter(top, given.limit, fire, given.reset)
    emptied = top.both(fire, at_limit)
    more = top.extract(top.add(full, top.constant(1, 1)), 0, 2)
    less = top.extract(top.sub(full, top.constant(1, 1)), 0, 2)
    moved = top.choose(emptied, less, more)
    same = top.invert(top.differ(built, emptied))
    top.define(full_after, bits(top.choose(same, full, moved).name, 2))
    run = top.both(given.a_valid, top.invert(two), top.invert(built))
    bank = _toggle(top, emptied, given.reset)
    lane = top.forward(0, spec.lanes - 1)
    write = top.flag()
    address = bits(top.flag().name, spec.address_bits + 1)
    data = top.forward(*spec.table_range)
    take = top.flag()
    outputs = [write, lane, address, data, take, built]
    top.instance("builder", builder, [given.reset, given.a, run], outputs)
    top.output("a_take", take)
    top.output("w_ready", ready)
    enables = [
        top.both(write, top.equal(lane, top.constant(number, lane.width)))
        for number in range(spec.lanes)
    ]
    return fire, (enables, address, data), bank


def _toggle(module: Module, when: Wire, reset: Wire) -> Wire:
    after = module.flag()
    state = module.register(after, reset=reset)
    module.define(after, module.differ(state, when))
    return state


def table_module(spec: PeSpec, reads: int) -> Module:
    """One table of a lane, both banks, with some read ports; values come a cycle later."""
    module = Module(f"table{reads}")
    width = spec.address_bits + 1
    enable = module.input("enable", 1)
    address = module.input("address", width)
    low, high = spec.table_range
    data = module.input_range(Wire("%data", low, high))
    inputs = [module.input(f"read{i}", width) for i in range(reads)]
    values = module.memory(1 << width, enable, address, data, inputs, late=False)
    for number, value in enumerate(values):
        module.output(f"value{number}", module.register(value))
    return module


def row_module(spec: PeSpec) -> Module:
    """The sum of one row: values of [plane][lane], then the accumulated sum so far."""
    module = Module("row")
    low, high = spec.table_range
    planes = [
        [module.input_range(Wire(f"%p{plane}_{lane}", low, high)) for lane in range(spec.lanes)]
        for plane in range(spec.digits.planes)
    ]
    so_far = module.input("so_far", spec.accumulator_bits)
    first = module.input("first", 1)
    sums = [tree(module, wires) for wires in planes]
    tile = combined(module, sums, spec.digits.coefficients)
    module.output("total", accumulator(module, spec, tile, so_far, first))
    return module


def builder_module(spec: PeSpec) -> Module:
    """The adder that fills tables, lane after lane, one step of the walk a cycle while `run`."""
    module = Module("builder")
    reset = module.input("rst", 1)
    a = module.input("a", spec.group * spec.activation_bits)
    run = module.input("run", 1)
    steps = walk(spec.digits, spec.group)
    limit = module.constant(len(steps) - 1, max(1, (len(steps) - 1).bit_length()))
    step, last = counter(module, limit, run, reset)
    take = module.both(run, last)
    final = module.constant(spec.lanes - 1, (spec.lanes - 1).bit_length())
    lane, last_lane = counter(module, final, take, reset)
    done = module.both(take, last_lane)
    bank = _toggle(module, done, reset)
    which = module.rom([s.which for s in steps], max(1, (spec.group - 1).bit_length()), step)
    minus = module.rom([int(s.minus) for s in steps], 1, step)
    clear = module.rom([int(s.clear) for s in steps], 1, step)
    write = module.rom([int(s.write) for s in steps], 1, step)
    address = module.rom([s.address for s in steps], spec.address_bits, step)
    width = spec.activation_bits
    low, high = spec.activation_range
    parts = [module.extract(a, width * at, width) for at in range(spec.group)]
    chosen = module.pick([Wire(part.name, low, high) for part in parts], which)
    after = module.forward(*spec.table_range)
    total = module.register(after, run, module.both(run, clear))
    module.define(after, _plus_or_minus(module, total, chosen, minus))
    module.output("write", module.register(module.both(run, write)))
    module.output("lane", Wire(module.register(lane).name, 0, spec.lanes - 1))
    module.output("address", module.register(module.concat([address, bank])))
    module.output("data", total)
    module.output("take", take)
    module.output("built", module.register(done))
    return module


def _plus_or_minus(module: Module, total: Wire, part: Wire, minus: Wire) -> Wire:
    """total + part or total - part, in the bits of total: one adder."""
    width = total.width
    flipped = module.differ(module.extend(part, width), module.repeat(minus, width))
    plain = [Wire(total.name, 0, (1 << width) - 1), flipped, minus]
    whole = module.add_carry(*plain)
    return Wire(module.extract(whole, 0, width).name, total.low, total.high)
