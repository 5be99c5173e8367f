"""Kernels compiled for C simulation: one program, which runs any of them on any number of cases."""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nybble.backends.fpga.analysis import FILL
from nybble.backends.fpga.csim.tools import ToolError, compiler, headers
from nybble.backends.fpga.hls.emit import argument_memories, emit, render
from nybble.dialects.fpga.kernel import KernelOp
from nybble.dialects.fpga.types import MemoryType
from nybble.dialects.fpga.words import U8

FLAGS = (
    "-std=c++20",
    "-w",
    "-ffp-contract=off",
    "-fsanitize=undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-sanitize=null,alignment,vptr,object-size",
)
"""Sums of products are not fused, so that results are those of the references bit by bit; undefined
behaviour ends the program. Pointers are not checked: words are values, and what `ap_int` does with
`this` would be half of the time to compile."""
CYCLES_BYTES = 8
COUNTING = Path(__file__).parent / "cycles"
"""The folder of the header with streams that count."""
SECONDS = 1800
SHOWN = 2000
"""Characters of a compiler's complaint that are shown."""


@dataclass(frozen=True)
class Ran:
    """What a case's kernel wrote, u8 [words, bits / 8] each; cycles where they are counted."""

    written: tuple[U8, ...]
    cycles: int = 0


@dataclass(frozen=True)
class Simulation:
    """A program in a folder.

    written: of each kernel, the types of the memories that it writes. counts: whether streams are
    as deep as their FIFOs, and cycles are counted.
    """

    program: Path
    kernels: tuple[str, ...]
    written: tuple[tuple[MemoryType, ...], ...]
    counts: bool = False

    def run(self, cases: Sequence["Case"]) -> list[Ran]:
        """What comes of each case.

        Raises ToolError where the program ended early, with what it said: of undefined behaviour,
        or of a stream.
        """
        raw = b"".join(case.request(self.kernels) for case in cases)
        done = run_program("C simulation", [self.program], raw)
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode or said:
            raise ToolError(f"C simulation ended with {done.returncode}: {said[:SHOWN]}")
        return list(self._results(cases, done.stdout))

    def _results(self, cases: Sequence["Case"], raw: bytes) -> Iterable[Ran]:
        place = 0
        for case in cases:
            found: list[U8] = []
            for type_ in self.written[self.kernels.index(case.kernel)]:
                part = np.frombuffer(raw, np.uint8, type_.bytes, place)
                found.append(part.reshape(type_.words.data, -1))
                place += type_.bytes
            cycles = 0
            if self.counts:
                cycles = int(np.frombuffer(raw, np.int64, 1, place)[0])
                place += CYCLES_BYTES
            yield Ran(tuple(found), cycles)
        if place != len(raw):
            raise ToolError(f"C simulation wrote {len(raw)} bytes where {place} are expected")


@dataclass(frozen=True)
class Case:
    """A kernel by name with the memories that it reads, in the order of its arguments."""

    kernel: str
    memories: tuple[U8, ...]

    def request(self, kernels: Sequence[str]) -> bytes:
        """What the program reads."""
        number = np.int32(kernels.index(self.kernel)).tobytes()
        return number + b"".join(one.tobytes() for one in self.memories)


def build(
    kernels: Sequence[KernelOp], folder: Path, *, counts: bool = False, many: bool = True
) -> Simulation:
    """Emit kernels into a folder and compile them; raises ToolError where g++ refuses them.

    counts: with streams that are as deep as their FIFOs and count cycles, instead of the vendor's.
    many: for many cases; for few, less is optimized, which saves a third of the time to compile.

    One translation unit holds them all, since reading the headers is half of the work.
    """
    sources: dict[str, str] = {}
    for kernel in kernels:
        sources |= emit(kernel)
    described = [
        {"name": kernel.sym_name.data, "memories": argument_memories(kernel)} for kernel in kernels
    ]
    names = tuple(kernel.sym_name.data for kernel in kernels)
    whole = [f'#include "{name}.cpp"\n' for name in names]
    sources["main.cpp"] = "".join(whole) + render("csim", {"kernels": described, "cycles": counts})
    for name, text in sources.items():
        (folder / name).write_text(text)
    program = compile_program(folder / "main.cpp", folder / "csim", counts=counts, many=many)
    written = tuple(tuple(_type(one) for one in kernel.outputs) for kernel in kernels)
    return Simulation(program, names, written, counts)


def compile_program(
    source: Path, program: Path, *, counts: bool = False, many: bool = True
) -> Path:
    """Compile a source of its own `main`; `program` again. Raises ToolError."""
    folders = ["-I", COUNTING, f"-DNYBBLE_FILL={FILL}"] if counts else []
    command = [
        compiler(),
        *FLAGS,
        "-O1" if many else "-O0",
        *folders,
        "-isystem",
        headers(),
        "-o",
        program,
        source,
    ]
    done = run_program("g++", command)
    if done.returncode:
        said = done.stderr.decode(errors="replace")
        raise ToolError(f"g++ refuses {source.name}: {said[:SHOWN]}")
    return program


def run_program(
    name: str, command: Sequence[str | Path], given: bytes = b"", seconds: float = SECONDS
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with bytes as its input; raises ToolError where it takes too long."""
    try:
        return subprocess.run(
            command, input=given, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{name} did not end within {seconds:g} seconds") from error


def _type(value: object) -> MemoryType:
    type_ = getattr(value, "type", None)
    assert isinstance(type_, MemoryType)
    return type_
