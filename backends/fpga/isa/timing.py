"""When each instruction runs: units side by side, in order, with queues, tokens and channels.

Instructions are handed out in the order of the stream, each into the queue of its unit, and wait
there for their tokens; where a queue is full all behind wait until its head has started. Loads and
stores take channels of memory, which serve one after another. `sys` instructions end after all
before them.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

from nybble.backends.fpga.isa.encoding import Instruction
from nybble.backends.fpga.isa.instructions import BLOCK, OPERATIONS, UNITS
from nybble.backends.fpga.isa.machine import Machine
from nybble.dialects.errors import NybbleError

VALUE_BYTES = 2
PASSES = {name: 2 if name in ("softmax", "layernorm", "rmsnorm") else 1 for name in OPERATIONS}
"""How often the elements of an operation go through the lanes (FlightLLM: norms and softmax need
all before the first result)."""


COUNTS = ("read", "written", "shared", "products", "elements")


class DeadlockError(NybbleError):
    """A stream that stops: units wait for tokens that nobody releases."""


@dataclass(frozen=True)
class Timing:
    """What a stream takes. busy: unit -> seconds. read, written: bytes of all regions' memory.

    products: multiplications of 8 bits of all regions; order: indices into the unrolled stream in
    the order in which instructions end, if asked for.
    """

    seconds: float
    busy: dict[str, float]
    read: int
    written: int
    shared: int
    products: int
    elements: int
    order: tuple[int, ...] = ()


def unrolled(program: Sequence[Instruction]) -> Iterator[tuple[int, Instruction]]:
    """The instructions as they are carried out, with the layer whose bases are in force."""
    layer, at, times, start = 0, 0, 0, 0
    while at < len(program):
        one = program[at]
        yield layer, one
        if one.unit == "sys":
            action = one.named("action")
            if action == "loop":
                layer, times, start = 0, one["value"], at
            elif action == "layer":
                layer = one["value"]
            elif action == "end":
                layer += 1
                if layer < times:
                    at = start
            elif action == "halt":
                return
        at += 1


def simulate(machine: Machine, program: Sequence[Instruction], trace: bool = False) -> Timing:
    """The time of a stream; DeadlockError says who waits for whom."""
    return _Clock(machine, trace).run(program)


@dataclass(frozen=True)
class _Waiting:
    """An instruction in a queue, since `since`."""

    index: int
    one: Instruction
    since: float


@dataclass
class _Unit:
    queue: deque["_Waiting"] = field(default_factory=deque["_Waiting"])
    free: float = 0.0
    busy: float = 0.0


class _Clock:
    def __init__(self, machine: Machine, trace: bool):
        self.machine, self.trace = machine, trace
        self.units = {name: _Unit() for name in UNITS}
        self.channels = [0.0] * machine.channels
        self.tokens: dict[tuple[str, str], deque[float]] = {
            (a, b): deque() for a in UNITS for b in UNITS
        }
        self.now = 0.0
        self.handed = 0.0
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.ends: list[tuple[float, int]] = []

    def run(self, program: Sequence[Instruction]) -> Timing:
        if self.trace:
            for index, (_, one) in enumerate(unrolled(program)):
                self._hand_out(index, one)
        else:
            self._run_loops(program)
        self._drain()
        left = [f"{a} to {b}" for (a, b), queue in self.tokens.items() if queue]
        if left:
            raise DeadlockError(
                f"tokens that nobody takes: {', '.join(left)}", accepted="a wait for each release"
            )
        seconds = max(self.now, *(unit.free for unit in self.units.values()))
        busy = {name: unit.busy for name, unit in self.units.items() if unit.busy}
        order = tuple(index for _, index in sorted(self.ends))
        return Timing(seconds, busy, **self.counts, order=order)

    def _run_loops(self, program: Sequence[Instruction]) -> None:
        """Carry out a loop once and count it `value` times: it starts and ends with idle units."""
        times, before = 1, self._state()
        for index, one in enumerate(program):
            self._hand_out(index, one)
            if one.unit == "sys" and one.named("action") == "loop":
                times, before = one["value"], self._state()
            elif one.unit == "sys" and one.named("action") == "end":
                self._repeat(times - 1, before)

    def _state(self) -> tuple[float, dict[str, int], dict[str, float]]:
        busy = {name: unit.busy for name, unit in self.units.items()}
        return self.now, dict(self.counts), busy

    def _repeat(self, times: int, before: tuple[float, dict[str, int], dict[str, float]]) -> None:
        now, counts, busy = before
        self.now += times * (self.now - now)
        self.handed = self.now
        for name, old in counts.items():
            self.counts[name] += times * (self.counts[name] - old)
        for name, old in busy.items():
            self.units[name].busy += times * (self.units[name].busy - old)

    def _hand_out(self, index: int, one: Instruction) -> None:
        """Put an instruction into its queue; carry out others until there is room."""
        if one.unit == "sys":
            self._drain()
            self.now = max(self.now, *(unit.free for unit in self.units.values()))
            self.now += 1 / self.machine.clock
            self.handed = self.now
            self._note(self.now, index)
            return
        unit = self.units[one.unit]
        while len(unit.queue) >= self.machine.queue:
            name, start = self._advance()
            if name == one.unit:
                self.handed = max(self.handed, start)
        unit.queue.append(_Waiting(index, one, self.handed))

    def _drain(self) -> None:
        while any(unit.queue for unit in self.units.values()):
            self._advance()

    def _advance(self) -> tuple[str, float]:
        """Carry out the head of a queue that starts first: its unit, and when."""
        ready = [
            (start, name)
            for name, unit in self.units.items()
            if unit.queue and (start := self._start(name, unit.queue[0])) is not None
        ]
        if not ready:
            raise self._deadlock()
        start, name = min(ready)
        self._carry_out(start, name)
        return name, start

    def _start(self, name: str, head: _Waiting) -> float | None:
        """When the head of a queue has its tokens and its unit; None if a token is missing."""
        when = max(self.units[name].free, self.now, head.since)
        for other in head.one.wait:
            queue = self.tokens[other, name]
            if not queue:
                return None
            when = max(when, queue[0])
        return when

    def _carry_out(self, start: float, name: str) -> None:
        unit = self.units[name]
        head = unit.queue.popleft()
        one = head.one
        for other in one.wait:
            self.tokens[other, name].popleft()
        end, done = self._moved(one, start) if name in ("ld", "st") else self._computed(one, start)
        unit.free = end
        unit.busy += end - start
        for other in one.release:
            self.tokens[name, other].append(done)
        self._note(done, head.index)

    def _note(self, end: float, index: int) -> None:
        if self.trace:
            self.ends.append((end, index))

    def _deadlock(self) -> DeadlockError:
        heads = [
            f"{name} for {'+'.join(sorted(w for w in head.one.wait if not self.tokens[w, name]))}"
            f" at instruction {head.index}"
            for name, unit in self.units.items()
            if unit.queue
            for head in [unit.queue[0]]
        ]
        return DeadlockError(
            f"deadlock: {'; '.join(heads)} wait", accepted="a release for each wait"
        )

    def _moved(self, one: Instruction, start: float) -> tuple[float, float]:
        """When a transfer leaves the unit, and when its data are there."""
        machine = self.machine
        if one.unit == "ld":
            size = one["length"] * one["loops"] * max(one["outer"], 1)
            self.counts["read"] += size * machine.regions
        else:
            size = one["blocks"] * one.tokens * BLOCK * VALUE_BYTES
        efficiency = machine.own_efficiency
        if one.unit == "st":
            size, efficiency = self._stored(one, size)
        used = [one["channel"] - 1] if one["channel"] else range(machine.channels)
        start = max(start, *(self.channels[index] for index in used), 0.0)
        end = start + size / (len(used) * machine.channel_speed * efficiency)
        for index in used:
            self.channels[index] = end
        return end, end + machine.latency

    def _stored(self, one: Instruction, size: int) -> tuple[int, float]:
        machine, mode = self.machine, one.named("mode")
        if mode == "share":
            size *= machine.regions  # of what each region takes in
            self.counts["shared"] += size * machine.regions
            crossed = machine.regions > 1
            return size, machine.crossed_efficiency if crossed else machine.own_efficiency
        if mode in ("keys", "values"):
            size //= VALUE_BYTES
        self.counts["written"] += size * machine.regions
        return size, machine.own_efficiency

    def _computed(self, one: Instruction, start: float) -> tuple[float, float]:
        machine = self.machine
        if one.unit == "misc":
            blocks = one["blocks"] * one.tokens
            self.counts["elements"] += blocks * BLOCK * machine.regions
            clocks = PASSES[one.named("operation")] * ceil(blocks * BLOCK / machine.lanes)
            clocks += machine.misc_drain
        else:
            clocks = product_clocks(machine, one)
            kept = one["columns"] * one["keep"]
            self.counts["products"] += kept * one["rows"] * BLOCK * one.tokens * machine.regions
        end = start + clocks / machine.clock
        return end, end


def product_clocks(machine: Machine, one: Instruction) -> int:
    """Clocks of a product: some rows at a time, and the chain of sums runs empty after each."""
    kept = ceil(one["columns"] * one["keep"] / machine.dot)
    rows = one["rows"] * BLOCK
    if one.unit == "mv":
        started = ceil(rows / machine.vector_start) * machine.vector_start
        return one.tokens * ceil(started / machine.vector_rows) * (kept + machine.drain)
    started = ceil(rows / machine.matrix_start) * machine.matrix_start
    passes = ceil(one.tokens / machine.matrix_tokens)
    return passes * ceil(started / machine.matrix_rows) * (kept + machine.drain)
