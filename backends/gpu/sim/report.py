"""What a simulation tells: findings and counts, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from nybble.backends.gpu.arch import ARCHS
from nybble.backends.gpu.sim import cycles
from nybble.backends.gpu.sim.findings import Finding, SimulationError
from nybble.backends.gpu.sim.profile import Traffic

_CLASSES = {
    "tensor": ("mma", "wgmma", "lmma", "ldmatrix", "stmatrix", "movmatrix"),
    "memory": ("ld", "ldu", "st", "atom", "red", "cp", "prefetch", "prefetchu"),
    "control": ("bra", "brx", "ret", "exit", "bar", "barrier", "mbarrier", "membar", "fence"),
    "warp": ("shfl", "vote", "match", "redux", "activemask", "elect"),
    "move": ("mov", "cvt", "cvta", "selp", "prmt", "createpolicy"),
    "special": ("ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh"),
}
_SHOWN_LINES = 5


@dataclass
class LineTraffic:
    """What one instruction moved; `taken` beside `ideal` is what its access pattern costs."""

    line: int
    instruction: str
    accesses: int
    taken: int
    ideal: int
    bytes: int


@dataclass
class Report:
    """What a simulation found and counted.

    blocks, threads: of the launch. instructions: executed by threads; warp_instructions: issued
    to warps. classes, opcodes: thread instructions of each. mma: how often a warp (or warpgroup)
    executed each matrix instruction. shared: wavefronts by line; globals: sectors of 32 bytes by
    line. unwritten: bytes of each output buffer that were not written.
    """

    kernel: str
    target: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    blocks: int
    threads: int
    instructions: int = 0
    warp_instructions: int = 0
    classes: dict[str, int] = field(default_factory=dict[str, int])
    opcodes: dict[str, int] = field(default_factory=dict[str, int])
    mma: dict[str, int] = field(default_factory=dict[str, int])
    shared: list[LineTraffic] = field(default_factory=list[LineTraffic])
    globals: list[LineTraffic] = field(default_factory=list[LineTraffic])
    unwritten: dict[str, int] = field(default_factory=dict[str, int])
    findings: tuple[Finding, ...] = ()

    @property
    def shared_wavefronts(self) -> int:
        """Wavefronts of all accesses to shared memory."""
        return sum(one.taken for one in self.shared)

    @property
    def shared_ideal(self) -> int:
        """Wavefronts if no two words of an access shared a bank."""
        return sum(one.ideal for one in self.shared)

    @property
    def bank_conflicts(self) -> int:
        """Wavefronts beyond the ideal."""
        return sum(max(0, one.taken - one.ideal) for one in self.shared)

    @property
    def global_sectors(self) -> int:
        """Sectors of 32 bytes that global accesses moved."""
        return sum(one.taken for one in self.globals)

    @property
    def global_bytes(self) -> int:
        """Bytes that global accesses asked for, each byte once for each access of a warp."""
        return sum(one.bytes for one in self.globals)

    @property
    def sector_efficiency(self) -> float:
        """Part of the moved bytes that was asked for; 1 if nothing was moved."""
        return self.global_bytes / (32 * self.global_sectors) if self.globals else 1.0

    @property
    def mma_count(self) -> int:
        """Matrix instructions that warps executed."""
        return sum(self.mma.values())

    @property
    def tensor_cycles(self) -> float | None:
        """Cycles of a multiprocessor that they take, by the model of `sim.cycles`; None for an
        architecture that is not known.
        """
        arch = ARCHS.get(self.target)
        return None if arch is None else cycles.tensor_cycles(self.mma, arch)

    def check(self) -> None:
        """Raise SimulationError with the first findings, if there are any."""
        if not self.findings:
            return
        shown = "; ".join(str(one) for one in self.findings[:3])
        more = f"; and {len(self.findings) - 3} more" if len(self.findings) > 3 else ""
        raise SimulationError(f"kernel '{self.kernel}': {shown}{more}")

    def as_json(self) -> dict[str, Any]:
        """Everything, as json.dumps takes it."""
        made = asdict(self)
        made["findings"] = [{**asdict(one), "kind": str(one.kind)} for one in self.findings]
        derived = (
            "shared_wavefronts", "shared_ideal", "bank_conflicts", "global_sectors",
            "global_bytes", "sector_efficiency", "mma_count", "tensor_cycles",
        )  # fmt: skip
        return made | {name: getattr(self, name) for name in derived}

    def text(self) -> str:
        """A few lines for people."""
        lines = [
            f"kernel {self.kernel} ({self.target}): grid {_triple(self.grid)}, "
            f"block {_triple(self.block)}",
            f"instructions: {self.instructions} of threads, {self.warp_instructions} of warps",
            "  " + ", ".join(f"{name} {n}" for name, n in self.classes.items()),
        ]
        lines += [f"mma: {n} x {name}" for name, n in self.mma.items()]
        if self.tensor_cycles:
            lines.append(f"mma: {self.tensor_cycles:.0f} cycles of a multiprocessor, modelled")
        if self.shared:
            lines.append(
                f"shared memory: {self.shared_wavefronts} wavefronts, ideal {self.shared_ideal}"
            )
            lines += _worst(self.shared)
        if self.globals:
            lines.append(
                f"global memory: {self.global_sectors} sectors, {self.global_bytes} bytes asked "
                f"for, {self.sector_efficiency:.0%} of what was moved"
            )
            lines += _worst(self.globals)
        lines += [f"not written: {n} bytes of {name}" for name, n in self.unwritten.items() if n]
        lines += [str(one) for one in self.findings]
        lines.append(f"findings: {len(self.findings)}")
        return "\n".join(lines) + "\n"


def classify(opcode: str) -> str:
    """The class of an opcode."""
    return next((name for name, opcodes in _CLASSES.items() if opcode in opcodes), "arithmetic")


def by_class(opcodes: Counter[str]) -> dict[str, int]:
    """Counts by class, the most first."""
    made: Counter[str] = Counter()
    for name, count in opcodes.items():
        made[classify(name.split(".")[0])] += count
    return dict(made.most_common())


def by_line(traffic: dict[int, Traffic], lines: list[int], names: list[str]) -> list[LineTraffic]:
    """Counts by line, in the order of the kernel."""
    return [
        LineTraffic(lines[pc], names[pc], one.accesses, one.taken, one.ideal, one.bytes)
        for pc, one in sorted(traffic.items())
    ]


def _triple(extent: tuple[int, int, int]) -> str:
    return "x".join(map(str, extent))


def _worst(traffic: list[LineTraffic]) -> list[str]:
    """The lines that take the most beyond the ideal."""
    costly = sorted(traffic, key=lambda one: one.ideal - one.taken)[:_SHOWN_LINES]
    return [
        f"  line {one.line}: {one.instruction}: {one.taken}, ideal {one.ideal}"
        for one in costly
        if one.taken > one.ideal
    ]
