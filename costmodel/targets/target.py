"""A machine as the analytic cost model sees it: rates, memories, and what a launch takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nybble.dialects.errors import NybbleError

ARITHMETIC = ("f32", "f16", "bf16", "i8", "i4", "b1")
"""Multiplications and additions of numbers of a type, sums being wide enough."""
KINDS = {
    **dict.fromkeys(ARITHMETIC, "additions and multiplications of this type"),
    "decode": "codes of a weight turned into floats",
    "unpack": "codes of a weight cut out of their bytes",
    "lookup": "look-ups of four columns in a table of an activation, for one bit plane",
    "special": "exponentials, divisions and roots",
}
"""Kind of operation -> what one of it is."""


RESOURCES = {
    "lut": "look-up tables of six inputs",
    "ff": "flip-flops",
    "dsp": "multipliers (DSP48E2, DSP58)",
    "bram": "block RAMs of 36 Kbit",
    "uram": "UltraRAMs of 288 Kbit",
}
"""Resource of an FPGA -> what one of it is."""

TENSOR_BYTES = {"f32": 4, "f16": 2, "bf16": 2}
"""Type of float tensors -> bytes of an element."""


class RateError(NybbleError):
    """Work of a kind that a target has no rate for."""


class ResourceError(NybbleError):
    """A resource that a target has none of, or too little."""


@dataclass(frozen=True)
class Fact:
    """A number and where it is from: a datasheet, a measurement, or "assumed"."""

    value: float
    source: str


@dataclass(frozen=True)
class Level:
    """A memory, of each core or shared by all of them.

    size: bytes, of one core's if it is not shared. core: bytes per second that one core moves.
    total: the same of all cores together. channels: how many that work independently, where known.
    """

    name: str
    shared: bool
    size: Fact
    core: Fact
    total: Fact
    channels: Fact | None = None

    def speed(self, cores: int) -> float:
        """Bytes per second that `cores` cores move together."""
        return min(self.core.value * cores, self.total.value)


@dataclass(frozen=True)
class Rate:
    """Operations per second of one core.

    unit: what computes them: kinds of one unit take turns, units work side by side.
    """

    core: Fact
    unit: str


@dataclass(frozen=True)
class Tile:
    """How a matrix product is cut: `tokens` x `rows` results at a time, `cols` columns at a time.

    keeps: whether the decoded weights of a tile serve all its tokens (the loop over tokens is the
    inner one); else they are read and decoded again for every `tokens` tokens.
    """

    tokens: int
    rows: int
    cols: int
    keeps: bool


@dataclass(frozen=True)
class Arithmetic:
    """The kinds of operation in which a target computes what the IR leaves open.

    coded: products of quantized weights; plain: of float weights; attention: of queries, keys and
    values; other: everything else. tensors: the type in which f32 tensors of the IR lie in memory.
    """

    coded: str
    plain: str
    attention: str
    other: str
    tensors: str


@dataclass(frozen=True)
class Target:
    """A machine. memory: nearest to the cores first, the last one holding everything.

    launch: seconds to start a kernel. scratch: bytes that a core keeps between the operations of a
    kernel. tile: how products are cut unless somebody says otherwise.
    levels: instruction-set levels of the CPU backend that the record stands for.
    resources: name of RESOURCES -> how many the whole device has; empty for what is no FPGA.
    clock: hertz of its logic.
    """

    name: str
    title: str
    cores: Fact
    launch: Fact
    scratch: Fact
    memory: tuple[Level, ...]
    rates: Mapping[str, Rate] = field(hash=False)
    arithmetic: Arithmetic
    tile: Tile
    levels: tuple[str, ...] = ()
    resources: Mapping[str, Fact] = field(default_factory=dict[str, Fact], hash=False)
    clock: Fact | None = None

    @property
    def main(self) -> Level:
        """The memory that holds everything."""
        return self.memory[-1]

    def rate(self, kind: str) -> Rate:
        """The rate of a kind of operation; raises RateError without one."""
        if kind not in self.rates:
            raise RateError(
                f"target '{self.name}' has no rate for '{kind}' ({KINDS[kind]})",
                accepted=f"work of kinds {', '.join(self.rates)}, or a 'rates.{kind}' in its file",
            )
        return self.rates[kind]

    def resource(self, name: str) -> Fact:
        """How many of a resource the device has; raises ResourceError where it is not said."""
        if name not in self.resources:
            raise ResourceError(
                f"target '{self.name}' does not say how many '{name}' it has",
                accepted=f"{', '.join(self.resources)}, or a 'resources.{name}' in its file"
                if self.resources
                else f"an FPGA, whose file has a 'resources.{name}'",
            )
        return self.resources[name]
