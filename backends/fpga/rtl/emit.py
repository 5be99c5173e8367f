"""Circuits as text of CIRCT's hw, comb and seq dialects.

A wire knows the range of integers it carries. Sums are as wide as their range needs and no wider,
so nothing overflows and no adder is wider than it must be. Every register has the clock `%clk`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nybble.backends.fpga.rtl.errors import RtlError


@dataclass(frozen=True)
class Wire:
    """A value of a circuit: its name and the range of integers, signed if `low` is negative."""

    name: str
    low: int
    high: int

    @property
    def width(self) -> int:
        """Bits that hold the range."""
        return width_of(self.low, self.high)

    @property
    def type(self) -> str:
        """The type in the IR."""
        return f"i{self.width}"


def width_of(low: int, high: int) -> int:
    """Bits that hold integers from low to high."""
    if low >= 0:
        return max(1, high.bit_length())
    return 1 + max((~low).bit_length(), high.bit_length() if high > 0 else 0)


def bits(name: str, width: int) -> Wire:
    """A wire of plain bits."""
    return Wire(name, 0, (1 << width) - 1)


LUT_INPUTS = 6
SHIFTED = 3
"""Cycles from which on Yosys makes a shift register of LUTs."""


@dataclass
class Tally:
    """What a module has in it, for estimates.

    bits of the wider operand of each adder; bits that logic puts into registers; bits of
    registers, and of shift registers; bits of comparisons; (inputs, width) of each choice; widths
    of factors; (depth, width, reads, late) of each memory; modules used, one for each copy.
    """

    adders: int = 0
    logic: int = 0
    registers: int = 0
    shifts: int = 0
    compared: int = 0
    choices: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    factors: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    memories: list[tuple[int, int, int, bool]] = field(
        default_factory=list[tuple[int, int, int, bool]]
    )
    parts: "list[Module]" = field(default_factory=lambda: list[Module]())


class Module:
    """A module being written: ports are declared, operations are appended, `text` gives it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._ports = ["in %clk : !seq.clock"]
        self._lines: list[str] = []
        self._outputs: list[Wire] = []
        self._count = 0
        self._bitwise_names: set[str] = set()
        self.tally = Tally()

    # ---- ports

    def input(self, name: str, width: int) -> Wire:
        """An input of plain bits."""
        return self.input_range(bits(f"%{name}", width))

    def input_range(self, wire: Wire) -> Wire:
        """An input with a range; the name starts with %."""
        self._ports.append(f"in {wire.name} : {wire.type}")
        return wire

    def output(self, name: str, wire: Wire) -> None:
        """Another output, last so far."""
        self._ports.append(f"out {name} : {wire.type}")
        self._outputs.append(wire)

    def text(self) -> str:
        """The module."""
        names = ", ".join(wire.name for wire in self._outputs)
        types = ", ".join(wire.type for wire in self._outputs)
        body = "\n".join(f"  {line}" for line in (*self._lines, f"hw.output {names} : {types}"))
        return f"hw.module @{self.name}({', '.join(self._ports)}) {{\n{body}\n}}\n"

    # ---- values without a state

    def forward(self, low: int, high: int) -> Wire:
        """A name for a value that `define` gives later: a loop through a register."""
        self._count += 1
        return Wire(f"%v{self._count}", low, high)

    def flag(self) -> Wire:
        """A forward name of one bit."""
        return self.forward(0, 1)

    def define(self, name: Wire, wire: Wire) -> None:
        """Let a forward name be a wire of the same width."""
        if name.width != wire.width:
            raise ValueError(f"{name} is defined by {wire}")
        self._line(name, f"comb.concat {wire.name} : {wire.type}")

    def constant(self, value: int, width: int) -> Wire:
        """A constant, as plain bits."""
        signed = value - (1 << width) if value >> (width - 1) & 1 and value > 0 else value
        return self._emit(f"hw.constant {signed} : i{width}", 0, (1 << width) - 1)

    def zero(self, like: Wire) -> Wire:
        """A zero of the width of a wire."""
        return self.constant(0, like.width)

    def extract(self, wire: Wire, start: int, width: int) -> Wire:
        """Some bits of a wire."""
        text = f"comb.extract {wire.name} from {start} : ({wire.type}) -> i{width}"
        return self._emit(text, 0, (1 << width) - 1)

    def concat(self, wires: Sequence[Wire]) -> Wire:
        """Bits in a row, the first wire lowest."""
        names = ", ".join(wire.name for wire in reversed(wires))
        types = ", ".join(wire.type for wire in reversed(wires))
        width = sum(wire.width for wire in wires)
        return self._emit(f"comb.concat {names} : {types}", 0, (1 << width) - 1)

    def cast(self, wire: Wire, low: int, high: int) -> Wire:
        """The same bits read as another range of the same width."""
        found = Wire(wire.name, low, high)
        if found.width != wire.width:
            raise ValueError(f"{wire} is no {found}")
        return found

    def extend(self, wire: Wire, width: int) -> Wire:
        """The integer in more bits (the range is kept only as far as the caller knows it)."""
        missing = width - wire.width
        if missing < 0:
            raise ValueError(f"{wire} does not fit into {width} bits")
        if missing == 0:
            return wire
        if wire.low >= 0:
            return self.concat([wire, self.constant(0, missing)])
        sign = self.extract(wire, wire.width - 1, 1)
        copies = f"comb.replicate {sign.name} : (i1) -> i{missing}"
        return self.concat([wire, self._emit(copies, 0, (1 << missing) - 1)])

    def extend_range(self, wire: Wire, width: int) -> Wire:
        """A signed wire in `width` bits, with all their range."""
        edge = 1 << (width - 1)
        return Wire(self.extend(wire, width).name, -edge, edge - 1)

    def add(self, left: Wire, right: Wire) -> Wire:
        """left + right."""
        return self._sum("add", left, right, left.low + right.low, left.high + right.high)

    def add_carry(self, left: Wire, right: Wire, carry: Wire) -> Wire:
        """left + right + carry, one bit, in one adder."""
        adders = self.tally.adders
        found = self.add(self.add(left, right), carry)
        self.tally.adders = adders + max(left.width, right.width)
        return found

    def sub(self, left: Wire, right: Wire) -> Wire:
        """left - right."""
        return self._sum("sub", left, right, left.low - right.high, left.high - right.low)

    def _sum(self, verb: str, left: Wire, right: Wire, low: int, high: int) -> Wire:
        self.tally.adders += max(left.width, right.width)
        width = max(width_of(low, high), left.width, right.width)
        names = f"{self.extend(left, width).name}, {self.extend(right, width).name}"
        total = self._emit(f"comb.{verb} {names} : i{width}", 0, (1 << width) - 1)
        return self._narrowed(total, low, high)

    def _narrowed(self, wire: Wire, low: int, high: int) -> Wire:
        width = width_of(low, high)
        if width < wire.width:
            wire = self.extract(wire, 0, width)
        return Wire(wire.name, low, high)

    def mul(self, left: Wire, right: Wire) -> Wire:
        """left * right."""
        corners = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
        low, high = min(corners), max(corners)
        self.tally.factors.append((left.width, right.width))
        width = max(width_of(low, high), left.width, right.width)
        names = f"{self.extend(left, width).name}, {self.extend(right, width).name}"
        product = self._emit(f"comb.mul {names} : i{width}", 0, (1 << width) - 1)
        return self._narrowed(product, low, high)

    def shifted_sum(self, low_part: Wire, high_part: Wire, shift: int, minus: bool) -> Wire:
        """low_part + 2**shift * high_part, or minus it; the low bits need no adder."""
        verb = self.sub if minus else self.add
        if shift == 0:
            return verb(low_part, high_part)
        kept = self.extract(low_part, 0, shift)
        rest = self.extract(low_part, shift, low_part.width - shift)
        rest = Wire(rest.name, low_part.low >> shift, low_part.high >> shift)
        if rest.width < low_part.width - shift:
            raise ValueError(f"{low_part} has more bits than its range needs")
        upper = verb(rest, high_part)
        whole = self.concat([kept, upper])
        edges = (high_part.low << shift, high_part.high << shift)
        if minus:
            return Wire(whole.name, low_part.low - edges[1], low_part.high - edges[0])
        return Wire(whole.name, low_part.low + edges[0], low_part.high + edges[1])

    def shifted(self, wire: Wire, places: int, width: int) -> Wire:
        """wire * 2**places in `width` bits, as plain bits."""
        low = [self.constant(0, places)] if places else []
        return bits(self.extend(self._signed_concat(low, wire), width).name, width)

    def _signed_concat(self, low: Sequence[Wire], wire: Wire) -> Wire:
        whole = self.concat([*low, wire])
        places = whole.width - wire.width
        return Wire(whole.name, wire.low << places, wire.high << places)

    def both(self, *wires: Wire) -> Wire:
        """Bitwise and."""
        return self._bitwise("and", wires)

    def either(self, *wires: Wire) -> Wire:
        """Bitwise or."""
        return self._bitwise("or", wires)

    def differ(self, *wires: Wire) -> Wire:
        """Bitwise exclusive or."""
        return self._bitwise("xor", wires)

    def invert(self, wire: Wire) -> Wire:
        """All bits the other way round."""
        return self.differ(wire, self.constant(-1, wire.width))

    def _bitwise(self, verb: str, wires: Sequence[Wire]) -> Wire:
        names = ", ".join(wire.name for wire in wires)
        wire = self._emit(f"comb.{verb} {names} : {wires[0].type}", 0, (1 << wires[0].width) - 1)
        self._bitwise_names.add(wire.name)
        return wire

    def repeat(self, flag: Wire, width: int) -> Wire:
        """One bit, `width` times."""
        return self._emit(f"comb.replicate {flag.name} : (i1) -> i{width}", 0, (1 << width) - 1)

    def equal(self, left: Wire, right: Wire) -> Wire:
        """Whether two wires have the same bits."""
        self.tally.compared += left.width
        return self._emit(f"comb.icmp eq {left.name}, {right.name} : {left.type}", 0, 1)

    def choose(self, flag: Wire, one: Wire, other: Wire, inputs: int | None = None) -> Wire:
        """One if the flag is set, else the other; both of one width. inputs: see `pick`."""
        self.tally.choices.append((2 if inputs is None else inputs / one.width, one.width))
        text = f"comb.mux {flag.name}, {one.name}, {other.name} : {one.type}"
        return self._emit(text, min(one.low, other.low), max(one.high, other.high))

    def pick(self, wires: Sequence[Wire], index: Wire, inputs: int | None = None) -> Wire:
        """wires[index]; the last is repeated for an index beyond.

        inputs: of all bits, where some wires have a constant or what another has.
        """
        size, width = 1 << index.width, wires[0].width
        self.tally.choices.append((size if inputs is None else inputs / width, width))
        padded = [*wires, *[wires[-1]] * (size - len(wires))]
        names = ", ".join(wire.name for wire in reversed(padded))
        array = self._name()
        self._lines.append(f"{array} = hw.array_create {names} : {wires[0].type}")
        text = (
            f"hw.array_get {array}[{index.name}] : !hw.array<{size}x{wires[0].type}>, {index.type}"
        )
        return self._emit(text, min(w.low for w in wires), max(w.high for w in wires))

    def rom(self, values: Sequence[int], width: int, index: Wire) -> Wire:
        """values[index] as plain bits, each a shifted constant: Yosys reads no array constants."""
        size = 1 << index.width
        self.tally.logic += width * max(1, size >> LUT_INPUTS)
        return self.concat([
            self._rom_bit(sum((value >> bit & 1) << at for at, value in enumerate(values)),
                          size, index)
            for bit in range(width)
        ])  # fmt: skip

    def _rom_bit(self, content: int, size: int, index: Wire) -> Wire:
        names = f"{self.constant(content, size).name}, {self.extend(index, size).name}"
        shifted = self._emit(f"comb.shru {names} : i{size}", 0, (1 << size) - 1)
        return self.extract(shifted, 0, 1)

    # ---- state

    def register(self, wire: Wire, enable: Wire | None = None, reset: Wire | None = None) -> Wire:
        """The wire of the last cycle; kept where `enable` is off; zero after a reset."""
        self.tally.registers += wire.width
        self.tally.logic += wire.width if wire.name in self._bitwise_names else 0
        clause = ""
        if reset is not None:
            clause = f" reset {reset.name}, {self.zero(wire).name}"
        if enable is None:
            text = f"seq.compreg {wire.name}, %clk{clause} : {wire.type}"
        else:
            text = f"seq.compreg.ce {wire.name}, %clk, {enable.name}{clause} : {wire.type}"
        return self._emit(text, wire.low, wire.high)

    def delay(self, wire: Wire, cycles: int) -> Wire:
        """The wire of some cycles ago; a shift register in LUTs if they are many."""
        before = self.tally.registers, self.tally.logic
        width = wire.width
        for _ in range(cycles):
            wire = self.register(wire)
        if cycles >= SHIFTED:
            self.tally.registers, self.tally.logic = before
            self.tally.shifts += width
        return wire

    def memory(
        self, depth: int, write: Wire, address: Wire, data: Wire, reads: Sequence[Wire], late: bool
    ) -> list[Wire]:
        """What lies at each read address of a memory with one write port.

        late: the data come a cycle after their address, as block RAM gives them.
        """
        self.tally.memories.append((depth, data.width, len(reads), late))
        name = self._name()
        kind = f"<{depth}x{data.type}>"
        off, on = self.constant(0, 1), self.constant(1, 1)
        self._lines.append(f"{name} = seq.hlmem @memory{self._count} %clk, {off.name} : {kind}")
        self._lines.append(
            f"seq.write {name}[{address.name}] {data.name} wren {write.name} "
            f"{{ latency = 1 }} : !seq.hlmem{kind}"
        )
        tail = f"rden {on.name} {{ latency = {int(late)} }} : !seq.hlmem{kind}"
        return [
            self._emit(f"seq.read {name}[{read.name}] {tail}", data.low, data.high)
            for read in reads
        ]

    def instance(
        self, label: str, module: "Module", inputs: Sequence[Wire], outputs: Sequence[Wire]
    ) -> None:
        """A copy of another module; `outputs` are forward names, in the order of its outputs."""
        ins = [port for port in module._ports[1:] if port.startswith("in ")]
        outs = [port for port in module._ports if port.startswith("out ")]
        if len(ins) != len(inputs) or len(outs) != len(outputs):
            raise ValueError(f"{module.name} has {len(ins)} inputs and {len(outs)} outputs")
        self.tally.parts.append(module)
        given = ", ".join(
            f"{port.split()[1][1:]}: {wire.name}: {wire.type}"
            for port, wire in zip(ins, inputs, strict=True)
        )
        found = ", ".join(
            f"{port.split()[1]}: {wire.type}" for port, wire in zip(outs, outputs, strict=True)
        )
        names = ", ".join(wire.name for wire in outputs)
        self._lines.append(
            f'{names} = hw.instance "{label}" @{module.name}(clk: %clk: !seq.clock, {given})'
            f" -> ({found})"
        )

    def _name(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def _emit(self, text: str, low: int, high: int) -> Wire:
        wire = Wire(self._name(), low, high)
        self._line(wire, text)
        return wire

    def _line(self, wire: Wire, text: str) -> None:
        if wire.width > 1 << 16:
            raise RtlError(f"a wire of {wire.width} bits", accepted="at most 65536 bits")
        self._lines.append(f"{wire.name} = {text}")
