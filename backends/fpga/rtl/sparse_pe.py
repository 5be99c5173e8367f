"""The sparse processing element: products of the nonzero weights of a block alone.

A block is 4 (2:4) or 16 (N:16, FlightLLM, Zeng et al. 2024) neighbouring weights of a row. A cycle
brings two entries for each row, a weight and its place in the block, which chooses an activation;
N nonzeros take N / 2 cycles, and then the next activations are taken. Two tokens share a
multiplier: their activations lie 18 bits apart in its wide input (the INT8 packing of Xilinx
WP486), the products are added along the chain, and the lower sum's sign is given back to the upper.

A dense element of the same kind, which stores a weight for each place, is what it is compared with.
"""

from dataclasses import dataclass

from nybble.backends.fpga.rtl.emit import SHIFTED, Module, Wire, bits
from nybble.backends.fpga.rtl.errors import RtlError
from nybble.backends.fpga.rtl.flow import ports
from nybble.backends.fpga.rtl.sums import levels, tree

ENTRIES = 2
"""Of a row in a cycle: the multipliers of its chain."""
CHAIN = 4
"""Multipliers of a chain where there are many: their sums are added up in LUTs."""
FIELD = 18
"""Bits between two packed products; a chain of up to seven does not overflow them."""


@dataclass(frozen=True)
class SparseSpec:
    """block: weights of a block; rows: outputs a cycle; tokens: 1, or 2 that share multipliers.

    dense: a weight for each place of a block, all of them in a cycle, and no choice.
    """

    block: int = 4
    rows: int = 8
    tokens: int = 2
    accumulator_bits: int = 28
    dense: bool = False

    def __post_init__(self) -> None:
        blocks = (2, 4, 8, 16) if self.dense else (4, 8, 16)
        for name, allowed in (("block", blocks), ("tokens", (1, 2))):
            if getattr(self, name) not in allowed:
                accepted = ", ".join(map(str, allowed))
                raise RtlError(f"{name} of {getattr(self, name)}", accepted=accepted)
        if not 1 <= self.rows <= 64 or not 18 <= self.accumulator_bits <= 32:
            raise RtlError(
                f"{self.rows} rows with accumulators of {self.accumulator_bits} bits",
                accepted="1 to 64 rows, 18 to 32 bits",
            )

    @property
    def entries(self) -> int:
        """Weights of a row in a cycle."""
        return self.block if self.dense else ENTRIES

    @property
    def chain(self) -> int:
        """Multipliers of a chain."""
        return min(self.entries, CHAIN)

    @property
    def latency(self) -> int:
        """Cycles from the weights to the sum that they are part of."""
        return 4 + self.chain + levels(self.entries // self.chain)

    @property
    def index_bits(self) -> int:
        """Bits of a place in a block."""
        return 0 if self.dense else (self.block - 1).bit_length()

    @property
    def entry_bits(self) -> int:
        """Bits of a weight and its place."""
        return 8 + self.index_bits

    @property
    def name(self) -> str:
        """A name of letters and digits that tells specs apart."""
        kind = "chain" if self.dense else "sparse"
        return f"{kind}_b{self.block}_r{self.rows}_t{self.tokens}_s{self.accumulator_bits}"

    def macs_per_cycle(self, kept: int) -> float:
        """Effective multiplications a cycle where `kept` weights of a block are stored."""
        return self.rows * self.tokens * self.block * self.entries / kept


def sparse_pe(spec: SparseSpec) -> list[Module]:
    """The modules of a sparse element; the last is the top. `limit` has no meaning here.

    a: activations [token][place]; w: entries [row][entry] of weight (low bits) and place;
    y: sums [row][token].
    """
    top = Module(spec.name)
    beat = spec.tokens * spec.block * 8
    given = ports(top, beat, spec.rows * spec.entries * spec.entry_bits, 1)
    fire = top.both(given.a_valid, given.w_valid)
    top.output("a_take", top.both(fire, given.w_next))
    top.output("w_ready", given.a_valid)
    activations = top.register(given.a)
    going = top.delay(fire, spec.latency - 1)
    first = top.delay(given.w_first, spec.latency - 1)
    last = top.delay(top.both(fire, given.w_last), spec.latency)
    row = _row_module(spec)
    width = spec.entries * spec.entry_bits
    sums: list[Wire] = []
    for number in range(spec.rows):
        mine = top.extract(given.w, number * width, width)
        found = bits(top.flag().name, spec.tokens * spec.accumulator_bits)
        top.instance(f"row{number}", row, [activations, mine, first, going], [found])
        sums.append(found)
    top.output("y", top.concat(sums))
    top.output("y_valid", last)
    return [row, top]


def _row_module(spec: SparseSpec) -> Module:
    module = Module("row")
    activations = module.input("activations", spec.tokens * spec.block * 8)
    entries = module.input("entries", spec.entries * spec.entry_bits)
    first = module.input("first", 1)
    going = module.input("going", 1)
    chains = [
        _chain(module, spec, activations, entries, at) for at in range(0, spec.entries, spec.chain)
    ]
    parts = [_split(module, spec, chain) for chain in chains]
    kept = [
        _accumulator(module, spec, _added(module, [part[token] for part in parts]), first, going)
        for token in range(spec.tokens)
    ]
    module.output("total", module.concat(kept))
    return module


def _chain(module: Module, spec: SparseSpec, activations: Wire, entries: Wire, start: int) -> Wire:
    """The products of some entries, added from one DSP to the next."""
    chain: Wire | None = None
    for number in range(spec.chain):
        at = start + number
        entry = module.extract(entries, at * spec.entry_bits, spec.entry_bits)
        chosen = _chosen(module, spec, activations, entry, at)
        plain = module.delay(module.extract(entry, 0, 8), number + 3)
        weight = Wire(plain.name, -128, 127)
        _note_shifts(module, spec, number + 2)
        product = module.mul(module.delay(chosen, number), weight)
        chain = module.register(product if chain is None else module.add(product, chain))
    assert chain is not None
    return chain


def _added(module: Module, parts: list[tuple[Wire, Wire | None]]) -> tuple[Wire, Wire | None]:
    """The sum of what chains give for a token, and what must still be added to it."""
    if len(parts) == 1:
        return parts[0]
    whole = [wire if sign is None else module.add(wire, sign) for wire, sign in parts]
    return tree(module, whole), None


def _chosen(module: Module, spec: SparseSpec, activations: Wire, entry: Wire, number: int) -> Wire:
    """The activations of an entry's place, packed: three cycles after the entry."""
    place = None if spec.dense else module.register(module.extract(entry, 8, spec.index_bits))
    tokens: list[Wire] = []
    for token in range(spec.tokens):
        start = token * spec.block * 8
        parts = [module.extract(activations, start + 8 * at, 8) for at in range(spec.block)]
        part = parts[number] if place is None else module.pick(parts, place)
        tokens.append(Wire(module.register(part).name, -128, 127))
    packed = tokens[0]
    if spec.tokens == 2:
        packed = module.shifted_sum(
            module.extend_range(tokens[0], FIELD + 1), tokens[1], FIELD, False
        )
    return module.register(packed)


def _note_shifts(module: Module, spec: SparseSpec, cycles: int) -> None:
    """For estimates: bits of the first token that pass registers one after the other unchanged."""
    if cycles >= SHIFTED:
        passed = 8 if spec.tokens == 1 else 7
        module.tally.shifts += passed
        module.tally.registers -= cycles * passed


def _split(module: Module, spec: SparseSpec, chain: Wire) -> list[tuple[Wire, Wire | None]]:
    """Sums of each token, and what must be added to them."""
    edge = spec.chain * 1 << 14
    if spec.tokens == 1:
        return [(chain, None)]
    sign = module.extract(chain, FIELD - 1, 1)
    low = module.extract(chain, 0, width := Wire("", -edge, edge).width)
    high = module.extract(chain, FIELD, chain.width - FIELD)
    if high.width > width:
        high = module.extract(high, 0, width)
    return [
        (Wire(low.name, -edge, edge), None),
        (Wire(high.name, -(1 << (high.width - 1)), (1 << (high.width - 1)) - 1), sign),
    ]


def _accumulator(
    module: Module, spec: SparseSpec, part: tuple[Wire, Wire | None], first: Wire, going: Wire
) -> Wire:
    width = spec.accumulator_bits
    after = bits(module.flag().name, width)
    total = module.register(after, going)
    kept = module.both(total, module.repeat(module.invert(first), width))
    value = bits(module.extend(part[0], width).name, width)
    whole = module.add(kept, value) if part[1] is None else module.add_carry(kept, value, part[1])
    module.define(after, module.extract(whole, 0, width))
    return total
