"""Probes of this host, ready to take part in rounds beside what they are compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nybble.backends.cpu import isa
from nybble.backends.cpu.codegen import jit
from nybble.backends.cpu.host import allocate, request_amx
from nybble.backends.cpu.isa import FourWay, Isa, Pairwise
from nybble.backends.cpu.loader import Argument, Library
from nybble.backends.cpu.machine import cpu_flags
from nybble.tools.bench.probes.code import (
    READ_LANES,
    READS,
    TILE_BYTES,
    TILE_CONFIG,
    Accumulate,
    Read,
    read_module,
    tile_module,
    tile_operations,
    vector_module,
)
from nybble.tools.bench.probes.team import Team

READ_PASSES = 8  # at least: the first finds what the contestants before it left in the caches
READ_BYTES = 64 << 20  # that a run reads at least, so that starting the threads does not count
TILES = ("int8", "bf16")
ROUNDS = 200_000
TILE_ROUNDS = 25_000


@dataclass(frozen=True)
class Probe:
    """One thing that a machine does at a rate.

    name: of the roof, such as "int8"; work: bytes or operations of one run, by all threads.
    """

    name: str
    work: float
    run: Callable[[], float]

    def rate(self, seconds: float) -> float:
        """Bytes or operations a second."""
        return self.work / seconds


def accumulators(level: Isa) -> list[Accumulate]:
    """The peak probes on vector registers of an instruction-set level."""
    lanes = level.vector_bits // 32
    count = level.registers // 2
    vector = f"vector<{lanes}xf32>"
    found = [
        Accumulate(
            "f32",
            vector,
            (vector, vector),
            "{new} = vector.fma %a, %b, {acc} : " + vector,
            count,
            2 * lanes,
        )
    ]
    if level.int_dot:
        found.append(_int8(level.int_dot, count))
    return found


def _int8(form: FourWay | Pairwise, count: int) -> Accumulate:
    """The peak of products of bytes: with pairs, each product is added to sums of 16 bits."""
    size = form.bits // 8
    sums, codes = f"vector<{size // 4}xi32>", f"vector<{size}xi8>"
    if isinstance(form, FourWay):
        kinds = f" : ({sums}, {codes}, {codes}) -> {sums}"
        step = f'{{new}} = llvm.call_intrinsic "{form.intrinsic}"({{acc}}, %a, %b)' + kinds
        return Accumulate("int8", sums, (codes, codes), step, count, 2 * size)
    sums = f"vector<{size // 2}xi16>"
    name = form.pairs_of_bytes
    # The operand depends on the sum, or the product would be taken out of the loop.
    step = (
        f"{{new}}b = vector.bitcast {{acc}} : {sums} to {codes}\n"
        f'{{new}}p = llvm.call_intrinsic "{name}"({{new}}b, %b) : ({codes}, {codes}) -> {sums}\n'
        f"{{new}} = arith.addi {{acc}}, {{new}}p : {sums}"
    )
    return Accumulate("int8", sums, (codes, codes), step, count, 2 * size)


@cache
def _library() -> tuple[Library, Isa]:
    """The code of every probe that this host runs, and the level it is for."""
    level = isa.detect(cpu_flags())
    modules = [*map(read_module, READS), *(vector_module(probe) for probe in accumulators(level))]
    if level.tiles and request_amx():
        modules += [tile_module(kind) for kind in TILES]
    return jit("\n".join(modules)), level


def peak_probes(team: Team) -> list[Probe]:
    """The multiplication rates of this host: f32, and int8, amx_int8, amx_bf16 where it has them.

    Names are those of roofs; work is in operations, a multiplication and an addition being two.
    """
    library, level = _library()
    found = [_vector_probe(team, library, one) for one in accumulators(level)]
    kinds = [kind for kind in TILES if f"tile_{kind}" in library.names]
    return found + [_tile_probe(team, library, kind) for kind in kinds]


def read_probes(team: Team, name: str, size: int) -> list[Probe]:
    """Reading `size` bytes over and over, a part of them by each thread; work is in bytes.

    They are READS, different ways to read the same memory, all under one name.
    """
    unit = team.size * max(read.step * read.streams for read in READS)
    memory = allocate(max(size // unit, 1) * unit)
    memory[:] = 1  # untouched pages would all be the one page of zeros
    return [_read_probe(team, name, memory, read) for read in READS]


def rates(probes: Sequence[Probe], seconds: Sequence[float]) -> dict[str, float]:
    """Name -> bytes or operations a second, of the fastest probe of that name."""
    found: dict[str, float] = {}
    for probe, taken in zip(probes, seconds, strict=True):
        found[probe.name] = max(found.get(probe.name, 0.0), probe.rate(taken))
    return found


def _read_probe(team: Team, name: str, memory: NDArray[np.uint8], read: Read) -> Probe:
    library, _ = _library()
    passes = max(READ_PASSES, READ_BYTES // memory.nbytes)
    words = memory.nbytes // 4 // team.size

    def run(index: int) -> None:
        sums = np.zeros(READ_LANES, np.int32)
        library.call(read.name, memory, sums, index * words, words // read.streams, passes)

    return Probe(name, float(memory.nbytes * passes), lambda: team.seconds(run))


def _vector_probe(team: Team, library: Library, probe: Accumulate) -> Probe:
    def multiply(_: int) -> None:
        # One operand is zero: the sums stay finite, and the rate does not depend on values.
        operands: Sequence[Argument] = [allocate(64) for _ in range(3)]
        library.call(probe.name, *operands, ROUNDS)

    work = float(probe.count * probe.operations * ROUNDS * team.size)
    return Probe(probe.name, work, lambda: team.seconds(multiply))


def _tile_probe(team: Team, library: Library, kind: str) -> Probe:
    config = np.frombuffer(TILE_CONFIG, np.uint8)

    def multiply(_: int) -> None:
        operands: Sequence[Argument] = [allocate(TILE_BYTES) for _ in range(3)]
        library.call(f"tile_{kind}", config, *operands, TILE_ROUNDS)

    work = float(tile_operations(kind) * TILE_ROUNDS * team.size)
    return Probe(f"amx_{kind}", work, lambda: team.seconds(multiply))
