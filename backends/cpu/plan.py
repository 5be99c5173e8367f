"""A launch plan: buffers, kernels, and programs of steps that pass the ones to the others.

A plan is data and may come from a file, so making one checks it: every argument lies inside its
buffer and is as long as the kernel says it reads or writes, weights are never written, temporary
buffers are written before they are read, and steps without a barrier between them do not touch
each other's results.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from nybble.dialects.errors import NybbleError

MAX_BYTES = 1 << 46  # of one buffer: what a process can address, with room for sums
Json = bool | int | float | str | None | list["Json"] | dict[str, "Json"]


class PlanError(NybbleError):
    """A plan that would read or write where it must not."""


class Kind(StrEnum):
    """What a buffer is for.

    weight: read-only, comes from the weights file. state: zeros at the start, lives on between
    programs; nobody clears it, so a kernel must not read what positions after its rows left there.
    io: zeros at the start, the caller reads and writes it. arena: intermediate results, which
    share memory over time. scratch: lives during one step.
    """

    WEIGHT = "weight"
    STATE = "state"
    IO = "io"
    ARENA = "arena"
    SCRATCH = "scratch"


TEMPORARY = frozenset({Kind.ARENA, Kind.SCRATCH})


@dataclass(frozen=True)
class Buffer:
    """`bytes` bytes of memory of a kind."""

    name: str
    bytes: int
    kind: Kind


@dataclass(frozen=True)
class Kernel:
    """A function of the object code; sizes: bytes of each buffer argument.

    access: one letter for each argument, r(ead), w(ritten before it is read) or u(pdated).
    """

    symbol: str
    sizes: tuple[int, ...]
    access: str


@dataclass(frozen=True)
class BufferRef:
    """A buffer from `offset` bytes on."""

    buffer: str
    offset: int = 0


@dataclass(frozen=True)
class Step:
    """A call of a kernel; barrier: whether the threads meet after it."""

    kernel: str
    args: tuple[BufferRef, ...]
    barrier: bool = True


@dataclass(frozen=True)
class Program:
    """Steps to run in order with the same n and pos."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Config:
    """Limits that hold for every run.

    context: positions there are; chunk: rows of one call at most; threads: at most;
    vocab: token ids there are, 0 where there are no tokens.
    first: the least position of a call; -1 where a cache that is only read may be empty.
    extra: what the maker wants to find again (tokens that end a text, the model's name).
    """

    context: int
    chunk: int
    threads: int
    vocab: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json])
    first: int = 0


@dataclass(frozen=True)
class Plan:
    """Raises PlanError if anything in it does not fit together."""

    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    programs: tuple[Program, ...]
    config: Config

    def __post_init__(self) -> None:
        _unique("buffer", [buffer.name for buffer in self.buffers])
        _unique("kernel", [kernel.symbol for kernel in self.kernels])
        _unique("program", [program.name for program in self.programs])
        _check_config(self.config)
        for buffer in self.buffers:
            _check_range(f"buffer '{buffer.name}' has bytes", buffer.bytes, 1, MAX_BYTES)
        for kernel in self.kernels:
            _check_kernel(kernel)
        for program in self.programs:
            for index, step in enumerate(program.steps):
                self._check_step(f"step {index} of '{program.name}'", step)
            self._check_order(program)

    @cached_property
    def buffer_table(self) -> Mapping[str, Buffer]:
        """Name -> buffer."""
        return {buffer.name: buffer for buffer in self.buffers}

    @cached_property
    def kernel_table(self) -> Mapping[str, Kernel]:
        """Symbol -> kernel."""
        return {kernel.symbol: kernel for kernel in self.kernels}

    @cached_property
    def program_table(self) -> Mapping[str, Program]:
        """Name -> program."""
        return {program.name: program for program in self.programs}

    def of_kind(self, *kinds: Kind) -> Iterator[Buffer]:
        """The buffers of these kinds, in order."""
        return (buffer for buffer in self.buffers if buffer.kind in kinds)

    def _check_step(self, where: str, step: Step) -> None:
        kernel = self.kernel_table.get(step.kernel)
        if kernel is None:
            raise PlanError(f"{where} calls '{step.kernel}', which is no kernel of the plan")
        if len(step.args) != len(kernel.sizes):
            raise PlanError(
                f"{where} passes {len(step.args)} buffers to '{kernel.symbol}'",
                accepted=str(len(kernel.sizes)),
            )
        for ref, size, access in zip(step.args, kernel.sizes, kernel.access, strict=True):
            buffer = self.buffer_table.get(ref.buffer)
            if buffer is None:
                raise PlanError(f"{where} names '{ref.buffer}', which is no buffer of the plan")
            if ref.offset < 0 or ref.offset + size > buffer.bytes:
                raise PlanError(
                    f"{where}: '{kernel.symbol}' needs {size} bytes of '{buffer.name}' from "
                    f"{ref.offset} on, and it has {buffer.bytes}"
                )
            if buffer.kind is Kind.WEIGHT and access != "r":
                raise PlanError(f"{where}: '{kernel.symbol}' would write '{buffer.name}', a weight")

    def _check_order(self, program: Program) -> None:
        """Temporaries are written before they are read, and steps side by side keep apart."""
        shared = self.shared_between_programs
        written: set[str] = set()
        group: list[Touch] = []
        for index, step in enumerate(program.steps):
            where = f"step {index} of '{program.name}'"
            touches = self._touches(step)
            for touch in touches:
                temporary = self.buffer_table[touch.buffer].kind is Kind.ARENA
                fresh = touch.buffer not in written and touch.buffer not in shared
                if temporary and fresh and touch.access != "w":
                    raise PlanError(f"{where} reads '{touch.buffer}' before any step wrote it")
                clash = next((other for other in group if touch.clashes(other)), None)
                if clash is not None:
                    raise PlanError(
                        f"{where} and a step before it both touch '{touch.buffer}' and no barrier "
                        "is between them"
                    )
            written |= {touch.buffer for touch in touches if touch.access != "r"}
            group = [] if step.barrier else group + touches

    @cached_property
    def shared_between_programs(self) -> frozenset[str]:
        """The buffers that more than one program names: they keep their contents between them."""
        users: dict[str, set[str]] = {}
        for program in self.programs:
            for step in program.steps:
                for ref in step.args:
                    users.setdefault(ref.buffer, set()).add(program.name)
        return frozenset(name for name, programs in users.items() if len(programs) > 1)

    def _touches(self, step: Step) -> "list[Touch]":
        kernel = self.kernel_table[step.kernel]
        return [
            Touch(ref.buffer, ref.offset, ref.offset + size, access)
            for ref, size, access in zip(step.args, kernel.sizes, kernel.access, strict=True)
        ]


@dataclass(frozen=True)
class Touch:
    """A step's access to bytes [start, stop) of a buffer."""

    buffer: str
    start: int
    stop: int
    access: str

    def clashes(self, other: "Touch") -> bool:
        """Whether the two overlap and one of them writes."""
        same = self.buffer == other.buffer
        overlap = self.start < other.stop and other.start < self.stop
        return same and overlap and (self.access != "r" or other.access != "r")


def _unique(what: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PlanError(f"two {what}s are called '{twice}'")
    if "" in names:
        raise PlanError(f"a {what} without a name")


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise PlanError(f"{what}: {value}", accepted=f"{low} to {high}")


def _check_config(config: Config) -> None:
    _check_range("context", config.context, 1, 1 << 30)
    _check_range("chunk", config.chunk, 1, config.context)
    _check_range("threads", config.threads, 1, 256)
    _check_range("vocab", config.vocab, 0, 1 << 30)
    _check_range("first", config.first, -1, 0)


def _check_kernel(kernel: Kernel) -> None:
    if len(kernel.access) != len(kernel.sizes) or not set(kernel.access) <= set("rwu"):
        raise PlanError(
            f"kernel '{kernel.symbol}' has access '{kernel.access}'",
            accepted=f"{len(kernel.sizes)} letters of r, w, u",
        )
    for size in kernel.sizes:
        _check_range(f"kernel '{kernel.symbol}' has an argument of bytes", size, 1, MAX_BYTES)
