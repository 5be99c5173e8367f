"""What the machine code of a kernel looks like: instructions, spills, vector registers, loops.

Most of a kernel's code runs once; what it does all the time is in its innermost loops, which are
found by their jumps. `throughput` asks llvm-mca how long a trip of them takes.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nybble.backends.llvm.toolchain import output_of

_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>[^>]+)>:$")
_LINE = re.compile(r"^\s*(?P<at>[0-9a-f]+):\s+(?P<code>\S.*)$")
_JUMP = re.compile(r"^j\w+\s+0x(?P<to>[0-9a-f]+)")
_PAD = re.compile(r"^(nop|int3|data16)")
_VECTOR = re.compile(r"%([xyz]mm)(\d+)")
_STACK = re.compile(r"\(%r[sb]p[,)]")
_STORED = re.compile(r"%[xyz]mm\d+, [^,]*\(%r[sb]p[^)]*\)$")
_MULTIPLIED = ("vfmadd", "vfnmadd", "vpmadd", "vpdp", "vpmull", "vpshufb", "vpermb")
_TRIPS = 24


@dataclass(frozen=True)
class Instruction:
    """at: its address. code: in AT&T's syntax."""

    at: int
    code: str


@dataclass(frozen=True)
class Throughput:
    """A trip of a loop by llvm-mca, whose operands all are in the nearest cache.

    cycles: of one trip among many. instructions, micro_operations: of one trip. limit: the units of
    the processor that are busy longest.
    """

    cycles: float
    instructions: int
    micro_operations: float
    limit: str

    def __str__(self) -> str:
        busy = f", mostly {self.limit}" if self.limit else ""
        return f"{self.cycles:.1f} cycles for {self.instructions} instructions{busy}"


def disassembled(data: bytes) -> dict[str, list[Instruction]]:
    """Function -> its instructions in an object file."""
    text = output_of("llvm-objdump", ["-d", "--no-show-raw-insn"], data).decode()
    found: dict[str, list[Instruction]] = {}
    code: list[Instruction] = []
    for line in text.splitlines():
        head, one = _FUNCTION.match(line), _LINE.match(line)
        if head is not None:
            code = found[head["name"]] = []
        elif one is not None:
            code.append(Instruction(int(one["at"], 16), one["code"].split("#")[0].rstrip()))
    return found


def inspect(data: bytes) -> dict[str, dict[str, int]]:
    """Function -> its counts: instructions, vector, multiplies, spills, reloads, registers, and
    inner, inner_stack.

    vector: instructions with a vector register. spills, reloads: vector registers that go to the
    stack and come back. registers: vector registers in use. inner: instructions of innermost loops;
    inner_stack: those among them that move a vector register to or from the stack. What pads the
    code is left out. x86-64 only; empty counts elsewhere.
    """
    return {name: dict(_counts(code)) for name, code in disassembled(data).items()}


def _counts(code: Sequence[Instruction]) -> Mapping[str, int]:
    lines = [one.code for one in code if not _PAD.match(one.code)]
    inner = [one.code for loop in innermost(code) for one in loop if not _PAD.match(one.code)]
    vectors = [line for line in lines if _VECTOR.search(line)]
    stack = [line for line in vectors if _STACK.search(line)]
    stored = sum(1 for line in stack if _STORED.search(line))
    return {
        "instructions": len(lines),
        "vector": len(vectors),
        "multiplies": sum(1 for line in lines if line.startswith(_MULTIPLIED)),
        "spills": stored,
        "reloads": len(stack) - stored,
        "registers": len({n for line in vectors for _, n in _VECTOR.findall(line)}),
        "inner": len(inner),
        "inner_stack": sum(1 for one in inner if _VECTOR.search(one) and _STACK.search(one)),
    }


def _vectors(lines: Sequence[str]) -> int:
    return sum(1 for line in lines if _VECTOR.search(line))


def innermost(code: Sequence[Instruction]) -> Iterator[Sequence[Instruction]]:
    """The loops of a function that have no loop in them, each from the target of its jump back."""
    places = {one.at: place for place, one in enumerate(code)}
    ends: dict[int, int] = {}
    for place, one in enumerate(code):
        jump = _JUMP.match(one.code)
        start = places.get(int(jump["to"], 16)) if jump else None
        if start is not None and start <= place:
            ends[start] = min(place, ends.get(start, place))
    for start, end in sorted(ends.items()):
        if not any(start <= other and ends[other] < end for other in ends if other != start):
            yield code[start : end + 1]


def throughput(data: bytes, processor: str = "native") -> dict[str, Throughput]:
    """Function -> a trip of its main loop, the innermost one with most vector instructions;
    functions without such a loop are left out.

    processor: LLVM's name of one. Raises CodegenError for one that llvm-mca does not know.
    """
    regions: list[str] = []
    names: list[str] = []
    for name, code in disassembled(data).items():
        loops = [[one.code for one in loop] for loop in innermost(code)]
        main = max(loops, key=_vectors, default=[])
        if _vectors(main):
            regions += [f"# LLVM-MCA-BEGIN {name}", *_straight(main), "# LLVM-MCA-END"]
            names.append(name)
    if not names:
        return {}
    arguments = ["--json", f"-mcpu={processor}", "-mtriple=x86_64", f"-iterations={_TRIPS}"]
    said = json.loads(output_of("llvm-mca", arguments, ("\n".join(regions) + "\n").encode()))
    units = said["TargetInfo"]["Resources"]
    return {name: _trip(one, units) for name, one in zip(names, said["CodeRegions"], strict=True)}


def _straight(loop: Sequence[str]) -> list[str]:
    """The instructions of a trip that llvm-mca can read: without jumps, whose targets are not in
    it."""
    return [line for line in loop if not line.startswith(("j", "call")) and not _PAD.match(line)]


def _trip(region: Mapping[str, object], units: Sequence[str]) -> Throughput:
    summary, pressure = region["SummaryView"], region["ResourcePressureView"]
    assert isinstance(summary, dict)
    assert isinstance(pressure, dict)
    rows: list[dict[str, float]] = pressure["ResourcePressureInfo"]
    last = max(row["InstructionIndex"] for row in rows)  # stands for all of them
    total = [row for row in rows if row["InstructionIndex"] == last]
    usage = [row["ResourceUsage"] for row in total]
    busiest = total[usage.index(max(usage))]
    return Throughput(
        summary["TotalCycles"] / summary["Iterations"],
        summary["Instructions"] // summary["Iterations"],
        summary["TotaluOps"] / summary["Iterations"],
        units[int(busiest["ResourceIndex"])].partition(".")[0],
    )
